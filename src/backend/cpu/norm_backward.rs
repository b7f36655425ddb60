//! A norm's backward launches: as [`norm`](super::norm), and the sums over rows.

use super::inner;
use super::chunks::{Rows, run_chunks};
use super::launch::{Folded, Order, alone};
use super::norm::{TASK, check_statistic, choose, elements, kept, row_numbers, streaming};
use super::real::Real;
use super::rotary::{self, Angles, Tables};
use super::row_backward::{self, RowTerms};
use super::split::with_row_sums;
use super::statistics::Constants;
use super::{Cpu, Isa, Schedule, affine, column, column_backward, fused_backward, split};
use crate::backend::{Backward, params_per_column};
use crate::plan::tree::{LEAF, chunk_rows};
use crate::spec::{Norm, STATISTICS, SUMS, Spec};
use crate::tensor::{Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Workspace};

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

pub(super) fn backward<F: Real>(
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    check_statistic(spec)?;
    let axes = &spec.affine.axes[..];
    let order = || Order::new(spec.shape.len(), &spec.reduced).with_kept_split(axes);
    let split = order().with_row_split(axes);
    let of_inner = operands.inner.as_ref();
    let wants_params = operands.grad_weight.is_some()
        || operands.grad_bias.is_some()
        || of_inner.is_some_and(|inner| inner.grad_weight.is_some() || inner.grad_bias.is_some());
    // Parameters that vary within a row take a pass of their own where sub-rows are not runs of the row, and where rows
    // lie side by side, which the schedule for them is quicker with. It comes first: a gradient of the input may replace
    // that of the output.
    let varies = axes.iter().any(|axis| spec.reduced.contains(axis));
    let is_apart = !split.is_row_ascending(&spec.shape) || rows_are_adjacent(operands, &order());
    // Beside a branch, rows are never cut into other than columns, and the schedule is that for rows.
    if wants_params && varies && is_apart && of_inner.is_none() {
        launch::<F>(spec, operands, &split, [false, true], workspace, cpu)?;
        let is_done = operands.grad_input.is_none() && operands.sums.is_none();
        if is_done && operands.grad_before.is_none() && operands.grad_after.is_none() {
            return Ok(());
        }
        return launch::<F>(spec, operands, &order(), [true, false], workspace, cpu);
    }
    launch::<F>(spec, operands, &order(), [true, wants_params], workspace, cpu)
}

/// Whether neighbouring rows, and not the elements of a row, lie side by side.
fn rows_are_adjacent(operands: &Backward<'_>, order: &Order) -> bool {
    let tensors = [Some(operands.grad_output.layout()), Some(operands.input.layout())];
    let folded = Folded::new(Isa::Portable, order, &tensors);
    let is_adjacent = |walk: usize| folded.walk(walk).outer.last() == Some(&1);
    folded.grid.cols > 1 && is_adjacent(0) && is_adjacent(1)
}

/// A backward pass in an order of axes, with or without the gradient of the input and the row's sums, and those of the
/// parameters.
fn launch<F: Real>(
    spec: &Norm,
    operands: &Backward<'_>,
    order: &Order,
    [wants_rows, wants_params]: [bool; 2],
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let Backward { grad_output, input, weight, mask, statistics, given, .. } = operands;
    let Backward { bias, before, after, rotary, grad_hidden, inner, .. } = operands;
    let of_inner = inner.as_ref();
    let Some(statistics) = statistics else {
        return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
    };
    let grad_input = operands.grad_input.as_ref().filter(|_| wants_rows);
    let sums = operands.sums.as_ref().filter(|_| wants_rows);
    let grad_before = operands.grad_before.as_ref().filter(|_| wants_rows);
    let grad_after = operands.grad_after.as_ref().filter(|_| wants_rows);
    let grad_weight = operands.grad_weight.as_ref().filter(|_| wants_params);
    let grad_bias = operands.grad_bias.as_ref().filter(|_| wants_params);
    let in_place = grad_input.is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
    let statistics_layout = row_numbers(spec, STATISTICS, Some(statistics.layout()));
    let given_layout = row_numbers(spec, SUMS, given.as_ref().map(View::layout));
    let sums_layout = row_numbers(spec, SUMS, sums.map(ViewMut::layout));
    let [cos, sin, positions] = rotary::layouts(spec, rotary.as_ref());
    let of_positions = Tables::of(cpu.isa, rotary.as_ref());
    let elements = elements(spec);
    let inner_statistics = row_numbers(spec, STATISTICS, of_inner.map(|inner| inner.statistics.layout()));
    let tensors = [
        Some(grad_output.layout()),
        Some(input.layout()),
        grad_input.map(ViewMut::layout),
        weight.as_ref().map(View::layout),
        mask.as_ref().map(View::layout),
        statistics_layout.as_ref(),
        given_layout.as_ref(),
        sums_layout.as_ref(),
        bias.as_ref().map(View::layout),
        before.as_ref().map(View::layout),
        after.as_ref().map(View::layout),
        grad_hidden.as_ref().map(View::layout),
        grad_before.map(ViewMut::layout),
        grad_after.map(ViewMut::layout),
        elements.as_ref(),
        cos.as_ref(),
        sin.as_ref(),
        positions.as_ref(),
        of_inner.and_then(|inner| inner.weight.as_ref()).map(View::layout),
        of_inner.and_then(|inner| inner.bias.as_ref()).map(View::layout),
        inner_statistics.as_ref(),
        of_inner.and_then(|inner| inner.hidden.as_ref()).map(View::layout),
    ];
    let folded = Folded::new(cpu.isa, order, &tensors);
    let constants = Constants::<F>::new(cpu.isa, spec, folded.grid.cols, input.dtype());
    let axes = &spec.affine.axes[..];
    let is_outer = !axes.iter().any(|axis| spec.reduced.contains(axis));
    let terms = match (wants_params, is_outer && constants.rounded.is_none()) {
        (false, _) => RowTerms::None,
        (true, true) => RowTerms::Sums,
        (true, false) => RowTerms::SubRows(order.row_len(&spec.shape, axes, true)),
    };
    let mut job = row_backward::Backward {
        constants,
        rows: folded.grid.rows,
        streamed: streaming(cpu.isa, grad_input),
        grad_output: folded.source("grad_output", grad_output, 0, in_place)?,
        input: folded.source("input", input, 1, false)?,
        grad_input: folded.optional_sink("grad_input", grad_input, 2)?,
        weight: folded.optional("weight", weight.as_ref(), 3)?,
        mask: folded.optional("mask", mask.as_ref(), 4)?,
        statistics: folded.source("statistics", statistics, 5, false)?,
        given: folded.optional("sums", given.as_ref(), 6)?,
        sums: folded.optional_sink("sums", sums, 7)?,
        is_outer,
        terms,
        wants_weight: grad_weight.is_some(),
        wants_bias: grad_bias.is_some(),
    };
    let inner = match of_inner.zip(spec.inner()) {
        None => None,
        Some((inner, norm)) => Some(inner::Backward {
            bias: folded.optional("inner bias", inner.bias.as_ref(), 19)?,
            job: row_backward::Backward {
                constants: Constants::new(cpu.isa, &norm, folded.grid.cols, input.dtype()),
                weight: folded.optional("inner weight", inner.weight.as_ref(), 18)?,
                statistics: folded.source("inner statistics", &inner.statistics, 20, false)?,
                wants_weight: inner.grad_weight.is_some(),
                wants_bias: inner.grad_bias.is_some(),
                ..job
            },
        }),
    };
    if let Some(hidden) = of_inner.and_then(|inner| inner.hidden.as_ref()) {
        job.input = folded.source("hidden", hidden, 21, false)?;
    }
    let fused = match spec.fusion.is_none() {
        true => None,
        false => Some(fused_backward::Backward {
            fusion: spec.fusion,
            inner,
            bias: folded.optional("bias", bias.as_ref(), 8)?,
            before: folded.optional("before", before.as_ref(), 9)?,
            after: folded.optional("after", after.as_ref(), 10)?,
            angles: Angles::of(rotary.as_ref(), &folded, of_positions.as_ref(), 15)?,
            grad_hidden: folded.replaced("grad_hidden", grad_hidden.as_ref(), 11, grad_before)?,
            grad_before: folded.optional_sink("grad_before", grad_before, 12)?,
            grad_after: folded.optional_sink("grad_after", grad_after, 13)?,
            kept: kept(spec, &folded, 14),
            job,
        }),
    };
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let adjacent = folded.grid.outer.last().copied().unwrap_or(1);
    let is_column = column_backward::is_possible(&job, adjacent);
    let schedule = if fused.is_some() { Schedule::Row } else { choose(cpu, [rows, cols], is_column) };
    let mut cut = Cut { rows, kept: 1, per_row: 0, chunk: TASK.div_ceil(cols.max(1)).min(rows.max(1)) };
    if wants_params {
        cut.rows = order.kept_len(&spec.shape, axes, false);
        cut.kept = order.kept_len(&spec.shape, axes, true);
        cut.per_row = job.params_per_row();
        let per_column = params_per_column(&Spec::Norm(spec.clone()));
        cut.chunk = chunk_rows(cut.rows, cut.params(), per_column, size_of::<F>());
    }
    let each = cut.chunks() * cut.params();
    let wanted = job.wanted();
    let inner_wanted =
        fused.as_ref().and_then(|fused| fused.inner.as_ref()).map_or(0, |inner| inner.job.wanted());
    let partials = workspace.host::<F>(each * (wanted + inner_wanted))?;
    let (partials, inner_partials) = partials.split_at_mut(each * wanted);
    match schedule {
        Schedule::Column if cols <= LEAF => {
            let width = column_backward::backward_width(cpu, &job, adjacent);
            with_row_sums(&job, terms == RowTerms::Sums, |sums| {
                cpu.for_each(column::Rows::blocks(rows, adjacent, width), width * cols, |block| {
                    let block = column::Rows::block(block, adjacent, width);
                    column_backward::backward(&job, block, |i, s| sums.put(block.first + i, s));
                });
                split::add_sums(&job, cut, sums, partials);
            });
        }
        Schedule::Column => split::backward_columns(&job, adjacent, cut, partials, cpu),
        Schedule::Split => split::backward(&job, cut, partials, cpu),
        Schedule::Row => {
            run_chunks(&job, cut, [&mut *partials, &mut *inner_partials], Rows::of(fused.as_ref()), cpu);
        }
    }
    let of_inner = of_inner.filter(|_| wants_params);
    let of_norms = [
        (&*partials, wanted, [("grad_weight", grad_weight), ("grad_bias", grad_bias)]),
        (
            &*inner_partials,
            inner_wanted,
            [
                ("inner grad_weight", of_inner.and_then(|inner| inner.grad_weight.as_ref())),
                ("inner grad_bias", of_inner.and_then(|inner| inner.grad_bias.as_ref())),
            ],
        ),
    ];
    for (partials, wanted, [of_weight, of_bias]) in of_norms {
        let stride = cut.params() * wanted;
        let of_bias = (of_bias, stride - cut.params().min(stride));
        for ((name, target), offset) in [(of_weight, 0), of_bias] {
            let Some(target) = target else { continue };
            let alone = alone(cpu.isa, &order.parameter(axes, target.layout()), 0);
            affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, cut.params(), cpu);
        }
    }
    Ok(())
}
