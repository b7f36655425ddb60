//! Norms of inputs with channels, `[n, c, ...]`.

use super::{on_a_line, told};
use crate::{Error, batch_norm, batch_norm_train, group_norm, instance_norm};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Flag, Initializer, Module, ModuleDisplay, Param, RunningState};
use burn::tensor::{Device, Tensor};

/// How to make a [`BatchNorm`].
#[derive(Debug, Config)]
pub struct BatchNormConfig {
    /// Channels.
    pub num_features: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// How much of a batch's statistics enters the running ones.
    #[config(default = 0.1)]
    pub momentum: f64,
}

/// Batch normalization: `(x - mean) / sqrt(var + epsilon) * gamma + beta`, by the batch's statistics on a device that records
/// gradients, else by the running ones.
///
/// In the place of `burn::nn::BatchNorm`. As there, the running variance is an average of biased variances, where PyTorch's are
/// unbiased; [`batch_norm_train`] has the latter.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct BatchNorm {
    /// The weight, `[num_features]`.
    pub gamma: Param<Tensor<1>>,
    /// The bias, `[num_features]`.
    pub beta: Param<Tensor<1>>,
    /// Whether the layer takes part in training.
    pub training: Param<Flag>,
    /// Running average of the means.
    pub running_mean: RunningState<Tensor<1>>,
    /// Running average of the biased variances.
    pub running_var: RunningState<Tensor<1>>,
    /// How much of a batch's statistics enters the running ones.
    pub momentum: f64,
    /// Added to the variance.
    pub epsilon: f64,
}

impl BatchNormConfig {
    /// A weight of ones, a bias of zeros, running means of 0 and variances of 1.
    pub fn init(&self, device: &Device) -> BatchNorm {
        BatchNorm {
            gamma: Initializer::Ones.init([self.num_features], device),
            beta: Initializer::Zeros.init([self.num_features], device),
            training: Param::from_bool(true),
            running_mean: RunningState::new(Tensor::zeros([self.num_features], device)),
            running_var: RunningState::new(Tensor::ones([self.num_features], device)),
            momentum: self.momentum,
            epsilon: self.epsilon,
        }
    }
}

impl BatchNorm {
    /// The normalized `input`, `[n, num_features, ...]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The normalized `input`, `[n, num_features, ...]`; an error for other shapes, for dtypes that are not floating-point, and in
    /// training for a single value in a channel.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let (weight, bias, device) = (Some(self.gamma.val()), Some(self.beta.val()), input.device());
        if !(device.is_autodiff() && self.training.is_enabled()) {
            let mean = self.running_mean.value().to_device(&device);
            let var = self.running_var.value().to_device(&device);
            return batch_norm(input, weight, bias, mean, var, self.epsilon);
        }
        let values = input.shape().num_elements() / input.dims().get(1).copied().unwrap_or(1).max(1);
        let (output, batch) = batch_norm_train(input, weight, bias, self.epsilon)?;
        let biased = (values as f64 - 1.0) / values as f64;
        let moved = |running: &RunningState<Tensor<1>>, batch: Tensor<1>, factor: f64| {
            let old = running.value_sync().to_device(&device).mul_scalar(1.0 - self.momentum);
            let share = batch.cast(old.dtype()).mul_scalar(self.momentum * factor);
            running.update(old.add(share).detach());
        };
        moved(&self.running_mean, batch.mean, 1.0);
        moved(&self.running_var, batch.variance, biased);
        Ok(output)
    }
}

impl ModuleDisplay for BatchNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [num_features] = self.beta.shape().dims();
        let content = content.add("num_features", &num_features);
        content.add("momentum", &self.momentum).add("epsilon", &self.epsilon).optional()
    }
}

/// Weight and bias of the channels, where there are any.
type Affine = (Option<Param<Tensor<1>>>, Option<Param<Tensor<1>>>);

/// Ones and zeros.
fn affine(is_there: bool, channels: usize, device: &Device) -> Affine {
    let made = |initializer: Initializer| is_there.then(|| initializer.init([channels], device));
    (made(Initializer::Ones), made(Initializer::Zeros))
}

fn value(parameter: &Option<Param<Tensor<1>>>) -> Option<Tensor<1>> {
    parameter.as_ref().map(|parameter| parameter.val())
}

/// How to make a [`GroupNorm`].
#[derive(Debug, Config)]
pub struct GroupNormConfig {
    /// Groups, a divisor of the channels.
    pub num_groups: usize,
    /// Channels.
    pub num_channels: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there are weight and bias.
    #[config(default = true)]
    pub affine: bool,
}

/// Normalization of groups of channels: `(x - mean) / sqrt(var + epsilon) * gamma + beta`.
///
/// In the place of `burn::nn::GroupNorm`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct GroupNorm {
    /// The weight, `[num_channels]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The bias, `[num_channels]`.
    pub beta: Option<Param<Tensor<1>>>,
    /// Groups.
    pub num_groups: usize,
    /// Channels.
    pub num_channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether there are weight and bias.
    pub affine: bool,
}

impl GroupNormConfig {
    /// A weight of ones and a bias of zeros.
    pub fn init(&self, device: &Device) -> GroupNorm {
        let Self { num_groups, num_channels, epsilon, affine: is_affine } = *self;
        let (gamma, beta) = affine(is_affine, num_channels, device);
        GroupNorm { gamma, beta, num_groups, num_channels, epsilon, affine: is_affine }
    }
}

impl GroupNorm {
    /// The normalized `input`, `[n, num_channels, ...]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The normalized `input`, `[n, num_channels, ...]`; an error for other shapes, for groups that do not divide the channels, and
    /// for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        check_channels(&input, self.num_channels)?;
        group_norm(input, self.num_groups, value(&self.gamma), value(&self.beta), self.epsilon)
    }
}

impl ModuleDisplay for GroupNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("num_groups", &self.num_groups).add("num_channels", &self.num_channels);
        content.add("epsilon", &self.epsilon).add("affine", &self.affine).optional()
    }
}

/// How to make an [`InstanceNorm`].
#[derive(Debug, Config)]
pub struct InstanceNormConfig {
    /// Channels.
    pub num_channels: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there are weight and bias.
    #[config(default = true)]
    pub affine: bool,
}

/// Normalization of each channel of each sample: `(x - mean) / sqrt(var + epsilon) * gamma + beta`.
///
/// In the place of `burn::nn::InstanceNorm`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct InstanceNorm {
    /// The weight, `[num_channels]`.
    pub gamma: Option<Param<Tensor<1>>>,
    /// The bias, `[num_channels]`.
    pub beta: Option<Param<Tensor<1>>>,
    /// Channels.
    pub num_channels: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// Whether there are weight and bias.
    pub affine: bool,
}

impl InstanceNormConfig {
    /// A weight of ones and a bias of zeros.
    pub fn init(&self, device: &Device) -> InstanceNorm {
        let Self { num_channels, epsilon, affine: is_affine } = *self;
        let (gamma, beta) = affine(is_affine, num_channels, device);
        InstanceNorm { gamma, beta, num_channels, epsilon, affine: is_affine }
    }
}

impl InstanceNorm {
    /// The normalized `input`, `[n, num_channels, ...]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The normalized `input`, `[n, num_channels, ...]`; an error for other shapes and for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        check_channels(&input, self.num_channels)?;
        instance_norm(input, value(&self.gamma), value(&self.beta), self.epsilon)
    }
}

impl ModuleDisplay for InstanceNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let content = content.add("num_channels", &self.num_channels);
        content.add("epsilon", &self.epsilon).add("affine", &self.affine).optional()
    }
}

/// A module without weight and bias has nothing else to tell how many channels it is for.
fn check_channels<const D: usize>(input: &Tensor<D>, channels: usize) -> Result<(), Error> {
    if input.dims().get(1) == Some(&channels) {
        return Ok(());
    }
    let expected = format!("a shape [n, {channels}, ...]");
    Err(Error::Argument { name: "input", expected, found: format!("shape {:?}", input.dims()) })
}
