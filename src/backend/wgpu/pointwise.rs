//! The `pointwise` schedule: `shaders/pointwise_forward.wgsl` and `shaders/pointwise_backward.wgsl`.

use super::launch::{Extent, Folded, Launch, Operand, Problem, Scalars};
use super::sums::Sums;
use super::variant::{Entry, Flags, Role};
use super::{WgpuStream, geometry};
use crate::backend::{Backward, Forward};
use crate::plan::Walk;
use crate::spec::Spec;
use crate::tensor::View;
use crate::{Result, Workspace};
use smallvec::smallvec;

/// Alpha is the same element in every column.
fn repeated(alpha: Option<&View<'_>>, inner: usize) -> Walk {
    let offset = alpha.map_or(0, |view| view.layout().offset());
    Walk { outer: smallvec![], inner: smallvec![0; inner], offset, contiguous: false }
}

pub(super) fn forward(spec: &Spec, operands: &Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let Forward { input, weight, bias, alpha, output, .. } = operands;
    let Some(output) = output else { return Ok(()) };
    let output = output.as_view();
    let (weight, bias, alpha) = (weight.as_ref(), bias.as_ref(), alpha.as_ref());
    let folded = Folded::new(spec, &[input.layout(), output.layout()], [weight, bias, None]);
    let Folded { grid, full, row } = &folded;
    let along = repeated(alpha, grid.inner.len());
    let problem = Problem::new(
        stream.device(),
        grid,
        [
            Operand::new("input", Role::Load, Some(input), Extent::Full(&full[0]))?,
            Operand::new("output", Role::Store, Some(&output), Extent::Full(&full[1]))?,
            Operand::new("weight", Role::Load, weight, row[0].extent())?,
            Operand::new("bias", Role::Load, bias, row[1].extent())?,
            Operand::new("alpha", Role::Load, alpha, Extent::Row(&along))?,
        ],
    )?;
    let shape = geometry::columns();
    let col_groups = grid.cols.div_ceil(4 * shape.group as usize);
    let mut dispatches = Vec::new();
    for rows in problem.split(0..grid.rows, &(0..grid.cols), 1)? {
        let turns = geometry::turns(rows.len(), 1);
        dispatches.push(problem.prepare(Launch {
            entry: Entry::PointwiseForward,
            shape,
            flags: Flags::default(),
            groups: rows.len().div_ceil(turns).saturating_mul(col_groups),
            rows,
            cols: 0..grid.cols,
            scalars: Scalars { col_groups: col_groups as u32, turns: turns as u32, ..Scalars::default() },
        })?);
    }
    stream.run("pointwise forward", &dispatches)
}

pub(super) fn backward(
    spec: &Spec,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let Backward { grad_output, input, weight, alpha, .. } = operands;
    let [grad_input, grad_weight, grad_bias, grad_alpha] =
        [&operands.grad_input, &operands.grad_weight, &operands.grad_bias, &operands.grad_alpha]
            .map(|target| target.as_ref().map(|view| view.as_view()));
    let (weight, alpha) = (weight.as_ref(), alpha.as_ref());
    let target = grad_input.as_ref().unwrap_or(grad_output);
    let folded = Folded::new(
        spec,
        &[grad_output.layout(), input.layout(), target.layout()],
        [weight, grad_weight.as_ref(), grad_bias.as_ref()],
    );
    let Folded { grid, full, row } = &folded;
    let along = repeated(alpha, grid.inner.len());
    let device = stream.device();
    let wanted = [grad_weight.is_some(), grad_bias.is_some(), grad_alpha.is_some()];
    // Without sums the chunks still say how rows are shared out.
    let sums = Sums::new(wanted, 3, grid);
    if !sums.is_wanted() && grad_input.is_none() {
        return Ok(());
    }
    let scratch = device.scratch(workspace, sums.bytes())?;
    let mut dispatches = Vec::new();
    for cols in sums.blocks(grid.cols) {
        let problem = Problem::new(
            device,
            grid,
            [
                Operand::new("grad_output", Role::Load, Some(grad_output), Extent::Full(&full[0]))?,
                Operand::new("input", Role::Load, Some(input), Extent::Full(&full[1]))?,
                Operand::new("grad_input", Role::Store, grad_input.as_ref(), Extent::Full(&full[2]))?,
                Operand::new("weight", Role::Load, weight, row[0].extent())?,
                Operand::new("alpha", Role::Load, alpha, Extent::Row(&along))?,
                Operand::new("partials", Role::Set, Some(&scratch), Extent::Whole)?,
            ],
        )?;
        let scalars = sums.scalars(&cols, Scalars::default());
        dispatches.extend(sums.partials(
            &problem,
            Entry::PointwiseBackward,
            Flags::default(),
            &cols,
            scalars,
        )?);
        for (index, view) in [&grad_weight, &grad_bias].into_iter().enumerate() {
            let gradient = Operand::new("gradient", Role::Store, view.as_ref(), row[index + 1].extent())?;
            let Some(gradient) = gradient else { continue };
            dispatches.push(sums.finish(device, grid, &scratch, Some(gradient), index, &cols)?);
        }
        if grad_alpha.is_some() {
            let shape = geometry::row(device, &stream.overrides(), grid.cols, false);
            dispatches.push(sums.finish(device, grid, &scratch, None, 2, &cols)?);
            dispatches.push(sums.leaves(device, shape, &scratch, 2, &cols)?);
        }
    }
    if let Some(gradient) = &grad_alpha {
        dispatches.push(sums.total(device, &scratch, gradient)?);
    }
    stream.run("pointwise backward", &dispatches)
}
