//! Chunks of rows, which all backward passes sum over: the tasks of the `row` schedule, and the last step of `split`.

use super::affine::{Accumulators, ColumnSums};
use super::gathered::Gathered;
use super::launch::{Shared, Tasks, Tiles, with_scratch};
use super::memory::finish_streaming;
use super::norm::TASK;
use super::real::Real;
use super::row_backward::{self, Backward, RowTerms};
use super::split::RowSums;
use super::statistics::Statistics;
use super::usual_backward::TaskRows;
use super::{Cpu, fused_backward};
use crate::plan::tree::LEAF;
use std::ops::Range;

/// How a backward pass is cut: `rows` of the sums over rows, each with `kept` rows of the norm side by side, each of
/// which has `per_row` parameters.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) rows: usize,
    pub(super) kept: usize,
    pub(super) per_row: usize,
    pub(super) chunk: usize,
}

impl Cut {
    pub(super) fn params(&self) -> usize {
        self.kept * self.per_row
    }

    pub(super) fn chunks(&self) -> usize {
        self.rows.div_ceil(self.chunk)
    }
}

/// Norms that a pass may have: its own, that of a branch and that of a residual.
pub(super) const NORMS: usize = 3;

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

/// All chunks of rows. A task is a chunk and some of the kept rows beside each other; or, where the rows' sums are known, a part of
/// the columns of a single one.
pub(super) struct Chunks<'j, 'a, F> {
    job: &'j Backward<'a, F>,
    /// The norms of a branch and of a residual.
    inners: [Option<&'j Backward<'a, F>>; NORMS - 1],
    how: Rows<'j, 'a, F>,
    known: Option<&'j RowSums<'j, F>>,
    gathered: Option<Gathered>,
    cut: Cut,
    /// The chunks' sums, of each norm's parameters.
    partials: [Shared<'j, F>; NORMS],
    /// Rows of a task that lie beside each other, and units of each that it takes.
    beside: usize,
    step: usize,
}

/// Runs all chunks of rows, whose sums go to `partials`.
pub(super) fn run_chunks<F: Real>(
    job: &Backward<'_, F>,
    cut: Cut,
    partials: [&mut [F]; NORMS],
    how: Rows<'_, '_, F>,
    cpu: &Cpu,
) {
    cpu.run_all(&[Chunks::new(job, cut, partials, how)]);
}

impl<'j, 'a, F: Real> Chunks<'j, 'a, F> {
    pub(super) fn new(
        job: &'j Backward<'a, F>,
        cut: Cut,
        partials: [&'j mut [F]; NORMS],
        how: Rows<'j, 'a, F>,
    ) -> Self {
        let known = if let Rows::Known(sums) = how { Some(sums) } else { None };
        let (cols, units) = (job.constants.cols, job.units());
        let of_chunk = cut.chunk.min(cut.rows) * cols;
        let beside = TASK.div_ceil(of_chunk.max(1)).min(cut.kept.max(1));
        // In whole leaves where a unit is a column.
        let step = match known {
            Some(_) if beside == 1 && cols > 0 => {
                let wanted = (units * TASK).div_ceil(of_chunk.max(1));
                if units == cols { wanted.next_multiple_of(LEAF) } else { wanted.max(1) }
            }
            _ => units.max(1),
        };
        let inners = if let Rows::Fused(fused) = &how { fused.inners() } else { [None, None] };
        let gathered = if matches!(how, Rows::Plain) { Gathered::new(job) } else { None };
        Chunks { job, inners, how, known, gathered, cut, partials: partials.map(Shared::new), beside, step }
    }

    /// Tasks beside each other in a chunk, and parts of a row.
    fn groups_and_parts(&self) -> (usize, usize) {
        (self.cut.kept.div_ceil(self.beside), self.job.units().div_ceil(self.step).max(1))
    }
}

impl<F: Real> Tasks for Chunks<'_, '_, F> {
    fn count(&self) -> usize {
        let (groups, parts) = self.groups_and_parts();
        self.cut.chunks() * groups * parts
    }

    fn elements(&self) -> usize {
        let of_chunk = self.cut.chunk.min(self.cut.rows) * self.job.constants.cols;
        of_chunk * self.beside / self.groups_and_parts().1
    }

    fn run(&self, task: usize) {
        let Chunks { job, inners, ref how, known, ref gathered, cut, ref partials, beside, step } = *self;
        let Cut { rows, kept, per_row, chunk } = cut;
        let (cols, units, (groups, parts)) = (job.constants.cols, job.units(), self.groups_and_parts());
        let counts = inners.map(|inner| inner.map_or(0, |inner| inner.wanted()));
        let sums = job.wanted() + counts.iter().sum::<usize>();
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
        let lines = match how {
            Rows::Fused(fused) => fused.scratch(&rows),
            _ if gathered.is_some() => 2 * cols,
            _ => 0,
        };
        with_scratch(len * sums + lines, |tiles, numbers| {
            let (leaves, lines) = numbers.split_at_mut(len * sums);
            let (leaves, of_inners) = leaves.split_at_mut(len * job.wanted());
            let (of_inner, of_residual) = of_inners.split_at_mut(len * counts[0]);
            let place =
                Place { index, first: rows.beside.start * per_row + own.start, len, params: cut.params() };
            // SAFETY: this task alone has this chunk and these parameters, in the sums of each norm.
            let [of_norm, of_branch] = unsafe { accumulators(job, &place, leaves, &partials[0]) };
            let of_inners = [(inners[0], of_inner, &partials[1]), (inners[1], of_residual, &partials[2])];
            let [of_inner, of_residual] = of_inners.map(|(inner, leaves, partials)| {
                // SAFETY: as above.
                let [of_inner, _] = unsafe { accumulators(inner?, &place, leaves, partials) };
                Some(of_inner)
            });
            let task = Task { job, rows, part, known };
            match (how, gathered) {
                (Rows::Fused(fused), _) => {
                    let of_all = [Some(of_norm), of_inner, of_residual];
                    task.run_fused(fused, lines, (of_all, of_branch), tiles);
                }
                (_, Some(gathered)) => task.run_gathered(gathered, lines, of_norm, tiles),
                _ => task.run(of_norm, tiles),
            }
        });
    }
}

/// The parameters that a task adds to: `len` from `first` on of the `params` of chunk `index`.
struct Place {
    index: usize,
    first: usize,
    len: usize,
    params: usize,
}

/// What adds to those parameters, as far as they are wanted, one after the other in a chunk: to the weight and the bias, and to what
/// shifts and scales a branch.
///
/// # Safety
/// No other task that runs has this place in `partials`.
unsafe fn accumulators<'p, F: Real>(
    job: &Backward<'_, F>,
    place: &Place,
    leaves: &'p mut [F],
    partials: &'p Shared<'_, F>,
) -> [Accumulators<'p, F>; 2] {
    let &Place { index, first, len, params } = place;
    let mut leaves = leaves.chunks_exact_mut(len.max(1));
    let mut at = index * params * job.wanted() + first;
    let mut sums = |is_wanted: bool| {
        let leaf = if is_wanted { leaves.next()? } else { return None };
        // SAFETY: by the caller's promise.
        let chunk = unsafe { partials.part(at..at + len) };
        at += params;
        Some(ColumnSums::new(job.constants.isa, leaf, chunk))
    };
    let of_norm = Accumulators { weight: sums(job.wants_weight), bias: sums(job.wants_bias) };
    let [bias, scale] = job.wants_branch;
    let bias = sums(bias);
    [of_norm, Accumulators { weight: sums(scale), bias }]
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

    /// With rows that pass through scratch memory, in `lines`, and with what adds to the parameters of each norm, and to what shifts and
    /// scales a branch.
    fn run_fused(
        &self,
        fused: &fused_backward::Backward<'_, F>,
        lines: &mut [F],
        (mut accumulators, mut of_branch): ([Option<Accumulators<'_, F>>; NORMS], Accumulators<'_, F>),
        mut tiles: Tiles<'_, F>,
    ) {
        for (rows, from) in fused.blocks(&self.rows) {
            fused.with_rows(&rows, from, lines, &mut tiles, &mut of_branch, |norm, job, tiles| {
                let task = Task { job, rows: rows.clone(), part: self.part.clone(), known: None };
                if let Some(accumulators) = &mut accumulators[norm] {
                    task.run_from(from, accumulators, tiles);
                }
            });
        }
        accumulators.into_iter().flatten().for_each(Accumulators::finish);
        of_branch.finish();
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
