//! The norms as functions of tensors.
//!
//! Inputs are tensors of any strides on the CPU or, with the feature `cuda`, on a GPU; F16, BF16, F32 or F64; parameters may have a dtype of their own (F64 beside an input of F64
//! only). Arithmetic is in float32, of F64 in float64, with one rounding at the end. Every function has gradients of every argument,
//! which are tensors without a gradient of their own: a second derivative stops there. Errors are candle's, with normkit's message: the
//! argument, what was expected and what was found. Tensors on other devices are refused by candle's "no metal implementation".

use crate::added::added;
use crate::memory::{compute, refused};
use crate::op::{Moved, Op, Role, Running, bound};
use candle_core::{D, Result, Tensor, Var};
use normkit::{BatchNorm, DyT, GroupNorm, LayerNorm, QkNorm, RmsNorm, WeightNorm};
use std::sync::PoisonError;

/// Weight and bias that are there, with their roles.
fn affine<'t>(weight: Option<&'t Tensor>, bias: Option<&'t Tensor>) -> Vec<(Role, &'t Tensor)> {
    weight
        .map(|weight| (Role::Weight, weight))
        .into_iter()
        .chain(bias.map(|bias| (Role::Bias, bias)))
        .collect()
}

/// The last axis, which `candle_nn`'s functions normalize over.
fn last(xs: &Tensor) -> Result<[usize; 1]> {
    xs.dim(D::Minus1).map(|size| [size])
}

/// Layer normalization over the last axis, as `candle_nn::ops::layer_norm`, with gradients of all three.
///
/// ```text
/// y = (x - mean(x)) / sqrt(var(x) + eps) * alpha + beta
/// ```
///
/// `alpha` and `beta` have the size of the last axis.
pub fn layer_norm(xs: &Tensor, alpha: &Tensor, beta: &Tensor, eps: f32) -> Result<Tensor> {
    layer_norm_over(xs, &last(xs)?, Some(alpha), Some(beta), f64::from(eps))
}

/// Layer normalization over the last axes, whose sizes are `normalized_shape`; so are those of `weight` and `bias`.
pub fn layer_norm_over(
    xs: &Tensor,
    normalized_shape: &[usize],
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let shape = normalized_shape.to_vec();
    let op = Op::new("layer_norm", move |parts| {
        let norm = LayerNorm::new(&shape[..]).eps(eps);
        Ok(Box::new(bound!(norm, weight_view: parts.weight, bias_view: parts.bias)))
    });
    op.apply(xs, &affine(weight, bias))
}

/// Root-mean-square normalization over the last axis, as `candle_nn::ops::rms_norm`, with gradients of both.
///
/// ```text
/// y = x / sqrt(mean(x²) + eps) * alpha
/// ```
///
/// `alpha` has the size of the last axis.
pub fn rms_norm(xs: &Tensor, alpha: &Tensor, eps: f32) -> Result<Tensor> {
    rms_norm_over(xs, &last(xs)?, Some(alpha), f64::from(eps))
}

/// Root-mean-square normalization over the last axes, whose sizes are `normalized_shape`; so are those of `weight`.
pub fn rms_norm_over(
    xs: &Tensor,
    normalized_shape: &[usize],
    weight: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let shape = normalized_shape.to_vec();
    let op = Op::new("rms_norm", move |parts| {
        let norm = RmsNorm::new(&shape[..]).eps(eps);
        Ok(Box::new(bound!(norm, weight_view: parts.weight)))
    });
    op.apply(xs, &affine(weight, None))
}

/// A residual connection and the RMSNorm after it, in one pass over memory: `(y, h)`.
///
/// ```text
/// h = xs + residual
/// y = h / sqrt(mean(h²) + eps) * weight
/// ```
///
/// `residual` has the shape of `xs`, and may have a dtype of its own, which `h` has, too: a model's float32 stream beside bfloat16
/// branches. The norm sees the sum before it is rounded. Gradients of `y` and of `h`, if that is used on, go to all three.
pub fn add_rms_norm(
    xs: &Tensor,
    residual: &Tensor,
    weight: Option<&Tensor>,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let shape = last(xs)?;
    added("add_rms_norm", (xs, residual), (weight, None), move |residual, parts| {
        let norm = RmsNorm::new(shape).eps(eps).residual_view(residual);
        Ok(Box::new(bound!(norm, weight_view: parts.weight)))
    })
}

/// A residual connection and the LayerNorm after it: as [`add_rms_norm`].
///
/// ```text
/// h = xs + residual
/// y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias
/// ```
pub fn add_layer_norm(
    xs: &Tensor,
    residual: &Tensor,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let shape = last(xs)?;
    added("add_layer_norm", (xs, residual), (weight, bias), move |residual, parts| {
        let norm = LayerNorm::new(shape).eps(eps).residual_view(residual);
        Ok(Box::new(bound!(norm, weight_view: parts.weight, bias_view: parts.bias)))
    })
}

/// Group normalization of an input `[N, C, ...]`: statistics over the `C / num_groups` channels of a group and all positions, per
/// sample. `weight` and `bias` are `[C]`.
pub fn group_norm(
    xs: &Tensor,
    num_groups: usize,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    eps: f64,
) -> Result<Tensor> {
    let channels = channels("group_norm", xs)?;
    let op = Op::new("group_norm", move |parts| {
        let norm = GroupNorm::new(num_groups, channels).eps(eps);
        Ok(Box::new(bound!(norm, weight_view: parts.weight, bias_view: parts.bias)))
    });
    op.apply(xs, &affine(weight, bias))
}

/// The channels of an input `[N, C, ...]`.
fn channels(op: &str, xs: &Tensor) -> Result<usize> {
    match xs.dims() {
        [_, channels, ..] => Ok(*channels),
        found => Err(refused(op, "input", "a shape [N, C, ...]", format!("{found:?}"))),
    }
}

/// Batch normalization of an input `[N, C, ...]`: statistics of each channel over samples and positions.
///
/// ```text
/// y = (x - mean[c]) / sqrt(var[c] + eps) * weight[c] + bias[c]
/// ```
///
/// With `training`, mean and var are the batch's, and the running ones, if any, move towards them:
/// `running = (1 - momentum) * running + momentum * new`, the new variance being the unbiased one. Without, they are the running ones,
/// which are constants then and must be there. All parameters and statistics are `[C]`.
pub fn batch_norm(
    xs: &Tensor,
    running: Option<(&Var, &Var)>,
    weight: Option<&Tensor>,
    bias: Option<&Tensor>,
    training: bool,
    momentum: f64,
    eps: f64,
) -> Result<Tensor> {
    const NAME: &str = "batch_norm";
    let channels = channels(NAME, xs)?;
    let of_batch = Op::new(NAME, move |parts| {
        let norm = BatchNorm::new(channels).eps(eps);
        Ok(Box::new(bound!(norm, weight_view: parts.weight, bias_view: parts.bias)))
    });
    let Some((mean, var)) = running else {
        if training {
            return of_batch.apply(xs, &affine(weight, bias));
        }
        return Err(refused(NAME, "running", "running statistics where it is not training", "none"));
    };
    // What the running statistics hold, in the dtype that is computed in, beside the input.
    let held = |name, var: &Var| {
        if var.dims() != [channels] {
            return Err(refused(NAME, name, format!("shape [{channels}]"), format!("{:?}", var.dims())));
        }
        // A copy: a variable may be set before the backward pass.
        var.as_detached_tensor().to_dtype(compute(NAME, xs.dtype())?)?.force_contiguous()
    };
    let before = [held("running_mean", mean)?, held("running_var", var)?];
    if !training {
        let op = Op::new(NAME, move |parts| {
            let norm = BatchNorm::new(channels).eps(eps);
            let norm = bound!(norm, weight_view: parts.weight, bias_view: parts.bias);
            let Some((mean, var, stream)) = parts.frozen else { return Ok(Box::new(norm)) };
            Ok(Box::new(norm.frozen_on(&mean, &var, stream)?))
        });
        return Op { frozen: Some(before), ..op }.apply(xs, &affine(weight, bias));
    }
    let after = Moved::default();
    let running = Running { channels, eps, factor: momentum, before, after: after.clone() };
    let output = Op { running: Some(running), ..of_batch }.apply(xs, &affine(weight, bias))?;
    let moved = after.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(moved) = moved {
        for (variable, values) in [mean, var].into_iter().zip(moved) {
            variable.set(&values.to_dtype(variable.dtype())?)?;
        }
    }
    Ok(output)
}

/// Dynamic tanh (Zhu et al. 2025), a norm's stand-in without statistics.
///
/// ```text
/// y = weight * tanh(alpha * x) + bias
/// ```
///
/// `alpha` is one element; `weight` and `bias` have the size of the last axis.
pub fn dyt(xs: &Tensor, alpha: &Tensor, weight: Option<&Tensor>, bias: Option<&Tensor>) -> Result<Tensor> {
    let shape = last(xs)?;
    let op = Op::new("dyt", move |parts| {
        let norm = DyT::new(shape);
        Ok(Box::new(bound!(norm, alpha_view: parts.alpha, weight_view: parts.weight, bias_view: parts.bias)))
    });
    let (Some(weight), Some(bias)) = (weight, bias) else {
        let rest: Vec<_> = [(Role::Alpha, alpha)].into_iter().chain(affine(weight, bias)).collect();
        return op.apply(xs, &rest);
    };
    // Four tensors are one more than an operator can have.
    for (name, tensor) in [("weight", weight), ("bias", bias)] {
        if tensor.dims() != shape {
            return Err(refused(
                "dyt",
                name,
                format!("shape {shape:?}"),
                format!("shape {:?}", tensor.dims()),
            ));
        }
    }
    let both = Tensor::stack(&[weight, &bias.to_dtype(weight.dtype())?], 0)?;
    op.apply(xs, &[(Role::Alpha, alpha), (Role::WeightAndBias, &both)])
}

/// How [`qk_norm`] normalizes a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNormKind {
    /// `x / max(|x|, eps)` (Henry et al. 2020); the learned scale is the queries' weight.
    L2,
    /// `x / sqrt(mean(x²) + eps)`, as in Qwen3.
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps)` (Dehghani et al. 2023).
    Layer,
}

/// Normalization of queries `[..., heads, head_dim]` and keys `[..., key_heads, head_dim]`, head by head, before their dot products.
///
/// Each weight multiplies its own: `[head_dim]`, `[heads, head_dim]` or one element.
pub fn qk_norm(
    query: &Tensor,
    key: &Tensor,
    kind: QkNormKind,
    (query_weight, key_weight): (Option<&Tensor>, Option<&Tensor>),
    eps: f64,
) -> Result<(Tensor, Tensor)> {
    let (q, k) = (query.dims(), key.dims());
    let fits = q.len() >= 2
        && k.len() == q.len()
        && q[q.len() - 1] == k[q.len() - 1]
        && k[q.len() - 2] > 0
        && q[q.len() - 2].is_multiple_of(k[q.len() - 2]);
    if !fits {
        let expected = "[..., key_heads, head_dim], the queries' head_dim, and heads that divide theirs";
        return Err(refused("qk_norm", "key", expected, format!("shape {k:?} beside queries of {q:?}")));
    }
    let one = |xs: &Tensor, weight: Option<&Tensor>| {
        let op = Op::new("qk_norm", move |parts| {
            let norm = match kind {
                QkNormKind::L2 => QkNorm::l2(),
                QkNormKind::Rms => QkNorm::rms(),
                QkNormKind::Layer => QkNorm::layer(),
            };
            Ok(Box::new(bound!(norm.eps(eps).query().clone(), weight_view: parts.weight)))
        });
        op.apply(xs, &affine(weight, None))
    };
    Ok((one(query, query_weight)?, one(key, key_weight)?))
}

/// Weight normalization (Salimans, Kingma 2016): a weight from its direction `v` and its lengths `g`.
///
/// ```text
/// w = g * v / |v|          over every axis but `dim`, or over the whole tensor
/// ```
///
/// `g` has the size of `v` along `dim` and 1 elsewhere, or just that size; with `dim = None` it is one element.
pub fn weight_norm(v: &Tensor, g: &Tensor, dim: Option<usize>) -> Result<Tensor> {
    let op =
        Op::new("weight_norm", move |parts| Ok(Box::new(bound!(WeightNorm::new(dim), g_view: parts.weight))));
    op.apply(v, &[(Role::Weight, g)])
}
