//! A norm's launches: operands folded to rows and columns, cut into tasks, handed to a schedule.

use super::Cpu;
use super::affine::{self, ColumnSums};
use super::launch::{Folded, Order, Shared, Tiles, alone, per_row, with_scratch};
use super::power;
use super::real::Real;
use super::row;
use super::row_backward::{self, Accumulators, RowTerms};
use super::statistics::{Constants, Statistics};
use crate::backend::{Backward, Forward, params_per_column};
use crate::plan::tree::chunk_rows;
use crate::spec::{MOMENTS, Norm, STATISTICS, SUMS, Spec, Statistic};
use crate::tensor::{Layout, Overlap, View, ViewMut, overlap};
use crate::{Error, Result, Workspace};
use std::ops::Range;

/// Elements of a task, about.
const TASK: usize = 1 << 15;

/// A p-norm that arithmetic has the range for.
fn check_statistic(spec: &Norm) -> Result<()> {
    match spec.statistic {
        Statistic::Norm(p) if p > power::LARGEST && p < f64::INFINITY => {
            Err(Error::argument("p", format!("at most {}, or infinity", power::LARGEST), p))
        }
        _ => Ok(()),
    }
}

/// The layout in the spec's shape of numbers per row.
fn row_numbers(spec: &Norm, numbers: usize, layout: Option<&Layout>) -> Option<Layout> {
    layout.map(|layout| per_row(&spec.shape, &spec.reduced, numbers, layout))
}

pub(super) fn forward<F: Real>(spec: &Norm, operands: &Forward<'_>, cpu: &Cpu) -> Result<()> {
    check_statistic(spec)?;
    let Forward { input, weight, bias, mask, given, output, statistics, moments, .. } = operands;
    let in_place = output.as_ref().is_some_and(|to| overlap(input, &to.as_view()) == Overlap::Same);
    let given_layout = row_numbers(spec, STATISTICS, given.as_ref().map(View::layout));
    let statistics_layout = row_numbers(spec, STATISTICS, statistics.as_ref().map(ViewMut::layout));
    let moments_layout = row_numbers(spec, MOMENTS, moments.as_ref().map(ViewMut::layout));
    let tensors = [
        Some(input.layout()),
        output.as_ref().map(ViewMut::layout),
        weight.as_ref().map(View::layout),
        bias.as_ref().map(View::layout),
        mask.as_ref().map(View::layout),
        given_layout.as_ref(),
        statistics_layout.as_ref(),
        moments_layout.as_ref(),
    ];
    let folded = Folded::new(cpu.isa, &Order::new(spec.shape.len(), &spec.reduced), &tensors);
    let (rows, cols) = (folded.grid.rows, folded.grid.cols);
    let job = row::Forward::<F> {
        constants: Constants::new(cpu.isa, spec, cols, input.dtype()),
        input: folded.source("input", input, 0, in_place)?,
        output: folded.optional_sink("output", output.as_ref(), 1)?,
        weight: folded.optional("weight", weight.as_ref(), 2)?,
        bias: folded.optional("bias", bias.as_ref(), 3)?,
        mask: folded.optional("mask", mask.as_ref(), 4)?,
        given: folded.optional("statistics", given.as_ref(), 5)?,
        statistics: folded.optional_sink("statistics", statistics.as_ref(), 6)?,
        moments: folded.optional_sink("moments", moments.as_ref(), 7)?,
    };
    let step = TASK.div_ceil(cols.max(1));
    cpu.for_each(rows.div_ceil(step), step * cols, |task| {
        with_scratch(0, |tiles, _| {
            row::Rows::new(&job, tiles).forward(task * step..rows.min((task + 1) * step));
        });
    });
    Ok(())
}

/// How a backward pass is cut: `rows` of the sums over rows, each with `kept` rows of the norm side by side, each of
/// which has `per_row` parameters.
#[derive(Clone, Copy)]
struct Cut {
    rows: usize,
    kept: usize,
    per_row: usize,
    chunk: usize,
}

impl Cut {
    fn params(&self) -> usize {
        self.kept * self.per_row
    }

    fn chunks(&self) -> usize {
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
    let order = || Order::new(spec.shape.len(), &spec.reduced).with_kept_split(&spec.affine.axes);
    let split = order().with_row_split(&spec.affine.axes);
    let wants_params = operands.grad_weight.is_some() || operands.grad_bias.is_some();
    if wants_params && !split.is_row_ascending(&spec.shape) {
        // Sub-rows are not runs of the row: the parameters' gradients take a pass of their own, in another order, before
        // a gradient of the input may replace that of the output.
        launch::<F>(spec, operands, &split, [false, true], workspace, cpu)?;
        return launch::<F>(spec, operands, &order(), [true, false], workspace, cpu);
    }
    launch::<F>(spec, operands, &split, [true, wants_params], workspace, cpu)
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
    let Some(statistics) = statistics else {
        return Err(Error::argument("statistics", "those that the forward pass saved", "none"));
    };
    let grad_input = operands.grad_input.as_ref().filter(|_| wants_rows);
    let sums = operands.sums.as_ref().filter(|_| wants_rows);
    let grad_weight = operands.grad_weight.as_ref().filter(|_| wants_params);
    let grad_bias = operands.grad_bias.as_ref().filter(|_| wants_params);
    let in_place = grad_input.is_some_and(|to| overlap(grad_output, &to.as_view()) == Overlap::Same);
    let statistics_layout = row_numbers(spec, STATISTICS, Some(statistics.layout()));
    let given_layout = row_numbers(spec, SUMS, given.as_ref().map(View::layout));
    let sums_layout = row_numbers(spec, SUMS, sums.map(ViewMut::layout));
    let tensors = [
        Some(grad_output.layout()),
        Some(input.layout()),
        grad_input.map(ViewMut::layout),
        weight.as_ref().map(View::layout),
        mask.as_ref().map(View::layout),
        statistics_layout.as_ref(),
        given_layout.as_ref(),
        sums_layout.as_ref(),
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
    let job = row_backward::Backward {
        constants,
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
    let cut = if wants_params {
        let (rows, kept) =
            (order.kept_len(&spec.shape, axes, false), order.kept_len(&spec.shape, axes, true));
        let per_row = job.params_per_row();
        let per_column = params_per_column(&Spec::Norm(spec.clone()));
        let chunk = chunk_rows(rows, kept * per_row, per_column, size_of::<F>());
        Cut { rows, kept, per_row, chunk }
    } else {
        // Nothing is summed over rows: chunks are tasks.
        let rows = folded.grid.rows;
        Cut { rows, kept: 1, per_row: 0, chunk: TASK.div_ceil(folded.grid.cols.max(1)).min(rows.max(1)) }
    };
    let wanted = usize::from(job.wants_weight) + usize::from(job.wants_bias);
    let partials = workspace.host::<F>(cut.chunks() * cut.params() * wanted)?;
    run_chunks(&job, cut, partials, cpu);
    let stride = cut.params() * wanted;
    let targets =
        [("grad_weight", grad_weight, 0), ("grad_bias", grad_bias, stride - cut.params().min(stride))];
    for (name, target, offset) in targets {
        let Some(target) = target else { continue };
        let alone = alone(cpu.isa, &order.parameter(axes, target.layout()), 0);
        affine::finish(&alone.sink(name, target, 0)?, partials, stride, offset, cut.params(), cpu);
    }
    Ok(())
}

/// Runs all chunks of rows; a task is a chunk and some of the kept rows beside each other.
fn run_chunks<F: Real>(job: &row_backward::Backward<'_, F>, cut: Cut, partials: &mut [F], cpu: &Cpu) {
    let Cut { rows, kept, per_row, chunk } = cut;
    let cols = job.constants.cols;
    let beside = TASK.div_ceil((chunk.min(rows) * cols).max(1)).min(kept.max(1));
    let groups = kept.div_ceil(beside);
    let (params, wanted) = (cut.params(), [job.wants_weight, job.wants_bias]);
    let count = wanted.into_iter().filter(|&wanted| wanted).count();
    let partials = Shared::new(partials);
    cpu.for_each(cut.chunks() * groups, chunk.min(rows) * beside * cols, |task| {
        let (index, group) = (task / groups, task % groups);
        let range = index * chunk..rows.min((index + 1) * chunk);
        let beside = group * beside..kept.min((group + 1) * beside);
        let len = beside.len() * per_row;
        with_scratch(len * count, |tiles, leaves| {
            let (weight_leaf, bias_leaf) = leaves.split_at_mut(if job.wants_weight { len } else { 0 });
            let first = index * params * count + beside.start * per_row;
            let sums = |leaf, at: usize| {
                // SAFETY: this task alone has this chunk and these parameters.
                let chunk = unsafe { partials.part(at..at + len) };
                ColumnSums::new(job.constants.isa, leaf, chunk)
            };
            let accumulators = Accumulators {
                weight: job.wants_weight.then(|| sums(weight_leaf, first)),
                bias: job.wants_bias.then(|| sums(bias_leaf, first + params * (count - 1))),
            };
            run_task(job, [range, beside], cut, accumulators, tiles);
        });
    });
}

fn run_task<F: Real>(
    job: &row_backward::Backward<'_, F>,
    [range, beside]: [Range<usize>; 2],
    cut: Cut,
    mut accumulators: Accumulators<'_, F>,
    tiles: Tiles<'_, F>,
) {
    let mut operands = row_backward::Rows::new(job, tiles);
    let first = beside.start;
    for (index, r) in range.enumerate() {
        accumulators.begin_row(index, 0..beside.len() * cut.per_row);
        for j in beside.clone() {
            let row = r * cut.kept + j;
            let s: Statistics<F> = job.saved(row);
            let taken = job.needs_sums().then(|| operands.sums(row, s));
            let sums = job.settle(row, taken);
            operands.gradients(
                row,
                s,
                &sums,
                0..job.params_per_row(),
                (j - first) * cut.per_row,
                &mut accumulators,
            );
        }
    }
    accumulators.finish();
}
