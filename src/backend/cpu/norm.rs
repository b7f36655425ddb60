//! A norm's forward launch: operands folded to rows and columns, cut into tasks, handed to a schedule.

use super::branch::Branch;
use super::codes::Codes;
use super::dropout::Kept;
use super::launch::{Folded, Order, per_row, with_scratch};
use super::memory::Streaming;
use super::real::Real;
use super::rotary::{self, Angles, Tables};
use super::statistics::Constants;
use super::{Cpu, Isa, Schedule, column, fused, gathered, power, row, split};
use crate::backend::Forward;
use crate::plan::tree::LEAF;
use crate::spec::{MOMENTS, Norm, STATISTICS, Statistic};
use crate::tensor::{Layout, Overlap, View, ViewMut, overlap};
use crate::{Error, Result};

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

pub(super) fn forward<F: Real>(spec: &Norm, operands: &Forward<'_>, cpu: &Cpu) -> Result<()> {
    check_statistic(spec)?;
    let Forward { input, weight, bias, mask, given, output, statistics, moments, .. } = operands;
    let Forward { before, after, branch_bias, branch_scale, rotary, hidden, scales, inner, .. } = operands;
    let of_inner = inner.as_ref();
    let in_place = is_replaced(input, output.as_ref()) || is_replaced(input, hidden.as_ref());
    let given_layout = row_numbers(spec, STATISTICS, given.as_ref().map(View::layout));
    let statistics_layout = row_numbers(spec, STATISTICS, statistics.as_ref().map(ViewMut::layout));
    let moments_layout = row_numbers(spec, MOMENTS, moments.as_ref().map(ViewMut::layout));
    let [cos, sin, positions] = rotary::layouts(spec, rotary.as_ref());
    let of_positions = Tables::of(cpu.isa, rotary.as_ref());
    let per_row = spec.fusion.quantization.and_then(|quantization| quantization.scales(columns(spec)));
    let scales_layout = row_numbers(spec, per_row.unwrap_or(0), scales.as_ref().map(ViewMut::layout));
    let elements = elements(spec);
    let inner_statistics =
        row_numbers(spec, STATISTICS, of_inner.and_then(|b| b.statistics.as_ref()).map(ViewMut::layout));
    let tensors = [
        Some(input.layout()),
        output.as_ref().map(ViewMut::layout),
        weight.as_ref().map(View::layout),
        bias.as_ref().map(View::layout),
        mask.as_ref().map(View::layout),
        given_layout.as_ref(),
        statistics_layout.as_ref(),
        moments_layout.as_ref(),
        before.as_ref().map(View::layout),
        after.as_ref().map(View::layout),
        hidden.as_ref().map(ViewMut::layout),
        scales_layout.as_ref(),
        elements.as_ref(),
        cos.as_ref(),
        sin.as_ref(),
        positions.as_ref(),
        branch_bias.as_ref().map(View::layout),
        branch_scale.as_ref().map(View::layout),
        of_inner.and_then(|inner| inner.weight.as_ref()).map(View::layout),
        of_inner.and_then(|inner| inner.bias.as_ref()).map(View::layout),
        inner_statistics.as_ref(),
    ];
    let folded = Folded::new(cpu.isa, &Order::new(spec.shape.len(), &spec.reduced), &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let job = row::Forward::<F> {
        constants: Constants::new(cpu.isa, spec, cols, input.dtype()),
        rows,
        streamed: streaming(cpu.isa, output.as_ref()),
        input: folded.source("input", input, 0, in_place)?,
        output: folded.optional_sink("output", output.as_ref(), 1)?,
        weight: folded.optional("weight", weight.as_ref(), 2)?,
        bias: folded.optional("bias", bias.as_ref(), 3)?,
        mask: folded.optional("mask", mask.as_ref(), 4)?,
        given: folded.optional("statistics", given.as_ref(), 5)?,
        statistics: folded.optional_sink("statistics", statistics.as_ref(), 6)?,
        moments: folded.optional_sink("moments", moments.as_ref(), 7)?,
    };
    if !spec.fusion.is_none() {
        let fused = fused::Forward {
            fusion: spec.fusion,
            inner: match of_inner.zip(spec.inner()) {
                None => None,
                Some((inner, norm)) => Some(row::Forward {
                    constants: Constants::new(cpu.isa, &norm, cols, input.dtype()),
                    weight: folded.optional("inner weight", inner.weight.as_ref(), 18)?,
                    bias: folded.optional("inner bias", inner.bias.as_ref(), 19)?,
                    statistics: folded.optional_sink("inner statistics", inner.statistics.as_ref(), 20)?,
                    mask: None,
                    given: None,
                    moments: None,
                    ..job
                }),
            },
            before: folded.replaced("before", before.as_ref(), 8, hidden.as_ref())?,
            after: folded.replaced("after", after.as_ref(), 9, output.as_ref())?,
            angles: Angles::of(rotary.as_ref(), &folded, of_positions.as_ref(), 13)?,
            hidden: folded.optional_sink("hidden", hidden.as_ref(), 10)?,
            codes: match spec.fusion.quantization {
                None => None,
                Some(quantization) => {
                    let scales = folded.optional_sink("scales", scales.as_ref(), 11)?;
                    Some(Codes { quantization, scales })
                }
            },
            kept: kept(spec, &folded, 12),
            branch: Branch {
                bias: folded.optional("branch_bias", branch_bias.as_ref(), 16)?,
                scale: folded.optional("branch_scale", branch_scale.as_ref(), 17)?,
            },
            streamed_hidden: streaming(cpu.isa, hidden.as_ref()),
            job,
        };
        fused.run(cpu);
        return Ok(());
    }
    let adjacent = folded.grid.outer.last().copied().unwrap_or(1);
    let is_column = column::is_possible(&job, adjacent);
    match choose(cpu, [rows, cols], is_column) {
        Schedule::Row if gathered::is_possible(&job) => gathered::forward(&job, cpu),
        Schedule::Row => {
            let step = TASK.div_ceil(cols.max(1));
            cpu.for_each(rows.div_ceil(step), step * cols, |task| {
                with_scratch(0, |tiles, _| {
                    row::Rows::new(&job, tiles).forward(task * step..rows.min((task + 1) * step));
                });
            });
        }
        Schedule::Split => split::forward(&job, cpu),
        Schedule::Column if cols <= LEAF => {
            let width = column::forward_width(cpu, &job, adjacent);
            cpu.for_each(column::Rows::blocks(rows, adjacent, width), width * cols, |block| {
                column::forward(&job, column::Rows::block(block, adjacent, width));
            });
        }
        Schedule::Column => split::forward_columns(&job, adjacent, cpu),
    }
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
