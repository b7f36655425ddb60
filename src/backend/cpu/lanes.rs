//! The row sum of [`plan::tree`](crate::plan::tree), over fixed-size blocks that compile to SIMD.

use super::real::Real;
use crate::plan::tree::{LEAF, Pairwise};

/// Lanes handled together: two to eight registers, on any instruction set.
const BLOCK: usize = 32;
/// The most blocks that the lanes of a row make up.
const MOST_BLOCKS: usize = 8;

/// Sums of `M` terms per column over one leaf, each in the order of the tree. `term` sees the `K` inputs' elements of
/// a column; inputs are of one length, at most [`LEAF`].
#[inline(always)]
pub(super) fn leaf_sums<F: Real, const K: usize, const M: usize>(
    inputs: [&[F]; K],
    lanes: usize,
    term: impl Fn([F; K]) -> [F; M],
) -> [F; M] {
    let len = inputs[0].len();
    debug_assert!(len <= LEAF && inputs.iter().all(|input| input.len() == len));
    let blocks = lanes / BLOCK;
    let mut sums = [[[F::ZERO; BLOCK]; M]; MOST_BLOCKS];
    // Blocks of lanes one after the other, so that each keeps its sums in registers.
    for (block, sums) in sums[..blocks].iter_mut().enumerate() {
        *sums = block_sums(inputs, block * BLOCK, lanes, &term);
    }
    let mut half = blocks / 2;
    while half > 0 {
        let (low, high) = sums.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(&high[..half]) {
            for (low, high) in low.iter_mut().flatten().zip(high.iter().flatten()) {
                *low += *high;
            }
        }
        half /= 2;
    }
    sums[0].map(halve)
}

/// The `BLOCK` lanes from `first` on: each adds every `lanes`-th element.
#[inline(always)]
fn block_sums<F: Real, const K: usize, const M: usize>(
    inputs: [&[F]; K],
    first: usize,
    lanes: usize,
    term: &impl Fn([F; K]) -> [F; M],
) -> [[F; BLOCK]; M] {
    let len = inputs[0].len();
    let mut sums = [[F::ZERO; BLOCK]; M];
    let mut at = first;
    while at + BLOCK <= len {
        let blocks: [&[F; BLOCK]; K] =
            inputs.map(|input| input[at..at + BLOCK].first_chunk().expect("BLOCK elements"));
        for lane in 0..BLOCK {
            let terms = term(blocks.map(|block| block[lane]));
            for m in 0..M {
                sums[m][lane] += terms[m];
            }
        }
        at += lanes;
    }
    // The tail; lanes past the end add nothing.
    for lane in 0..len.saturating_sub(at).min(BLOCK) {
        let terms = term(inputs.map(|input| input[at + lane]));
        for m in 0..M {
            sums[m][lane] += terms[m];
        }
    }
    sums
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

/// Sums over a whole row, leaf by leaf.
#[inline(always)]
pub(super) fn row_sums<F: Real, const M: usize>(
    cols: usize,
    mut leaf: impl FnMut(usize) -> [F; M],
) -> [F; M] {
    if cols <= LEAF {
        return leaf(0);
    }
    let mut sums: [Pairwise<F>; M] = std::array::from_fn(|_| Pairwise::default());
    for index in 0..cols.div_ceil(LEAF) {
        for (sum, value) in sums.iter_mut().zip(leaf(index)) {
            sum.push(value);
        }
    }
    sums.map(|sum| sum.total())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;
    use crate::plan::tree;

    #[test]
    fn every_instruction_set_computes_the_stated_tree() {
        for cols in [1, 2, 31, 32, 33, 255, 256, 257, 769, 4095, 4096, 4097, 70_000] {
            let row: Vec<f32> = (0..cols).map(|i| ((i * 7919 % 1009) as f32 - 400.0) * 1.37e-3).collect();
            let expected = tree::row_sum(&row);
            for isa in Isa::available() {
                let found = isa.run(|| {
                    row_sums(cols, |leaf| {
                        let part = &row[leaf * LEAF..cols.min((leaf + 1) * LEAF)];
                        leaf_sums([part], tree::lanes(cols), |[x]| [x])
                    })
                });
                assert_eq!(found[0].to_bits(), expected.to_bits(), "{cols} columns on {isa}");
            }
        }
    }
}
