//! A mix of two norms. The shares that it makes of alpha are the weights of the norms; a small launch makes them, and another one the
//! gradient of alpha from those of the weights. Between them come the launches of the norm around both, and, backward, of each.

use super::inner::forward_launches;
use super::launch::{Dispatch, Problem, Scalars};
use super::norm_backward::{Targets, launches_of};
use super::operand::Operand;
use super::variant::{Entry, Flags, Role};
use super::{WgpuStream, WgpuTensor, between};
use crate::backend::{Backward, Forward};
use crate::spec::Norm;
use crate::tensor::{DType, Layout, Tensor, View};
use crate::{Error, Result, Workspace};

/// The shares of the input and of the residual, side by side in one buffer, which a shader may bind as one.
struct Shares<'s> {
    spec: &'s Norm,
    tensor: WgpuTensor,
}

/// A binding begins at a multiple of so many numbers.
const ALIGNED: usize = 64;

impl<'s> Shares<'s> {
    fn new(spec: &'s Norm, stream: &WgpuStream<'_>) -> Result<Self> {
        let tensor = stream.device().zeros(&[2 * Self::step(spec)], DType::F32)?;
        Ok(Shares { spec, tensor })
    }

    /// From one share to the other.
    fn step(spec: &Norm) -> usize {
        spec.affine.shape.iter().product::<usize>().next_multiple_of(ALIGNED)
    }

    /// As numbers of columns.
    fn of_columns(&self) -> Result<[View<'_>; 2]> {
        let own = Layout::contiguous(&self.spec.affine.shape);
        let view = |offset| {
            let layout = Layout::strided(own.shape(), own.strides(), offset)?;
            self.tensor.view()?.with_layout(layout)
        };
        Ok([view(0)?, view(Self::step(self.spec))?])
    }

    /// As weights, in the shape of the spec.
    fn views(&self) -> Result<[View<'_>; 2]> {
        let [rest, share] = self.of_columns()?;
        let seen = |view: View<'_>| expanded(self.spec, view.layout());
        let (of_rest, of_share) = (seen(rest.clone())?, seen(share.clone())?);
        Ok([rest.with_own_layout(of_rest), share.with_own_layout(of_share)])
    }

    fn made(&self, alpha: &View<'_>, stream: &WgpuStream<'_>) -> Result<Vec<Dispatch>> {
        let shares = self.of_columns()?;
        launches(self.spec, Entry::Shares, Role::Store, alpha, &shares, None, stream)
    }
}

/// Numbers of columns in the shape of the spec.
fn expanded(spec: &Norm, layout: &Layout) -> Result<Layout> {
    spec.affine.expand(&spec.shape, layout).ok_or_else(no_alpha)
}

/// What the arguments' checks exclude.
fn no_alpha() -> Error {
    Error::argument("alpha", "one number for each column", "none")
}

/// A launch on numbers of columns: of alpha and of its gradient, which are seen in the shape of the spec, and of shares or their gradients.
fn launches(
    spec: &Norm,
    entry: Entry,
    role: Role,
    alpha: &View<'_>,
    [rest, share]: &[View<'_>; 2],
    gradient: Option<&View<'_>>,
    stream: &WgpuStream<'_>,
) -> Result<Vec<Dispatch>> {
    let [alpha, gradient] = [Some(alpha), gradient].map(|view| {
        view.map(|view| Ok(view.clone().with_own_layout(spec.affine.contract(view.layout())?))).transpose()
    });
    let (alpha, gradient) = (alpha?, gradient?);
    let operands = [
        Operand::new("alpha", Role::Load, alpha.as_ref())?,
        Operand::new("inner_weight", role, Some(rest))?,
        Operand::new("mix_weight", role, Some(share))?,
        Operand::new("gradient", Role::Store, gradient.as_ref())?,
    ];
    let problem = Problem::new(stream.device(), &spec.affine.shape, &[], operands)?;
    let factor = spec.fusion.mix.map_or(1.0, |mix| mix.alpha_scale) as f32;
    between::launches(&problem, entry, Flags::default(), Scalars { factor, ..Scalars::default() })
}

/// Enqueues a forward pass.
pub(super) fn forward(spec: &Norm, operands: Forward<'_>, stream: &WgpuStream<'_>) -> Result<()> {
    let shares = Shares::new(spec, stream)?;
    let mut operands = operands;
    let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else { return Err(no_alpha()) };
    let mut dispatches = shares.made(&mix.alpha, stream)?;
    let [rest, share] = shares.views()?;
    (inner.weight, mix.weight) = (Some(rest), Some(share));
    dispatches.extend(forward_launches(spec, operands, stream)?);
    stream.run("norm forward", &dispatches)
}

/// Enqueues a backward pass: of the norm around both, which makes their results again, and of each. Nothing is enqueued unless all can
/// be.
pub(super) fn backward(
    spec: &Norm,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &WgpuStream<'_>,
) -> Result<()> {
    let device = stream.device();
    let (Some(before), Some(norm)) = (operands.before.clone(), spec.inner()) else { return Err(no_alpha()) };
    let shares = Shares::new(spec, stream)?;
    let mut operands = operands;
    let targets = [operands.grad_input.take(), operands.grad_before.take()];
    let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else { return Err(no_alpha()) };
    let (alpha, grad_alpha) = (mix.alpha.clone(), mix.grad_alpha.take());
    let weights = shares.views()?;
    let [rest, share] = weights.clone();
    (inner.weight, mix.weight) = (Some(rest), Some(share));
    let statistics = [inner.statistics.clone(), mix.statistics.clone()];
    let mut dispatches = shares.made(&alpha, stream)?;
    // The gradient of the sum of both, not rounded.
    let of_sum = device.zeros(&spec.shape, DType::F32)?;
    let of_sum = of_sum.view()?;
    let rounded = operands.input.dtype();
    let to_sum = Targets { input: Some(&of_sum), ..Targets::default() };
    dispatches.extend(launches_of(spec, &operands, to_sum, rounded, workspace, stream)?);
    // Those of the shares, as numbers of columns.
    let new_sums = || device.zeros(&spec.affine.shape, DType::F32);
    let mut sums = [new_sums()?, new_sums()?];
    let inputs = [operands.input.clone(), before].into_iter().zip(weights).zip(statistics);
    for ((((input, weight), statistics), target), sums) in inputs.zip(targets).zip(&mut sums) {
        if target.is_none() && grad_alpha.is_none() {
            continue;
        }
        let grad_weight = match &grad_alpha {
            Some(_) => {
                let view = sums.view_mut()?;
                let layout = expanded(spec, view.layout())?;
                Some(view.with_layout(layout)?)
            }
            None => None,
        };
        let of_norm = Backward {
            weight: Some(weight),
            statistics: Some(statistics),
            grad_weight,
            ..Backward::new(of_sum.clone(), input)
        };
        let target = target.as_ref().map(|view| view.as_view());
        let targets = Targets { input: target.as_ref(), ..Targets::default() };
        dispatches.extend(launches_of(&norm, &of_norm, targets, rounded, workspace, stream)?);
    }
    if let Some(target) = &grad_alpha {
        let [of_rest, of_share] = &sums;
        let (sums, target) = ([of_rest.view()?, of_share.view()?], target.as_view());
        dispatches.extend(launches(
            spec,
            Entry::GradientOfShares,
            Role::Load,
            &alpha,
            &sums,
            Some(&target),
            stream,
        )?);
    }
    stream.run("norm backward", &dispatches)
}
