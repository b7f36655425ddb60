//! Layer normalization (Ba, Kiros, Hinton 2016, arXiv 1607.06450).

use super::{
    Method, Parameters, bind_broadcast, bind_fusion, bind_mask, bind_rotary, bind_weight_and_bias, check_eps,
    check_offset, trailing_affine, trailing_axes,
};
use crate::Result;
use crate::spec::{EpsPosition, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims};

/// Layer normalization over the trailing axes.
///
/// ```text
/// mean  = Σ x / cols
/// rstd  = 1 / sqrt(Σ (x - mean)² / cols + eps)
/// x_hat = (x - mean) * rstd
/// y     = x_hat * weight + bias
/// ```
///
/// Backward, with `g` the gradient of `y` and `ĝ = g * weight`:
///
/// ```text
/// grad_input  = rstd * (ĝ - mean(ĝ) - x_hat * mean(ĝ * x_hat))
/// grad_weight = Σ_rows g * x_hat
/// grad_bias   = Σ_rows g
/// ```
///
/// The variance is the biased one. `weight` and `bias` have the normalized shape, are optional independently of each
/// other, and may have a dtype of their own. Source: Ba et al. 2016, equations 3 and 4; eps and its default as in
/// PyTorch.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![1.0f32, 2.0, 3.0, 6.0], &[2, 2])?;
/// let weight = HostTensor::from_vec(vec![2.0f32, 2.0], &[2])?;
/// let norm = LayerNorm::new([2]).eps(0.0).weight(&weight);
/// let (y, saved) = norm.forward_train(&x)?;
/// assert_eq!(y.to_f64(), [-2.0, 2.0, -2.0, 2.0]);
/// let grads = norm.backward(&y, &x, &saved)?;
/// assert_eq!(grads.weight.unwrap().to_f64(), [4.0, 4.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct LayerNorm<'a> {
    normalized_shape: Vec<usize>,
    eps: f64,
    weight_offset: f64,
    parameters: Parameters<'a>,
}

impl<'a> LayerNorm<'a> {
    /// Normalizes over the last axes, whose sizes are `normalized_shape`. eps is 1e-5.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        LayerNorm {
            normalized_shape: normalized_shape.into(),
            eps: 1e-5,
            weight_offset: 0.0,
            parameters: Parameters::default(),
        }
    }

    /// Added to the variance inside the root. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    /// Added to the weight before it multiplies. With 1, weight and bias [of each sample or token](Self::broadcast_parameters)
    /// are the scale and the shift of an adaptive norm: `x_hat * (1 + scale) + shift`.
    pub fn weight_offset(mut self, offset: f64) -> Self {
        self.weight_offset = offset;
        self
    }

    bind_weight_and_bias!();
    bind_mask!();
    bind_broadcast!();
    bind_fusion!();
    bind_rotary!();
}

impl Method for LayerNorm<'_> {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        let reduced = trailing_axes(shape, &self.normalized_shape)?;
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            affine: trailing_affine(&self.parameters, shape, &reduced)?,
            reduced,
            statistic: Statistic::Moments,
            prefix: self.normalized_shape.iter().product(),
            eps: check_eps(self.eps)?,
            eps_position: EpsPosition::Inside,
            weight_offset: check_offset(self.weight_offset)?,
            round_normalized: false,
            frozen: false,
            fusion: self.parameters.fusion,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
