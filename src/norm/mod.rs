//! The methods, one file each: formula, arguments, and the spec it lowers to.
//!
//! [`Method`] gives every method the same calls. On the ground floor, [`forward_into`](Method::forward_into) and
//! [`backward_into`](Method::backward_into) take run-time-typed views and write where they are told; above,
//! [`forward`](Method::forward), [`forward_train`](Method::forward_train) and [`backward`](Method::backward) take any
//! [`Tensor`] and make their results.

mod arguments;
mod batch_norm;
mod channels;
mod dyt;
mod eln;
mod fusion;
mod gradients;
mod group_norm;
mod head_norm;
mod hypersphere;
mod layer_norm;
mod layer_norm_2d;
mod lowering;
mod normalize;
mod outliers;
mod packed;
mod pair;
mod parameters;
mod qk_norm;
mod quantized;
mod rms_norm;
mod rotary;
mod sandwich;
pub mod steps;
mod weight_norm;

pub use batch_norm::{BatchNorm, FrozenBatchNorm, Momentum, RunningStatistics, RunningViews};
pub use dyt::DyT;
pub use eln::Eln;
pub use gradients::{Gradients, Grads, Saved};
pub use group_norm::{GroupNorm, InstanceNorm};
pub use head_norm::HeadNorm;
#[cfg(feature = "check")]
pub(crate) use hypersphere::spec as hypersphere_spec;
pub use hypersphere::{
    HypersphereGradients, HypersphereGrads, HypersphereSaved, HypersphereStatistics, HypersphereStep,
};
pub use layer_norm::LayerNorm;
pub use layer_norm_2d::LayerNorm2d;
pub use normalize::Normalize;
pub use outliers::{OutlierCodes, OutlierOutputs, Outliers, zero_columns};
pub use packed::split_packed;
pub use pair::Pair;
pub use parameters::Parameters;
pub use qk_norm::{QkNorm, QkSaved};
pub use quantized::{Codes, Quantized};
pub use rms_norm::{Cast, RmsNorm};
pub use rotary::{Rotary, RotaryTables, rotary_tables};
pub use sandwich::{
    HiddenFrom, Sandwich, SandwichGradients, SandwichGrads, SandwichSaved, SandwichStatistics,
};
pub use weight_norm::WeightNorm;

pub(crate) use fusion::bind_fusion;
pub(crate) use lowering::{affine_along, check_eps, check_offset, trailing_affine, trailing_axes};
pub(crate) use parameters::{bind, bind_alpha, bind_broadcast, bind_mask, bind_weight_and_bias};
pub(crate) use rotary::bind_rotary;

use crate::backend;
use crate::spec::{Prologue, STATISTICS, Spec};
use crate::tensor::{DType, Tensor, View, ViewMut};
use crate::{DeviceTensor, Result, Stream, Workspace};
use arguments::{BackwardArguments, ForwardArguments};
use rotary::check_dims;

/// A method that is borrowed.
impl<M: Method + ?Sized> Method for &M {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec> {
        (**self).lower(shape, dtype)
    }

    fn parameters(&self) -> &Parameters<'_> {
        (**self).parameters()
    }

    fn given(&self) -> Option<&DeviceTensor> {
        (**self).given()
    }
}

/// A normalization method: its configuration and its parameters, ready to be applied to tensors.
pub trait Method {
    /// The method's name, as the command line and the docs spell it.
    fn name(&self) -> &'static str;

    /// The spec for an input of this shape and dtype, or what is wrong with the configuration.
    fn lower(&self, shape: &[usize], dtype: DType) -> Result<Spec>;

    /// The bound parameters.
    fn parameters(&self) -> &Parameters<'_>;

    /// Statistics that take the place of the input's own, `[rows, STATISTICS]`: those of a frozen norm.
    fn given(&self) -> Option<&DeviceTensor> {
        None
    }

    /// Shape of the statistics of an input of `shape`: `[rows, 4]`. Their dtype is the input dtype's
    /// [`compute`](DType::compute). `None` if the method saves none or its statistics are given.
    fn statistics_shape(&self, shape: &[usize], dtype: DType) -> Result<Option<[usize; 2]>> {
        let spec = self.lower(shape, dtype)?;
        let saves = spec.has_statistics() && self.given().is_none();
        Ok(saves.then_some([spec.rows(), STATISTICS]))
    }

    /// Bytes of scratch that a backward pass over an input of `shape` needs at most, on any device. Forward passes
    /// need none.
    fn workspace_size(&self, shape: &[usize], dtype: DType) -> Result<usize> {
        let spec = self.lower(shape, dtype)?;
        Ok(backend::workspace_size(&spec, dtype))
    }

    /// Writes the normalized `input` to `output`, which has its shape and dtype, and the statistics that backward
    /// needs to `statistics` ([`statistics_shape`](Method::statistics_shape)) if given.
    ///
    /// **In place:** `output` may be exactly `input`; see [`ViewMut::in_place`].
    fn forward_into(
        &self,
        input: &View<'_>,
        output: &mut ViewMut<'_>,
        statistics: Option<&mut ViewMut<'_>>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        self.forward_hidden_into(input, output, None, statistics, stream)
    }

    /// As [`forward_into`](Method::forward_into), and writes what was normalized, the *hidden* value that a prologue makes
    /// of the input, to `hidden`: the input's shape, and the dtype of the residual, or of the input where there is none.
    ///
    /// **In place:** `hidden` may be exactly the input or the prologue's other operand, `output` exactly the input or either
    /// operand of the fusion.
    fn forward_hidden_into(
        &self,
        input: &View<'_>,
        output: &mut ViewMut<'_>,
        hidden: Option<&mut ViewMut<'_>>,
        statistics: Option<&mut ViewMut<'_>>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let given = self.given().map(Tensor::view).transpose()?;
        let arguments = ForwardArguments {
            given: given.as_ref(),
            output: Some(output.reborrow()),
            hidden: hidden.map(|view| view.reborrow()),
            statistics: statistics.map(|view| view.reborrow()),
            ..ForwardArguments::new(input)
        };
        steps::run_forward(self, arguments, stream)
    }

    /// Writes the gradients that `grads` asks for, given the gradient of the output, the input of the forward pass
    /// and the statistics it saved (required where the method has any of the input's own).
    ///
    /// **In place:** the gradient of the input may be exactly `grad_output`.
    fn backward_into(
        &self,
        grad_output: &View<'_>,
        input: &View<'_>,
        statistics: Option<&View<'_>>,
        grads: Gradients<'_>,
        workspace: &mut Workspace,
        stream: &Stream<'_>,
    ) -> Result<()> {
        self.backward_hidden_into(grad_output, None, input, statistics, grads, workspace, stream)
    }

    /// As [`backward_into`](Method::backward_into), with the gradient of the hidden value where that was used, too.
    ///
    /// A residual need not be bound: then `input` is the hidden value itself, which is exact where its dtype is that of
    /// the arithmetic. A branch's scale has no gradient then, as that needs the input of the forward pass.
    fn backward_hidden_into(
        &self,
        grad_output: &View<'_>,
        grad_hidden: Option<&View<'_>>,
        input: &View<'_>,
        statistics: Option<&View<'_>>,
        grads: Gradients<'_>,
        workspace: &mut Workspace,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let of_own = self.given().map(Tensor::view).transpose()?;
        let statistics = statistics.or(of_own.as_ref());
        let arguments = BackwardArguments {
            grad_hidden,
            statistics,
            ..BackwardArguments::new(grad_output, input, grads)
        };
        steps::run_backward(self, arguments, workspace, stream)
    }

    /// The normalized `input`.
    fn forward<T: Tensor>(&self, input: &T) -> Result<T>
    where
        Self: Sized,
    {
        let view = input.view()?;
        let mut output = input.empty(view.shape(), view.dtype())?;
        self.forward_into(&view, &mut output.view_mut()?, None, &input.device().stream())?;
        Ok(output)
    }

    /// The normalized `input`, and what [`backward`](Method::backward) needs.
    fn forward_train<T: Tensor>(&self, input: &T) -> Result<(T, Saved)>
    where
        Self: Sized,
    {
        self.train(input, None)
    }

    /// The normalized `input`, the hidden value, and what [`backward_hidden`](Method::backward_hidden) needs.
    fn forward_hidden<T: Tensor>(&self, input: &T) -> Result<(T, T, Saved)>
    where
        Self: Sized,
    {
        let view = input.view()?;
        let mut hidden =
            input.empty(view.shape(), hidden_dtype(checked(self.parameters())?, view.dtype()))?;
        let (output, saved) = self.train(input, Some(&mut hidden.view_mut()?))?;
        Ok((output, hidden, saved))
    }

    #[doc(hidden)]
    fn train<T: Tensor>(&self, input: &T, hidden: Option<&mut ViewMut<'_>>) -> Result<(T, Saved)>
    where
        Self: Sized,
    {
        let view = input.view()?;
        let mut output = input.empty(view.shape(), view.dtype())?;
        let mut statistics = match self.statistics_shape(view.shape(), view.dtype())? {
            Some(shape) => Some(input.device().zeros(&shape, view.dtype().compute())?),
            None => None,
        };
        let mut statistics_view = statistics.as_mut().map(Tensor::view_mut).transpose()?;
        let stream = input.device().stream();
        self.forward_hidden_into(&view, &mut output.view_mut()?, hidden, statistics_view.as_mut(), &stream)?;
        drop(statistics_view);
        Ok((output, Saved { statistics }))
    }

    /// The gradients of the input and of every bound parameter.
    fn backward<T: Tensor>(&self, grad_output: &T, input: &T, saved: &Saved) -> Result<Grads<T>>
    where
        Self: Sized,
    {
        self.backward_hidden(grad_output, None, input, saved)
    }

    /// As [`backward`](Method::backward), with the gradient of the hidden value where that was used, too.
    fn backward_hidden<T: Tensor>(
        &self,
        grad_output: &T,
        grad_hidden: Option<&T>,
        input: &T,
        saved: &Saved,
    ) -> Result<Grads<T>>
    where
        Self: Sized,
    {
        let view = input.view()?;
        let mut grads = Grads::like(input, checked(self.parameters())?)?;
        let targets = grads.targets()?;
        let statistics = saved.statistics.as_ref().map(Tensor::view).transpose()?;
        let (mut workspace, stream) = (Workspace::new(), input.device().stream());
        let (grad_output, grad_hidden) = (grad_output.view()?, grad_hidden.map(Tensor::view).transpose()?);
        let (statistics, grad_hidden) = (statistics.as_ref(), grad_hidden.as_ref());
        self.backward_hidden_into(
            &grad_output,
            grad_hidden,
            &view,
            statistics,
            targets,
            &mut workspace,
            &stream,
        )?;
        Ok(grads)
    }
}

/// The dtype of the hidden value: the residual's, where there is one.
fn hidden_dtype(parameters: &Parameters<'_>, input: DType) -> DType {
    match (parameters.fusion.prologue, &parameters.before) {
        (Prologue::Residual { .. }, Some(residual)) => residual.dtype(),
        _ => input,
    }
}

/// The parameters, or the error that binding one of them met.
fn checked<'p, 'a>(parameters: &'p Parameters<'a>) -> Result<&'p Parameters<'a>> {
    match &parameters.error {
        Some(error) => Err(error.clone()),
        None => Ok(parameters),
    }
}
