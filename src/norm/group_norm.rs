//! Group normalization (Wu, He 2018, arXiv 1803.08494) and instance normalization (Ulyanov, Vedaldi, Lempitsky 2016,
//! arXiv 1607.08022), which is one group per channel.

use super::channels::{affine, check_channels};
use super::{Method, Parameters, bind_fusion, bind_mask, bind_weight_and_bias, check_eps};
use crate::spec::{EpsPosition, Norm, Spec, Statistic};
use crate::tensor::{DType, Dims};
use crate::{Error, Result};

/// Group normalization: statistics over the channels of a group and all positions, per sample.
///
/// For an input `[N, C, ...]` whose channels fall into `G` groups of `C / G` neighbours:
///
/// ```text
/// mean  = Σ x / n                                      over a group, n = C / G * positions
/// rstd  = 1 / sqrt(Σ (x - mean)² / n + eps)
/// x_hat = (x - mean) * rstd
/// y     = x_hat * weight[channel] + bias[channel]
/// ```
///
/// Backward, with `g` the gradient of `y` and `ĝ = g * weight`:
///
/// ```text
/// grad_input  = rstd * (ĝ - mean(ĝ) - x_hat * mean(ĝ * x_hat))       means over the group
/// grad_weight = Σ g * x_hat        over samples and positions
/// grad_bias   = Σ g
/// ```
///
/// `weight` and `bias` have shape `[C]`, or as many axes as the input and broadcast to it (`[N, C, 1, 1]` for one scale per
/// sample and channel, say). The input may lie in memory in any order; channels-last is as good as channels-first.
/// Source: Wu and He 2018, equations 1 to 6; eps and its default as in PyTorch.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![1.0f32, 3.0, 1.0, 3.0, 5.0, 5.0, 9.0, 9.0], &[1, 4, 2])?;
/// let y = GroupNorm::new(2, 4).eps(0.0).forward(&x)?;
/// assert_eq!(y.to_f64(), [-1.0, 1.0, -1.0, 1.0, -1.0, -1.0, 1.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct GroupNorm<'a> {
    name: &'static str,
    groups: usize,
    channels: usize,
    eps: f64,
    parameters: Parameters<'a>,
}

impl<'a> GroupNorm<'a> {
    /// Normalizes inputs `[N, num_channels, ...]` in `num_groups` groups, which must divide `num_channels`. eps is 1e-5.
    pub fn new(num_groups: usize, num_channels: usize) -> Self {
        GroupNorm {
            name: "group_norm",
            groups: num_groups,
            channels: num_channels,
            eps: 1e-5,
            parameters: Parameters::default(),
        }
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

impl Method for GroupNorm<'_> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        let rank = if self.name == "instance_norm" { 3 } else { 2 };
        check_channels(shape, self.channels, rank)?;
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            let expected = format!("a divisor of num_channels, {}", self.channels);
            return Err(Error::argument("num_groups", expected, self.groups));
        }
        let mut refined = Dims::from_slice(&[shape[0], self.groups, self.channels / self.groups]);
        refined.extend_from_slice(&shape[2..]);
        if refined[3..].contains(&0) {
            return Err(Error::argument("input", "at least one position", format!("shape {shape:?}")));
        }
        let refine = |axis: usize| match axis {
            0 => Dims::from_slice(&[0]),
            1 => Dims::from_slice(&[1, 2]),
            _ => Dims::from_slice(&[axis + 1]),
        };
        Ok(Spec::Norm(Norm {
            affine: affine(&self.parameters, shape, &[1], refine)?,
            reduced: (2..refined.len()).collect(),
            statistic: Statistic::Moments,
            prefix: refined[2..].iter().product(),
            shape: refined,
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

/// Instance normalization: statistics over the positions of each channel of each sample, which is [`GroupNorm`] with as
/// many groups as channels. Formulas, shapes and gradients are its.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![1.0f32, 3.0, 5.0, 9.0], &[1, 2, 2])?;
/// let y = InstanceNorm::new(2).eps(0.0).forward(&x)?;
/// assert_eq!(y.to_f64(), [-1.0, 1.0, -1.0, 1.0]);
/// # Ok::<(), normkit::Error>(())
/// ```
pub struct InstanceNorm;

impl InstanceNorm {
    /// Normalizes inputs `[N, num_features, L, ...]`. eps is 1e-5; weight and bias, if bound, have shape
    /// `[num_features]`, or broadcast to the input.
    #[allow(
        clippy::new_ret_no_self,
        reason = "an instance norm is a group norm; there is nothing else to it"
    )]
    pub fn new<'a>(num_features: usize) -> GroupNorm<'a> {
        GroupNorm { name: "instance_norm", ..GroupNorm::new(num_features, num_features) }
    }
}
