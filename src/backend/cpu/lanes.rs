//! Slices walked in fixed-size blocks that compile to SIMD, and the sum of [`plan::tree`](crate::plan::tree) over a
//! leaf.
//!
//! An operation names what it does to one block; the last, shorter one is the same code on elements that are padded
//! with zeros. Operations are traits and not closures: only `#[inline(always)]` carries the caller's instruction set
//! into the callee, and a closure cannot have it.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::memory::Staged;
use super::real::Real;
use super::stored::Stored;
use pulp::NullaryFnOnce;

/// Elements handled together: two to eight registers, on any instruction set.
pub(super) const BLOCK: usize = 32;
/// The most lanes that a row has.
const MOST_LANES: usize = 256;

/// Numbers of a block.
pub(super) type Block<F> = [F; BLOCK];

/// The elements from `at` on, widened: a whole block, or `len` of them and zeros.
#[inline(always)]
pub(super) fn read<const WHOLE: bool, T: Stored, F: Real>(from: &[T], at: usize, len: usize) -> Block<F> {
    let mut block = [F::ZERO; BLOCK];
    if WHOLE {
        let from: &[T; BLOCK] = from[at..at + BLOCK].try_into().expect("a block");
        for i in 0..BLOCK {
            block[i] = from[i].widen();
        }
    } else {
        for (to, from) in block.iter_mut().zip(&from[at..at + len]) {
            *to = from.widen();
        }
    }
    block
}

/// Stores a whole block, or its first `len` elements, each rounded once.
#[inline(always)]
pub(super) fn write<const WHOLE: bool, T: Stored, F: Real>(
    block: &Block<F>,
    to: &mut [T],
    at: usize,
    len: usize,
) {
    if WHOLE {
        let to: &mut [T; BLOCK] = (&mut to[at..at + BLOCK]).try_into().expect("a block");
        for i in 0..BLOCK {
            to[i] = T::narrow(block[i]);
        }
    } else {
        for (to, from) in to[at..at + len].iter_mut().zip(block) {
            *to = T::narrow(*from);
        }
    }
}

/// What is done to a slice, block by block.
pub(super) trait Pass {
    /// Elements in all.
    fn len(&self) -> usize;
    /// The elements from `at` on: a block if `WHOLE`, else `len`.
    fn step<const WHOLE: bool>(&mut self, at: usize, len: usize);
}

/// Runs a pass: an operation for [`Isa::run`](super::Isa).
pub(super) struct Over<P>(pub(super) P);

impl<P: Pass> NullaryFnOnce for Over<P> {
    type Output = ();
    #[inline(always)]
    fn call(mut self) {
        over(&mut self.0);
    }
}

/// The same inside another operation.
#[inline(always)]
pub(super) fn over(pass: &mut impl Pass) {
    let len = pass.len();
    let whole = len - len % BLOCK;
    for at in (0..whole).step_by(BLOCK) {
        pass.step::<true>(at, BLOCK);
    }
    if whole < len {
        pass.step::<false>(whole, len - whole);
    }
}

/// `M` numbers computed from each element of a leaf.
pub(super) trait Terms<F, const M: usize> {
    /// Elements of the leaf.
    fn len(&self) -> usize;
    /// The terms of the elements from `at` on: a block if `WHOLE`, else `len`, and anything beyond.
    fn terms<const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<F>; M];
}

/// Sums of `M` terms over one leaf, each in the order of the tree: an operation for [`Isa::run`](super::Isa).
pub(super) struct TreeSums<T, F, const M: usize> {
    pub(super) lanes: usize,
    pub(super) terms: T,
    pub(super) of: std::marker::PhantomData<F>,
}

impl<T, F, const M: usize> TreeSums<T, F, M> {
    pub(super) fn new(lanes: usize, terms: T) -> Self {
        TreeSums { lanes, terms, of: std::marker::PhantomData }
    }
}

impl<F: Real, T: Terms<F, M>, const M: usize> NullaryFnOnce for TreeSums<T, F, M> {
    type Output = [F; M];
    #[inline(always)]
    fn call(mut self) -> [F; M] {
        tree_sums(self.lanes, &mut self.terms)
    }
}

/// The sums of [`TreeSums`].
#[inline(always)]
pub(super) fn tree_sums<F: Real, const M: usize>(lanes: usize, terms: &mut impl Terms<F, M>) -> [F; M] {
    let mut totals = [F::ZERO; M];
    if lanes == BLOCK {
        let sums = block_sums(0, lanes, terms);
        for m in 0..M {
            totals[m] = halve(sums[m]);
        }
        return totals;
    }
    // Blocks of lanes one after the other, so that each keeps its sums in registers. The upper half
    // of the lanes meets the lower one, so the upper half of the blocks does, and so on down.
    let mut sums = [[[F::ZERO; BLOCK]; M]; MOST_LANES / BLOCK];
    let blocks = (lanes / BLOCK).min(sums.len());
    for (block, sums) in sums[..blocks].iter_mut().enumerate() {
        *sums = block_sums(block * BLOCK, lanes, terms);
    }
    let mut half = blocks / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(&*high) {
            for m in 0..M {
                for lane in 0..BLOCK {
                    low[m][lane] += high[m][lane];
                }
            }
        }
        half /= 2;
    }
    for m in 0..M {
        totals[m] = halve(sums[0][m]);
    }
    totals
}

/// The `BLOCK` lanes from `first` on: each adds every `lanes`-th element. Lanes past the end add nothing.
#[inline(always)]
fn block_sums<F: Real, const M: usize>(
    first: usize,
    lanes: usize,
    terms: &mut impl Terms<F, M>,
) -> [Block<F>; M] {
    let len = terms.len();
    let mut sums = [[F::ZERO; BLOCK]; M];
    let mut at = first;
    while at + BLOCK <= len {
        let terms = terms.terms::<true>(at, BLOCK);
        for m in 0..M {
            for lane in 0..BLOCK {
                sums[m][lane] += terms[m][lane];
            }
        }
        at += lanes;
    }
    if at < len {
        let rest = len - at;
        let terms = terms.terms::<false>(at, rest);
        for m in 0..M {
            for lane in 0..BLOCK {
                let sum = sums[m][lane] + terms[m][lane];
                sums[m][lane] = if lane < rest { sum } else { sums[m][lane] };
            }
        }
    }
    // Through memory: seeing that the lanes are added to each other, the compiler would keep them apart from the start.
    std::hint::black_box(Staged(sums)).0
}

/// Halves the lanes down to one.
#[inline(always)]
pub(super) fn halve<F: Real>(lanes: Block<F>) -> F {
    let mut half = [F::ZERO; BLOCK / 2];
    for lane in 0..BLOCK / 2 {
        half[lane] = lanes[lane] + lanes[lane + BLOCK / 2];
    }
    let mut few = [F::ZERO; BLOCK / 4];
    for lane in 0..BLOCK / 4 {
        few[lane] = half[lane] + half[lane + BLOCK / 4];
    }
    // Through memory: the compiler would shuffle the lanes of several sums together, in four times the instructions.
    let [a, b, c, d, e, f, g, h] = std::hint::black_box(Staged(few)).0;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// The elements themselves.
pub(super) struct Plain<'a, F>(pub(super) &'a [F]);

impl<F: Real> Terms<F, 1> for Plain<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn terms<const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<F>; 1] {
        [read::<WHOLE, F, F>(self.0, at, len)]
    }
}

/// The products of two slices' elements.
pub(super) struct Products<'a, F>(pub(super) &'a [F], pub(super) &'a [F]);

impl<F: Real> Terms<F, 1> for Products<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn terms<const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<F>; 1] {
        let (mut a, b) = (read::<WHOLE, F, F>(self.0, at, len), read::<WHOLE, F, F>(self.1, at, len));
        for i in 0..BLOCK {
            a[i] = a[i] * b[i];
        }
        [a]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;
    use crate::plan::tree::{self, LEAF, Pairwise};

    #[test]
    fn every_instruction_set_computes_the_stated_tree() {
        for cols in [1, 2, 31, 32, 33, 255, 256, 257, 769, 2047, 2048, 2049, 4095, 4096, 4097, 70_000] {
            let row: Vec<f32> = (0..cols).map(|i| ((i * 7919 % 1009) as f32 - 400.0) * 1.37e-3).collect();
            let expected = tree::row_sum(&row);
            for isa in Isa::available() {
                let mut sum = Pairwise::default();
                for leaf in row.chunks(LEAF) {
                    let [leaf] = isa.run(TreeSums::new(tree::lanes(cols), Plain(leaf)));
                    sum.push(leaf);
                }
                assert_eq!(sum.total().to_bits(), expected.to_bits(), "{cols} columns on {isa}");
            }
        }
    }
}
