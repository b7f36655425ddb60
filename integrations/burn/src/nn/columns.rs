//! Norms of the last axis.

use super::{on_a_line, told};
use crate::{Error, add_layer_norm, add_rms_norm, dyt, layer_norm, rms_norm};
use burn::config::Config;
use burn::module::{Content, DisplaySettings, Initializer, Module, ModuleDisplay, Param};
use burn::tensor::{Device, Tensor};

/// How to make a [`LayerNorm`].
#[derive(Debug, Config)]
pub struct LayerNormConfig {
    /// The size of the last axis.
    pub d_model: usize,
    /// Added to the variance.
    #[config(default = 1e-5)]
    pub epsilon: f64,
    /// Whether there is a bias.
    #[config(default = true)]
    pub bias: bool,
}

/// Layer normalization of the last axis: `(x - mean) / sqrt(var + epsilon) * gamma + beta`.
///
/// In the place of `burn::nn::LayerNorm`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct LayerNorm {
    /// The weight, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// The bias, `[d_model]`.
    pub beta: Option<Param<Tensor<1>>>,
    epsilon: f64,
}

impl LayerNormConfig {
    /// A weight of ones and a bias of zeros.
    pub fn init(&self, device: &Device) -> LayerNorm {
        let beta = self.bias.then(|| Initializer::Zeros.init([self.d_model], device));
        LayerNorm { gamma: Initializer::Ones.init([self.d_model], device), beta, epsilon: self.epsilon }
    }
}

impl LayerNorm {
    fn parameters(&self) -> (Option<Tensor<1>>, Option<Tensor<1>>) {
        (Some(self.gamma.val()), self.beta.as_ref().map(|beta| beta.val()))
    }

    /// The normalized `input`, `[..., d_model]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The normalized `input`, `[..., d_model]`; an error for other shapes and for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        let (weight, bias) = self.parameters();
        layer_norm(input, weight, bias, self.epsilon)
    }

    /// `h = input + residual`, normalized, and `h`: see [`add_layer_norm`].
    pub fn try_forward_residual<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        let (weight, bias) = self.parameters();
        add_layer_norm(input, residual, weight, bias, self.epsilon)
    }
}

impl ModuleDisplay for LayerNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        let content = content.add("d_model", &d_model).add("epsilon", &self.epsilon);
        content.add("bias", &self.beta.is_some()).optional()
    }
}

/// How to make an [`RmsNorm`].
#[derive(Debug, Config)]
pub struct RmsNormConfig {
    /// The size of the last axis.
    pub d_model: usize,
    /// Added to the mean square.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// RMS normalization of the last axis: `x / sqrt(mean(x²) + epsilon) * gamma`.
///
/// In the place of `burn::nn::RmsNorm`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct RmsNorm {
    /// The weight, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// Added to the mean square.
    pub epsilon: f64,
}

impl RmsNormConfig {
    /// A weight of ones.
    pub fn init(&self, device: &Device) -> RmsNorm {
        RmsNorm { gamma: Initializer::Ones.init([self.d_model], device), epsilon: self.epsilon }
    }
}

impl RmsNorm {
    /// The normalized `input`, `[..., d_model]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The normalized `input`, `[..., d_model]`; an error for other shapes and for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        rms_norm(input, Some(self.gamma.val()), self.epsilon)
    }

    /// `h = input + residual`, normalized, and `h`: see [`add_rms_norm`].
    pub fn try_forward_residual<const D: usize>(
        &self,
        input: Tensor<D>,
        residual: Tensor<D>,
    ) -> Result<(Tensor<D>, Tensor<D>), Error> {
        add_rms_norm(input, residual, Some(self.gamma.val()), self.epsilon)
    }
}

impl ModuleDisplay for RmsNorm {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content.add("d_model", &d_model).add("epsilon", &self.epsilon).optional()
    }
}

/// How to make a [`DyT`].
#[derive(Debug, Config)]
pub struct DyTConfig {
    /// The size of the last axis.
    pub d_model: usize,
    /// The first value of alpha.
    #[config(default = 0.5)]
    pub alpha: f64,
}

/// Dynamic tanh (Zhu et al. 2025, arXiv 2503.10622), in the place of a norm: `tanh(alpha * x) * gamma + beta`.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct DyT {
    /// The scale inside the function, one number.
    pub alpha: Param<Tensor<1>>,
    /// The weight, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    /// The bias, `[d_model]`.
    pub beta: Param<Tensor<1>>,
}

impl DyTConfig {
    /// A weight of ones and a bias of zeros.
    pub fn init(&self, device: &Device) -> DyT {
        DyT {
            alpha: Initializer::Constant { value: self.alpha }.init([1], device),
            gamma: Initializer::Ones.init([self.d_model], device),
            beta: Initializer::Zeros.init([self.d_model], device),
        }
    }
}

impl DyT {
    /// The function of `input`, `[..., d_model]`.
    ///
    /// # Panics
    /// Where [`try_forward`](Self::try_forward) returns an error.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        told(self.try_forward(input))
    }

    /// The function of `input`, `[..., d_model]`; an error for other shapes and for dtypes that are not floating-point.
    pub fn try_forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>, Error> {
        dyt(input, self.alpha.val(), Some(self.gamma.val()), Some(self.beta.val()))
    }
}

impl ModuleDisplay for DyT {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        on_a_line()
    }

    fn custom_content(&self, content: Content) -> Option<Content> {
        let [d_model] = self.gamma.shape().dims();
        content.add("d_model", &d_model).optional()
    }
}
