//! Passes in steps, with numbers per row or per leaf kept between: the `split` schedule, for few and long rows, whose
//! leaves are tasks of their own; the `column` schedule's for rows of several leaves. Their backward passes end with
//! [chunks](super::chunks) of rows.

use super::Cpu;
use super::affine::{Accumulators, ColumnSums};
use super::chunks::{Cut, Rows, run_chunks};
use super::column;
use super::column_backward;
use super::launch::{Shared, with_kept, with_scratch};
use super::memory::finish_streaming;
use super::norm::TASK;
use super::real::Real;
use super::row::{self, Forward};
use super::row_backward::{self, Backward, RowTerms};
use super::statistics::{Moments, Statistics, Sums};
use crate::plan::tree::{LEAF, Pairwise};
use crate::spec::{MOMENTS, STATISTICS, SUMS};
use std::ops::Range;

/// Leaves that a task of `split` normalizes.
const LEAVES: usize = TASK / LEAF;

/// Numbers of which each row or leaf has `N`, shared out among tasks.
pub(super) struct Kept<'a, F, const N: usize>(Shared<'a, F>);

impl<'a, F: Real, const N: usize> Kept<'a, F, N> {
    fn new(numbers: &'a mut [F]) -> Self {
        Kept(Shared::new(numbers))
    }

    fn set(&self, index: usize, numbers: [F; N]) {
        // SAFETY: a row or leaf is written by one task, before a later step reads it.
        unsafe { self.0.part(index * N..(index + 1) * N) }.copy_from_slice(&numbers);
    }

    fn get(&self, index: usize) -> &[F] {
        // SAFETY: as in `set`; nothing is written while it is read.
        unsafe { self.0.part(index * N..(index + 1) * N) }
    }
}

/// The sums of rows, where a later step needs them.
pub(super) struct RowSums<'a, F>(Option<Kept<'a, F, SUMS>>);

impl<F: Real> RowSums<'_, F> {
    pub(super) fn put(&self, row: usize, sums: &Sums<F>) {
        if let Some(kept) = &self.0 {
            kept.set(row, sums.to_numbers());
        }
    }

    pub(super) fn get(&self, row: usize) -> Sums<F> {
        self.0.as_ref().map_or(Sums::none(), |kept| Sums::from_numbers(kept.get(row)))
    }
}

/// Lends memory for the sums of all rows if they are `needed`.
pub(super) fn with_row_sums<F: Real>(
    job: &Backward<'_, F>,
    needed: bool,
    body: impl FnOnce(&RowSums<'_, F>),
) {
    let len = if needed { job.rows * SUMS } else { 0 };
    with_kept(len, |numbers| body(&RowSums(needed.then(|| Kept::new(numbers)))));
}

/// Moments of every leaf by `leaf`, then the statistics of every row, then each row's columns by `apply`.
fn forward_steps<F: Real>(
    job: &Forward<'_, F>,
    leaf: impl FnOnce(&Kept<'_, F, MOMENTS>, usize),
    apply: impl FnOnce(&Kept<'_, F, STATISTICS>),
) {
    let measure = job.constants.measure;
    let leaves = job.constants.cols.div_ceil(LEAF);
    let is_taken = job.given.is_none() || job.moments.is_some();
    let of_leaves = if is_taken { job.rows * leaves * MOMENTS } else { 0 };
    with_kept(of_leaves + job.rows * STATISTICS, |numbers| {
        let (of_leaves, of_rows) = numbers.split_at_mut(of_leaves);
        let (of_leaves, of_rows) = (Kept::<F, MOMENTS>::new(of_leaves), Kept::<F, STATISTICS>::new(of_rows));
        if is_taken {
            leaf(&of_leaves, leaves);
        }
        for row in 0..job.rows {
            let taken = is_taken.then(|| {
                let mut runs = Pairwise::new(Moments::none());
                for leaf in row * leaves..(row + 1) * leaves {
                    runs.push_by(Moments::from_numbers(of_leaves.get(leaf)), |a, b| a.merged(measure, b));
                }
                let moments = runs.total_by(|a, b| a.merged(measure, b)).unwrap_or(Moments::none());
                job.finish(row, moments)
            });
            of_rows.set(row, job.settle(row, taken).to_numbers());
        }
        if job.output.is_some() {
            apply(&of_rows);
        }
    });
}

/// A forward pass whose tasks are leaves, then groups of leaves.
pub(super) fn forward<F: Real>(job: &Forward<'_, F>, cpu: &Cpu) {
    let (rows, cols) = (job.rows, job.constants.cols);
    let of_leaves = |kept: &Kept<'_, F, MOMENTS>, leaves: usize| {
        cpu.for_each(rows * leaves, LEAF, |task| {
            with_scratch(0, |tiles, _| {
                let moments = row::Rows::new(job, tiles).leaf_moments(task / leaves, task % leaves);
                kept.set(task, moments.to_numbers());
            });
        });
    };
    forward_steps(job, of_leaves, |statistics| {
        let groups = cols.div_ceil(LEAVES * LEAF);
        cpu.for_each(rows * groups, LEAVES * LEAF, |task| {
            let (row, group) = (task / groups, task % groups);
            let part = group * LEAVES * LEAF..cols.min((group + 1) * LEAVES * LEAF);
            with_scratch(0, |tiles, _| {
                let s = Statistics::from_numbers(statistics.get(row));
                row::Rows::new(job, tiles).apply(row, s, part);
            });
            if job.streamed.is_some() {
                finish_streaming();
            }
        });
    });
}

/// Runs `task` for each leaf, whose number and columns it is told, of each block of `width` neighbouring rows, of which
/// `adjacent` lie side by side.
fn for_each_leaf(
    cpu: &Cpu,
    [rows, cols]: [usize; 2],
    adjacent: usize,
    width: usize,
    task: impl Fn(column::Rows, usize, Range<usize>) + Send + Sync,
) {
    let (blocks, leaves) = (column::Rows::blocks(rows, adjacent, width), cols.div_ceil(LEAF));
    cpu.for_each(blocks * leaves, width * LEAF, |index| {
        let (block, leaf) = (column::Rows::block(index / leaves, adjacent, width), index % leaves);
        task(block, leaf, leaf * LEAF..cols.min((leaf + 1) * LEAF));
    });
}

/// A forward pass whose tasks are leaves of blocks of neighbouring rows, then columns of such blocks.
pub(super) fn forward_columns<F: Real>(job: &Forward<'_, F>, adjacent: usize, cpu: &Cpu) {
    let dim = [job.rows, job.constants.cols];
    let width = column::forward_width(cpu, job, adjacent);
    let of_leaves = |kept: &Kept<'_, F, MOMENTS>, leaves: usize| {
        for_each_leaf(cpu, dim, adjacent, width, |block, leaf, cols| {
            column::leaf_moments(job, block, cols, |i, moments| {
                kept.set((block.first + i) * leaves + leaf, moments.to_numbers());
            });
        });
    };
    forward_steps(job, of_leaves, |statistics| {
        for_each_leaf(cpu, dim, adjacent, width, |block, _, cols| {
            column::apply(job, block, cols, |i| Statistics::from_numbers(statistics.get(block.first + i)));
        });
    });
}

/// Sums of every leaf by `leaf`, then of every row, then the gradients by `apply`.
fn backward_steps<F: Real>(
    job: &Backward<'_, F>,
    leaf: impl FnOnce(&Kept<'_, F, SUMS>, usize),
    apply: impl FnOnce(&RowSums<'_, F>),
) {
    let leaves = job.constants.cols.div_ceil(LEAF);
    let of_leaves = if job.needs_sums() { job.rows * leaves * SUMS } else { 0 };
    with_kept(of_leaves + job.rows * SUMS, |numbers| {
        let (of_leaves, of_rows) = numbers.split_at_mut(of_leaves);
        let (of_leaves, of_rows) = (Kept::<F, SUMS>::new(of_leaves), RowSums(Some(Kept::new(of_rows))));
        if job.needs_sums() {
            leaf(&of_leaves, leaves);
        }
        for row in 0..job.rows {
            let taken = job.needs_sums().then(|| {
                let mut runs = Pairwise::new(Sums::none());
                for leaf in row * leaves..(row + 1) * leaves {
                    runs.push_by(Sums::from_numbers(of_leaves.get(leaf)), Sums::merged);
                }
                runs.total_by(Sums::merged).unwrap_or(Sums::none())
            });
            of_rows.put(row, &job.settle(row, taken));
        }
        apply(&of_rows);
    });
}

/// A backward pass whose tasks are leaves, then parts of chunks of rows.
pub(super) fn backward<F: Real>(job: &Backward<'_, F>, cut: Cut, partials: &mut [F], cpu: &Cpu) {
    let of_leaves = |kept: &Kept<'_, F, SUMS>, leaves: usize| {
        cpu.for_each(job.rows * leaves, LEAF, |task| {
            let row = task / leaves;
            with_scratch(0, |tiles, _| {
                let mut rows = row_backward::Rows::new(job, tiles);
                kept.set(task, rows.leaf_sums(row, job.saved(row), task % leaves).to_numbers());
            });
        });
    };
    backward_steps(job, of_leaves, |sums| {
        run_chunks(job, cut, [partials, &mut [], &mut []], Rows::Known(sums), cpu)
    });
}

/// A backward pass whose tasks are leaves of blocks of neighbouring rows, then columns of such blocks.
pub(super) fn backward_columns<F: Real>(
    job: &Backward<'_, F>,
    adjacent: usize,
    cut: Cut,
    partials: &mut [F],
    cpu: &Cpu,
) {
    let dim = [job.rows, job.constants.cols];
    let width = column_backward::backward_width(cpu, job, adjacent);
    let of_leaves = |kept: &Kept<'_, F, SUMS>, leaves: usize| {
        for_each_leaf(cpu, dim, adjacent, width, |block, leaf, cols| {
            column_backward::leaf_sums(job, block, cols, |i, sums| {
                kept.set((block.first + i) * leaves + leaf, sums.to_numbers());
            });
        });
    };
    backward_steps(job, of_leaves, |sums| {
        if job.grad_input.is_some() {
            for_each_leaf(cpu, dim, adjacent, width, |block, _, cols| {
                column_backward::apply(job, block, cols, |i| sums.get(block.first + i));
            });
        }
        add_sums(job, cut, sums, partials);
    });
}

/// The chunks' partial sums of parameters that do not vary in a row, from the rows' sums.
pub(super) fn add_sums<F: Real>(job: &Backward<'_, F>, cut: Cut, sums: &RowSums<'_, F>, partials: &mut [F]) {
    if job.terms != RowTerms::Sums {
        return;
    }
    let wanted = job.wanted();
    let kept = cut.kept;
    with_scratch(kept * wanted, |_, leaves| {
        for (index, part) in partials.chunks_exact_mut((kept * wanted).max(1)).enumerate() {
            let range = index * cut.chunk..cut.rows.min((index + 1) * cut.chunk);
            let mut accumulators = accumulators(job, kept, leaves, part);
            for (index, r) in range.enumerate() {
                accumulators.begin_row(index, 0..kept);
                (0..kept).for_each(|j| accumulators.add_sums(j, &sums.get(r * kept + j)));
            }
            accumulators.finish();
        }
    });
}

/// Accumulators of `len` parameters, the weight's first.
fn accumulators<'p, F: Real>(
    job: &Backward<'_, F>,
    len: usize,
    leaves: &'p mut [F],
    chunk: &'p mut [F],
) -> Accumulators<'p, F> {
    let (isa, of_weight) = (job.constants.isa, if job.wants_weight { len } else { 0 });
    let ((weight_leaf, bias_leaf), (weight, bias)) =
        (leaves.split_at_mut(of_weight), chunk.split_at_mut(of_weight));
    Accumulators {
        weight: job.wants_weight.then(|| ColumnSums::new(isa, weight_leaf, weight)),
        bias: job.wants_bias.then(|| ColumnSums::new(isa, bias_leaf, bias)),
    }
}
