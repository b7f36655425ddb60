//! A norm's backward launches: as [`norm`](super::norm), and the sums over rows.

use super::branch::Branch;
use super::chunks::{Cut, Rows, run_chunks};
use super::inner;
use super::launch::{Folded, Order, alone, with_kept};
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
    let of_branch = operands.grad_branch_bias.is_some() || operands.grad_branch_scale.is_some();
    let wants_params = operands.grad_weight.is_some()
        || operands.grad_bias.is_some()
        || of_branch
        || of_inner.is_some_and(|inner| inner.grad_weight.is_some() || inner.grad_bias.is_some());
    let all = Wanted {
        rows: true,
        params: wants_params,
        given: operands.given.as_ref(),
        sums: operands.sums.as_ref(),
    };
    let is_run = split.is_row_ascending(&spec.shape);
    if of_branch && is_run {
        return launch::<F>(spec, operands, &order(), all, workspace, cpu);
    }
    if of_branch {
        // What their terms are needs the sums of whole rows, in the rows' order; then any order will do.
        let rows = Spec::Norm(spec.clone()).rows();
        return with_kept::<F, _>(rows * SUMS, |numbers| {
            let mut kept = ViewMut::from_slice(numbers, &[rows, SUMS])?;
            let sums = Wanted { rows: false, params: false, given: None, sums: Some(&kept) };
            launch::<F>(spec, operands, &order(), sums, workspace, cpu)?;
            let (given, _) = kept.in_place();
            let all = Wanted { given: Some(&given), ..all };
            launch::<F>(spec, operands, &split, all, workspace, cpu)
        });
    }
    // Parameters that vary within a row take a pass of their own where sub-rows are not runs of the row, and where rows
    // lie side by side, which the schedule for them is quicker with. It comes first: a gradient of the input may replace
    // that of the output.
    let varies = axes.iter().any(|axis| spec.reduced.contains(axis));
    let is_apart = !is_run || rows_are_adjacent(operands, &order());
    // Beside a branch's norm, rows are never cut into other than columns, and the schedule is that for rows.
    if wants_params && varies && is_apart && of_inner.is_none() {
        launch::<F>(spec, operands, &split, Wanted { rows: false, sums: None, ..all }, workspace, cpu)?;
        let is_done = operands.grad_input.is_none() && operands.sums.is_none();
        if is_done && operands.grad_before.is_none() && operands.grad_after.is_none() {
            return Ok(());
        }
        return launch::<F>(spec, operands, &order(), Wanted { params: false, ..all }, workspace, cpu);
    }
    launch::<F>(spec, operands, &order(), all, workspace, cpu)
}

/// What a launch of a backward pass is for.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The gradients of tensors of the input's shape.
    rows: bool,
    /// Those of the parameters.
    params: bool,
    /// Sums of rows to use, and where to put those that are taken.
    given: Option<&'a View<'a>>,
    sums: Option<&'a ViewMut<'a>>,
}

/// Whether neighbouring rows, and not the elements of a row, lie side by side.
fn rows_are_adjacent(operands: &Backward<'_>, order: &Order) -> bool {
    let tensors = [Some(operands.grad_output.layout()), Some(operands.input.layout())];
    let folded = Folded::new(Isa::Portable, order, &tensors);
    let is_adjacent = |walk: usize| folded.walk(walk).outer.last() == Some(&1);
    folded.grid.cols > 1 && is_adjacent(0) && is_adjacent(1)
}

/// A backward pass in an order of axes.
fn launch<F: Real>(
    spec: &Norm,
    operands: &Backward<'_>,
    order: &Order,
    Wanted { rows: wants_rows, params: wants_params, given, sums }: Wanted<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let Backward { grad_output, input, weight, mask, statistics, .. } = operands;
    let Backward { bias, before, after, rotary, grad_hidden, inner, .. } = operands;
    let Backward { branch_bias, branch_scale, .. } = operands;
    let of_inner = inner.as_ref();
    let Some(statistics) = statistics else {
        return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
    };
    let grad_input = operands.grad_input.as_ref().filter(|_| wants_rows);
    let grad_before = operands.grad_before.as_ref().filter(|_| wants_rows);
    let grad_after = operands.grad_after.as_ref().filter(|_| wants_rows);
    let grad_weight = operands.grad_weight.as_ref().filter(|_| wants_params);
    let grad_bias = operands.grad_bias.as_ref().filter(|_| wants_params);
    let grad_branch_bias = operands.grad_branch_bias.as_ref().filter(|_| wants_params);
    let grad_branch_scale = operands.grad_branch_scale.as_ref().filter(|_| wants_params);
    let in_place = grad_input.is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
    let statistics_layout = row_numbers(spec, STATISTICS, Some(statistics.layout()));
    let given_layout = row_numbers(spec, SUMS, given.map(View::layout));
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
        branch_bias.as_ref().map(View::layout),
        branch_scale.as_ref().map(View::layout),
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
        given: folded.optional("sums", given, 6)?,
        sums: folded.optional_sink("sums", sums, 7)?,
        is_outer,
        terms,
        wants_weight: grad_weight.is_some(),
        wants_bias: grad_bias.is_some(),
        wants_branch: [grad_branch_bias, grad_branch_scale].map(|target| target.is_some()),
    };
    let inner = match of_inner.zip(spec.inner()) {
        None => None,
        Some((inner, norm)) => Some(inner::Backward {
            bias: folded.optional("inner bias", inner.bias.as_ref(), 21)?,
            job: row_backward::Backward {
                constants: Constants::new(cpu.isa, &norm, folded.grid.cols, input.dtype()),
                weight: folded.optional("inner weight", inner.weight.as_ref(), 20)?,
                statistics: folded.source("inner statistics", &inner.statistics, 22, false)?,
                wants_weight: inner.grad_weight.is_some(),
                wants_bias: inner.grad_bias.is_some(),
                wants_branch: [false; 2],
                ..job
            },
        }),
    };
    if let Some(hidden) = of_inner.and_then(|inner| inner.hidden.as_ref()) {
        job.input = folded.source("hidden", hidden, 23, false)?;
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
            branch: Branch {
                bias: folded.optional("branch_bias", branch_bias.as_ref(), 18)?,
                scale: folded.optional("branch_scale", branch_scale.as_ref(), 19)?,
            },
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
    let of_norm = [
        ("grad_weight", grad_weight),
        ("grad_bias", grad_bias),
        ("grad_branch_bias", grad_branch_bias),
        ("grad_branch_scale", grad_branch_scale),
    ];
    let of_inner = [
        ("inner grad_weight", of_inner.and_then(|inner| inner.grad_weight.as_ref())),
        ("inner grad_bias", of_inner.and_then(|inner| inner.grad_bias.as_ref())),
    ];
    for (partials, wanted, targets) in
        [(&*partials, wanted, &of_norm[..]), (&*inner_partials, inner_wanted, &of_inner[..])]
    {
        let targets = targets.iter().filter_map(|&(name, target)| Some((name, target?)));
        for (index, (name, target)) in targets.enumerate() {
            let (stride, offset) = (cut.params() * wanted, index * cut.params());
            let alone = alone(cpu.isa, &order.parameter(axes, target.layout()), 0);
            affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, cut.params(), cpu);
        }
    }
    Ok(())
}
