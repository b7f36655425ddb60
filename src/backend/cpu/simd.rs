//! Blocks of numbers, as each instruction set holds them.
//!
//! The compiler makes vectors of arithmetic on arrays by itself, but not always of the same elements that were meant, and
//! then shuffles them. So what x86-64 has for it is named, in [`avx2`](super::avx2) and [`avx512`](super::avx512), and only
//! elsewhere left to the compiler.

use super::memory::{Staged, Streaming};
use super::real::Real;
use half::{bf16, f16};
use std::ops::{Add, Mul, Sub};

/// Elements handled together: two to eight registers, on any instruction set.
pub(super) const BLOCK: usize = 32;
/// Rows and columns of what is transposed at once.
pub(super) const SIDE: usize = 8;

/// An instruction set's blocks.
pub(crate) trait Simd {
    type F32: Numbers<f32>;
    type F64: Numbers<f64>;
}

/// A block of numbers in the registers of an instruction set.
pub(super) type Block<S, F> = <F as Real>::Block<S>;

/// A block of numbers, in the order of their places.
pub(crate) trait Numbers<F: Real>:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self>
{
    fn splat(x: F) -> Self;
    fn load(from: &[F; BLOCK]) -> Self;
    /// Fewer numbers than a block has, and zeros.
    #[inline(always)]
    fn load_part(from: &[F]) -> Self {
        let mut padded = [F::ZERO; BLOCK];
        for (to, from) in padded.iter_mut().zip(from) {
            *to = *from;
        }
        Self::load(&padded)
    }
    /// Past the caches where there is leave.
    fn store(self, to: &mut [F; BLOCK], streamed: Option<Streaming>);
    /// The first `count` numbers of these, the others of `rest`.
    fn first(self, count: usize, rest: Self) -> Self;
    /// Zero where `mask` is.
    fn masked(self, mask: Self) -> Self;
    fn abs(self) -> Self;
    /// The upper half added to the lower one, down to one number.
    fn halved(self) -> F;

    /// Rows as columns.
    #[inline(always)]
    fn transposed(rows: &[[F; SIDE]; SIDE]) -> [[F; SIDE]; SIDE] {
        let mut columns = [[F::ZERO; SIDE]; SIDE];
        for (i, row) in rows.iter().enumerate() {
            for (column, number) in columns.iter_mut().zip(row) {
                column[i] = *number;
            }
        }
        columns
    }

    /// What `f` makes of each number.
    #[inline(always)]
    fn map(self, f: impl Fn(F) -> F) -> Self {
        Self::load(&each(&self.to_array(), f))
    }
    #[inline(always)]
    fn to_array(self) -> [F; BLOCK] {
        let mut numbers = [F::ZERO; BLOCK];
        self.store(&mut numbers, None);
        numbers
    }

    #[inline(always)]
    fn from_f16(from: &[f16; BLOCK]) -> Self {
        Self::load(&each(from, F::from_f16))
    }
    #[inline(always)]
    fn from_bf16(from: &[bf16; BLOCK]) -> Self {
        Self::load(&each(from, F::from_bf16))
    }
    #[inline(always)]
    fn to_f16(self, to: &mut [f16; BLOCK], _streamed: Option<Streaming>) {
        *to = each(&self.to_array(), F::to_f16);
    }
    #[inline(always)]
    fn to_bf16(self, to: &mut [bf16; BLOCK], _streamed: Option<Streaming>) {
        *to = each(&self.to_array(), F::to_bf16);
    }
    /// The same of numbers: a NaN may become one only if arithmetic made it, or its lower half is zero.
    #[inline(always)]
    fn numbers_to_bf16(self, to: &mut [bf16; BLOCK], _streamed: Option<Streaming>) {
        *to = each(&self.to_array(), F::number_to_bf16);
    }
}

/// What `f` makes of each element.
#[inline(always)]
pub(super) fn each<T: Copy, U: bytemuck::Zeroable>(from: &[T; BLOCK], f: impl Fn(T) -> U) -> [U; BLOCK] {
    let mut to: [U; BLOCK] = bytemuck::Zeroable::zeroed();
    for (to, from) in to.iter_mut().zip(from) {
        *to = f(*from);
    }
    to
}

/// What the compiler makes of arrays.
pub(super) struct Arrays;

impl Simd for Arrays {
    type F32 = Array<f32>;
    type F64 = Array<f64>;
}

/// A block as an array.
#[derive(Clone, Copy)]
pub(crate) struct Array<F>([F; BLOCK]);

macro_rules! operator {
    ($name:ident, $operator:ident) => {
        impl<F: Real> $name for Array<F> {
            type Output = Self;
            #[inline(always)]
            fn $operator(mut self, other: Self) -> Self {
                for (a, b) in self.0.iter_mut().zip(other.0) {
                    *a = (*a).$operator(b);
                }
                self
            }
        }
    };
}
operator!(Add, add);
operator!(Sub, sub);
operator!(Mul, mul);

impl<F: Real> Numbers<F> for Array<F> {
    #[inline(always)]
    fn splat(x: F) -> Self {
        Array([x; BLOCK])
    }
    #[inline(always)]
    fn load(from: &[F; BLOCK]) -> Self {
        Array(*from)
    }
    #[inline(always)]
    fn store(self, to: &mut [F; BLOCK], _streamed: Option<Streaming>) {
        *to = self.0;
    }
    #[inline(always)]
    fn first(mut self, count: usize, rest: Self) -> Self {
        for (i, (a, b)) in self.0.iter_mut().zip(rest.0).enumerate() {
            *a = if i < count { *a } else { b };
        }
        self
    }
    #[inline(always)]
    fn masked(mut self, mask: Self) -> Self {
        for (a, mask) in self.0.iter_mut().zip(mask.0) {
            *a = if mask == F::ZERO { F::ZERO } else { *a };
        }
        self
    }
    #[inline(always)]
    fn abs(self) -> Self {
        Array(each(&self.0, F::abs))
    }
    #[inline(always)]
    fn halved(self) -> F {
        // Through memory: seeing that the lanes are added to each other, the compiler would keep them apart from the
        // start, and would shuffle the lanes of several sums together.
        let lanes = std::hint::black_box(Staged(self.0)).0;
        let mut half = [F::ZERO; BLOCK / 2];
        for (i, half) in half.iter_mut().enumerate() {
            *half = lanes[i] + lanes[i + BLOCK / 2];
        }
        let mut few = [F::ZERO; BLOCK / 4];
        for (i, few) in few.iter_mut().enumerate() {
            *few = half[i] + half[i + BLOCK / 4];
        }
        let [a, b, c, d, e, f, g, h] = std::hint::black_box(Staged(few)).0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }
}

#[cfg(test)]
mod tests {
    use super::super::isa::Operation;
    use super::*;
    use crate::backend::cpu::Isa;

    /// Everything that can be done to blocks.
    struct All<'a, F> {
        numbers: &'a [F; BLOCK],
        others: &'a [F; BLOCK],
        count: usize,
    }

    impl<F: Real> Operation for All<'_, F> {
        type Output = (Vec<[F; BLOCK]>, Vec<[u16; BLOCK]>, F, [[F; SIDE]; SIDE]);
        #[inline(always)]
        fn call<S: Simd>(self) -> Self::Output {
            let (a, b) = (Block::<S, F>::load(self.numbers), Block::<S, F>::load(self.others));
            let (mut half, mut brain, mut number) =
                ([f16::ZERO; BLOCK], [bf16::ZERO; BLOCK], [bf16::ZERO; BLOCK]);
            a.to_f16(&mut half, None);
            a.to_bf16(&mut brain, None);
            b.numbers_to_bf16(&mut number, None);
            let (first, masked) = (a.first(self.count, b), a.masked(b));
            let (wide, widest) = (Block::<S, F>::from_f16(&half), Block::<S, F>::from_bf16(&brain));
            let splat = Block::<S, F>::splat(self.numbers[self.count % BLOCK]);
            let part = Block::<S, F>::load_part(&self.numbers[..self.count]);
            let all = [part, a + b, a - b, a * b, a.abs(), first, masked, wide, widest, splat];
            (
                all.map(|block| block.to_array()).to_vec(),
                vec![half.map(f16::to_bits), brain.map(bf16::to_bits), number.map(bf16::to_bits)],
                b.halved(),
                Block::<S, F>::transposed(&std::array::from_fn(|i| {
                    std::array::from_fn(|j| self.others[(i * 5 + j * 3) % BLOCK])
                })),
            )
        }
    }

    fn check<F: Real>(special: &[f64]) {
        for count in 0..=BLOCK {
            let at = |i: usize| F::of(special[(i * 7 + count) % special.len()]);
            let numbers: [F; BLOCK] = std::array::from_fn(at);
            let others: [F; BLOCK] =
                std::array::from_fn(|i| F::of(((i * 37 + count) % 11) as f64 * 0.37 - 1.11));
            let all = || All { numbers: &numbers, others: &others, count };
            let expected = Isa::Portable.run(all());
            for isa in Isa::available() {
                let found = isa.run(all());
                for (a, b) in expected.0.iter().flatten().zip(found.0.iter().flatten()) {
                    // Which NaN it is, and its sign, does not matter.
                    assert!(
                        a.magnitude() == b.magnitude() && (a == b || a.magnitude() > F::INFINITE),
                        "{a:?} {b:?} {isa}"
                    );
                }
                assert_eq!((&expected.1, expected.2, expected.3), (&found.1, found.2, found.3), "{isa}");
            }
        }
    }

    #[test]
    fn every_instruction_set_computes_the_same_blocks() {
        let specials = [
            0.0,
            -0.0,
            1.0,
            -1.5,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            65_504.0,
            65_520.0,
            3e-8,
            6e-8,
            -1.0009765625,
            1.001953125,
            3.39e38,
            1e-40,
            0.3333,
            2049.0,
            1.00390625,
            1.01171875,
        ];
        check::<f32>(&specials);
        check::<f64>(&specials);
    }
}
