//! A norm's backward launches: as [`norm`](super::norm), and the sums over rows. `backward_pass` has one of them.

use super::backward_pass::{Pass, Space, Wanted};
use super::launch::{Folded, Order, with_kept};
use super::norm::check_statistic;
use super::real::Real;
use super::{Cpu, Isa, Schedule};
use crate::backend::Backward;
use crate::spec::{Norm, SUMS, Spec};
use crate::tensor::ViewMut;
use crate::{Result, Workspace};

pub(super) fn backward<F: Real>(
    spec: &Norm,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    check_statistic(spec)?;
    let axes = &spec.affine.axes[..];
    let order = rows_order(spec);
    let split = rows_order(spec).with_row_split(axes);
    let all = Wanted::all(operands);
    if is_one_launch(spec, operands, &order) {
        return launch::<F>(spec, operands, &order, all, workspace, cpu);
    }
    if operands.has_branch() {
        // What their terms are needs the sums of whole rows, in the rows' order; then any order will do.
        let rows = Spec::Norm(spec.clone()).rows();
        return with_kept::<F, _>(rows * SUMS, |numbers| {
            let mut kept = ViewMut::from_slice(numbers, &[rows, SUMS])?;
            let sums = Wanted { rows: false, params: false, given: None, sums: Some(&kept) };
            launch::<F>(spec, operands, &order, sums, workspace, cpu)?;
            let (given, _) = kept.in_place();
            let all = Wanted { given: Some(&given), ..all };
            launch::<F>(spec, operands, &split, all, workspace, cpu)
        });
    }
    // The parameters come first: a gradient of the input may replace that of the output.
    launch::<F>(spec, operands, &split, Wanted { rows: false, sums: None, ..all }, workspace, cpu)?;
    let is_done = operands.grad_input.is_none() && operands.sums.is_none();
    if is_done && operands.grad_before.is_none() && operands.grad_after.is_none() {
        return Ok(());
    }
    launch::<F>(spec, operands, &order, Wanted { params: false, ..all }, workspace, cpu)
}

/// The order of the axes in which rows are taken whole.
fn rows_order(spec: &Norm) -> Order {
    Order::new(spec.shape.len(), &spec.reduced).with_kept_split(&spec.affine.axes)
}

/// Whether one launch over rows in this order has everything.
fn is_one_launch(spec: &Norm, operands: &Backward<'_>, order: &Order) -> bool {
    let axes = &spec.affine.axes[..];
    let is_run = || rows_order(spec).with_row_split(axes).is_row_ascending(&spec.shape);
    if operands.has_branch() {
        return is_run();
    }
    // Parameters that vary within a row take a pass of their own where sub-rows are not runs of the row, and where rows lie side by
    // side, which the schedule for them is quicker with. Beside a branch's norm, rows are never cut into other than columns, and
    // the schedule is that for rows.
    let varies = axes.iter().any(|axis| spec.reduced.contains(axis));
    let may_be_apart = Wanted::all(operands).params && varies && operands.inner.is_none();
    !may_be_apart || is_run() && !rows_are_adjacent(operands, order)
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
    wanted: Wanted<'_>,
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let space = Space::new(spec, operands, order, wanted, cpu.isa)?;
    let pass = space.pass::<F>(spec, operands, cpu)?;
    let partials = workspace.host::<F>(pass.numbers())?;
    match pass.schedule {
        Schedule::Row => cpu.run_all(&[pass.chunks(partials)]),
        _ => pass.run(partials, cpu),
    }
    space.finish(spec, operands, &pass, partials, cpu)
}

/// Passes of which none writes what another reads or writes, those of rows in one round of the threads.
pub(super) fn backward_together<F: Real>(
    problems: &[(&Norm, &Backward<'_>)],
    workspace: &mut Workspace,
    cpu: &Cpu,
) -> Result<()> {
    let one_by_one = |workspace: &mut Workspace| {
        problems.iter().try_for_each(|(spec, operands)| backward::<F>(spec, operands, workspace, cpu))
    };
    problems.iter().try_for_each(|(spec, _)| check_statistic(spec))?;
    let orders: Vec<Order> = problems.iter().map(|(spec, _)| rows_order(spec)).collect();
    let are_alone = problems.iter().zip(&orders);
    let mut are_alone = are_alone.map(|((spec, operands), order)| is_one_launch(spec, operands, order));
    if !are_alone.all(|is_alone| is_alone) {
        return one_by_one(workspace);
    }
    let of_all = || problems.iter().zip(&orders);
    let spaces = of_all()
        .map(|((spec, operands), order)| Space::new(spec, operands, order, Wanted::all(operands), cpu.isa));
    let spaces: Vec<Space<'_>> = spaces.collect::<Result<_>>()?;
    let passes =
        problems.iter().zip(&spaces).map(|((spec, operands), space)| space.pass(spec, operands, cpu));
    let passes: Vec<Pass<'_, F>> = passes.collect::<Result<_>>()?;
    if passes.iter().any(|pass| pass.schedule != Schedule::Row) {
        return one_by_one(workspace);
    }
    let mut left = workspace.host::<F>(passes.iter().map(Pass::numbers).sum())?;
    let mut parts = Vec::with_capacity(passes.len());
    for pass in &passes {
        let (part, rest) = left.split_at_mut(pass.numbers());
        parts.push(part);
        left = rest;
    }
    let chunks = passes.iter().zip(&mut parts).map(|(pass, part)| pass.chunks(part));
    cpu.run_all(&chunks.collect::<Vec<_>>());
    for (((spec, operands), space), (pass, part)) in
        problems.iter().zip(&spaces).zip(passes.iter().zip(parts))
    {
        space.finish(spec, operands, pass, part, cpu)?;
    }
    Ok(())
}
