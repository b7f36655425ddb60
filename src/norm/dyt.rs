//! Dynamic tanh (Zhu, Chen, He, LeCun, Liu 2025, arXiv 2503.10622).

use super::channels::{check_channels, itself};
use super::{Method, Parameters, affine_along, bind_alpha, bind_weight_and_bias, trailing_axes};
use crate::Result;
use crate::spec::{Function, Pointwise, Spec};
use crate::tensor::{DType, Dims};

/// Dynamic tanh: a norm's stand-in without statistics.
///
/// ```text
/// y = weight * tanh(alpha * x) + bias
/// ```
///
/// Backward, with `g` the gradient of `y`, `ĝ = g * weight`, `t = tanh(alpha * x)` and `sech² = 1 - t²`
/// (computed as `4q / (1 + q)²` with `q = exp(-2 |alpha x|)`, which keeps its digits where `t` rounds to 1):
///
/// ```text
/// grad_input  = ĝ * alpha * sech²
/// grad_alpha  = Σ ĝ * x * sech²      over all elements
/// grad_weight = Σ_rows g * t
/// grad_bias   = Σ_rows g
/// ```
///
/// `alpha` is one learned element and must be bound; the paper starts it at 0.5. `weight` and `bias` have the
/// normalized shape, as the paper's code does for the last axis. Source: Zhu et al. 2025, section 4 and their code.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![0.0f32, 1e4], &[2])?;
/// let alpha = HostTensor::from_vec(vec![0.5f32], &[1])?;
/// assert_eq!(DyT::new([2]).alpha(&alpha).forward(&x)?.to_f64(), [0.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct DyT<'a> {
    along: Along,
    parameters: Parameters<'a>,
}

/// Where weight and bias vary.
#[derive(Clone)]
enum Along {
    /// Along the last axes, of these sizes.
    Trailing(Vec<usize>),
    /// Along axis 1, of this size.
    Channels(usize),
}

impl<'a> DyT<'a> {
    /// `normalized_shape` is the shape of weight and bias: the last axes of the input.
    pub fn new(normalized_shape: impl Into<Vec<usize>>) -> Self {
        DyT { along: Along::Trailing(normalized_shape.into()), parameters: Parameters::default() }
    }

    /// For images `[N, num_channels, ...]`: weight and bias, `[num_channels]`, vary along axis 1.
    pub fn channels_first(num_channels: usize) -> Self {
        DyT { along: Along::Channels(num_channels), parameters: Parameters::default() }
    }

    bind_alpha!();
    bind_weight_and_bias!();
}

impl Method for DyT<'_> {
    fn name(&self) -> &'static str {
        "dyt"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        self.parameters.check_alpha_bound()?;
        let axes = match &self.along {
            Along::Trailing(normalized_shape) => trailing_axes(shape, normalized_shape)?,
            Along::Channels(channels) => {
                check_channels(shape, *channels, 2)?;
                itself(1)
            }
        };
        Ok(Spec::Pointwise(Pointwise {
            shape: Dims::from_slice(shape),
            affine: affine_along(shape, &axes),
            function: Function::Tanh,
        }))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}
