//! What a forward pass keeps for the backward pass, and what that gives.

use super::Parameters;
use crate::tensor::{Tensor, View, ViewMut};
use crate::{DeviceTensor, Result};

/// Where a backward pass writes its gradients; each is optional, and what is absent is not computed.
#[derive(Default)]
pub struct Gradients<'a> {
    /// Gradient of the input: its shape and dtype.
    pub input: Option<ViewMut<'a>>,
    /// Gradient of the weight: its shape and dtype.
    pub weight: Option<ViewMut<'a>>,
    /// Gradient of the bias: its shape and dtype.
    pub bias: Option<ViewMut<'a>>,
    /// Gradient of alpha: its shape and dtype.
    pub alpha: Option<ViewMut<'a>>,
    /// Gradient of the prologue's other operand: the input's shape, the operand's dtype. May be exactly the gradient of
    /// the hidden value.
    pub before: Option<ViewMut<'a>>,
    /// Gradient of the epilogue's other operand: the input's shape, the operand's dtype.
    pub after: Option<ViewMut<'a>>,
    /// Gradient of a branch's bias: its shape and dtype.
    pub branch_bias: Option<ViewMut<'a>>,
    /// Gradient of a branch's scale: its shape and dtype.
    pub branch_scale: Option<ViewMut<'a>>,
}

/// What [`forward_train`](super::Method::forward_train) keeps for [`backward`](super::Method::backward): four numbers a row, or
/// nothing.
#[derive(Debug, Clone)]
pub struct Saved {
    pub(super) statistics: Option<DeviceTensor>,
}

impl Saved {
    pub(super) fn new(statistics: DeviceTensor) -> Self {
        Saved { statistics: Some(statistics) }
    }

    /// The statistics, `[rows, 4]`; see [`STATISTICS`](crate::spec::STATISTICS) for their meaning. `None` for methods that have none.
    pub fn statistics(&self) -> Option<&DeviceTensor> {
        self.statistics.as_ref()
    }
}

/// The gradients that [`backward`](super::Method::backward) returns: of the input, and of each parameter that was bound.
#[derive(Debug, Clone)]
pub struct Grads<T> {
    /// Gradient of the input.
    pub input: T,
    /// Gradient of the weight.
    pub weight: Option<T>,
    /// Gradient of the bias.
    pub bias: Option<T>,
    /// Gradient of alpha.
    pub alpha: Option<T>,
    /// Gradient of the prologue's other operand.
    pub before: Option<T>,
    /// Gradient of the epilogue's other operand.
    pub after: Option<T>,
    /// Gradient of the branch's bias: the sum of the input's gradient over the elements that share it.
    pub branch_bias: Option<T>,
    /// Gradient of the branch's scale: the sum of `D * (input + bias)`, D being the gradient of what the scale makes of that.
    pub branch_scale: Option<T>,
}

impl<T: Tensor> Grads<T> {
    /// Of an input and of these parameters, to be written.
    pub(super) fn like(input: &T, parameters: &Parameters<'_>) -> Result<Self> {
        let view = input.view()?;
        let like = |p: &Option<View<'_>>| p.as_ref().map(|p| input.empty(p.shape(), p.dtype())).transpose();
        Ok(Grads {
            input: input.empty(view.shape(), view.dtype())?,
            weight: like(&parameters.weight)?,
            bias: like(&parameters.bias)?,
            alpha: like(&parameters.alpha)?,
            before: like(&parameters.before)?,
            after: like(&parameters.after)?,
            branch_bias: like(&parameters.branch_bias)?,
            branch_scale: like(&parameters.branch_scale)?,
        })
    }

    /// All of them, where a backward pass writes.
    pub(super) fn targets(&mut self) -> Result<Gradients<'_>> {
        Ok(Gradients {
            input: Some(self.input.view_mut()?),
            weight: self.weight.as_mut().map(Tensor::view_mut).transpose()?,
            bias: self.bias.as_mut().map(Tensor::view_mut).transpose()?,
            alpha: self.alpha.as_mut().map(Tensor::view_mut).transpose()?,
            before: self.before.as_mut().map(Tensor::view_mut).transpose()?,
            after: self.after.as_mut().map(Tensor::view_mut).transpose()?,
            branch_bias: self.branch_bias.as_mut().map(Tensor::view_mut).transpose()?,
            branch_scale: self.branch_scale.as_mut().map(Tensor::view_mut).transpose()?,
        })
    }
}
