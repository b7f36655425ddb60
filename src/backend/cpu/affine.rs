//! Gradients of weight, bias and alpha: sums over rows, in the order that `plan::tree` fixes.
//!
//! While a schedule walks a chunk of rows it adds each row's terms to a row leaf; a full row leaf is added to the
//! chunk's partial sums. When all chunks are done, their partials are added pairwise, column by column.

use super::elementwise::AddTerms;
use super::lanes::Over;
use super::real::Real;
use super::sink::Sink;
use super::statistics::Sums;
use super::{Cpu, Isa};
use crate::plan::tree::{LEAF, ROW_LEAF};
use std::ops::Range;

/// Sums over rows, one per column: of the row leaf at hand, and of the chunk.
pub(super) struct ColumnSums<'a, F> {
    leaf: &'a mut [F],
    chunk: &'a mut [F],
    isa: Isa,
}

impl<'a, F: Real> ColumnSums<'a, F> {
    /// Sums of a new chunk, in `chunk`; `leaf` is scratch of the same length.
    pub(super) fn new(isa: Isa, leaf: &'a mut [F], chunk: &'a mut [F]) -> Self {
        chunk.fill(F::ZERO);
        ColumnSums { leaf, chunk, isa }
    }

    /// Before the row that is `index` rows into its chunk adds to these columns: where a row leaf begins, its sums
    /// start from zero and those of the row leaf before go to the chunk.
    pub(super) fn begin_row(&mut self, index: usize, cols: Range<usize>) {
        if !index.is_multiple_of(ROW_LEAF) {
            return;
        }
        let (leaf, chunk) = (&mut self.leaf[cols.clone()], &mut self.chunk[cols]);
        if index > 0 {
            add_all(leaf, chunk);
        }
        leaf.fill(F::ZERO);
    }

    /// Adds the terms `a`, or `a * b`, of columns from `col` on of the row at hand.
    #[inline(always)]
    pub(super) fn add(&mut self, col: usize, a: &[F], b: Option<&[F]>) {
        let sums = &mut self.leaf[col..col + a.len()];
        if let ([sum], [a], None) = (&mut *sums, a, b) {
            *sum += *a;
            return;
        }
        self.isa.run(Over(AddTerms { sums, a, b }));
    }

    /// The sums of the row leaf at hand, of columns from `col` on, to add to.
    pub(super) fn columns(&mut self, col: usize, len: usize) -> &mut [F] {
        &mut self.leaf[col..col + len]
    }

    /// After the chunk's last row, of which there is at least one.
    pub(super) fn finish(self) {
        add_all(self.leaf, self.chunk);
    }
}

/// The parameter gradients' sums over the rows of a chunk, as far as a task adds to them.
pub(super) struct Accumulators<'p, F> {
    pub(super) weight: Option<ColumnSums<'p, F>>,
    pub(super) bias: Option<ColumnSums<'p, F>>,
}

impl<F: Real> Accumulators<'_, F> {
    /// Before the row that is `index` rows into its chunk adds to these parameters.
    pub(super) fn begin_row(&mut self, index: usize, params: Range<usize>) {
        for sums in [&mut self.weight, &mut self.bias].into_iter().flatten() {
            sums.begin_row(index, params.clone());
        }
    }

    /// The sums of some parameters, of the weight and of the bias.
    pub(super) fn columns(&mut self, param: usize, len: usize) -> (Option<&mut [F]>, Option<&mut [F]>) {
        (
            self.weight.as_mut().map(|sums| sums.columns(param, len)),
            self.bias.as_mut().map(|sums| sums.columns(param, len)),
        )
    }

    /// Adds what a row's sums say.
    pub(super) fn add_sums(&mut self, param: usize, sums: &Sums<F>) {
        let (g, w) = sums.exponents();
        self.add_terms(param, sums.s2.scale(g + w), sums.s1.scale(g + w));
    }

    /// Adds one term of a parameter of each.
    pub(super) fn add_terms(&mut self, param: usize, weight: F, bias: F) {
        for (to, term) in [(&mut self.weight, weight), (&mut self.bias, bias)] {
            if let Some(to) = to {
                to.add(param, &[term], None);
            }
        }
    }

    /// After the chunk's last row.
    pub(super) fn finish(self) {
        for sums in [self.weight, self.bias].into_iter().flatten() {
            sums.finish();
        }
    }
}

/// `to = to + from`.
#[inline(always)]
fn add_all<F: Real>(from: &[F], to: &mut [F]) {
    for (to, &from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// Adds the chunks' partial sums pairwise and writes them to `sink`. `partials` is `[chunks, stride]`, of which this
/// parameter's columns start at `offset`.
pub(super) fn finish<F: Real>(
    sink: &Sink<'_>,
    partials: &[F],
    stride: usize,
    offset: usize,
    cols: usize,
    cpu: &Cpu,
) {
    cpu.for_each(cols.div_ceil(LEAF), 1, |piece| {
        let first = piece * LEAF;
        let len = LEAF.min(cols - first);
        super::launch::with_scratch::<F, _>(0, |[tile, ..], _| {
            let out = sink.begin(0, first, tile, len);
            sum_chunks(partials, stride, offset + first, out);
            sink.commit(0, first, out);
        });
    });
}

/// Columns summed together.
const BLOCK: usize = 32;

/// The pairwise sum of every chunk's partials, for the columns from `first` on: the stack of
/// [`Pairwise`](crate::plan::tree::Pairwise), a block of columns wide.
pub(super) fn sum_chunks<F: Real>(partials: &[F], stride: usize, first: usize, out: &mut [F]) {
    // Each block writes a level before it reads it, so what another left there does not matter. Clearing it for each was a
    // quarter of the backward pass of one row.
    let mut stack = [[F::ZERO; BLOCK]; 64];
    for (block, out) in out.chunks_mut(BLOCK).enumerate() {
        let at = first + block * BLOCK;
        for (count, chunk) in partials.chunks_exact(stride.max(1)).enumerate() {
            let mut sum = [F::ZERO; BLOCK];
            sum[..out.len()].copy_from_slice(&chunk[at..at + out.len()]);
            let carries = count.trailing_ones() as usize;
            for low in &stack[..carries] {
                add(low, &mut sum);
            }
            stack[carries] = sum;
        }
        // What is left stands for the set bits of the number of chunks, added from the lowest up.
        let count = partials.len() / stride.max(1);
        let mut total = [F::ZERO; BLOCK];
        let mut begun = false;
        for (level, sum) in stack.iter().enumerate().filter(|(level, _)| count >> level & 1 == 1) {
            if begun {
                add(sum, &mut total);
            } else {
                total = stack[level];
                begun = true;
            }
        }
        out.copy_from_slice(&total[..out.len()]);
    }
}

/// `to = from + to`.
#[inline(always)]
fn add<F: Real>(from: &[F; BLOCK], to: &mut [F; BLOCK]) {
    for i in 0..BLOCK {
        to[i] = from[i] + to[i];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tree::Pairwise;

    #[test]
    fn chunks_are_added_pairwise() {
        let cols = 37;
        for chunks in [0, 1, 2, 3, 7, 8, 100] {
            let partials: Vec<f32> = (0..chunks * cols).map(|i| 1.0 / (1 + i * 7919 % 1013) as f32).collect();
            let mut out = vec![1f32; cols];
            sum_chunks(&partials, cols, 0, &mut out);
            for (col, &found) in out.iter().enumerate() {
                let mut expected = Pairwise::default();
                (0..chunks).for_each(|chunk| expected.push(partials[chunk * cols + col]));
                assert_eq!(found.to_bits(), expected.total().to_bits());
            }
        }
    }
}
