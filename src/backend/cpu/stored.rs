//! Element types as memory holds them, and their conversion from and to the compute types.

use super::real::Real;
use crate::tensor::{DType, Element};
use half::{bf16, f16, slice::HalfFloatSliceExt};

/// An element type, converted from and to any compute type at least as wide.
pub(super) trait Stored: Element {
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

/// A slice of f16, through float32 by the CPU's own instruction where it has one.
pub(super) fn widen_f16<F: Real>(from: &[f16], to: &mut [F]) {
    if F::DTYPE == DType::F32 {
        return from.convert_to_f32_slice(bytemuck::cast_slice_mut(to));
    }
    widen(from, to);
}

/// A slice to f16, from float32 by the CPU's own instruction where it has one.
pub(super) fn narrow_f16<F: Real>(from: &[F], to: &mut [f16]) {
    if F::DTYPE == DType::F32 {
        return to.convert_from_f32_slice(bytemuck::cast_slice(from));
    }
    narrow(from, to);
}
