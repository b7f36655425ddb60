//! Blocks in the registers of AVX-512.

use super::avx2::{halved_doubles, halved_singles, transposed};
use super::memory::Streaming;
use super::simd::{BLOCK, Numbers, SIDE, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

/// Blocks of AVX-512, for what runs where there is AVX-512 alone.
pub(super) struct Avx512;

impl Simd for Avx512 {
    type F32 = Singles;
    type F64 = Doubles;
}

/// A block of float32.
#[derive(Clone, Copy)]
pub(crate) struct Singles([__m512; 2]);

/// A block of float64.
#[derive(Clone, Copy)]
pub(crate) struct Doubles([__m512d; 4]);

/// An operator, register by register.
macro_rules! operators {
    ($block:ty: $($name:ident $operator:ident $instruction:ident;)*) => {$(
        impl $name for $block {
            type Output = Self;
            #[inline(always)]
            fn $operator(mut self, other: Self) -> Self {
                for (a, b) in self.0.iter_mut().zip(other.0) {
                    // SAFETY: the CPU has AVX-512, or there would be no block of it.
                    *a = unsafe { $instruction(*a, b) };
                }
                self
            }
        }
    )*};
}
operators!(Singles: Add add _mm512_add_ps; Sub sub _mm512_sub_ps; Mul mul _mm512_mul_ps;);
operators!(Doubles: Add add _mm512_add_pd; Sub sub _mm512_sub_pd; Mul mul _mm512_mul_pd;);

/// The bits of those of a block's numbers that are among the first `count`.
#[inline(always)]
fn bits_of_first(count: usize) -> u32 {
    if count < BLOCK { (1 << count) - 1 } else { u32::MAX }
}

/// What is the same for both types.
macro_rules! numbers {
    ($f:ty, $lanes:literal, $mask:ty, $load_some:ident, $splat:ident, $load:ident, $choose:ident, $keep:ident, $compare:ident,
     $abs:ident, $to_bytes:ident) => {
        #[inline(always)]
        fn splat(x: $f) -> Self {
            // SAFETY: the CPU has AVX-512, or nothing would ask for a block of it.
            Self([unsafe { $splat(x) }; BLOCK / $lanes])
        }
        #[inline(always)]
        fn load(from: &[$f; BLOCK]) -> Self {
            let mut block = Self::splat(0.0);
            for (i, to) in block.0.iter_mut().enumerate() {
                // SAFETY: as above; and a block has so many numbers from there on.
                *to = unsafe { $load(from.as_ptr().add($lanes * i)) };
            }
            block
        }
        #[inline(always)]
        fn load_part(from: &[$f]) -> Self {
            let bits = bits_of_first(from.len());
            let mut block = Self::splat(0.0);
            for (i, to) in block.0.iter_mut().enumerate() {
                // SAFETY: as above; the mask leaves out what is beyond the slice, which is then not read.
                *to = unsafe {
                    $load_some((bits >> ($lanes * i)) as $mask, from.as_ptr().wrapping_add($lanes * i))
                };
            }
            block
        }
        #[inline(always)]
        fn store(self, to: &mut [$f; BLOCK], streamed: Option<Streaming>) {
            for (i, from) in self.0.into_iter().enumerate() {
                // SAFETY: as above.
                unsafe { put($to_bytes(from), to.as_mut_ptr().add($lanes * i).cast(), streamed) };
            }
        }
        #[inline(always)]
        fn first(mut self, count: usize, rest: Self) -> Self {
            let bits = bits_of_first(count);
            for (i, (a, b)) in self.0.iter_mut().zip(rest.0).enumerate() {
                // SAFETY: as above.
                *a = unsafe { $choose((bits >> ($lanes * i)) as $mask, b, *a) };
            }
            self
        }
        #[inline(always)]
        fn masked(mut self, mask: Self) -> Self {
            for (a, mask) in self.0.iter_mut().zip(mask.0) {
                // SAFETY: as above.
                *a = unsafe { $keep($compare::<_CMP_NEQ_UQ>(mask, $splat(0.0)), *a) };
            }
            self
        }
        #[inline(always)]
        fn abs(mut self) -> Self {
            for a in &mut self.0 {
                // SAFETY: as above.
                *a = unsafe { $abs(*a) };
            }
            self
        }
    };
}

impl Numbers<f32> for Singles {
    numbers!(
        f32,
        16,
        u16,
        _mm512_maskz_loadu_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_mask_blend_ps,
        _mm512_maskz_mov_ps,
        _mm512_cmp_ps_mask,
        _mm512_abs_ps,
        _mm512_castps_si512
    );

    #[inline(always)]
    fn halved(self) -> f32 {
        let [a, b] = self.0;
        // SAFETY: the CPU has AVX-512, or there would be no block of it.
        unsafe {
            let sixteen = _mm512_add_ps(a, b);
            let eight = _mm256_add_ps(_mm512_castps512_ps256(sixteen), _mm512_extractf32x8_ps::<1>(sixteen));
            halved_singles(eight)
        }
    }
    #[inline(always)]
    fn transposed(rows: &[[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
        // SAFETY: who has AVX-512 has AVX2; eight rows of eight numbers are as many of its registers.
        let columns: [__m256; SIDE] = unsafe { transposed(bytemuck::cast(*rows)) };
        bytemuck::cast(columns)
    }
    #[inline(always)]
    fn from_f16(from: &[f16; BLOCK]) -> Self {
        let mut block = Self::splat(0.0);
        for (i, to) in block.0.iter_mut().enumerate() {
            // SAFETY: as above; and a block has sixteen elements from there on.
            *to = unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().add(16 * i).cast())) };
        }
        block
    }
    #[inline(always)]
    fn from_bf16(from: &[bf16; BLOCK]) -> Self {
        let mut block = Self::splat(0.0);
        for (i, to) in block.0.iter_mut().enumerate() {
            // SAFETY: as above.
            *to = unsafe {
                let sixteen = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().add(16 * i).cast()));
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(sixteen))
            };
        }
        block
    }
    #[inline(always)]
    fn to_f16(self, to: &mut [f16; BLOCK], streamed: Option<Streaming>) {
        let [low, high] = self.0;
        // SAFETY: as above; a block has so many elements.
        unsafe {
            let low = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low);
            let high = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high);
            let all = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
            put(all, to.as_mut_ptr().cast(), streamed);
        }
    }
    #[inline(always)]
    fn to_bf16(self, to: &mut [bf16; BLOCK], streamed: Option<Streaming>) {
        let [low, high] = self.0;
        // SAFETY: as above.
        unsafe {
            let all = side_by_side(upper_halves_or_nan(low), upper_halves_or_nan(high));
            put(all, to.as_mut_ptr().cast(), streamed);
        }
    }
    #[inline(always)]
    fn numbers_to_bf16(self, to: &mut [bf16; BLOCK], streamed: Option<Streaming>) {
        let [low, high] = self.0;
        // SAFETY: as above.
        unsafe {
            put(side_by_side(upper_halves(low), upper_halves(high)), to.as_mut_ptr().cast(), streamed);
        }
    }
}

impl Numbers<f64> for Doubles {
    numbers!(
        f64,
        8,
        u8,
        _mm512_maskz_loadu_pd,
        _mm512_set1_pd,
        _mm512_loadu_pd,
        _mm512_mask_blend_pd,
        _mm512_maskz_mov_pd,
        _mm512_cmp_pd_mask,
        _mm512_abs_pd,
        _mm512_castpd_si512
    );

    #[inline(always)]
    fn halved(self) -> f64 {
        let [a, b, c, d] = self.0;
        // SAFETY: the CPU has AVX-512, or there would be no block of it.
        unsafe {
            let eight = _mm512_add_pd(_mm512_add_pd(a, c), _mm512_add_pd(b, d));
            let four = _mm256_add_pd(_mm512_castpd512_pd256(eight), _mm512_extractf64x4_pd::<1>(eight));
            halved_doubles(four)
        }
    }
}

/// Numbers rounded to nearest even at their middle bit, as integers: their upper halves.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn upper_halves(numbers: __m512) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        let bits = _mm512_castps_si512(numbers);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF));
        _mm512_srli_epi32::<16>(_mm512_add_epi32(up, odd))
    }
}

/// The same; NaN stays NaN.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn upper_halves_or_nan(numbers: __m512) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        let quiet = _mm512_or_si512(_mm512_castps_si512(numbers), _mm512_set1_epi32(0x40_0000));
        let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(numbers, numbers);
        _mm512_mask_srli_epi32::<16>(upper_halves(numbers), is_nan, quiet)
    }
}

/// Integers of 16 bits, after each other.
///
/// # Safety
/// The CPU has AVX-512.
#[inline(always)]
unsafe fn side_by_side(low: __m512i, high: __m512i) -> __m512i {
    // SAFETY: as the caller says.
    unsafe {
        // By lanes of four: the low ones' first, the high ones' first, their second, and so on.
        let both = _mm512_packus_epi32(low, high);
        _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), both)
    }
}

/// Stores 64 bytes, past the caches where there is leave.
///
/// # Safety
/// The CPU has AVX-512, and 64 bytes can be written; to a multiple of 16 where there is leave.
#[inline(always)]
unsafe fn put(from: __m512i, to: *mut __m512i, streamed: Option<Streaming>) {
    // SAFETY: as the caller says.
    unsafe {
        if streamed.is_none() {
            _mm512_storeu_si512(to, from);
        } else if to.is_aligned() {
            _mm512_stream_si512(to, from);
        } else {
            let to = to.cast::<__m128i>();
            _mm_stream_si128(to, _mm512_castsi512_si128(from));
            _mm_stream_si128(to.add(1), _mm512_extracti32x4_epi32::<1>(from));
            _mm_stream_si128(to.add(2), _mm512_extracti32x4_epi32::<2>(from));
            _mm_stream_si128(to.add(3), _mm512_extracti32x4_epi32::<3>(from));
        }
    }
}
