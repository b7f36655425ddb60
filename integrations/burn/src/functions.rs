//! The functions.

use crate::call::Call;
pub use crate::call::HeadKind;
use crate::dtypes;
use crate::ops::{Maybe, NormOps, Others, Outcome};
use burn::backend::{
    Dispatch, DispatchAutodiffContext, DispatchDevice, DispatchTensor, DispatchTensorKind, TensorMetadata,
};
use burn::tensor::Tensor;
use normkit::{Error, Result};

/// The mean and the variance of each channel of a batch, constants: what running statistics are averages of.
#[derive(Debug, Clone)]
pub struct BatchStatistics {
    /// `Σ x / n` over samples and positions, n of them.
    pub mean: Tensor<1>,
    /// `Σ (x - mean)² / (n - 1)`
    pub variance: Tensor<1>,
}

/// The tensors of a call beside its input.
#[derive(Default)]
struct With {
    weight: Option<DispatchTensor>,
    bias: Option<DispatchTensor>,
    alpha: Option<DispatchTensor>,
    residual: Option<DispatchTensor>,
    running: Option<[DispatchTensor; 2]>,
}

/// A tensor in the form that burn routes.
fn routed<const D: usize>(tensor: Option<Tensor<D>>) -> Option<DispatchTensor> {
    tensor.map(Tensor::into_dispatch)
}

/// Whether a tensor is of a backend that normkit knows.
fn is_known(kind: &DispatchTensorKind) -> bool {
    match kind {
        DispatchTensorKind::Autodiff(inner) => is_known(inner),
        #[cfg(feature = "flex")]
        DispatchTensorKind::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchTensorKind::NdArray(_) => true,
        #[cfg(any(feature = "wgpu", feature = "cuda"))]
        DispatchTensorKind::Cube(_) => true,
        #[allow(unreachable_patterns, reason = "features of burn add others")]
        _ => false,
    }
}

/// Refuses tensors that burn would panic on: of another backend or device, of dtypes that are not floating-point, or of different
/// strategies for what a backward pass recomputes.
fn check(name: &'static str, tensor: &DispatchTensor, input: &DispatchTensor) -> Result<()> {
    let refuse = |expected: String, found: String| Err(Error::Argument { name, expected, found });
    dtypes::of(name, tensor.dtype())?;
    if !is_known(&tensor.kind) {
        return refuse(
            "a tensor of a backend that normkit-burn is built for".into(),
            "another backend's".into(),
        );
    }
    let (device, expected) = (place(tensor), place(input));
    if device != expected {
        return refuse(format!("a tensor on the input's device {expected:?}"), format!("one on {device:?}"));
    }
    let strategies = [tensor.autodiff, input.autodiff];
    let enabled = strategies.iter().filter(|context| **context != DispatchAutodiffContext::Disabled).count();
    if enabled == 2 && strategies[0] != strategies[1] {
        return refuse("the input's gradient checkpointing".into(), "another strategy".into());
    }
    Ok(())
}

/// A tensor's device, whether gradients are recorded there or not.
fn place(tensor: &DispatchTensor) -> DispatchDevice {
    let mut kind = &tensor.kind;
    while let DispatchTensorKind::Autodiff(inner) = kind {
        kind = inner;
    }
    kind.device()
}

/// Runs a call on the backend of its tensors.
fn run(call: Call, batch: bool, input: DispatchTensor, with: With) -> Result<Outcome<Dispatch>> {
    check("input", &input, &input)?;
    let With { weight, bias, alpha, residual, running } = with;
    let named = [("weight", &weight), ("bias", &bias), ("alpha", &alpha), ("residual", &residual)];
    for (name, tensor) in named {
        if let Some(tensor) = tensor {
            check(name, tensor, &input)?;
        }
    }
    if let Some([mean, var]) = &running {
        check("running_mean", mean, &input)?;
        check("running_var", var, &input)?;
    }
    let [mean, var] = running.map_or([None, None], |both| both.map(Some));
    let others = Others {
        weight: Maybe::of(weight),
        bias: Maybe::of(bias),
        alpha: Maybe::of(alpha),
        residual: Maybe::of(residual),
        mean: Maybe::of(mean),
        var: Maybe::of(var),
    };
    match Dispatch::normkit(call, batch, input, others) {
        Outcome::Failed(error) => Err(error),
        outcome => Ok(outcome),
    }
}

/// The output of a call that has no other.
fn output<const D: usize>(call: Call, input: Tensor<D>, with: With) -> Result<Tensor<D>> {
    Ok(match run(call, false, input.into_dispatch(), with)? {
        Outcome::Output(output) | Outcome::WithHidden(output, _) | Outcome::WithBatch(output, _, _) => {
            Tensor::from_dispatch(output)
        }
        Outcome::Failed(error) => return Err(error),
    })
}

/// The output of a call, and what was normalized.
fn output_and_hidden<const D: usize>(
    call: Call,
    input: Tensor<D>,
    with: With,
) -> Result<(Tensor<D>, Tensor<D>)> {
    match run(call, false, input.into_dispatch(), with)? {
        Outcome::WithHidden(output, hidden) => {
            Ok((Tensor::from_dispatch(output), Tensor::from_dispatch(hidden)))
        }
        Outcome::Failed(error) => Err(error),
        _ => Err(incomplete()),
    }
}

fn incomplete() -> Error {
    let (expected, found) = ("a backend that gives every result".to_owned(), "fewer".to_owned());
    Error::Argument { name: "backend", expected, found }
}

/// The size of the last axis.
fn last<const D: usize>(input: &Tensor<D>) -> usize {
    input.dims().last().copied().unwrap_or(0)
}

/// The size of the second axis, which counts channels.
fn channels<const D: usize>(input: &Tensor<D>) -> Result<usize> {
    input.dims().get(1).copied().ok_or_else(|| {
        let (expected, found) = ("a shape [n, c, ...]".to_owned(), format!("shape {:?}", input.dims()));
        Error::Argument { name: "input", expected, found }
    })
}

/// Layer normalization of the last axis: `(x - mean) / sqrt(var + eps) * weight + bias`, with the biased variance.
///
/// `input`: `[..., d]`; `weight`, `bias`: `[d]`. See [`normkit::LayerNorm`].
pub fn layer_norm<const D: usize>(
    input: Tensor<D>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Result<Tensor<D>> {
    let call = Call::LayerNorm { shape: vec![last(&input)], eps };
    output(call, input, With { weight: routed(weight), bias: routed(bias), ..With::default() })
}

/// RMS normalization of the last axis: `x / sqrt(mean(x²) + eps) * weight`.
///
/// `input`: `[..., d]`; `weight`: `[d]`. See [`normkit::RmsNorm`].
pub fn rms_norm<const D: usize>(input: Tensor<D>, weight: Option<Tensor<1>>, eps: f64) -> Result<Tensor<D>> {
    let call = Call::RmsNorm { shape: vec![last(&input)], eps };
    output(call, input, With { weight: routed(weight), ..With::default() })
}

/// `h = input + residual` and `y = layer_norm(h)` in one pass over memory; returns `(y, h)`.
///
/// The norm sees the sum before it is rounded to the tensors' dtype. `input`, `residual`: `[..., d]`; `weight`, `bias`: `[d]`.
pub fn add_layer_norm<const D: usize>(
    input: Tensor<D>,
    residual: Tensor<D>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Result<(Tensor<D>, Tensor<D>)> {
    let call = Call::LayerNorm { shape: vec![last(&input)], eps };
    let residual = Some(residual.into_dispatch());
    let with = With { weight: routed(weight), bias: routed(bias), residual, ..With::default() };
    output_and_hidden(call, input, with)
}

/// `h = input + residual` and `y = rms_norm(h)` in one pass over memory; returns `(y, h)`: see [`add_layer_norm`].
pub fn add_rms_norm<const D: usize>(
    input: Tensor<D>,
    residual: Tensor<D>,
    weight: Option<Tensor<1>>,
    eps: f64,
) -> Result<(Tensor<D>, Tensor<D>)> {
    let call = Call::RmsNorm { shape: vec![last(&input)], eps };
    let residual = Some(residual.into_dispatch());
    output_and_hidden(call, input, With { weight: routed(weight), residual, ..With::default() })
}

/// Batch normalization by statistics that are constants: inference.
///
/// `input`: `[n, c, ...]`; the others: `[c]`. See [`normkit::BatchNorm`].
pub fn batch_norm<const D: usize>(
    input: Tensor<D>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    running_mean: Tensor<1>,
    running_var: Tensor<1>,
    eps: f64,
) -> Result<Tensor<D>> {
    let call = Call::BatchNorm { channels: channels(&input)?, eps };
    let running = Some([running_mean.into_dispatch(), running_var.into_dispatch()]);
    output(call, input, With { weight: routed(weight), bias: routed(bias), running, ..With::default() })
}

/// Batch normalization by the batch's own statistics, which it returns for running averages.
///
/// `input`: `[n, c, ...]`, with more than one value for each channel; `weight`, `bias`: `[c]`. See [`normkit::BatchNorm`].
pub fn batch_norm_train<const D: usize>(
    input: Tensor<D>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Result<(Tensor<D>, BatchStatistics)> {
    let call = Call::BatchNorm { channels: channels(&input)?, eps };
    let with = With { weight: routed(weight), bias: routed(bias), ..With::default() };
    match run(call, true, input.into_dispatch(), with)? {
        Outcome::WithBatch(output, mean, variance) => {
            let (mean, variance) = (Tensor::from_dispatch(mean), Tensor::from_dispatch(variance));
            Ok((Tensor::from_dispatch(output), BatchStatistics { mean, variance }))
        }
        Outcome::Failed(error) => Err(error),
        _ => Err(incomplete()),
    }
}

/// Normalization of groups of channels.
///
/// `input`: `[n, c, ...]`, `num_groups` a divisor of c; `weight`, `bias`: `[c]`. See [`normkit::GroupNorm`].
pub fn group_norm<const D: usize>(
    input: Tensor<D>,
    num_groups: usize,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Result<Tensor<D>> {
    let call = Call::GroupNorm { groups: num_groups, channels: channels(&input)?, eps };
    output(call, input, With { weight: routed(weight), bias: routed(bias), ..With::default() })
}

/// Normalization of each channel of each sample.
///
/// `input`: `[n, c, ...]`; `weight`, `bias`: `[c]`. See [`normkit::InstanceNorm`].
pub fn instance_norm<const D: usize>(
    input: Tensor<D>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
    eps: f64,
) -> Result<Tensor<D>> {
    let call = Call::InstanceNorm { channels: channels(&input)?, eps };
    output(call, input, With { weight: routed(weight), bias: routed(bias), ..With::default() })
}

/// Dynamic tanh, a norm without statistics: `tanh(alpha * x) * weight + bias`.
///
/// `input`: `[..., d]`; `alpha`: one number; `weight`, `bias`: `[d]`. See [`normkit::DyT`].
pub fn dyt<const D: usize>(
    input: Tensor<D>,
    alpha: Tensor<1>,
    weight: Option<Tensor<1>>,
    bias: Option<Tensor<1>>,
) -> Result<Tensor<D>> {
    let call = Call::Dyt { shape: vec![last(&input)] };
    let alpha = Some(alpha.into_dispatch());
    output(call, input, With { alpha, weight: routed(weight), bias: routed(bias), ..With::default() })
}

/// Normalization of the heads of queries and keys, whose numbers of heads may differ.
///
/// `query`, `key`: `[..., d]`; the weights: `[d]`, or one number for [`HeadKind::L2`]. See [`normkit::QkNorm`].
pub fn qk_norm<const D: usize>(
    query: Tensor<D>,
    key: Tensor<D>,
    query_weight: Option<Tensor<1>>,
    key_weight: Option<Tensor<1>>,
    kind: HeadKind,
    eps: f64,
) -> Result<(Tensor<D>, Tensor<D>)> {
    let heads = |input, weight| {
        let with = With { weight: routed(weight), ..With::default() };
        output(Call::Heads { kind, eps }, input, with)
    };
    Ok((heads(query, query_weight)?, heads(key, key_weight)?))
}

/// A weight as its length and its direction: `g * v / ||v||`, the norm being that of all elements that share an index of `dim`,
/// or of all elements without one.
///
/// `v`: any shape; `g`: one number for each index of `dim`, or one. See [`normkit::WeightNorm`].
pub fn weight_norm<const D: usize>(v: Tensor<D>, g: Tensor<1>, dim: Option<usize>) -> Result<Tensor<D>> {
    output(Call::WeightNorm { dim }, v, With { weight: Some(g.into_dispatch()), ..With::default() })
}
