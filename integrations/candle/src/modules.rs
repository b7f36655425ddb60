//! Modules with `candle_nn`'s names and parameters: replacing the import replaces the norm.

use crate::ops::{self, QkNormKind};
use candle_core::{Module, ModuleT, Result, Tensor, Var};
use candle_nn::{BatchNormConfig, Init, LayerNormConfig, VarBuilder};

/// Layer normalization over the last axis, as `candle_nn::LayerNorm`.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    remove_mean: bool,
    eps: f64,
}

impl LayerNorm {
    /// With a weight and a bias of the size of the last axis.
    pub fn new(weight: Tensor, bias: Tensor, eps: f64) -> Self {
        LayerNorm { weight, bias: Some(bias), remove_mean: true, eps }
    }

    /// With a weight alone.
    pub fn new_no_bias(weight: Tensor, eps: f64) -> Self {
        LayerNorm { weight, bias: None, remove_mean: true, eps }
    }

    /// Root-mean-square normalization.
    pub fn rms_norm(weight: Tensor, eps: f64) -> Self {
        LayerNorm { weight, bias: None, remove_mean: false, eps }
    }

    /// Multiplies the normalized value.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// Added last.
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// Added inside the root.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// False: it is a root-mean-square normalization.
    pub fn remove_mean(&self) -> bool {
        self.remove_mean
    }
}

impl Module for LayerNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let shape = [xs.dim(candle_core::D::Minus1)?];
        if self.remove_mean {
            return ops::layer_norm_over(xs, &shape, Some(&self.weight), self.bias.as_ref(), self.eps);
        }
        let normalized = ops::rms_norm_over(xs, &shape, Some(&self.weight), self.eps)?;
        self.bias.as_ref().map_or(Ok(normalized.clone()), |bias| normalized.broadcast_add(bias))
    }
}

/// The first of these names that there is, or the first.
fn named<'n>(vb: &VarBuilder<'_>, names: [&'n str; 2]) -> &'n str {
    names.into_iter().find(|name| vb.contains_tensor(name)).unwrap_or(names[0])
}

/// A [`LayerNorm`] of `size` elements: its `weight` (or `gamma`) and, where the configuration says so, `bias` (or `beta`).
pub fn layer_norm<C: Into<LayerNormConfig>>(size: usize, config: C, vb: VarBuilder<'_>) -> Result<LayerNorm> {
    let config = config.into();
    let weight = vb.get_with_hints(size, named(&vb, ["weight", "gamma"]), Init::Const(1.0))?;
    let bias = || vb.get_with_hints(size, named(&vb, ["bias", "beta"]), Init::Const(0.0));
    let bias = config.affine.then(bias).transpose()?;
    Ok(LayerNorm { weight, bias, remove_mean: config.remove_mean, eps: config.eps })
}

/// A [`LayerNorm`] without a bias.
pub fn layer_norm_no_bias(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<LayerNorm> {
    layer_norm(size, LayerNormConfig { eps, remove_mean: true, affine: false }, vb)
}

/// Root-mean-square normalization over the last axis, as `candle_nn::RmsNorm`.
#[derive(Debug, Clone)]
pub struct RmsNorm(LayerNorm);

impl RmsNorm {
    /// With a weight of the size of the last axis.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        RmsNorm(LayerNorm::rms_norm(weight, eps))
    }

    /// The layer norm that it is made of.
    pub fn into_inner(self) -> LayerNorm {
        self.0
    }

    /// Multiplies the normalized value.
    pub fn weight(&self) -> &Tensor {
        self.0.weight()
    }

    /// Added inside the root.
    pub fn eps(&self) -> f64 {
        self.0.eps()
    }

    /// The same as `forward`, which has gradients, too.
    pub fn forward_diff(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

impl Module for RmsNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }
}

/// An [`RmsNorm`] of `size` elements: its `weight`.
pub fn rms_norm(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<RmsNorm> {
    Ok(RmsNorm(layer_norm(size, LayerNormConfig { eps, remove_mean: false, affine: false }, vb)?))
}

/// A residual connection and the RMSNorm after it, in one pass.
#[derive(Debug, Clone)]
pub struct AddRmsNorm {
    weight: Tensor,
    eps: f64,
}

impl AddRmsNorm {
    /// With a weight of the size of the last axis.
    pub fn new(weight: Tensor, eps: f64) -> Self {
        AddRmsNorm { weight, eps }
    }

    /// `(norm(xs + residual), xs + residual)`; see [`ops::add_rms_norm`].
    pub fn forward(&self, xs: &Tensor, residual: &Tensor) -> Result<(Tensor, Tensor)> {
        ops::add_rms_norm(xs, residual, Some(&self.weight), self.eps)
    }
}

/// An [`AddRmsNorm`] of `size` elements: its `weight`, as an RMSNorm's.
pub fn add_rms_norm(size: usize, eps: f64, vb: VarBuilder<'_>) -> Result<AddRmsNorm> {
    Ok(AddRmsNorm::new(vb.get_with_hints(size, "weight", Init::Const(1.0))?, eps))
}

/// Group normalization, as `candle_nn::GroupNorm`.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
    num_channels: usize,
    num_groups: usize,
}

impl GroupNorm {
    /// With a weight and a bias of `num_channels` elements; an error unless `num_groups` divides that.
    pub fn new(
        weight: Tensor,
        bias: Tensor,
        num_channels: usize,
        num_groups: usize,
        eps: f64,
    ) -> Result<Self> {
        if num_groups == 0 || !num_channels.is_multiple_of(num_groups) {
            let expected = format!("a divisor of num_channels, {num_channels}");
            return Err(crate::memory::refused("group_norm", "num_groups", expected, num_groups));
        }
        Ok(GroupNorm { weight, bias, eps, num_channels, num_groups })
    }
}

impl Module for GroupNorm {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        if xs.dims().get(1) != Some(&self.num_channels) {
            let expected = format!("a shape [N, {}, ...]", self.num_channels);
            return Err(crate::memory::refused("group_norm", "input", expected, format!("{:?}", xs.dims())));
        }
        ops::group_norm(xs, self.num_groups, Some(&self.weight), Some(&self.bias), self.eps)
    }
}

/// A [`GroupNorm`]: its `weight` and `bias`.
pub fn group_norm(num_groups: usize, num_channels: usize, eps: f64, vb: VarBuilder<'_>) -> Result<GroupNorm> {
    let weight = vb.get_with_hints(num_channels, "weight", Init::Const(1.0))?;
    let bias = vb.get_with_hints(num_channels, "bias", Init::Const(0.0))?;
    GroupNorm::new(weight, bias, num_channels, num_groups, eps)
}

/// Batch normalization, as `candle_nn::BatchNorm`; its training pass moves the running statistics.
#[derive(Debug, Clone)]
pub struct BatchNorm {
    running_mean: Var,
    running_var: Var,
    weight_and_bias: Option<(Tensor, Tensor)>,
    eps: f64,
    momentum: f64,
}

impl BatchNorm {
    /// With running statistics, weight and bias of `num_features` elements, and a momentum of 0.1.
    pub fn new(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let config = BatchNormConfig { eps, ..BatchNormConfig::default() };
        BatchNorm::of(num_features, (running_mean, running_var), Some((weight, bias)), config)
    }

    /// Without weight and bias.
    pub fn new_no_bias(
        num_features: usize,
        running_mean: Tensor,
        running_var: Tensor,
        eps: f64,
    ) -> Result<Self> {
        let config = BatchNormConfig { eps, ..BatchNormConfig::default() };
        BatchNorm::of(num_features, (running_mean, running_var), None, config)
    }

    fn of(
        num_features: usize,
        (mean, var): (Tensor, Tensor),
        weight_and_bias: Option<(Tensor, Tensor)>,
        config: BatchNormConfig,
    ) -> Result<Self> {
        let refused =
            |name, expected: &str, found: String| crate::memory::refused("batch_norm", name, expected, found);
        let affine = weight_and_bias.iter().flat_map(|(weight, bias)| [("weight", weight), ("bias", bias)]);
        for (name, tensor) in [("running_mean", &mean), ("running_var", &var)].into_iter().chain(affine) {
            if tensor.dims() != [num_features] {
                return Err(refused(
                    name,
                    &format!("shape [{num_features}]"),
                    format!("{:?}", tensor.dims()),
                ));
            }
        }
        if !config.remove_mean {
            return Err(refused("remove_mean", "true", "false".to_owned()));
        }
        if !(0.0..=1.0).contains(&config.momentum) {
            return Err(refused("momentum", "a number within 0 and 1", config.momentum.to_string()));
        }
        let (running_mean, running_var) = (Var::from_tensor(&mean)?, Var::from_tensor(&var)?);
        let BatchNormConfig { eps, momentum, .. } = config;
        Ok(BatchNorm { running_mean, running_var, weight_and_bias, eps, momentum })
    }

    /// Mean of each channel.
    pub fn running_mean(&self) -> &Tensor {
        self.running_mean.as_tensor()
    }

    /// Unbiased variance of each channel.
    pub fn running_var(&self) -> &Tensor {
        self.running_var.as_tensor()
    }

    /// Added inside the root.
    pub fn eps(&self) -> f64 {
        self.eps
    }

    /// The share of a batch in new running statistics.
    pub fn momentum(&self) -> f64 {
        self.momentum
    }

    /// Weight and bias.
    pub fn weight_and_bias(&self) -> Option<(&Tensor, &Tensor)> {
        self.weight_and_bias.as_ref().map(|(weight, bias)| (weight, bias))
    }

    /// Normalizes by the batch's statistics and moves the running ones.
    pub fn forward_train(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_t(xs, true)
    }
}

impl ModuleT for BatchNorm {
    fn forward_t(&self, xs: &Tensor, train: bool) -> Result<Tensor> {
        let running = Some((&self.running_mean, &self.running_var));
        let (weight, bias) = self.weight_and_bias().unzip();
        ops::batch_norm(xs, running, weight, bias, train, self.momentum, self.eps)
    }
}

/// A [`BatchNorm`]: `running_mean`, `running_var` and, where the configuration says so, `weight` and `bias`.
pub fn batch_norm<C: Into<BatchNormConfig>>(
    num_features: usize,
    config: C,
    vb: VarBuilder<'_>,
) -> Result<BatchNorm> {
    let config = config.into();
    let get = |name, value| vb.get_with_hints(num_features, name, Init::Const(value));
    let running = (get("running_mean", 0.0)?, get("running_var", 1.0)?);
    let affine = || Ok::<_, candle_core::Error>((get("weight", 1.0)?, get("bias", 0.0)?));
    let weight_and_bias = config.affine.then(affine).transpose()?;
    BatchNorm::of(num_features, running, weight_and_bias, config)
}

/// Dynamic tanh over the last axis: see [`ops::dyt`].
#[derive(Debug, Clone)]
pub struct DyT {
    alpha: Tensor,
    weight: Tensor,
    bias: Tensor,
}

impl DyT {
    /// `alpha` is one element, `weight` and `bias` have the size of the last axis.
    pub fn new(alpha: Tensor, weight: Tensor, bias: Tensor) -> Self {
        DyT { alpha, weight, bias }
    }
}

impl Module for DyT {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        ops::dyt(xs, &self.alpha, Some(&self.weight), Some(&self.bias))
    }
}

/// A [`DyT`] of `size` elements: its `alpha`, which starts at `alpha` (the paper's is 0.5), `weight` and `bias`.
pub fn dyt(size: usize, alpha: f64, vb: VarBuilder<'_>) -> Result<DyT> {
    Ok(DyT::new(
        vb.get_with_hints(1, "alpha", Init::Const(alpha))?,
        vb.get_with_hints(size, "weight", Init::Const(1.0))?,
        vb.get_with_hints(size, "bias", Init::Const(0.0))?,
    ))
}

/// Normalization of queries and keys by RMSNorms of each head: see [`ops::qk_norm`].
#[derive(Debug, Clone)]
pub struct QkNorm {
    query_weight: Tensor,
    key_weight: Tensor,
    eps: f64,
}

impl QkNorm {
    /// Each weight has the size of a head.
    pub fn new(query_weight: Tensor, key_weight: Tensor, eps: f64) -> Self {
        QkNorm { query_weight, key_weight, eps }
    }

    /// The normalized queries `[..., heads, head_dim]` and keys `[..., key_heads, head_dim]`.
    pub fn forward(&self, query: &Tensor, key: &Tensor) -> Result<(Tensor, Tensor)> {
        let weights = (Some(&self.query_weight), Some(&self.key_weight));
        ops::qk_norm(query, key, QkNormKind::Rms, weights, self.eps)
    }
}

/// A [`QkNorm`]: `q_norm.weight` and `k_norm.weight`, as models with it name them.
pub fn qk_norm(head_dim: usize, eps: f64, vb: VarBuilder<'_>) -> Result<QkNorm> {
    let get = |name| vb.pp(name).get_with_hints(head_dim, "weight", Init::Const(1.0));
    Ok(QkNorm::new(get("q_norm")?, get("k_norm")?, eps))
}

/// A weight made of direction and lengths: see [`ops::weight_norm`].
#[derive(Debug, Clone)]
pub struct WeightNorm {
    v: Tensor,
    g: Tensor,
    dim: Option<usize>,
}

impl WeightNorm {
    /// Of a direction and its lengths.
    pub fn new(v: Tensor, g: Tensor, dim: Option<usize>) -> Self {
        WeightNorm { v, g, dim }
    }

    /// The weight, to be made anew in every pass.
    pub fn weight(&self) -> Result<Tensor> {
        ops::weight_norm(&self.v, &self.g, self.dim)
    }
}

/// A [`WeightNorm`] of this shape: its `weight_v`, and `weight_g`, `[shape[0], 1, ...]`, one norm for each index of axis 0, as PyTorch's
/// older weight norm names them.
pub fn weight_norm(shape: &[usize], vb: VarBuilder<'_>) -> Result<WeightNorm> {
    let lengths: Vec<usize> =
        shape.iter().enumerate().map(|(axis, &size)| if axis == 0 { size } else { 1 }).collect();
    let v = vb.get_with_hints(shape, "weight_v", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
    Ok(WeightNorm::new(v, vb.get_with_hints(lengths, "weight_g", Init::Const(1.0))?, Some(0)))
}
