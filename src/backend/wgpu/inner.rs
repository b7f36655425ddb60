//! The norm of a branch that a residual is added to. Forward, it is a part of the kernel of the norm around it where rows are one
//! leaf, or else its statistics come first. Backward, the gradient of the sum is that of its output: launches for the norm
//! around it, which make the branch's values again, and then those of any norm.

use super::norm_backward::{Targets, launches_of};
use super::operand::Operand;
use super::variant::{Flags, InnerFlags, Role};
use super::{WgpuStream, geometry, norm, norm_backward, packed};
use crate::backend::{Backward, Forward, Inner, InnerBackward};
use crate::spec::{Norm, STATISTICS};
use crate::tensor::{DType, Tensor, View};
use crate::{Result, Workspace};

/// What of it is compiled into kernels that compute its statistics, or are given them.
fn of_spec(spec: &Norm, has_weight: bool, computed: bool) -> Result<Option<InnerFlags>> {
    let Some(norm) = spec.inner() else { return Ok(None) };
    let Flags { kind, prefix, outside, offset, round, .. } = norm::flags(&norm)?;
    // Where given statistics are from makes no difference.
    let (prefix, outside) = (prefix && computed, outside && computed);
    Ok(Some(InnerFlags { kind, prefix, outside, offset: offset && has_weight, round, computed }))
}

/// Those of a forward pass.
pub(super) fn flags(spec: &Norm, inner: Option<&Inner<'_>>, computed: bool) -> Result<Option<InnerFlags>> {
    inner.map_or(Ok(None), |inner| of_spec(spec, inner.weight.is_some(), computed))
}

/// Those of a backward pass, which makes its values again.
pub(super) fn flags_again(spec: &Norm, inner: Option<&InnerBackward<'_>>) -> Result<Option<InnerFlags>> {
    inner.map_or(Ok(None), |inner| of_spec(spec, inner.weight.is_some(), false))
}

/// Its weight, its bias, and its statistics where they are known or wanted.
pub(super) fn of_forward(
    spec: &Norm,
    inner: Option<&Inner<'_>>,
    known: Option<&View<'_>>,
) -> Result<[Option<Operand>; 3]> {
    let Some(inner) = inner else { return Ok([None, None, None]) };
    let wanted = inner.statistics.as_ref().map(|view| view.as_view());
    let role = if known.is_some() { Role::Number } else { Role::SetNumber };
    operands(spec, [inner.weight.as_ref(), inner.bias.as_ref(), known.or(wanted.as_ref())], role)
}

/// What makes its values again, from the statistics that were saved; nothing where there is none.
pub(super) fn of_backward(spec: &Norm, all: &Backward<'_>, role: Role) -> Result<[Option<Operand>; 3]> {
    let Some(inner) = &all.inner else { return Ok([None, None, None]) };
    operands(spec, [inner.weight.as_ref(), inner.bias.as_ref(), Some(&inner.statistics)], role)
}

fn operands(
    spec: &Norm,
    [weight, bias, statistics]: [Option<&View<'_>>; 3],
    role: Role,
) -> Result<[Option<Operand>; 3]> {
    let numbers = [STATISTICS; 2];
    Ok([
        Operand::new("inner_weight", Role::Load, weight)?,
        Operand::new("inner_bias", Role::Load, bias)?,
        Operand::per_row("inner_statistics", role, statistics, &spec.shape, &spec.reduced, numbers)?,
    ])
}

fn most_bindings(stream: &WgpuStream<'_>) -> usize {
    stream.device().limits().max_storage_buffers_per_shader_stage as usize
}

/// Enqueues the forward pass of a norm and of that of its branch.
pub(super) fn forward(spec: &Norm, mut operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let (Some(inner), Some(norm)) = (operands.inner.take(), spec.inner()) else {
        return stream.run("norm forward", &norm::forward(spec, &operands, None, stream)?);
    };
    let parameters = [&operands.weight, &operands.bias, &inner.weight, &inner.bias].map(Option::as_ref);
    let written = [operands.output.is_some(), operands.hidden.is_some(), operands.statistics.is_some(), true];
    let count =
        2 + written.iter().filter(|&&is_there| is_there).count() + parameters.iter().flatten().count();
    let packed = match count > most_bindings(stream) {
        true => packed::Parameters::new(spec, parameters, DType::F32, stream)?,
        false => None,
    };
    let (packed, copies) = packed.unzip();
    let mut dispatches = copies.unwrap_or_default();
    let mut own = None;
    let (mut operands, mut inner) = (operands, inner);
    if let Some(packed) = &packed {
        [operands.weight, operands.bias, inner.weight, inner.bias] = packed.views()?;
    }
    if !geometry::is_split(&stream.overrides(), norm::cols(spec)) {
        operands.inner = Some(inner);
        dispatches.extend(norm::forward(spec, &operands, None, stream)?);
        return stream.run("norm forward", &dispatches);
    }
    // Rows of several leaves are known as a whole after a launch only.
    let statistics = match inner.statistics.take() {
        Some(statistics) => statistics,
        None => own.insert(norm::scratch(stream.device(), norm::rows(spec), 1, STATISTICS)?).view_mut()?,
    };
    let of_branch = Forward { statistics: Some(statistics), ..of_input(operands.input.clone()) };
    dispatches.extend(norm::forward(&norm, &of_branch, None, stream)?);
    operands.inner = Some(inner);
    let known = of_branch.statistics.as_ref().map(|view| view.as_view());
    dispatches.extend(norm::forward(spec, &operands, known.as_ref(), stream)?);
    stream.run("norm forward", &dispatches)
}

/// A norm alone, asked for nothing.
fn of_input(input: View<'_>) -> Forward<'_> {
    Forward {
        input,
        weight: None,
        bias: None,
        alpha: None,
        mask: None,
        given: None,
        before: None,
        after: None,
        branch_bias: None,
        branch_scale: None,
        rotary: None,
        output: None,
        scales: None,
        hidden: None,
        statistics: None,
        moments: None,
        inner: None,
    }
}

/// Enqueues the backward passes of a norm and of that of its branch. Nothing is enqueued unless both can be.
pub(super) fn backward(
    spec: &Norm,
    mut operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let (Some(mut inner), Some(norm)) = (operands.inner.take(), spec.inner()) else {
        return norm_backward::backward(spec, operands, workspace, stream);
    };
    let device = stream.device();
    let (input, rounded) = (operands.input.clone(), operands.input.dtype());
    let (grad_input, grad_weight, grad_bias) =
        (operands.grad_input.take(), inner.grad_weight.take(), inner.grad_bias.take());
    let is_wanted = grad_input.is_some() || grad_weight.is_some() || grad_bias.is_some();
    let of_branch = Backward {
        grad_output: operands.grad_output.clone(),
        input,
        weight: inner.weight.clone(),
        bias: None,
        alpha: None,
        mask: None,
        before: None,
        after: None,
        branch_bias: None,
        branch_scale: None,
        rotary: None,
        grad_hidden: None,
        statistics: Some(inner.statistics.clone()),
        given: None,
        grad_input,
        grad_weight,
        grad_bias,
        grad_alpha: None,
        grad_branch_bias: None,
        grad_branch_scale: None,
        grad_before: None,
        grad_after: None,
        sums: None,
        inner: None,
    };
    let mut dispatches = Vec::new();
    let parameters = [&operands.weight, &inner.weight, &inner.bias].map(Option::as_ref);
    let packed = match inner.hidden.is_none() && most_bindings(stream) < MOST_BACKWARD {
        true => packed::Parameters::new(spec, parameters, DType::F32, stream)?,
        false => None,
    };
    let (packed, copies) = packed.unzip();
    dispatches.extend(copies.unwrap_or_default());
    let (mut operands, mut inner) = (operands, inner);
    if let Some(packed) = &packed {
        [operands.weight, inner.weight, inner.bias] = packed.views()?;
    }
    match inner.hidden.take() {
        None => operands.inner = Some(inner),
        // What was written takes the place of what it is made of.
        Some(hidden) => operands.input = hidden,
    }
    let grad_before = operands.grad_before.as_ref().map(|view| view.as_view());
    // The gradient of the sum itself, not rounded: that of the residual, or else scratch memory.
    let is_sum = spec.fusion.scales() == [1.0; 2] && spec.fusion.dropout.is_none();
    let written = grad_before.as_ref().filter(|view| is_sum && view.dtype() == DType::F32);
    let own = match is_wanted && written.is_none() {
        true => Some(device.zeros(&spec.shape, DType::F32)?),
        false => None,
    };
    let own = own.as_ref().map(Tensor::view).transpose()?;
    let targets = Targets { input: own.as_ref(), before: grad_before.as_ref(), after: None };
    dispatches.extend(launches_of(spec, &operands, targets, rounded, workspace, stream)?);
    if let Some(of_output) = written.or(own.as_ref()).filter(|_| is_wanted) {
        let of_branch = Backward { grad_output: of_output.clone(), ..of_branch };
        let target = of_branch.grad_input.as_ref().map(|view| view.as_view());
        let targets = Targets { input: target.as_ref(), ..Targets::default() };
        dispatches.extend(launches_of(&norm, &of_branch, targets, rounded, workspace, stream)?);
    }
    stream.run("norm backward", &dispatches)
}

/// Tensors of the pass that makes the branch's values again and writes two gradients and the parameters' sums.
const MOST_BACKWARD: usize = 12;
