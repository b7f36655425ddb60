//! Layer normalization of images over their channels, position by position, as ConvNeXt (Liu et al. 2022, arXiv
//! 2201.03545) and NAFNet use it.

use super::channels::{affine, check_channels, itself};
use super::{Method, Parameters, bind_fusion, bind_mask, bind_weight_and_bias, check_eps};
use crate::Result;
use crate::spec::{EpsPosition, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims};

/// Layer normalization over axis 1 of `[N, C, ...]`: every position is normalized over its channels.
///
/// ```text
/// mean  = Σ_c x / C
/// rstd  = 1 / sqrt(Σ_c (x - mean)² / C + eps)
/// y     = (x - mean) * rstd * weight[c] + bias[c]
/// ```
///
/// The gradients are those of [`LayerNorm`](crate::LayerNorm), the means going over channels and the parameters' sums over
/// samples and positions. It gives what moving the channels last, [`LayerNorm`](crate::LayerNorm) and moving them back
/// would, without the moves.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![1.0f32, 2.0, 3.0, 6.0], &[1, 2, 2])?;
/// let y = LayerNorm2d::new(2).eps(0.0).forward(&x)?;
/// assert_eq!(y.to_f64(), [-1.0, -1.0, 1.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct LayerNorm2d<'a> {
    channels: usize,
    eps: f64,
    parameters: Parameters<'a>,
}

impl<'a> LayerNorm2d<'a> {
    /// Normalizes inputs `[N, num_channels, ...]`. eps is 1e-6, as in the models that use it.
    pub fn new(num_channels: usize) -> Self {
        LayerNorm2d { channels: num_channels, eps: 1e-6, parameters: Parameters::default() }
    }

    /// Added to the variance inside the root. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    bind_weight_and_bias!();
    bind_mask!();
    bind_fusion!();
}

impl Method for LayerNorm2d<'_> {
    fn name(&self) -> &'static str {
        "layer_norm_2d"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        check_channels(shape, self.channels, 2)?;
        Ok(Spec::Norm(Norm {
            shape: Dims::from_slice(shape),
            reduced: itself(1),
            affine: affine(&self.parameters, shape, &[1], itself)?,
            statistic: Statistic::Moments,
            prefix: self.channels,
            eps: check_eps(self.eps)?,
            eps_position: EpsPosition::Inside,
            weight_offset: 0.0,
            round_normalized: false,
            frozen: false,
            fusion: self.parameters.fusion,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
