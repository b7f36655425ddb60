//! Element types as memory holds them, and their conversion from and to the compute types.

use super::lanes::BLOCK;
use super::memory::{Ahead, Staged, Streaming, stream};
use super::real::Real;
use crate::tensor::{DType, Element};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// An element type, converted from and to any compute type at least as wide.
pub(crate) trait Stored: Element {
    /// Exact.
    fn widen<F: Real>(self) -> F;
    /// To nearest even.
    fn narrow<F: Real>(x: F) -> Self;
}

macro_rules! stored {
    ($($t:ty: $from:ident, $to:ident;)*) => {$(
        impl Stored for $t {
            #[inline(always)]
            fn widen<F: Real>(self) -> F {
                F::$from(self)
            }
            #[inline(always)]
            fn narrow<F: Real>(x: F) -> $t {
                x.$to()
            }
        }
    )*};
}
stored! {
    f16: from_f16, to_f16;
    bf16: from_bf16, to_bf16;
    f32: from_f32, to_f32;
    f64: of, to_f64;
}

/// Runs an operation with the type in memory known: `$run!(T)`. A tensor that is not of 16 bits is of the compute type.
macro_rules! typed {
    ($dtype:expr, $compute:ty, $run:ident) => {
        match $dtype {
            $crate::tensor::DType::F16 => $run!(half::f16),
            $crate::tensor::DType::BF16 => $run!(half::bf16),
            _ => $run!($compute),
        }
    };
}
pub(super) use typed;

/// A slice, widened.
#[inline(always)]
pub(super) fn widen<T: Stored, F: Real>(from: &[T], to: &mut [F]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.widen();
    }
}

/// A slice, rounded.
#[inline(always)]
pub(super) fn narrow<F: Real, T: Stored>(from: &[F], to: &mut [T]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = T::narrow(*from);
    }
}

/// A slice, widened by SIMD.
pub(super) struct Widen<'a, T, F> {
    pub(super) from: &'a [T],
    pub(super) to: &'a mut [F],
}

impl<T: Stored, F: Real> pulp::NullaryFnOnce for Widen<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        widen(self.from, self.to);
    }
}

/// A slice, rounded by SIMD.
pub(super) struct Narrow<'a, F, T> {
    pub(super) from: &'a [F],
    pub(super) to: &'a mut [T],
}

impl<F: Real, T: Stored> pulp::NullaryFnOnce for Narrow<'_, F, T> {
    type Output = ();
    #[inline(always)]
    fn call(self) {
        narrow(self.from, self.to);
    }
}

/// A slice of f16, by the CPU's own instruction where it has one.
pub(super) fn widen_f16<F: Real>(from: &[f16], to: &mut [F]) {
    #[cfg(target_arch = "x86_64")]
    if F::DTYPE == DType::F32 && is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the instruction.
        return unsafe { f16c::widen(from, bytemuck::cast_slice_mut(to)) };
    }
    if F::DTYPE == DType::F32 {
        return from.convert_to_f32_slice(bytemuck::cast_slice_mut(to));
    }
    widen(from, to);
}

/// A slice to f16, by the CPU's own instruction where it has one.
pub(super) fn narrow_f16<F: Real>(from: &[F], to: &mut [f16]) {
    #[cfg(target_arch = "x86_64")]
    if F::DTYPE == DType::F32 && is_x86_feature_detected!("f16c") {
        // SAFETY: the CPU has the instruction.
        return unsafe { f16c::narrow(bytemuck::cast_slice(from), to) };
    }
    if F::DTYPE == DType::F32 {
        return to.convert_from_f32_slice(bytemuck::cast_slice(from));
    }
    narrow(from, to);
}

/// Conversions by F16C. The crate `half` has them too, with a call for every eight elements, which took longer than all
/// else that LayerNorm does to them.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use super::{narrow as narrow_each, widen as widen_each};
    use half::f16;
    use std::arch::x86_64::{
        _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };

    /// # Safety
    /// The CPU has F16C.
    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn widen(from: &[f16], to: &mut [f32]) {
        let mut parts = from.chunks_exact(8);
        let mut targets = to.chunks_exact_mut(8);
        for (from, to) in (&mut parts).zip(&mut targets) {
            // SAFETY: both parts have eight elements.
            unsafe {
                _mm256_storeu_ps(to.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(from.as_ptr().cast())))
            };
        }
        widen_each(parts.remainder(), targets.into_remainder());
    }

    /// # Safety
    /// The CPU has F16C.
    #[target_feature(enable = "avx,f16c")]
    pub(super) unsafe fn narrow(from: &[f32], to: &mut [f16]) {
        let mut parts = from.chunks_exact(8);
        let mut targets = to.chunks_exact_mut(8);
        for (from, to) in (&mut parts).zip(&mut targets) {
            // SAFETY: both parts have eight elements.
            unsafe {
                let eight = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(from.as_ptr()));
                _mm_storeu_si128(to.as_mut_ptr().cast(), eight);
            }
        }
        narrow_each(parts.remainder(), targets.into_remainder());
    }
}

/// A slice in the compute type, if memory holds that.
#[inline(always)]
pub(super) fn as_compute<T: Stored, F: Real>(slice: &[T]) -> Option<&[F]> {
    (T::DTYPE == F::DTYPE).then(|| bytemuck::cast_slice(slice))
}

/// The same to write.
#[inline(always)]
pub(super) fn as_compute_mut<T: Stored, F: Real>(slice: &mut [T]) -> Option<&mut [F]> {
    if T::DTYPE == F::DTYPE { Some(bytemuck::cast_slice_mut(slice)) } else { None }
}

/// A slice, widened in the instruction set of the caller.
#[inline(always)]
pub(super) fn widen_row<T: Stored, F: Real>(from: &[T], to: &mut [F]) {
    match T::DTYPE {
        DType::F16 => widen_f16(bytemuck::cast_slice(from), to),
        _ => widen(from, to),
    }
}

/// A slice, rounded in the instruction set of the caller, with leave to write past the caches. `next` will be
/// read next.
#[inline(always)]
pub(super) fn narrow_row<F: Real, T: Stored>(
    from: &[F],
    to: &mut [T],
    streamed: Option<Streaming>,
    next: &[Ahead<T>],
) {
    /// Elements at a time.
    const PIECE: usize = 8 * BLOCK;
    let streamed = streamed.and_then(|streaming| streaming.to(to));
    let mut piece = Staged([T::zeroed(); PIECE]);
    for (i, (from, to)) in from.chunks(PIECE).zip(to.chunks_mut(PIECE)).enumerate() {
        for next in next {
            (0..from.len()).step_by(BLOCK).for_each(|at| next.touch(i * PIECE + at));
        }
        let piece = &mut piece.0[..from.len()];
        match T::DTYPE {
            DType::F16 => narrow_f16(from, bytemuck::cast_slice_mut(piece)),
            _ => narrow(from, piece),
        }
        match streamed {
            Some(streaming) => stream(streaming, piece, to),
            None => to.copy_from_slice(piece),
        }
    }
}
