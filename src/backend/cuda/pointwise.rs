//! The `pointwise` schedule: `kernels/pointwise.cu`.

use super::launch::{Operand, Planned, Problem, Role, Task, enqueue};
use super::params::Scalars;
use super::sums::Sums;
use super::variant::{Entry, Flags};
use super::{CudaStream, geometry};
use crate::backend::{Backward, Forward};
use crate::spec::{Function, Pointwise};
use crate::tensor::{Layout, View};
use crate::{Result, Workspace};

/// What of a spec is compiled into the kernel.
fn flags(spec: &Pointwise) -> Flags {
    Flags { inverse_root: spec.function == Function::InverseSquareRoot, ..Flags::default() }
}

/// Alpha is the same element everywhere.
fn repeated(spec: &Pointwise, alpha: Option<&View<'_>>) -> Result<Option<Operand>> {
    let Some(alpha) = alpha else { return Ok(None) };
    let strides = vec![0; spec.shape.len()];
    let layout = Layout::strided(&spec.shape, &strides, alpha.layout().offset())?;
    Operand::laid_out("alpha", Role::Number, alpha, layout).map(Some)
}

pub(super) fn forward(spec: &Pointwise, operands: &Forward<'_>, stream: &CudaStream<'_>) -> Result<()> {
    enqueue(stream, "pointwise forward", launches(spec, operands, stream)?)
}

/// The launches of a forward pass.
pub(super) fn launches(
    spec: &Pointwise,
    operands: &Forward<'_>,
    stream: &CudaStream<'_>,
) -> Result<Vec<Planned>> {
    let Forward { input, weight, bias, alpha, output, .. } = operands;
    let Some(output) = output else { return Ok(Vec::new()) };
    let tensors = [
        Operand::new("input", Role::Load, Some(input))?,
        Operand::new("output", Role::Store, Some(&output.as_view()))?,
        Operand::new("weight", Role::Load, weight.as_ref())?,
        Operand::new("bias", Role::Load, bias.as_ref())?,
        repeated(spec, alpha.as_ref())?,
    ];
    let dtype = input.dtype();
    let problem = Problem::new(dtype.compute(), &spec.shape, &spec.affine.axes, tensors);
    let width = problem.width(geometry::most_width(&stream.overrides(), dtype, geometry::MOST_WIDTH));
    let (rows, shape) = (problem.grid.rows, geometry::apart(width));
    let runs = problem.grid.cols.div_ceil(width as usize);
    let turns = geometry::turns(stream.device().limits(), rows, runs);
    let threads = rows.div_ceil(turns).saturating_mul(runs);
    let planned = problem.plan(Task {
        entry: Entry::PointwiseForward,
        shape,
        flags: flags(spec),
        rows: 0..rows,
        scalars: Scalars { turns: turns as i64, ..Scalars::default() },
        blocks: threads.div_ceil(shape.block() as usize),
    })?;
    Ok(vec![planned])
}

pub(super) fn backward(
    spec: &Pointwise,
    operands: &Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let Backward { grad_output, input, weight, alpha, .. } = operands;
    let [grad_input, grad_weight, grad_bias, grad_alpha] =
        [&operands.grad_input, &operands.grad_weight, &operands.grad_bias, &operands.grad_alpha]
            .map(|target| target.as_ref().map(|view| view.as_view()));
    let (dtype, axes) = (input.dtype(), &spec.affine.axes);
    let compute = dtype.compute();
    let wanted = [grad_weight.is_some(), grad_bias.is_some(), grad_alpha.is_some()];
    if !wanted.contains(&true) && grad_input.is_none() {
        return Ok(());
    }
    let count = |axes: &mut dyn Iterator<Item = usize>| axes.map(|axis| spec.shape[axis]).product::<usize>();
    let cols = count(&mut axes.iter().copied());
    let rows = count(&mut (0..spec.shape.len()).filter(|axis| !axes.contains(axis)));
    // Without sums the chunks still say how rows are shared out.
    let sums = Sums::new(compute, wanted, 3, rows, cols);
    let scratch = stream.workspace(workspace, sums.bytes())?;
    let tensors = [
        Operand::new("grad_output", Role::Load, Some(grad_output))?,
        Operand::new("input", Role::Load, Some(input))?,
        Operand::new("grad_input", Role::Store, grad_input.as_ref())?,
        Operand::new("weight", Role::Load, weight.as_ref())?,
        repeated(spec, alpha.as_ref())?,
        Some(Operand::flat("partials", &scratch, compute)?),
    ];
    let problem = Problem::new(compute, &spec.shape, axes, tensors);
    let scalars = Scalars::default();
    let mut planned =
        vec![sums.partials(&problem, Entry::PointwiseBackward, flags(spec), scalars, stream, dtype)?];
    for (index, view) in [&grad_weight, &grad_bias].into_iter().enumerate() {
        let Some(view) = view else { continue };
        planned.push(sums.finish(&scratch, Some((view, &spec.affine)), index)?);
    }
    if let Some(gradient) = &grad_alpha {
        planned.push(sums.finish(&scratch, None, 2)?);
        planned.extend(sums.total(&scratch, gradient, 2)?);
    }
    enqueue(stream, "pointwise backward", planned)
}
