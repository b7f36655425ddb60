//! The `pointwise` schedule: `shaders/pointwise_forward.wgsl` and `shaders/pointwise_backward.wgsl`.

use super::launch::{Launch, Problem, Scalars};
use super::operand::Operand;
use super::sums::Sums;
use super::variant::{Entry, Flags, Role, Style};
use super::{WgpuStream, geometry};
use crate::backend::{Backward, Forward};
use crate::spec::{Function, Pointwise};
use crate::tensor::{Layout, View};
use crate::{Result, Workspace};

/// What of a spec is compiled into the shader.
fn flags(spec: &Pointwise) -> Flags {
    Flags { inverse_root: spec.function == Function::InverseSquareRoot, ..Flags::default() }
}

/// Alpha is the same element everywhere.
fn repeated<'v>(spec: &Pointwise, alpha: Option<&View<'v>>) -> Result<Option<View<'v>>> {
    let Some(alpha) = alpha else { return Ok(None) };
    let strides = vec![0; spec.shape.len()];
    let layout = Layout::strided(&spec.shape, &strides, alpha.layout().offset())?;
    alpha.clone().with_layout(layout).map(Some)
}

pub(super) fn forward(spec: &Pointwise, operands: &Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let Forward { input, weight, bias, alpha, output, .. } = operands;
    let Some(output) = output else { return Ok(()) };
    let alpha = repeated(spec, alpha.as_ref())?;
    let problem = Problem::new(
        stream.device(),
        &spec.shape,
        &spec.affine.axes,
        [
            Operand::new("input", Role::Load, Some(input))?,
            Operand::new("output", Role::Store, Some(&output.as_view()))?,
            Operand::new("weight", Role::Load, weight.as_ref())?,
            Operand::new("bias", Role::Load, bias.as_ref())?,
            Operand::new("alpha", Role::Load, alpha.as_ref())?,
        ],
    )?;
    let (shape, cols) = (geometry::columns(), problem.grid.cols);
    let col_groups = cols.div_ceil(4 * shape.group as usize);
    let mut dispatches = Vec::new();
    for rows in problem.split(0..problem.grid.rows, &(0..cols), 1)? {
        let turns = geometry::turns(rows.len(), 1);
        dispatches.push(problem.prepare(Launch {
            entry: Entry::PointwiseForward,
            shape,
            flags: flags(spec),
            groups: rows.len().div_ceil(turns).saturating_mul(col_groups),
            rows,
            cols: 0..cols,
            scalars: Scalars { col_groups: col_groups as u32, turns: turns as u32, ..Scalars::default() },
        })?);
    }
    stream.run("pointwise forward", &dispatches)
}

pub(super) fn backward(
    spec: &Pointwise,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let Backward { grad_output, input, weight, alpha, .. } = operands;
    let [grad_input, grad_weight, grad_bias, grad_alpha] =
        [&operands.grad_input, &operands.grad_weight, &operands.grad_bias, &operands.grad_alpha]
            .map(|target| target.as_ref().map(|view| view.as_view()));
    let alpha = repeated(spec, alpha.as_ref())?;
    let device = stream.device();
    let wanted = [grad_weight.is_some(), grad_bias.is_some(), grad_alpha.is_some()];
    let axes = &spec.affine.axes;
    let count = |axes: &mut dyn Iterator<Item = usize>| axes.map(|axis| spec.shape[axis]).product::<usize>();
    let cols = count(&mut axes.iter().copied());
    let rows = count(&mut (0..spec.shape.len()).filter(|axis| !axes.contains(axis)));
    // Without sums the chunks still say how rows are shared out.
    let sums = Sums::new(wanted, 3, rows, cols);
    if !sums.is_wanted() && grad_input.is_none() {
        return Ok(());
    }
    let scratch = device.scratch(workspace, sums.bytes())?;
    let mut dispatches = Vec::new();
    for block in sums.blocks(cols) {
        let problem = Problem::new(
            device,
            &spec.shape,
            axes,
            [
                Operand::new("grad_output", Role::Load, Some(grad_output))?,
                Operand::new("input", Role::Load, Some(input))?,
                Operand::new("grad_input", Role::Store, grad_input.as_ref())?,
                Operand::new("weight", Role::Load, weight.as_ref())?,
                Operand::new("alpha", Role::Load, alpha.as_ref())?,
                Operand::flat("partials", Role::Set, &scratch)?,
            ],
        )?;
        let scalars = sums.scalars(&block, Scalars::default());
        let entry = Entry::PointwiseBackward;
        dispatches.extend(sums.partials(&problem, entry, flags(spec), &block, scalars)?);
        for (index, view) in [&grad_weight, &grad_bias].into_iter().enumerate() {
            let Some(view) = view else { continue };
            dispatches.push(sums.finish(device, &scratch, Some((view, &spec.affine)), index, &block)?);
        }
        if grad_alpha.is_some() {
            let shape = geometry::norm(device, &stream.overrides(), Style::Row, cols, false);
            dispatches.push(sums.finish(device, &scratch, None, 2, &block)?);
            dispatches.push(sums.leaves(device, shape, &scratch, 2, &block)?);
        }
    }
    if let Some(gradient) = &grad_alpha {
        dispatches.push(sums.total(device, &scratch, gradient)?);
    }
    stream.run("pointwise backward", &dispatches)
}
