//! Batch normalization (Ioffe, Szegedy 2015, arXiv 1502.03167).

use super::channels::{affine, check_channels, itself};
use super::{Method, Parameters, Saved, bind_fusion, bind_mask, bind_weight_and_bias, check_eps, steps};
use crate::spec::{EpsPosition, MOMENTS, Norm, STATISTICS, Spec, Statistic};
use crate::tensor::{DType, Dims, Tensor, View, ViewMut};
use crate::{DeviceTensor, Error, Result, Stream};

/// Batch normalization: statistics of each channel over samples and positions.
///
/// For an input `[N, C]`, `[N, C, L]`, `[N, C, H, W]` or `[N, C, D, H, W]`, in any memory order (channels-last, too):
///
/// ```text
/// mean  = Σ x / n                                  over samples and positions, n of them
/// rstd  = 1 / sqrt(Σ (x - mean)² / n + eps)
/// y     = (x - mean) * rstd * weight[c] + bias[c]
/// ```
///
/// This is the training pass; [`frozen`](BatchNorm::frozen) is inference, with running statistics in place of the batch's.
/// Backward, with `g` the gradient of `y` and `x_hat = (x - mean) * rstd`:
///
/// ```text
/// grad_weight = Σ g * x_hat
/// grad_bias   = Σ g
/// grad_input  = weight * rstd * (g - mean(g) - x_hat * mean(g * x_hat))
/// ```
///
/// Running statistics, with `momentum` the weight of the new sample as in PyTorch (many papers call one minus it so):
///
/// ```text
/// running_mean = (1 - momentum) * running_mean + momentum * mean
/// running_var  = (1 - momentum) * running_var  + momentum * Σ (x - mean)² / (n - 1)
/// ```
///
/// A batch without samples has an empty result, leaves the running statistics as they are and gives the parameters gradients of
/// zero, as in PyTorch; one with a single value per channel is an error.
///
/// `weight` and `bias` have shape `[C]`, or as many axes as the input and broadcast to it: `[N, C, 1, 1]` for weights of each
/// sample's own, as conditional variants have. In [`steps`] the pass is taken apart, so that statistics can be merged
/// between devices or parts of a batch.
///
/// ```
/// use normkit::prelude::*;
/// let x = HostTensor::from_vec(vec![1.0f32, 10.0, 3.0, 30.0], &[2, 2])?;
/// let norm = BatchNorm::new(2).eps(0.0);
/// let mut running = RunningStatistics {
///     mean: HostTensor::from_vec(vec![0.0f32, 0.0], &[2])?,
///     var: HostTensor::from_vec(vec![1.0f32, 1.0], &[2])?,
///     batches: 0,
/// };
/// let (y, saved) = norm.train(&x, &mut running, Momentum::Factor(0.5))?;
/// assert_eq!(y.to_f64(), [-1.0, -1.0, 1.0, 1.0]);
/// assert_eq!(running.mean.to_f64(), [1.0, 10.0]);
/// assert_eq!(running.var.to_f64(), [1.5, 100.5]);
/// let grads = norm.backward(&y, &x, &saved)?;
/// assert_eq!(grads.input.to_f64(), [0.0; 4]);
/// let inference = norm.frozen(&running.mean, &running.var)?;
/// assert_eq!(inference.forward(&x)?.to_f64()[0], 0.0);
/// # Ok::<(), normkit::Error>(())
/// ```
#[derive(Clone)]
pub struct BatchNorm<'a> {
    channels: usize,
    eps: f64,
    parameters: Parameters<'a>,
}

/// How much of a batch's statistics enters the running ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Momentum {
    /// This share, usually within 0 and 1. PyTorch's default is 0.1.
    Factor(f64),
    /// One over the number of batches so far: the running statistics are the batches' average.
    Cumulative,
}

impl Momentum {
    /// The share of a batch that is the `batches`-th, from 1 on.
    fn factor(self, batches: u64) -> Result<f64> {
        match self {
            Momentum::Factor(factor) => steps::check_factor(factor),
            Momentum::Cumulative => Ok(1.0 / batches as f64),
        }
    }
}

/// Running statistics of the channels, `[C]` each, and how many batches they have seen. They start as 0, 1 and 0.
#[derive(Debug, Clone)]
pub struct RunningStatistics<T> {
    /// Mean of each channel.
    pub mean: T,
    /// Unbiased variance of each channel.
    pub var: T,
    /// Batches seen.
    pub batches: u64,
}

/// Running statistics for [`BatchNorm::train_into`]: views, updated in place.
pub struct RunningViews<'a> {
    /// Mean of each channel, `[C]`.
    pub mean: ViewMut<'a>,
    /// Unbiased variance of each channel, `[C]`.
    pub var: ViewMut<'a>,
    /// The share of the batch, usually within 0 and 1.
    pub factor: f64,
}

impl<'a> BatchNorm<'a> {
    /// Normalizes inputs `[N, num_features, ...]`. eps is 1e-5.
    pub fn new(num_features: usize) -> Self {
        BatchNorm { channels: num_features, eps: 1e-5, parameters: Parameters::default() }
    }

    /// Added to the variance inside the root. Not negative.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }

    bind_weight_and_bias!();
    bind_mask!();
    bind_fusion!();

    /// The training pass, with the running statistics updated in place. Their dtype is any that the input's arithmetic
    /// holds. `moments` (`[C, MOMENTS]`) and `statistics` (`[C, STATISTICS]`) are written too; the latter is for backward.
    pub fn train_into(
        &self,
        input: &View<'_>,
        output: &mut ViewMut<'_>,
        statistics: &mut ViewMut<'_>,
        moments: &mut ViewMut<'_>,
        running: RunningViews<'_>,
        stream: &Stream<'_>,
    ) -> Result<()> {
        let RunningViews { mut mean, mut var, factor } = running;
        let factor = Momentum::Factor(factor).factor(1)?;
        let (mean_view, var_view) = (mean.as_view(), var.as_view());
        steps::check_update(&moments.as_view(), &mean_view, &var_view, stream)?;
        for (name, view) in [("running_mean", &mean_view), ("running_var", &var_view)] {
            let (output, statistics) = (output.as_view(), statistics.as_view());
            let others = [("input", input), ("output", &output), ("statistics", &statistics)];
            steps::check_apart(name, view, others)?;
        }
        steps::train_into(self, input, output, statistics, moments, stream)?;
        if input.layout().is_empty() {
            return Ok(());
        }
        steps::update_running_into(&moments.as_view(), &mut mean, &mut var, factor, stream)
    }

    /// The training pass: the normalized input, and what [`backward`](Method::backward) needs. Updates the running
    /// statistics in place.
    pub fn train<T: Tensor, R: Tensor>(
        &self,
        input: &T,
        running: &mut RunningStatistics<R>,
        momentum: Momentum,
    ) -> Result<(T, Saved)> {
        let (view, device) = (input.view()?, input.device());
        let factor = momentum.factor(running.batches + 1)?;
        let mut output = input.empty(view.shape(), view.dtype())?;
        let dtype = view.dtype().compute();
        let mut statistics = device.zeros(&[self.channels, STATISTICS], dtype)?;
        let mut moments = device.zeros(&[self.channels, MOMENTS], dtype)?;
        self.train_into(
            &view,
            &mut output.view_mut()?,
            &mut statistics.view_mut()?,
            &mut moments.view_mut()?,
            RunningViews { mean: running.mean.view_mut()?, var: running.var.view_mut()?, factor },
            &device.stream(),
        )?;
        running.batches += 1;
        Ok((output, Saved::new(statistics)))
    }

    /// Inference: the same norm with a given mean and variance per channel, `[C]` each, which are constants to its
    /// backward pass. They are read once, now.
    pub fn frozen(&self, mean: &impl Tensor, var: &impl Tensor) -> Result<FrozenBatchNorm<'a>> {
        self.frozen_on(&mean.view()?, &var.view()?, &mean.device().stream())
    }

    /// As [`frozen`](BatchNorm::frozen), for views, which are read in the order of `stream`: the one that the norm is then used
    /// on.
    pub fn frozen_on(
        &self,
        mean: &View<'_>,
        var: &View<'_>,
        stream: &Stream<'_>,
    ) -> Result<FrozenBatchNorm<'a>> {
        let dtype = mean.dtype().compute();
        let mut statistics = stream.device().zeros(&[self.channels, STATISTICS], dtype)?;
        // Weight and bias have no part in it, and may vary along axes that only the input has.
        let norm = BatchNorm { parameters: Parameters::default(), ..self.clone() };
        let norm = norm.spec(&[1, self.channels], true)?;
        steps::from_running_into(&norm, mean, var, &mut statistics.view_mut()?, stream)?;
        Ok(FrozenBatchNorm { norm: self.clone(), statistics })
    }

    fn spec(&self, shape: &[usize], frozen: bool) -> Result<Norm> {
        check_channels(shape, self.channels, 2)?;
        let reduced: Dims = (0..shape.len()).filter(|&axis| axis != 1).collect();
        Ok(Norm {
            shape: Dims::from_slice(shape),
            prefix: reduced.iter().map(|&axis| shape[axis]).product(),
            reduced,
            affine: affine(&self.parameters, shape, &[1], itself)?,
            statistic: Statistic::Moments,
            eps: check_eps(self.eps)?,
            eps_position: EpsPosition::Inside,
            weight_offset: 0.0,
            round_normalized: false,
            frozen,
            fusion: self.parameters.fusion,
        })
    }
}

impl Method for BatchNorm<'_> {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        let norm = self.spec(shape, false)?;
        // An empty batch has no statistics, and nothing that would need them.
        if norm.prefix == 1 {
            let expected = "more than one value per channel, for a variance";
            return Err(Error::argument("input", expected, format!("shape {shape:?}")));
        }
        Ok(Spec::Norm(norm))
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.parameters
    }
}

/// Batch normalization with constant statistics: see [`BatchNorm::frozen`].
///
/// ```text
/// y           = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]
/// grad_input  = g * weight / sqrt(var + eps)
/// grad_weight = Σ g * (x - mean) / sqrt(var + eps)
/// grad_bias   = Σ g
/// ```
///
/// The compute dtype of input and running statistics must be the same, and so their device.
#[derive(Clone)]
pub struct FrozenBatchNorm<'a> {
    norm: BatchNorm<'a>,
    statistics: DeviceTensor,
}

impl Method for FrozenBatchNorm<'_> {
    fn name(&self) -> &'static str {
        "batch_norm"
    }

    fn lower(&self, shape: &[usize], _: DType) -> Result<Spec> {
        self.norm.spec(shape, true).map(Spec::Norm)
    }

    fn parameters(&self) -> &Parameters<'_> {
        &self.norm.parameters
    }

    fn given(&self) -> Option<&DeviceTensor> {
        Some(&self.statistics)
    }
}
