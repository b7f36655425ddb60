//! The row sum of [`plan::tree`](crate::plan::tree), over fixed-size blocks that compile to SIMD.
#![allow(clippy::needless_range_loop, reason = "several arrays are walked by one index")]

use super::real::Real;
use crate::plan::tree::Pairwise;

/// Lanes handled together: two to eight registers, on any instruction set.
const BLOCK: usize = 32;
/// The most lanes that a row has.
const MOST_LANES: usize = 256;

/// `M` numbers computed from the `K` inputs' elements of one column.
///
/// A trait and not a closure: only `#[inline(always)]` carries the caller's instruction set into the callee, and a
/// closure cannot have it.
pub(super) trait Term<F, const K: usize, const M: usize> {
    fn of(&self, inputs: [F; K]) -> [F; M];
}

/// Sums of `M` terms over one leaf, each in the order of the tree: an operation for [`Isa::run`](super::Isa).
/// The inputs are of one length, at most a leaf long.
pub(super) struct LeafSums<'a, F, T, const K: usize, const M: usize> {
    pub(super) inputs: [&'a [F]; K],
    pub(super) lanes: usize,
    pub(super) term: T,
}

impl<F: Real, T: Term<F, K, M>, const K: usize, const M: usize> pulp::NullaryFnOnce
    for LeafSums<'_, F, T, K, M>
{
    type Output = [F; M];

    #[inline(always)]
    fn call(self) -> [F; M] {
        let LeafSums { inputs, lanes, term } = self;
        let len = inputs[0].len();
        let inputs = inputs.map(|input| &input[..len]);
        let mut totals = [F::ZERO; M];
        if lanes == BLOCK {
            let sums = block_sums(&inputs, 0, lanes, &term);
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
            *sums = block_sums(&inputs, block * BLOCK, lanes, &term);
        }
        let mut half = blocks / 2;
        while half > 0 {
            let (low, high) = sums.split_at_mut(half);
            for (low, high) in low.iter_mut().zip(&*high) {
                for m in 0..M {
                    add(&mut low[m], &high[m]);
                }
            }
            half /= 2;
        }
        for m in 0..M {
            totals[m] = halve(sums[0][m]);
        }
        totals
    }
}

/// `to = to + from`.
#[inline(always)]
fn add<F: Real>(to: &mut [F; BLOCK], from: &[F; BLOCK]) {
    for lane in 0..BLOCK {
        to[lane] += from[lane];
    }
}

/// The `BLOCK` lanes from `first` on: each adds every `lanes`-th element.
#[inline(always)]
fn block_sums<F: Real, const K: usize, const M: usize>(
    inputs: &[&[F]; K],
    first: usize,
    lanes: usize,
    term: &impl Term<F, K, M>,
) -> [[F; BLOCK]; M] {
    let len = inputs[0].len();
    let mut sums = [[F::ZERO; BLOCK]; M];
    let mut at = first;
    while at + BLOCK <= len {
        let mut blocks = [[F::ZERO; BLOCK]; K];
        for k in 0..K {
            blocks[k].copy_from_slice(&inputs[k][at..at + BLOCK]);
        }
        for lane in 0..BLOCK {
            let mut elements = [F::ZERO; K];
            for k in 0..K {
                elements[k] = blocks[k][lane];
            }
            let terms = term.of(elements);
            for m in 0..M {
                sums[m][lane] += terms[m];
            }
        }
        at += lanes;
    }
    if at < len {
        add_tail(inputs, at, term, &mut sums);
    }
    sums
}

/// The elements from `at` on, fewer than a block; lanes past the end add nothing.
#[inline(always)]
fn add_tail<F: Real, const K: usize, const M: usize>(
    inputs: &[&[F]; K],
    at: usize,
    term: &impl Term<F, K, M>,
    sums: &mut [[F; BLOCK]; M],
) {
    let rest = inputs[0].len() - at;
    let mut blocks = [[F::ZERO; BLOCK]; K];
    for k in 0..K {
        blocks[k][..rest].copy_from_slice(&inputs[k][at..]);
    }
    for lane in 0..BLOCK {
        let mut elements = [F::ZERO; K];
        for k in 0..K {
            elements[k] = blocks[k][lane];
        }
        let terms = term.of(elements);
        for m in 0..M {
            let sum = sums[m][lane] + terms[m];
            sums[m][lane] = if lane < rest { sum } else { sums[m][lane] };
        }
    }
}

/// Halves the lanes down to one.
#[inline(always)]
fn halve<F: Real>(mut lanes: [F; BLOCK]) -> F {
    let mut half = BLOCK / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Adds a row's leaf sums.
pub(super) struct RowSums<F, const M: usize>([Pairwise<F>; M]);

impl<F: Real, const M: usize> RowSums<F, M> {
    #[inline(always)]
    pub(super) fn new() -> Self {
        RowSums([const { Pairwise::new(F::ZERO) }; M])
    }

    #[inline(always)]
    pub(super) fn push(&mut self, leaf: [F; M]) {
        for m in 0..M {
            self.0[m].push(leaf[m]);
        }
    }

    #[inline(always)]
    pub(super) fn total(&self) -> [F; M] {
        let mut totals = [F::ZERO; M];
        for m in 0..M {
            totals[m] = self.0[m].total();
        }
        totals
    }
}

/// The element itself.
pub(super) struct Plain;

impl<F: Real> Term<F, 1, 1> for Plain {
    #[inline(always)]
    fn of(&self, [x]: [F; 1]) -> [F; 1] {
        [x]
    }
}

/// The product of both inputs.
pub(super) struct Product;

impl<F: Real> Term<F, 2, 1> for Product {
    #[inline(always)]
    fn of(&self, [a, b]: [F; 2]) -> [F; 1] {
        [a * b]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;
    use crate::plan::tree::{self, LEAF};

    #[test]
    fn every_instruction_set_computes_the_stated_tree() {
        for cols in [1, 2, 31, 32, 33, 255, 256, 257, 769, 2047, 2048, 2049, 4095, 4096, 4097, 70_000] {
            let row: Vec<f32> = (0..cols).map(|i| ((i * 7919 % 1009) as f32 - 400.0) * 1.37e-3).collect();
            let expected = tree::row_sum(&row);
            for isa in Isa::available() {
                let mut sums = RowSums::new();
                for leaf in row.chunks(LEAF) {
                    sums.push(isa.run(LeafSums { inputs: [leaf], lanes: tree::lanes(cols), term: Plain }));
                }
                assert_eq!(sums.total()[0].to_bits(), expected.to_bits(), "{cols} columns on {isa}");
            }
        }
    }
}
