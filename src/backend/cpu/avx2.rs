//! Blocks in the registers of AVX2.

use super::memory::Streaming;
use super::simd::{BLOCK, Numbers, SIDE, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;
use std::ops::{Add, Mul, Sub};

/// Blocks of AVX2, for what runs where there is AVX2 alone.
pub(super) struct Avx2;

impl Simd for Avx2 {
    type F32 = Singles;
    type F64 = Doubles;
}

/// A block of float32.
#[derive(Clone, Copy)]
pub(crate) struct Singles([__m256; 4]);

/// A block of float64.
#[derive(Clone, Copy)]
pub(crate) struct Doubles([__m256d; 8]);

/// An operator, register by register.
macro_rules! operators {
    ($block:ty: $($name:ident $operator:ident $instruction:ident;)*) => {$(
        impl $name for $block {
            type Output = Self;
            #[inline(always)]
            fn $operator(mut self, other: Self) -> Self {
                for (a, b) in self.0.iter_mut().zip(other.0) {
                    // SAFETY: the CPU has AVX2, or there would be no block of it.
                    *a = unsafe { $instruction(*a, b) };
                }
                self
            }
        }
    )*};
}
operators!(Singles: Add add _mm256_add_ps; Sub sub _mm256_sub_ps; Mul mul _mm256_mul_ps;);
operators!(Doubles: Add add _mm256_add_pd; Sub sub _mm256_sub_pd; Mul mul _mm256_mul_pd;);

/// All bits, so many times as a block has numbers, then none.
static ONES: ([u32; BLOCK], [u32; BLOCK]) = ([u32::MAX; BLOCK], [0; BLOCK]);
static LONG_ONES: ([u64; BLOCK], [u64; BLOCK]) = ([u64::MAX; BLOCK], [0; BLOCK]);

/// What is the same for both types.
macro_rules! numbers {
    ($f:ty, $integer:ty, $lanes:literal, $masks:ident, $load_some:ident, $splat:ident, $load:ident, $blend:ident, $andnot:ident, $compare:ident,
     $to_bytes:ident) => {
        #[inline(always)]
        fn splat(x: $f) -> Self {
            // SAFETY: the CPU has AVX2, or nothing would ask for a block of it.
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
            let skipped = BLOCK - from.len().min(BLOCK);
            let masks = (&raw const $masks).cast::<$integer>();
            let mut block = Self::splat(0.0);
            for (i, to) in block.0.iter_mut().enumerate() {
                // SAFETY: as above; there are two blocks of masks, and they leave out what is beyond the slice, which is
                // then not read.
                *to = unsafe {
                    let mask = _mm256_loadu_si256(masks.add(skipped + $lanes * i).cast());
                    $load_some(from.as_ptr().wrapping_add($lanes * i), mask)
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
            let masks = (&raw const $masks).cast::<$f>();
            for (i, (a, b)) in self.0.iter_mut().zip(rest.0).enumerate() {
                let skipped = BLOCK - count.min(BLOCK);
                // SAFETY: as above; there are two blocks of masks.
                *a = unsafe { $blend(b, *a, $load(masks.add(skipped + $lanes * i))) };
            }
            self
        }
        #[inline(always)]
        fn masked(mut self, mask: Self) -> Self {
            for (a, mask) in self.0.iter_mut().zip(mask.0) {
                // SAFETY: the CPU has AVX2, or there would be no block of it.
                *a = unsafe { $andnot($compare::<_CMP_EQ_OQ>(mask, $splat(0.0)), *a) };
            }
            self
        }
        #[inline(always)]
        fn abs(mut self) -> Self {
            for a in &mut self.0 {
                // SAFETY: as above.
                *a = unsafe { $andnot($splat(-0.0), *a) };
            }
            self
        }
    };
}

impl Numbers<f32> for Singles {
    numbers!(
        f32,
        u32,
        8,
        ONES,
        _mm256_maskload_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_blendv_ps,
        _mm256_andnot_ps,
        _mm256_cmp_ps,
        _mm256_castps_si256
    );

    #[inline(always)]
    fn halved(self) -> f32 {
        let [a, b, c, d] = self.0;
        // SAFETY: the CPU has AVX2, or there would be no block of it.
        unsafe {
            let eight = _mm256_add_ps(_mm256_add_ps(a, c), _mm256_add_ps(b, d));
            halved_singles(eight)
        }
    }
    #[inline(always)]
    fn transposed(rows: &[[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
        // SAFETY: the CPU has AVX2, or nothing would ask for blocks of it; eight rows of eight numbers are as many registers.
        let columns: [__m256; SIDE] = unsafe { transposed(bytemuck::cast(*rows)) };
        bytemuck::cast(columns)
    }
    #[inline(always)]
    fn from_f16(from: &[f16; BLOCK]) -> Self {
        let mut block = Self::splat(0.0);
        for (i, to) in block.0.iter_mut().enumerate() {
            // SAFETY: as above; and a block has eight elements from there on.
            *to = unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().add(8 * i).cast())) };
        }
        block
    }
    #[inline(always)]
    fn from_bf16(from: &[bf16; BLOCK]) -> Self {
        let mut block = Self::splat(0.0);
        for (i, to) in block.0.iter_mut().enumerate() {
            // SAFETY: as above.
            *to = unsafe {
                let eight = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.as_ptr().add(8 * i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(eight))
            };
        }
        block
    }
    #[inline(always)]
    fn to_f16(self, to: &mut [f16; BLOCK], streamed: Option<Streaming>) {
        let [a, b, c, d] = self.0;
        for (i, [low, high]) in [[a, b], [c, d]].into_iter().enumerate() {
            // SAFETY: as above; a block has sixteen elements from there on.
            unsafe {
                let low = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(low);
                let high = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(high);
                put(_mm256_set_m128i(high, low), to.as_mut_ptr().add(16 * i).cast(), streamed);
            }
        }
    }
    #[inline(always)]
    fn to_bf16(self, to: &mut [bf16; BLOCK], streamed: Option<Streaming>) {
        let [a, b, c, d] = self.0;
        for (i, [low, high]) in [[a, b], [c, d]].into_iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                let sixteen = side_by_side(upper_halves_or_nan(low), upper_halves_or_nan(high));
                put(sixteen, to.as_mut_ptr().add(16 * i).cast(), streamed);
            }
        }
    }
    #[inline(always)]
    fn numbers_to_bf16(self, to: &mut [bf16; BLOCK], streamed: Option<Streaming>) {
        let [a, b, c, d] = self.0;
        for (i, [low, high]) in [[a, b], [c, d]].into_iter().enumerate() {
            // SAFETY: as above.
            unsafe {
                let sixteen = side_by_side(upper_halves(low), upper_halves(high));
                put(sixteen, to.as_mut_ptr().add(16 * i).cast(), streamed);
            }
        }
    }
}

impl Numbers<f64> for Doubles {
    numbers!(
        f64,
        u64,
        4,
        LONG_ONES,
        _mm256_maskload_pd,
        _mm256_set1_pd,
        _mm256_loadu_pd,
        _mm256_blendv_pd,
        _mm256_andnot_pd,
        _mm256_cmp_pd,
        _mm256_castpd_si256
    );

    #[inline(always)]
    fn halved(self) -> f64 {
        let [a, b, c, d, e, f, g, h] = self.0;
        // SAFETY: the CPU has AVX2, or there would be no block of it.
        unsafe {
            let low = _mm256_add_pd(_mm256_add_pd(a, e), _mm256_add_pd(c, g));
            let high = _mm256_add_pd(_mm256_add_pd(b, f), _mm256_add_pd(d, h));
            let four = _mm256_add_pd(low, high);
            halved_doubles(four)
        }
    }
}

/// The upper half added to the lower one, down to one number.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn halved_singles(eight: __m256) -> f32 {
    // SAFETY: as the caller says.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The same.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn halved_doubles(four: __m256d) -> f64 {
    // SAFETY: as the caller says.
    unsafe {
        let two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd::<1>(four));
        _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)))
    }
}

/// Rows as columns: pairs of numbers, then fours, then eights.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
pub(super) unsafe fn transposed([a, b, c, d, e, f, g, h]: [__m256; SIDE]) -> [__m256; SIDE] {
    // SAFETY: as the caller says.
    unsafe {
        let (ab, ab2) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
        let (cd, cd2) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
        let (ef, ef2) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
        let (gh, gh2) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
        const LOW: i32 = 0b01_00_01_00;
        const HIGH: i32 = 0b11_10_11_10;
        let (low0, low1) = (_mm256_shuffle_ps::<LOW>(ab, cd), _mm256_shuffle_ps::<HIGH>(ab, cd));
        let (low2, low3) = (_mm256_shuffle_ps::<LOW>(ab2, cd2), _mm256_shuffle_ps::<HIGH>(ab2, cd2));
        let (high0, high1) = (_mm256_shuffle_ps::<LOW>(ef, gh), _mm256_shuffle_ps::<HIGH>(ef, gh));
        let (high2, high3) = (_mm256_shuffle_ps::<LOW>(ef2, gh2), _mm256_shuffle_ps::<HIGH>(ef2, gh2));
        [
            _mm256_permute2f128_ps::<0x20>(low0, high0),
            _mm256_permute2f128_ps::<0x20>(low1, high1),
            _mm256_permute2f128_ps::<0x20>(low2, high2),
            _mm256_permute2f128_ps::<0x20>(low3, high3),
            _mm256_permute2f128_ps::<0x31>(low0, high0),
            _mm256_permute2f128_ps::<0x31>(low1, high1),
            _mm256_permute2f128_ps::<0x31>(low2, high2),
            _mm256_permute2f128_ps::<0x31>(low3, high3),
        ]
    }
}

/// Numbers rounded to nearest even at their middle bit, as integers: their upper halves.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn upper_halves(numbers: __m256) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        let bits = _mm256_castps_si256(numbers);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let up = _mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF));
        _mm256_srli_epi32::<16>(_mm256_add_epi32(up, odd))
    }
}

/// The same; NaN stays NaN.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn upper_halves_or_nan(numbers: __m256) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        let quiet = _mm256_or_si256(_mm256_castps_si256(numbers), _mm256_set1_epi32(0x40_0000));
        let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(numbers, numbers));
        _mm256_blendv_epi8(upper_halves(numbers), _mm256_srli_epi32::<16>(quiet), is_nan)
    }
}

/// Integers of 16 bits, after each other.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn side_by_side(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: as the caller says.
    unsafe {
        // By lanes of four: the low ones' first, the high ones' first, their second.
        _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packus_epi32(low, high))
    }
}

/// Stores 32 bytes, past the caches where there is leave.
///
/// # Safety
/// The CPU has AVX2, and 32 bytes can be written; to a multiple of 16 where there is leave.
#[inline(always)]
unsafe fn put(from: __m256i, to: *mut __m256i, streamed: Option<Streaming>) {
    // SAFETY: as the caller says.
    unsafe {
        if streamed.is_none() {
            _mm256_storeu_si256(to, from);
        } else if to.is_aligned() {
            _mm256_stream_si256(to, from);
        } else {
            let (low, high) = (_mm256_castsi256_si128(from), _mm256_extracti128_si256::<1>(from));
            _mm_stream_si128(to.cast(), low);
            _mm_stream_si128(to.cast::<__m128i>().add(1), high);
        }
    }
}
