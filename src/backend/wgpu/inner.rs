//! The norm of a branch that a residual is added to, and that of the residual, if there is one. Forward, they are a part of the kernel
//! of the norm around them where rows are one leaf, or else their statistics come first. Backward, the gradient of the sum is that of
//! the branch's output: launches for the norm around it, which make the branch's values again, and then those of any norm.

use super::launch::Dispatch;
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
    let (offset, mix) = (offset && has_weight, spec.fusion.mix.is_some());
    Ok(Some(InnerFlags { kind, prefix, outside, offset, round, computed, mix }))
}

/// Those of a forward pass.
pub(super) fn flags(spec: &Norm, inner: Option<&Inner<'_>>, computed: bool) -> Result<Option<InnerFlags>> {
    inner.map_or(Ok(None), |inner| of_spec(spec, inner.weight.is_some(), computed))
}

/// Those of a backward pass, which makes its values again.
pub(super) fn flags_again(spec: &Norm, inner: Option<&InnerBackward<'_>>) -> Result<Option<InnerFlags>> {
    inner.map_or(Ok(None), |inner| of_spec(spec, inner.weight.is_some(), false))
}

/// Weight, bias and statistics of the norm within, weight and statistics of that of the residual.
const OPERANDS: usize = 5;

/// Those that there are, with the statistics where they are `known` or wanted.
pub(super) fn of_forward(
    spec: &Norm,
    all: &Forward<'_>,
    known: &[View<'_>],
) -> Result<[Option<Operand>; OPERANDS]> {
    let Some(inner) = &all.inner else { return Ok([const { None }; OPERANDS]) };
    let mix = all.mix.as_ref();
    let of_mix = mix.and_then(|mix| mix.statistics.as_ref());
    let [wanted, of_mix] = [inner.statistics.as_ref(), of_mix].map(|view| view.map(|view| view.as_view()));
    let role = if known.is_empty() { Role::SetNumber } else { Role::Number };
    let statistics = [known.first().or(wanted.as_ref()), known.get(1).or(of_mix.as_ref())];
    let weights = [inner.weight.as_ref(), mix.and_then(|mix| mix.weight.as_ref())];
    operands(spec, weights, inner.bias.as_ref(), statistics, role)
}

/// What makes their values again, from the statistics that were saved; nothing where there is none.
pub(super) fn of_backward(
    spec: &Norm,
    all: &Backward<'_>,
    role: Role,
) -> Result<[Option<Operand>; OPERANDS]> {
    let Some(inner) = &all.inner else { return Ok([const { None }; OPERANDS]) };
    let mix = all.mix.as_ref();
    let weights = [inner.weight.as_ref(), mix.and_then(|mix| mix.weight.as_ref())];
    let statistics = [Some(&inner.statistics), mix.map(|mix| &mix.statistics)];
    operands(spec, weights, inner.bias.as_ref(), statistics, role)
}

fn operands(
    spec: &Norm,
    [weight, of_mix]: [Option<&View<'_>>; 2],
    bias: Option<&View<'_>>,
    [statistics, statistics_of_mix]: [Option<&View<'_>>; 2],
    role: Role,
) -> Result<[Option<Operand>; OPERANDS]> {
    let per_row = |name, view: Option<&View<'_>>| {
        Operand::per_row(name, role, view, &spec.shape, &spec.reduced, [STATISTICS; 2])
    };
    Ok([
        Operand::new("inner_weight", Role::Load, weight)?,
        Operand::new("inner_bias", Role::Load, bias)?,
        per_row("inner_statistics", statistics)?,
        Operand::new("mix_weight", Role::Load, of_mix)?,
        per_row("mix_statistics", statistics_of_mix)?,
    ])
}

fn most_bindings(stream: &WgpuStream<'_>) -> usize {
    stream.device().limits().max_storage_buffers_per_shader_stage as usize
}

/// Enqueues the forward pass of a norm and of that of its branch.
pub(super) fn forward(spec: &Norm, operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    stream.run("norm forward", &forward_launches(spec, operands, stream)?)
}

/// The launches of a forward pass of a norm, of that of its branch, and of that of its residual.
pub(super) fn forward_launches(
    spec: &Norm,
    mut operands: Forward<'_>,
    stream: &WgpuStream<'_>,
) -> Result<Vec<Dispatch>> {
    let (Some(inner), Some(norm)) = (operands.inner.take(), spec.inner()) else {
        return norm::forward(spec, &operands, &[], stream);
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
    let (mut operands, mut inner) = (operands, inner);
    if let Some(packed) = &packed {
        [operands.weight, operands.bias, inner.weight, inner.bias] = packed.views()?;
    }
    if !geometry::is_split(&stream.overrides(), norm::cols(spec)) {
        operands.inner = Some(inner);
        dispatches.extend(norm::forward(spec, &operands, &[], stream)?);
        return Ok(dispatches);
    }
    // Rows of several leaves are known as a whole after a launch only.
    let mut within = vec![(operands.input.clone(), inner.statistics.take())];
    if let (Some(mix), Some(before)) = (&mut operands.mix, &operands.before) {
        within.push((before.clone(), mix.statistics.take()));
    }
    let mut own = [None, None];
    let mut known = Vec::new();
    for ((input, statistics), own) in within.into_iter().zip(&mut own) {
        let statistics = match statistics {
            Some(statistics) => statistics,
            None => {
                own.insert(norm::scratch(stream.device(), norm::rows(spec), 1, STATISTICS)?).view_mut()?
            }
        };
        let of_rows = Forward { statistics: Some(statistics), ..Forward::new(input) };
        dispatches.extend(norm::forward(&norm, &of_rows, &[], stream)?);
        known.extend(of_rows.statistics);
    }
    operands.inner = Some(inner);
    let known: Vec<View<'_>> = known.iter().map(|view| view.as_view()).collect();
    dispatches.extend(norm::forward(spec, &operands, &known, stream)?);
    Ok(dispatches)
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
        weight: inner.weight.clone(),
        statistics: Some(inner.statistics.clone()),
        grad_input,
        grad_weight,
        grad_bias,
        ..Backward::new(operands.grad_output.clone(), input)
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
