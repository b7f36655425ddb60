//! Gradients of weight, bias and alpha: sums over rows, in the order that `plan::tree` fixes.
//!
//! While a schedule walks a chunk of rows it adds each row's terms to a row leaf; a full row leaf is added to the
//! chunk's partial sums. When all chunks are done, their partials are added pairwise, column by column.

use super::Cpu;
use super::operand::Sink;
use super::real::Real;
use crate::plan::tree::{LEAF, Pairwise, ROW_LEAF};

/// Sums over rows, one per column: of a row leaf at hand, and of the chunk.
pub(super) struct ColumnSums<'a, F> {
    leaf: &'a mut [F],
    chunk: &'a mut [F],
    /// Whether the row at hand begins a row leaf.
    first: bool,
}

impl<'a, F: Real> ColumnSums<'a, F> {
    /// Sums of a new chunk, in `chunk`; `leaf` is scratch of the same length.
    pub(super) fn new(leaf: &'a mut [F], chunk: &'a mut [F]) -> Self {
        chunk.fill(F::ZERO);
        ColumnSums { leaf, chunk, first: true }
    }

    /// Before the row that is `index` rows into its chunk.
    #[inline(always)]
    pub(super) fn begin_row(&mut self, index: usize) {
        self.first = index.is_multiple_of(ROW_LEAF);
        if self.first && index > 0 {
            self.flush();
        }
    }

    /// Adds the terms of columns `col..` of the row at hand.
    #[inline(always)]
    pub(super) fn add<const K: usize>(
        &mut self,
        col: usize,
        inputs: [&[F]; K],
        term: impl Fn([F; K]) -> F,
    ) {
        let len = inputs[0].len();
        let leaf = &mut self.leaf[col..col + len];
        let inputs = inputs.map(|input| &input[..len]);
        if self.first {
            for (i, sum) in leaf.iter_mut().enumerate() {
                *sum = F::ZERO + term(std::array::from_fn(|k| inputs[k][i]));
            }
        } else {
            for (i, sum) in leaf.iter_mut().enumerate() {
                *sum += term(std::array::from_fn(|k| inputs[k][i]));
            }
        }
    }

    /// After the chunk's last row, of which there is at least one.
    #[inline(always)]
    pub(super) fn finish(mut self) {
        self.flush();
    }

    #[inline(always)]
    fn flush(&mut self) {
        for (sum, leaf) in self.chunk.iter_mut().zip(&*self.leaf) {
            *sum += *leaf;
        }
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
        super::with_tiles::<F, _>(|[tile, ..], _| {
            sink.store(0, first, tile, len, |out| {
                sum_chunks(partials, stride, offset + first, out);
            });
        });
    });
}

/// The sum of every chunk's partials for the columns from `first` on.
pub(super) fn sum_chunks<F: Real>(partials: &[F], stride: usize, first: usize, out: &mut [F]) {
    for (i, out) in out.iter_mut().enumerate() {
        let mut sum = Pairwise::default();
        for chunk in partials.chunks_exact(stride.max(1)) {
            sum.push(chunk[first + i]);
        }
        *out = sum.total();
    }
}
