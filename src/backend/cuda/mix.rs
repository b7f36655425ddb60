//! A mix of two norms. The shares that it makes of alpha are the weights of the norms; a small launch makes them, and another one the
//! gradient of alpha from those of the weights. Between them come the launches of the norm around both, and, backward, of each.

use super::CudaStream;
use super::between::launch;
use super::geometry;
use super::launch::{Operand, Planned, Problem, Role, enqueue};
use super::norm;
use super::norm_backward::{Targets, launches};
use super::params::Scalars;
use super::stream::Scratch;
use super::variant::{Entry, Flags};
use crate::backend::{Backward, Forward, workspace_size};
use crate::spec::{Norm, Spec};
use crate::tensor::{DType, Layout, View, ViewMut};
use crate::{Error, Result, Workspace};

/// Numbers of columns that live between launches, in lots: the shares of the input and of the residual, and the sums over rows that
/// their gradients are.
struct Shares<'s> {
    spec: &'s Norm,
    compute: DType,
    scratch: Scratch,
}

const REST: usize = 0;
const SHARE: usize = 1;
/// From a share to its gradient.
const GRADIENTS: usize = 2;

impl<'s> Shares<'s> {
    fn new(spec: &'s Norm, compute: DType, lots: usize, stream: &CudaStream<'_>) -> Result<Self> {
        let bytes = Self::lot(spec).saturating_mul(lots).saturating_mul(compute.size());
        Ok(Shares { spec, compute, scratch: stream.scratch(bytes)? })
    }

    /// Numbers of a lot: as aligned as memory is.
    fn lot(spec: &Norm) -> usize {
        spec.affine.shape.iter().product::<usize>().next_multiple_of(32)
    }

    /// How a lot lies in the shape of the parameters.
    fn own(&self, lot: usize) -> Result<Layout> {
        let own = Layout::contiguous(&self.spec.affine.shape);
        Layout::strided(own.shape(), own.strides(), lot * Self::lot(self.spec))
    }

    /// The same in the spec's.
    fn seen(&self, lot: usize) -> Result<Layout> {
        self.spec.affine.expand(&self.spec.shape, &self.own(lot)?).ok_or_else(no_alpha)
    }

    fn view(&self, lot: usize) -> Result<View<'_>> {
        self.scratch.view(self.compute, self.seen(lot)?)
    }

    fn view_mut(&self, lot: usize) -> Result<ViewMut<'_>> {
        self.scratch.view_mut(self.compute, self.seen(lot)?)
    }

    /// A launch on numbers of columns: those of alpha, of two lots, and of the gradient of alpha, which are seen in the spec's shape.
    fn between(
        &self,
        entry: Entry,
        alpha: &View<'_>,
        [rest, share]: [usize; 2],
        gradient: Option<&View<'_>>,
    ) -> Result<Planned> {
        let seen = |name, view: &View<'_>| {
            Operand::laid_out(name, Role::Number, view, self.spec.affine.contract(view.layout())?)
        };
        let lot = |name, lot| Operand::laid_out(name, Role::Number, &self.view(lot)?, self.own(lot)?);
        let operands = [
            Some(seen("alpha", alpha)?),
            Some(lot("inner_weight", rest)?),
            Some(lot("mix_weight", share)?),
            gradient.map(|view| seen("gradient", view)).transpose()?,
        ];
        let problem = Problem::new(self.compute, &self.spec.affine.shape, &[], operands);
        let factor = self.spec.fusion.mix.map_or(1.0, |mix| mix.alpha_scale);
        let factor = if self.compute == DType::F64 { factor } else { f64::from(factor as f32) };
        let scalars = Scalars { factor, ..Scalars::default() };
        launch(&problem, entry, geometry::apart(1), Flags::default(), scalars)
    }

    fn made(&self, alpha: &View<'_>) -> Result<Planned> {
        self.between(Entry::Shares, alpha, [REST, SHARE], None)
    }

    fn gradient(&self, alpha: &View<'_>, target: &View<'_>) -> Result<Planned> {
        let gradients = [REST, SHARE].map(|share| share + GRADIENTS);
        self.between(Entry::GradientOfShares, alpha, gradients, Some(target))
    }
}

/// What the arguments' checks exclude.
fn no_alpha() -> Error {
    Error::argument("alpha", "one number for each column", "none")
}

/// Enqueues a forward pass.
pub(super) fn forward(spec: &Norm, operands: Forward<'_>, stream: &CudaStream<'_>) -> Result<()> {
    let shares = Shares::new(spec, operands.input.dtype().compute(), 2, stream)?;
    let mut operands = operands;
    let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else { return Err(no_alpha()) };
    let mut planned = vec![shares.made(&mix.alpha)?];
    inner.weight = Some(shares.view(REST)?);
    mix.weight = Some(shares.view(SHARE)?);
    let mut kept = Vec::new();
    planned.extend(norm::launches(spec, &operands, stream, &mut kept)?);
    enqueue(stream, "norm forward", planned)
}

/// Enqueues a backward pass: of the norm around both, which makes their results again, and of each. Nothing is enqueued unless all can
/// be.
pub(super) fn backward(
    spec: &Norm,
    operands: Backward<'_>,
    workspace: &mut Workspace,
    stream: &CudaStream<'_>,
) -> Result<()> {
    let dtype = operands.input.dtype();
    let compute = dtype.compute();
    let (Some(before), Some(norm)) = (operands.before.clone(), spec.inner()) else { return Err(no_alpha()) };
    let shares = Shares::new(spec, compute, 4, stream)?;
    let numbers = spec.shape.iter().product::<usize>();
    let scratch = stream.scratch(numbers.saturating_mul(compute.size()))?;
    // The gradient of the sum of both, not rounded.
    let of_sum = scratch.view(compute, Layout::contiguous(&spec.shape))?;
    let mut operands = operands;
    let targets = [operands.grad_input.take(), operands.grad_before.take()];
    let (Some(inner), Some(mix)) = (&mut operands.inner, &mut operands.mix) else { return Err(no_alpha()) };
    let (alpha, grad_alpha) = (mix.alpha.clone(), mix.grad_alpha.take());
    inner.weight = Some(shares.view(REST)?);
    mix.weight = Some(shares.view(SHARE)?);
    let statistics = [inner.statistics.clone(), mix.statistics.clone()];
    if grad_alpha.is_some() {
        // For whichever norm takes most of it, as launches that are planned keep its address.
        stream.workspace(workspace, workspace_size(&Spec::Norm(norm.clone()), dtype))?;
    }
    let mut kept = Vec::new();
    let mut planned = vec![shares.made(&alpha)?];
    let to_sum = Targets { input: Some(&of_sum), ..Targets::default() };
    planned.extend(launches(spec, &operands, to_sum, workspace, stream, &mut kept)?);
    let inputs = [operands.input.clone(), before];
    for (share, ((input, statistics), target)) in inputs.into_iter().zip(statistics).zip(targets).enumerate()
    {
        if target.is_none() && grad_alpha.is_none() {
            continue;
        }
        let grad_weight = grad_alpha.as_ref().map(|_| shares.view_mut(share + GRADIENTS)).transpose()?;
        let of_norm = Backward {
            weight: Some(shares.view(share)?),
            statistics: Some(statistics),
            grad_weight,
            ..Backward::new(of_sum.clone(), input)
        };
        let target = target.as_ref().map(|view| view.as_view());
        let targets = Targets { input: target.as_ref(), ..Targets::default() };
        planned.extend(launches(&norm, &of_norm, targets, workspace, stream, &mut kept)?);
    }
    if let Some(target) = &grad_alpha {
        planned.push(shares.gradient(&alpha, &target.as_view())?);
    }
    enqueue(stream, "norm backward", planned)
}
