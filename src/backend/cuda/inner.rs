//! The norm of a branch that a residual is added to. Forward, it is a part of the kernel of the norm around it. Backward, the
//! gradient of the sum is that of its output: launches for the norm around it, which make the branch's values again, and then
//! those of any norm.

use super::CudaStream;
use super::constants;
use super::launch::{Operand, Role, enqueue};
use super::norm::rounds;
use super::norm_backward::{Targets, launches};
use super::variant::{Flags, InnerFlags};
use crate::backend::{Backward, workspace_size};
use crate::spec::{Norm, STATISTICS, Spec};
use crate::tensor::{DType, Layout, View};
use crate::{Error, Result, Workspace};

/// What of it is compiled into kernels that compute its statistics, if the spec has one; `dtype` is that of its input.
pub(super) fn flags(spec: &Norm, has_weight: bool, dtype: DType) -> Result<Option<InnerFlags>> {
    let Some(norm) = spec.inner() else { return Ok(None) };
    let Flags { kind, prefix, outside, .. } = constants::flags(&norm)?;
    let offset = has_weight && norm.weight_offset != 0.0;
    let mix = spec.fusion.mix.is_some();
    Ok(Some(InnerFlags { kind, prefix, outside, offset, round: rounds(&norm, dtype), mix }))
}

/// What makes the values of a branch's norm again, from the statistics that were saved; nothing where there is none.
#[derive(Default)]
pub(super) struct Again {
    pub(super) flags: Option<InnerFlags>,
    /// Weight, bias and statistics; weight and statistics of a residual's norm.
    pub(super) operands: [Option<Operand>; 5],
}

impl Again {
    pub(super) fn of(spec: &Norm, operands: &Backward<'_>) -> Result<Self> {
        let Some(inner) = &operands.inner else { return Ok(Again::default()) };
        let flags = flags(spec, inner.weight.is_some(), operands.input.dtype())?;
        // Where its statistics are from makes no difference.
        let flags = flags.map(|flags| InnerFlags {
            kind: flags.kind.applied(),
            prefix: false,
            outside: false,
            ..flags
        });
        let mix = operands.mix.as_ref();
        let per_row = |name, view: Option<&View<'_>>| {
            Operand::per_row(name, view, &spec.shape, &spec.reduced, STATISTICS)
        };
        let operands = [
            Operand::new("inner_weight", Role::Load, inner.weight.as_ref())?,
            Operand::new("inner_bias", Role::Load, inner.bias.as_ref())?,
            per_row("inner_statistics", Some(&inner.statistics))?,
            Operand::new("mix_weight", Role::Load, mix.and_then(|mix| mix.weight.as_ref()))?,
            per_row("mix_statistics", mix.map(|mix| &mix.statistics))?,
        ];
        Ok(Again { flags, operands })
    }
}

/// Enqueues the backward passes of a norm and of that of its branch. Nothing is enqueued unless both can be.
pub(super) fn backward(
    spec: &Norm,
    mut operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let Some((mut inner, norm)) = operands.inner.take().zip(spec.inner()) else {
        return super::norm_backward::backward(spec, operands, workspace, stream);
    };
    let (mut spec, input) = (spec.clone(), operands.input.clone());
    let compute = input.dtype().compute();
    let (grad_input, grad_weight, grad_bias) =
        (operands.grad_input.take(), inner.grad_weight.take(), inner.grad_bias.take());
    let are_summed = [&grad_weight, &grad_bias, &operands.grad_weight, &operands.grad_bias];
    let are_summed = are_summed.iter().any(|target| target.is_some());
    let is_wanted = grad_input.is_some() || grad_weight.is_some() || grad_bias.is_some();
    let mut of_branch = Backward {
        weight: inner.weight.clone(),
        statistics: Some(inner.statistics.clone()),
        grad_input,
        grad_weight,
        grad_bias,
        ..Backward::new(operands.grad_output.clone(), input)
    };
    let dtype = of_branch.input.dtype();
    match inner.hidden.take() {
        None => operands.inner = Some(inner),
        // What was written takes the place of what it is made of. Normalized values were rounded to the input's dtype.
        Some(hidden) => {
            spec.round_normalized = rounds(&spec, dtype);
            if spec.round_normalized && hidden.dtype() != dtype {
                let what =
                    "gradients of a rounded norm from a hidden value of another dtype than the input's";
                return Err(Error::Unsupported { what, backend: stream.device().backend() });
            }
            operands.input = hidden;
        }
    }
    if are_summed {
        // For whichever norm takes most of it, as launches that are planned keep its address.
        stream.workspace(workspace, workspace_size(&Spec::Norm(norm.clone()), dtype))?;
    }
    let mut kept = Vec::new();
    let grad_before = operands.grad_before.as_ref().map(|view| view.as_view());
    // The gradient of the sum itself, not rounded: that of the residual, or else scratch memory.
    let is_sum = spec.fusion.scales() == [1.0; 2] && spec.fusion.dropout.is_none();
    let written = grad_before.as_ref().filter(|view| is_sum && view.dtype() == compute);
    let numbers = spec.shape.iter().product::<usize>();
    let scratch = match is_wanted && written.is_none() {
        true => Some(stream.scratch(numbers.saturating_mul(compute.size()))?),
        false => None,
    };
    let layout = Layout::contiguous(&spec.shape);
    let own = scratch.as_ref().map(|scratch| scratch.view(compute, layout)).transpose()?;
    let targets = Targets { input: own.as_ref(), before: grad_before.as_ref(), after: None };
    let mut planned = launches(&spec, &operands, targets, workspace, stream, &mut kept)?;
    if let Some(of_output) = written.or(own.as_ref()).filter(|_| is_wanted) {
        of_branch.grad_output = of_output.clone();
        let target = of_branch.grad_input.as_ref().map(|view| view.as_view());
        let targets = Targets { input: target.as_ref(), ..Targets::default() };
        planned.extend(launches(&norm, &of_branch, targets, workspace, stream, &mut kept)?);
    }
    enqueue(stream, "norm backward", planned)
}
