//! Element types as memory holds them, and their conversion from and to the compute types.

use super::isa::Operation;
use super::memory::Streaming;
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd, each};
use crate::tensor::Element;
use half::{bf16, f16};

/// An element type, converted from and to any compute type at least as wide.
pub(crate) trait Stored: Element {
    /// Exact.
    fn widen<F: Real>(self) -> F;
    /// To nearest even.
    fn narrow<F: Real>(x: F) -> Self;

    /// A block, exact.
    #[inline(always)]
    fn load<S: Simd, F: Real>(from: &[Self; BLOCK]) -> Block<S, F> {
        if Self::DTYPE == F::DTYPE {
            return Block::<S, F>::load(bytemuck::cast_ref(from));
        }
        Block::<S, F>::load(&each(from, Self::widen))
    }
    /// Fewer elements than a block has, and zeros.
    #[inline(always)]
    fn load_part<S: Simd, F: Real>(from: &[Self]) -> Block<S, F> {
        if Self::DTYPE == F::DTYPE {
            return Block::<S, F>::load_part(bytemuck::cast_slice(from));
        }
        let mut padded: [Self; BLOCK] = bytemuck::Zeroable::zeroed();
        for (to, from) in padded.iter_mut().zip(from) {
            *to = *from;
        }
        Self::load::<S, F>(&padded)
    }
    /// A block to nearest even, past the caches where there is leave.
    #[inline(always)]
    fn store<S: Simd, F: Real>(block: Block<S, F>, to: &mut [Self; BLOCK], streamed: Option<Streaming>) {
        if Self::DTYPE == F::DTYPE {
            return block.store(bytemuck::cast_mut(to), streamed);
        }
        *to = each(&block.to_array(), Self::narrow);
    }
    /// The same of numbers: a NaN may become one only if arithmetic made it, or is copied from this type.
    #[inline(always)]
    fn store_numbers<S: Simd, F: Real>(
        block: Block<S, F>,
        to: &mut [Self; BLOCK],
        streamed: Option<Streaming>,
    ) {
        Self::store::<S, F>(block, to, streamed);
    }
}

macro_rules! stored {
    ($($t:ty: $from:ident, $to:ident $(, { $($blocks:item)* })?;)*) => {$(
        impl Stored for $t {
            #[inline(always)]
            fn widen<F: Real>(self) -> F {
                F::$from(self)
            }
            #[inline(always)]
            fn narrow<F: Real>(x: F) -> $t {
                x.$to()
            }
            $($($blocks)*)?
        }
    )*};
}
stored! {
    f16: from_f16, to_f16, {
        #[inline(always)]
        fn load<S: Simd, F: Real>(from: &[f16; BLOCK]) -> Block<S, F> {
            Block::<S, F>::from_f16(from)
        }
        #[inline(always)]
        fn store<S: Simd, F: Real>(block: Block<S, F>, to: &mut [f16; BLOCK], streamed: Option<Streaming>) {
            block.to_f16(to, streamed);
        }
    };
    bf16: from_bf16, to_bf16, {
        #[inline(always)]
        fn load<S: Simd, F: Real>(from: &[bf16; BLOCK]) -> Block<S, F> {
            Block::<S, F>::from_bf16(from)
        }
        #[inline(always)]
        fn store<S: Simd, F: Real>(block: Block<S, F>, to: &mut [bf16; BLOCK], streamed: Option<Streaming>) {
            block.to_bf16(to, streamed);
        }
        #[inline(always)]
        fn store_numbers<S: Simd, F: Real>(
            block: Block<S, F>,
            to: &mut [bf16; BLOCK],
            streamed: Option<Streaming>,
        ) {
            block.numbers_to_bf16(to, streamed);
        }
    };
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

/// A slice, widened, in the instruction set of the caller.
#[inline(always)]
fn widen<S: Simd, T: Stored, F: Real>(from: &[T], to: &mut [F]) {
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<BLOCK>();
    for (to, from) in to_blocks.iter_mut().zip(blocks) {
        T::load::<S, F>(from).store(to, None);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = from.widen();
    }
}

/// A slice, rounded, in the instruction set of the caller.
#[inline(always)]
fn narrow<S: Simd, F: Real, T: Stored>(from: &[F], to: &mut [T]) {
    let (blocks, rest) = from.as_chunks::<BLOCK>();
    let (to_blocks, to_rest) = to.as_chunks_mut::<BLOCK>();
    for (to, from) in to_blocks.iter_mut().zip(blocks) {
        T::store::<S, F>(Block::<S, F>::load(from), to, None);
    }
    for (to, from) in to_rest.iter_mut().zip(rest) {
        *to = T::narrow(*from);
    }
}

/// A slice, widened by SIMD.
pub(super) struct Widen<'a, T, F> {
    pub(super) from: &'a [T],
    pub(super) to: &'a mut [F],
}

impl<T: Stored, F: Real> Operation for Widen<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        widen::<S, T, F>(self.from, self.to);
    }
}

/// A slice, rounded by SIMD.
pub(super) struct Narrow<'a, F, T> {
    pub(super) from: &'a [F],
    pub(super) to: &'a mut [T],
}

impl<F: Real, T: Stored> Operation for Narrow<'_, F, T> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(self) {
        narrow::<S, F, T>(self.from, self.to);
    }
}
