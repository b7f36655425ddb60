//! A norm's forward launch: operands folded to rows and columns, cut into tasks, handed to a schedule.

use super::branch::Branch;
use super::codes::Codes;
use super::dropout::Kept;
use super::launch::{Folded, Order, Tasks, per_row, with_scratch};
use super::memory::Streaming;
use super::outliers::Flags;
use super::real::Real;
use super::rotary::{self, Angles, Tables};
use super::statistics::Constants;
use super::{Cpu, Isa, Schedule, column, fused, gathered, power, row, split};
use crate::backend::Forward;
use crate::plan::tree::LEAF;
use crate::spec::{MOMENTS, Norm, STATISTICS, Statistic};
use crate::tensor::{Layout, Overlap, View, ViewMut, overlap};
use crate::{Error, Result};
use std::ops::Range;

/// Elements of a task, about.
pub(super) const TASK: usize = 1 << 15;

/// A p-norm that arithmetic has the range for.
pub(super) fn check_statistic(spec: &Norm) -> Result<()> {
    match spec.statistic {
        Statistic::Norm(p) if p > power::LARGEST && p < f64::INFINITY => {
            Err(Error::argument("p", format!("at most {}, or infinity", power::LARGEST), p))
        }
        _ => Ok(()),
    }
}

/// Leave to write an output past the caches.
pub(super) fn streaming(isa: Isa, output: Option<&ViewMut<'_>>) -> Option<Streaming> {
    output.and_then(|output| Streaming::of(isa, output.layout().len() * output.dtype().size()))
}

/// Whether an output takes the place of an operand.
pub(super) fn is_replaced(operand: &View<'_>, output: Option<&ViewMut<'_>>) -> bool {
    output.is_some_and(|to| overlap(operand, &to.as_view()) == Overlap::Same)
}

/// The layout in the spec's shape of numbers per row.
pub(super) fn row_numbers(spec: &Norm, numbers: usize, layout: Option<&Layout>) -> Option<Layout> {
    layout.map(|layout| per_row(&spec.shape, &spec.reduced, numbers, layout))
}

/// Where elements would lie in memory if their indices were places, for dropout.
pub(super) fn elements(spec: &Norm) -> Option<Layout> {
    spec.fusion.dropout.map(|_| Layout::contiguous(&spec.shape))
}

/// Which elements dropout keeps, the walk of [`elements`] being the one at `walk`.
pub(super) fn kept<'a>(spec: &Norm, folded: &'a Folded, walk: usize) -> Option<Kept<'a>> {
    spec.fusion.dropout.map(|dropout| Kept { dropout, grid: &folded.grid, walk: folded.walk(walk) })
}

/// Elements of a row.
fn columns(spec: &Norm) -> usize {
    spec.reduced.iter().map(|&axis| spec.shape[axis]).product()
}

/// A forward pass's index space, and what tables are walked over that rows choose from.
struct Space {
    folded: Folded,
    tables: Option<Tables>,
}

/// A forward pass that only has to be run.
#[allow(clippy::large_enum_variant, reason = "one for a call, on its stack, which allocates nothing")]
enum Pass<'a, F> {
    Plain(row::Forward<'a, F>),
    Fused(fused::Forward<'a, F>),
}

impl Space {
    fn new(spec: &Norm, operands: &Forward<'_>, isa: Isa) -> Self {
        let Forward { input, weight, bias, mask, given, output, statistics, moments, .. } = operands;
        let Forward { before, after, branch_bias, branch_scale, rotary, hidden, scales, inner, mix, .. } =
            operands;
        let of_inner = inner.as_ref();
        let given = row_numbers(spec, STATISTICS, given.as_ref().map(View::layout));
        let statistics = row_numbers(spec, STATISTICS, statistics.as_ref().map(ViewMut::layout));
        let moments = row_numbers(spec, MOMENTS, moments.as_ref().map(ViewMut::layout));
        let [cos, sin, positions] = rotary::layouts(spec, rotary.as_ref());
        let per_row = spec.fusion.quantization.and_then(|quantization| quantization.scales(columns(spec)));
        let scales = row_numbers(spec, per_row.unwrap_or(0), scales.as_ref().map(ViewMut::layout));
        let elements = elements(spec);
        let inner_statistics = of_inner.and_then(|inner| inner.statistics.as_ref()).map(ViewMut::layout);
        let inner_statistics = row_numbers(spec, STATISTICS, inner_statistics);
        let mix = mix.as_ref();
        let mix_statistics = mix.and_then(|mix| mix.statistics.as_ref()).map(ViewMut::layout);
        let mix_statistics = row_numbers(spec, STATISTICS, mix_statistics);
        let tensors = [
            Some(input.layout()),
            output.as_ref().map(ViewMut::layout),
            weight.as_ref().map(View::layout),
            bias.as_ref().map(View::layout),
            mask.as_ref().map(View::layout),
            given.as_ref(),
            statistics.as_ref(),
            moments.as_ref(),
            before.as_ref().map(View::layout),
            after.as_ref().map(View::layout),
            hidden.as_ref().map(ViewMut::layout),
            scales.as_ref(),
            elements.as_ref(),
            cos.as_ref(),
            sin.as_ref(),
            positions.as_ref(),
            branch_bias.as_ref().map(View::layout),
            branch_scale.as_ref().map(View::layout),
            of_inner.and_then(|inner| inner.weight.as_ref()).map(View::layout),
            of_inner.and_then(|inner| inner.bias.as_ref()).map(View::layout),
            inner_statistics.as_ref(),
            mix.and_then(|mix| mix.weight.as_ref()).map(View::layout),
            mix_statistics.as_ref(),
        ];
        let folded = Folded::new(isa, &Order::new(spec.shape.len(), &spec.reduced), &tensors);
        Space { folded, tables: Tables::of(isa, rotary.as_ref()) }
    }

    fn pass<'a, F: Real>(&'a self, spec: &Norm, operands: &'a Forward<'_>, isa: Isa) -> Result<Pass<'a, F>> {
        let Space { folded, tables } = self;
        let Forward { input, output, before, after, hidden, scales, rotary, .. } = operands;
        let cols = folded.grid.cols;
        let in_place = is_replaced(input, output.as_ref()) || is_replaced(input, hidden.as_ref());
        let job = row::Forward::<F> {
            constants: Constants::new(isa, spec, cols, input.dtype()),
            rows: folded.grid.rows,
            streamed: streaming(isa, output.as_ref()),
            input: folded.source("input", input, 0, in_place)?,
            output: folded.optional_sink("output", output.as_ref(), 1)?,
            weight: folded.optional("weight", operands.weight.as_ref(), 2)?,
            bias: folded.optional("bias", operands.bias.as_ref(), 3)?,
            mask: folded.optional("mask", operands.mask.as_ref(), 4)?,
            given: folded.optional("statistics", operands.given.as_ref(), 5)?,
            statistics: folded.optional_sink("statistics", operands.statistics.as_ref(), 6)?,
            moments: folded.optional_sink("moments", operands.moments.as_ref(), 7)?,
        };
        if spec.fusion.is_none() {
            return Ok(Pass::Plain(job));
        }
        let inner = match operands.inner.as_ref().zip(spec.inner()) {
            None => None,
            Some((inner, norm)) => Some(row::Forward {
                constants: Constants::new(isa, &norm, cols, input.dtype()),
                weight: folded.optional("inner weight", inner.weight.as_ref(), 18)?,
                bias: folded.optional("inner bias", inner.bias.as_ref(), 19)?,
                statistics: folded.optional_sink("inner statistics", inner.statistics.as_ref(), 20)?,
                mask: None,
                given: None,
                moments: None,
                ..job
            }),
        };
        let residual = match (&operands.mix, &inner, before) {
            (Some(mix), Some(inner), Some(before)) => Some(row::Forward {
                input: folded.source("before", before, 8, is_replaced(before, output.as_ref()))?,
                weight: folded.optional("weight of the residual's norm", mix.weight.as_ref(), 21)?,
                statistics: folded.optional_sink("residual statistics", mix.statistics.as_ref(), 22)?,
                ..*inner
            }),
            _ => None,
        };
        let codes = match spec.fusion.quantization {
            None => None,
            Some(quantization) => {
                let flags = operands.flags.as_ref().and_then(Flags::new);
                let scales = folded.optional_sink("scales", scales.as_ref(), 11)?;
                Some(Codes { quantization, scales, flags })
            }
        };
        Ok(Pass::Fused(fused::Forward {
            fusion: spec.fusion,
            inner,
            residual,
            before: folded.replaced("before", before.as_ref(), 8, hidden.as_ref())?,
            after: folded.replaced("after", after.as_ref(), 9, output.as_ref())?,
            angles: Angles::of(rotary.as_ref(), folded, tables.as_ref(), 13)?,
            hidden: folded.optional_sink("hidden", hidden.as_ref(), 10)?,
            codes,
            kept: kept(spec, folded, 12),
            branch: Branch {
                bias: folded.optional("branch_bias", operands.branch_bias.as_ref(), 16)?,
                scale: folded.optional("branch_scale", operands.branch_scale.as_ref(), 17)?,
            },
            streamed_hidden: streaming(isa, hidden.as_ref()),
            job,
        }))
    }
}

impl<F: Real> Pass<'_, F> {
    fn job(&self) -> &row::Forward<'_, F> {
        match self {
            Pass::Plain(job) => job,
            Pass::Fused(fused) => &fused.job,
        }
    }

    /// Rows of a task where threads take whole rows one after the other, which are then independent of each other; `None` where
    /// it is cut otherwise.
    fn step(&self, cpu: &Cpu) -> Option<usize> {
        let job = match self {
            Pass::Plain(job) => job,
            Pass::Fused(fused) => return Some(fused.step()),
        };
        let (cols, is_column) = (job.constants.cols, column::is_possible(job, job.input.grid().adjacent()));
        let is_row = choose(cpu, [job.rows, cols], is_column) == Schedule::Row;
        (is_row && !gathered::is_possible(job)).then(|| TASK.div_ceil(cols.max(1)))
    }

    /// Runs rows that one thread takes.
    fn rows(&self, rows: Range<usize>) {
        match self {
            Pass::Plain(job) => with_scratch(0, |tiles, _| row::Rows::new(job, tiles).forward(rows)),
            Pass::Fused(fused) => fused.rows(rows),
        }
    }

    /// Runs all rows where `step` has none.
    fn run(&self, cpu: &Cpu) {
        let job = self.job();
        let (rows, cols, adjacent) = (job.rows, job.constants.cols, job.input.grid().adjacent());
        match choose(cpu, [rows, cols], column::is_possible(job, adjacent)) {
            Schedule::Row => gathered::forward(job, cpu),
            Schedule::Split => split::forward(job, cpu),
            Schedule::Column if cols <= LEAF => {
                let width = column::forward_width(cpu, job, adjacent);
                cpu.for_each(column::Rows::blocks(rows, adjacent, width), width * cols, |block| {
                    column::forward(job, column::Rows::block(block, adjacent, width));
                });
            }
            Schedule::Column => split::forward_columns(job, adjacent, cpu),
        }
    }
}

/// The tasks of a pass, of so many rows each.
struct Chunks<'p, 'a, F> {
    pass: &'p Pass<'a, F>,
    step: usize,
}

impl<F: Real> Tasks for Chunks<'_, '_, F> {
    fn count(&self) -> usize {
        self.pass.job().rows.div_ceil(self.step)
    }

    fn elements(&self) -> usize {
        self.step.saturating_mul(self.pass.job().constants.cols)
    }

    fn run(&self, task: usize) {
        let first = task * self.step;
        self.pass.rows(first..self.pass.job().rows.min(first + self.step));
    }
}

pub(super) fn forward<F: Real>(spec: &Norm, operands: &Forward<'_>, cpu: &Cpu) -> Result<()> {
    check_statistic(spec)?;
    let space = Space::new(spec, operands, cpu.isa);
    let pass = space.pass::<F>(spec, operands, cpu.isa)?;
    match pass.step(cpu) {
        Some(step) => cpu.run_all(&[Chunks { pass: &pass, step }]),
        None => pass.run(cpu),
    }
    Ok(())
}

/// Passes of which none writes what another reads or writes: rows that threads take whole in one round of these.
pub(super) fn forward_together<F: Real>(problems: &[(&Norm, &Forward<'_>)], cpu: &Cpu) -> Result<()> {
    problems.iter().try_for_each(|(spec, _)| check_statistic(spec))?;
    let spaces: Vec<Space> =
        problems.iter().map(|(spec, operands)| Space::new(spec, operands, cpu.isa)).collect();
    let passes = problems.iter().zip(&spaces);
    let passes = passes.map(|((spec, operands), space)| space.pass::<F>(spec, operands, cpu.isa));
    let passes: Vec<Pass<'_, F>> = passes.collect::<Result<_>>()?;
    let mut together = Vec::with_capacity(passes.len());
    for pass in &passes {
        match pass.step(cpu) {
            Some(step) => together.push(Chunks { pass, step }),
            None => pass.run(cpu),
        }
    }
    cpu.run_all(&together);
    Ok(())
}

/// The schedule of a pass over so many rows and columns; `is_column` tells whether `column` can run it.
pub(super) fn choose(cpu: &Cpu, [rows, cols]: [usize; 2], is_column: bool) -> Schedule {
    let wanted = cpu.schedule.unwrap_or_else(|| {
        // Fewer long rows than would keep every thread busy to the end.
        let is_long = cols >= 4 * LEAF && rows < 4 * cpu.thread_count();
        if is_column {
            Schedule::Column
        } else if is_long {
            Schedule::Split
        } else {
            Schedule::Row
        }
    });
    if wanted == Schedule::Column && !is_column { Schedule::Row } else { wanted }
}
