//! The row sum of [`plan::tree`](crate::plan::tree), over fixed-size blocks that compile to SIMD.

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
        let mut sums = [[F::ZERO; MOST_LANES]; M];
        // Blocks of lanes one after the other, so that each keeps its sums in registers.
        for first in (0..lanes).step_by(BLOCK) {
            let block = block_sums(&inputs, first, lanes, &term);
            for m in 0..M {
                sums[m][first..first + BLOCK].copy_from_slice(block[m].as_flattened());
            }
        }
        let mut totals = [F::ZERO; M];
        for m in 0..M {
            totals[m] = halve(&mut sums[m][..lanes]);
        }
        totals
    }
}

/// Numbers that fill one AVX2 register of float32. Loops over exactly this many compile to vector operations.
const VECTOR: usize = 8;
/// Vectors of a block.
const VECTORS: usize = BLOCK / VECTOR;

/// The `BLOCK` lanes from `first` on: each adds every `lanes`-th element.
#[inline(always)]
fn block_sums<F: Real, const K: usize, const M: usize>(
    inputs: &[&[F]; K],
    first: usize,
    lanes: usize,
    term: &impl Term<F, K, M>,
) -> [[[F; VECTOR]; VECTORS]; M] {
    let len = inputs[0].len();
    let mut sums = [[[F::ZERO; VECTOR]; VECTORS]; M];
    let mut at = first;
    while at + BLOCK <= len {
        for v in 0..VECTORS {
            let from = at + v * VECTOR;
            let mut vectors = [[F::ZERO; VECTOR]; K];
            for k in 0..K {
                vectors[k].copy_from_slice(&inputs[k][from..from + VECTOR]);
            }
            for lane in 0..VECTOR {
                let mut elements = [F::ZERO; K];
                for k in 0..K {
                    elements[k] = vectors[k][lane];
                }
                let terms = term.of(elements);
                for m in 0..M {
                    sums[m][v][lane] = sums[m][v][lane] + terms[m];
                }
            }
        }
        at += lanes;
    }
    if at < len {
        // The tail; lanes past the end add nothing.
        for lane in 0..(len - at).min(BLOCK) {
            let mut elements = [F::ZERO; K];
            for k in 0..K {
                elements[k] = inputs[k][at + lane];
            }
            let terms = term.of(elements);
            for m in 0..M {
                let sum = &mut sums[m].as_flattened_mut()[lane];
                *sum = *sum + terms[m];
            }
        }
    }
    sums
}

/// Halves the lanes down to one.
#[inline(always)]
fn halve<F: Real>(sums: &mut [F]) -> F {
    let mut half = sums.len() / 2;
    while half >= VECTOR {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.chunks_exact_mut(VECTOR).zip(high.chunks_exact(VECTOR)) {
            for lane in 0..VECTOR {
                low[lane] = low[lane] + high[lane];
            }
        }
        half /= 2;
    }
    let mut last = [F::ZERO; VECTOR];
    last.copy_from_slice(&sums[..VECTOR]);
    let [a, b, c, d, e, f, g, h] = last;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;
    use crate::plan::tree::{self, LEAF};

    #[test]
    fn every_instruction_set_computes_the_stated_tree() {
        for cols in [1, 2, 31, 32, 33, 255, 256, 257, 769, 4095, 4096, 4097, 70_000] {
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
