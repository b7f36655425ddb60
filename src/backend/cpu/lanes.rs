//! Slices walked in blocks of numbers, and the sum of [`plan::tree`](crate::plan::tree) over a leaf.
//!
//! An operation names what it does to one block; the last, shorter one is the same code on elements that are padded
//! with zeros. Operations are traits and not closures: only `#[inline(always)]` carries the caller's instruction set
//! into the callee, and a closure cannot have it.

use super::isa::Operation;
use super::memory::Streaming;
use super::real::Real;
use super::simd::{BLOCK, Block, Numbers, Simd};
use super::stored::Stored;

/// The most lanes that a row has.
const MOST_LANES: usize = 256;

/// The elements from `at` on, widened: a whole block, or `len` of them and zeros.
#[inline(always)]
pub(super) fn read<S: Simd, const WHOLE: bool, T: Stored, F: Real>(
    from: &[T],
    at: usize,
    len: usize,
) -> Block<S, F> {
    if WHOLE {
        return T::load::<S, F>(from[at..at + BLOCK].try_into().expect("a block"));
    }
    T::load_part::<S, F>(&from[at..at + len])
}

/// Stores a whole block, or its first `len` numbers, each rounded once.
#[inline(always)]
pub(super) fn write<S: Simd, const WHOLE: bool, T: Stored, F: Real>(
    block: Block<S, F>,
    to: &mut [T],
    at: usize,
    len: usize,
) {
    if WHOLE {
        return T::store::<S, F>(block, (&mut to[at..at + BLOCK]).try_into().expect("a block"), None);
    }
    let mut padded: [T; BLOCK] = bytemuck::Zeroable::zeroed();
    T::store::<S, F>(block, &mut padded, None);
    to[at..at + len].copy_from_slice(&padded[..len]);
}

/// The same of numbers; a whole block past the caches where there is leave.
#[inline(always)]
pub(super) fn write_numbers<S: Simd, const WHOLE: bool, T: Stored, F: Real>(
    block: Block<S, F>,
    to: &mut [T],
    at: usize,
    len: usize,
    streamed: Option<Streaming>,
) {
    if !WHOLE {
        return write::<S, false, T, F>(block, to, at, len);
    }
    let to = (&mut to[at..at + BLOCK]).try_into().expect("a block");
    T::store_numbers::<S, F>(block, to, streamed);
}

/// What is done to a slice, block by block.
pub(super) trait Pass {
    /// Elements in all.
    fn len(&self) -> usize;
    /// Whether elements may be done twice: they are only written.
    #[inline(always)]
    fn is_repeatable(&self) -> bool {
        false
    }
    /// The elements from `at` on: a block if `WHOLE`, else `len`.
    fn step<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize);
}

/// Runs a pass: an operation for [`Isa::run`](super::Isa).
pub(super) struct Over<P>(pub(super) P);

impl<P: Pass> Operation for Over<P> {
    type Output = ();
    #[inline(always)]
    fn call<S: Simd>(mut self) {
        over::<S>(&mut self.0);
    }
}

/// The same inside another operation.
#[inline(always)]
pub(super) fn over<S: Simd>(pass: &mut impl Pass) {
    let len = pass.len();
    let whole = len - len % BLOCK;
    for at in (0..whole).step_by(BLOCK) {
        pass.step::<S, true>(at, BLOCK);
    }
    if whole == len {
        return;
    }
    // The last ones as a whole block where that is possible, which is quicker than a part of one.
    if len > BLOCK && pass.is_repeatable() {
        pass.step::<S, true>(len - BLOCK, BLOCK);
    } else {
        pass.step::<S, false>(whole, len - whole);
    }
}

/// `M` numbers computed from each element of a leaf.
pub(super) trait Terms<F: Real, const M: usize> {
    /// Whether blocks are asked for in the order of memory, as what is written on the way should be; the sums of a lane
    /// then do not stay in registers.
    const IN_ORDER: bool = false;
    /// Elements of the leaf.
    fn len(&self) -> usize;
    /// The terms of the elements from `at` on: a block if `WHOLE`, else `len`, and anything beyond.
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; M];
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

impl<F: Real, T: Terms<F, M>, const M: usize> Operation for TreeSums<T, F, M> {
    type Output = [F; M];
    #[inline(always)]
    fn call<S: Simd>(mut self) -> [F; M] {
        tree_sums::<S, F, T, M>(self.lanes, &mut self.terms)
    }
}

/// The sums of [`TreeSums`].
#[inline(always)]
pub(super) fn tree_sums<S: Simd, F: Real, T: Terms<F, M>, const M: usize>(
    lanes: usize,
    terms: &mut T,
) -> [F; M] {
    if lanes == BLOCK {
        return halved::<S, F, M>(block_sums::<S, F, M>(0, lanes, terms));
    }
    // Blocks of lanes one after the other, so that each keeps its sums in registers. The upper half
    // of the lanes meets the lower one, so the upper half of the blocks does, and so on down.
    let mut sums = [[Block::<S, F>::splat(F::ZERO); M]; MOST_LANES / BLOCK];
    let blocks = (lanes / BLOCK).min(sums.len());
    for (block, sums) in sums[..blocks].iter_mut().enumerate() {
        if !T::IN_ORDER {
            *sums = block_sums::<S, F, M>(block * BLOCK, lanes, terms);
        }
    }
    if T::IN_ORDER {
        sums_in_order::<S, F, M>(&mut sums[..blocks], terms);
    }
    let mut half = blocks / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(&*high) {
            for (low, high) in low.iter_mut().zip(high) {
                *low = *low + *high;
            }
        }
        half /= 2;
    }
    halved::<S, F, M>(sums[0])
}

/// Each block's lanes added up. A loop, since what `map` calls is not compiled for the instruction set.
#[inline(always)]
fn halved<S: Simd, F: Real, const M: usize>(sums: [Block<S, F>; M]) -> [F; M] {
    let mut numbers = [F::ZERO; M];
    for (number, sum) in numbers.iter_mut().zip(sums) {
        *number = sum.halved();
    }
    numbers
}

/// Blocks of lanes together.
#[inline(always)]
fn sums_in_order<S: Simd, F: Real, const M: usize>(
    sums: &mut [[Block<S, F>; M]],
    terms: &mut impl Terms<F, M>,
) {
    let len = terms.len();
    let whole = len - len % BLOCK;
    for (block, at) in (0..whole).step_by(BLOCK).enumerate() {
        let sums = &mut sums[block % sums.len()];
        for (sum, terms) in sums.iter_mut().zip(terms.terms::<S, true>(at, BLOCK)) {
            *sum = *sum + terms;
        }
    }
    if whole < len {
        let sums = &mut sums[whole / BLOCK % sums.len()];
        for (sum, terms) in sums.iter_mut().zip(terms.terms::<S, false>(whole, len - whole)) {
            *sum = (*sum + terms).first(len - whole, *sum);
        }
    }
}

/// The `BLOCK` lanes from `first` on: each adds every `lanes`-th element. Lanes past the end add nothing.
#[inline(always)]
fn block_sums<S: Simd, F: Real, const M: usize>(
    first: usize,
    lanes: usize,
    terms: &mut impl Terms<F, M>,
) -> [Block<S, F>; M] {
    let len = terms.len();
    let mut sums = [Block::<S, F>::splat(F::ZERO); M];
    let mut at = first;
    while at + BLOCK <= len {
        for (sum, terms) in sums.iter_mut().zip(terms.terms::<S, true>(at, BLOCK)) {
            *sum = *sum + terms;
        }
        at += lanes;
    }
    if at < len {
        let rest = len - at;
        for (sum, terms) in sums.iter_mut().zip(terms.terms::<S, false>(at, rest)) {
            *sum = (*sum + terms).first(rest, *sum);
        }
    }
    sums
}

/// The elements themselves.
pub(super) struct Plain<'a, F>(pub(super) &'a [F]);

impl<F: Real> Terms<F, 1> for Plain<'_, F> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }
    #[inline(always)]
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
        [read::<S, WHOLE, F, F>(self.0, at, len)]
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
    fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
        [read::<S, WHOLE, F, F>(self.0, at, len) * read::<S, WHOLE, F, F>(self.1, at, len)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;
    use crate::plan::tree::{self, LEAF, Pairwise};

    /// The elements, asked for in the order of memory.
    struct InOrder<'a, F>(Plain<'a, F>);

    impl<F: Real> Terms<F, 1> for InOrder<'_, F> {
        const IN_ORDER: bool = true;
        #[inline(always)]
        fn len(&self) -> usize {
            self.0.0.len()
        }
        #[inline(always)]
        fn terms<S: Simd, const WHOLE: bool>(&mut self, at: usize, len: usize) -> [Block<S, F>; 1] {
            self.0.terms::<S, WHOLE>(at, len)
        }
    }

    #[test]
    fn every_instruction_set_computes_the_stated_tree() {
        for cols in [1, 2, 31, 32, 33, 255, 256, 257, 769, 2047, 2048, 2049, 4095, 4096, 4097, 70_000] {
            let row: Vec<f32> = (0..cols).map(|i| ((i * 7919 % 1009) as f32 - 400.0) * 1.37e-3).collect();
            let expected = tree::row_sum(&row);
            for isa in Isa::available() {
                let mut sum = Pairwise::default();
                for leaf in row.chunks(LEAF) {
                    let [in_lanes] = isa.run(TreeSums::new(tree::lanes(cols), Plain(leaf)));
                    let [in_order] = isa.run(TreeSums::new(tree::lanes(cols), InOrder(Plain(leaf))));
                    assert_eq!(in_lanes.to_bits(), in_order.to_bits(), "{cols} columns on {isa}");
                    sum.push(in_lanes);
                }
                assert_eq!(sum.total().to_bits(), expected.to_bits(), "{cols} columns on {isa}");
            }
        }
    }
}
