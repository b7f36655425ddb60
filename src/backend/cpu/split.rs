//! Passes in steps, with numbers per row or per leaf kept between: the `split` schedule, for few and long rows, whose
//! leaves are tasks of their own; the `column` schedule's for rows of several leaves; and the chunks of rows that all
//! backward passes sum over.

use super::affine::{Accumulators, ColumnSums};
use super::column;
use super::column_backward;
use super::gathered::Gathered;
use super::launch::{Shared, Tiles, with_kept, with_scratch};
use super::memory::finish_streaming;
use super::norm::{Cut, TASK};
use super::real::Real;
use super::row::{self, Forward};
use super::row_backward::{self, Backward, RowTerms};
use super::statistics::{Moments, Statistics, Sums};
use super::usual_backward::TaskRows;
use super::{Cpu, fused_backward};
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

/// What a task of a backward pass does about its rows.
pub(super) enum Rows<'j, 'a, F> {
    /// It takes them as they lie.
    Plain,
    /// Their sums are known.
    Known(&'j RowSums<'j, F>),
    /// They pass through scratch memory, with what surrounds the norm.
    Fused(&'j fused_backward::Backward<'a, F>),
}

impl<'j, 'a, F> Rows<'j, 'a, F> {
    pub(super) fn of(fused: Option<&'j fused_backward::Backward<'a, F>>) -> Self {
        fused.map_or(Rows::Plain, Rows::Fused)
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

    fn get(&self, row: usize) -> Sums<F> {
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
    backward_steps(job, of_leaves, |sums| run_chunks(job, cut, partials, Rows::Known(sums), cpu));
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

/// Runs all chunks of rows. A task is a chunk and some of the kept rows beside each other; or, where the rows' sums are
/// known, a part of the columns of a single one.
pub(super) fn run_chunks<F: Real>(
    job: &Backward<'_, F>,
    cut: Cut,
    partials: &mut [F],
    how: Rows<'_, '_, F>,
    cpu: &Cpu,
) {
    let known = if let Rows::Known(sums) = how { Some(sums) } else { None };
    let Cut { rows, kept, per_row, chunk } = cut;
    let (cols, units) = (job.constants.cols, job.units());
    let of_chunk = chunk.min(rows) * cols;
    let beside = TASK.div_ceil(of_chunk.max(1)).min(kept.max(1));
    // In whole leaves where a unit is a column.
    let step = match known {
        Some(_) if beside == 1 && cols > 0 => {
            let wanted = (units * TASK).div_ceil(of_chunk.max(1));
            if units == cols { wanted.next_multiple_of(LEAF) } else { wanted.max(1) }
        }
        _ => units.max(1),
    };
    let (groups, parts) = (kept.div_ceil(beside), units.div_ceil(step).max(1));
    let count = job.wanted();
    let params = cut.params();
    let partials = Shared::new(partials);
    let gathered = if matches!(how, Rows::Plain) { Gathered::new(job) } else { None };
    cpu.for_each(cut.chunks() * groups * parts, of_chunk * beside / parts, |task| {
        let (index, group, part) = (task / parts / groups, task / parts % groups, task % parts);
        let range = index * chunk..rows.min((index + 1) * chunk);
        let beside = group * beside..kept.min((group + 1) * beside);
        let part = part * step..units.min((part + 1) * step);
        // Parameters of a row that this task adds to: those of its sub-rows, or the row's only one in its first part.
        let own = match job.terms {
            RowTerms::None => 0..0,
            RowTerms::Sums => 0..usize::from(part.start == 0),
            RowTerms::SubRows(_) => part.clone(),
        };
        let len = beside.len() * own.len();
        let rows = TaskRows { chunk: range, beside, kept, params: own.len() };
        let lines = match &how {
            Rows::Fused(fused) => fused.scratch(&rows),
            _ if gathered.is_some() => 2 * cols,
            _ => 0,
        };
        with_scratch(len * count + lines, |tiles, numbers| {
            let (leaves, lines) = numbers.split_at_mut(len * count);
            let first = index * params * count + rows.beside.start * per_row + own.start;
            let (weight_leaf, bias_leaf) = leaves.split_at_mut(if job.wants_weight { len } else { 0 });
            let sums = |leaf, at: usize| {
                // SAFETY: this task alone has this chunk and these parameters.
                let chunk = unsafe { partials.part(at..at + len) };
                ColumnSums::new(job.constants.isa, leaf, chunk)
            };
            let accumulators = Accumulators {
                weight: (job.wants_weight && len > 0).then(|| sums(weight_leaf, first)),
                bias: (job.wants_bias && len > 0).then(|| sums(bias_leaf, first + params * (count - 1))),
            };
            let task = Task { job, rows, part, known };
            match (&how, &gathered) {
                (Rows::Fused(fused), _) => task.run_fused(fused, lines, accumulators, tiles),
                (_, Some(gathered)) => task.run_gathered(gathered, lines, accumulators, tiles),
                _ => task.run(accumulators, tiles),
            }
        });
    });
}

/// Rows of a chunk, or a part of their columns.
struct Task<'j, 'a, F> {
    job: &'j Backward<'a, F>,
    rows: TaskRows,
    part: Range<usize>,
    known: Option<&'j RowSums<'j, F>>,
}

impl<F: Real> Task<'_, '_, F> {
    fn run(&self, mut accumulators: Accumulators<'_, F>, tiles: Tiles<'_, F>) {
        self.run_from(0, &mut accumulators, tiles);
        accumulators.finish();
        if self.job.streamed.is_some() {
            finish_streaming();
        }
    }

    /// Handles the rows from a place on.
    fn run_from(&self, mut at: usize, accumulators: &mut Accumulators<'_, F>, tiles: Tiles<'_, F>) {
        let Task { job, rows, known, .. } = self;
        let mut operands = row_backward::Rows::new(job, tiles);
        let has_usual_rows = known.is_none() && job.has_usual_rows();
        while at < rows.len() {
            if has_usual_rows {
                at = operands.usual(rows, at, accumulators);
                if at == rows.len() {
                    break;
                }
            }
            self.row(at, &mut operands, accumulators);
            at += 1;
        }
    }

    /// With rows that pass through scratch memory, in `lines`.
    fn run_fused(
        &self,
        fused: &fused_backward::Backward<'_, F>,
        lines: &mut [F],
        mut accumulators: Accumulators<'_, F>,
        mut tiles: Tiles<'_, F>,
    ) {
        for (rows, from) in fused.blocks(&self.rows) {
            fused.with_rows(&rows, from, lines, &mut tiles, |job, tiles| {
                let task = Task { job, rows: rows.clone(), part: self.part.clone(), known: None };
                task.run_from(from, &mut accumulators, tiles);
            });
        }
        accumulators.finish();
        if self.job.streamed.is_some() {
            finish_streaming();
        }
    }

    /// With rows that are brought together first, in `lines`.
    fn run_gathered(
        &self,
        gathered: &Gathered,
        lines: &mut [F],
        mut accumulators: Accumulators<'_, F>,
        mut tiles: Tiles<'_, F>,
    ) {
        let (g, x) = lines.split_at_mut(lines.len() / 2);
        for at in 0..self.rows.len() {
            let (row, ..) = self.rows.row(at);
            gathered.with_row(self.job, row, [&mut *g, &mut *x], |job| {
                let tiles = tiles.each_mut().map(|tile| &mut **tile);
                self.row(at, &mut row_backward::Rows::new(job, tiles), &mut accumulators);
            });
        }
        accumulators.finish();
    }

    /// Handles the row at place `at`.
    fn row(
        &self,
        at: usize,
        operands: &mut row_backward::Rows<'_, '_, F>,
        accumulators: &mut Accumulators<'_, F>,
    ) {
        let Task { job, rows, part, known } = self;
        let (row, index, param) = rows.row(at);
        if at.is_multiple_of(rows.beside.len()) {
            accumulators.begin_row(index, rows.all_params());
        }
        let s: Statistics<F> = job.saved(row);
        let sums = match known {
            Some(known) => known.get(row),
            None => {
                let taken = job.needs_sums().then(|| operands.sums(row, s));
                job.settle(row, taken)
            }
        };
        operands.gradients(row, s, &sums, part.clone(), param, accumulators);
    }
}
