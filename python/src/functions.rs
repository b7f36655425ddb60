//! The functions that users call.

use crate::arguments as arg;
use crate::array::{Array, Autograd};
use crate::call::Call;
use crate::config::{Config, activated, cast};
use crate::errors::value_error;
use crate::running::{RunningArrays, channels};
use pyo3::prelude::*;

pub(crate) type Any<'py> = Bound<'py, PyAny>;
pub(crate) type Optional<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// The argument `name`, which is not to be followed by an autograd engine.
pub(crate) fn array<'py>(name: &'static str, object: &Any<'py>) -> PyResult<Array<'py>> {
    Array::new(name, object, Autograd::Refused)
}

pub(crate) fn optional<'py>(name: &'static str, object: Optional<'_, 'py>) -> PyResult<Option<Array<'py>>> {
    Array::optional(name, object, Autograd::Refused)
}

/// A forward pass of `config` with a weight and a bias.
fn forward<'py>(
    config: &Config,
    input: &Array<'py>,
    (weight, bias): (Optional<'_, 'py>, Optional<'_, 'py>),
    py: Python<'py>,
    backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let (weight, bias) = (weight.as_ref(), bias.as_ref());
    Call { weight, bias, ..Call::new(config, input) }.forward(py, backend)
}

/// Layer normalization over the last axes (Ba, Kiros, Hinton 2016, arXiv 1607.06450), as
/// ``torch.nn.functional.layer_norm``::
///
///     y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
///
/// The variance is the biased one. `normalized_shape` is the size of the last axis, or the sizes of the last axes;
/// `weight` and `bias` have that shape, and each may be None. They may have a dtype of their own, not wider than the
/// arithmetic's: float32 for inputs of up to 32 bits, else float64. `activation` is a function of the result, in the same
/// pass: ``"relu"``, ``"silu"`` (``y / (1 + exp(-y))``), ``"gelu"``, ``"gelu_tanh"``
/// (GELU by way of tanh), or None.
///
/// Returns an array like `input`: of its library, shape and dtype, on its device. `backend` says where to compute:
/// ``"cpu"``, ``"wgpu"`` or ``"cuda"``, with copies there and back where the arrays are elsewhere; None is where they
/// are.
///
/// Raises ValueError for shapes and values, TypeError for dtypes and objects, RuntimeError for devices and for tensors
/// that require grad.
///
/// >>> import numpy, normkit
/// >>> normkit.layer_norm(numpy.float32([[1, 3], [2, 6]]), 2, eps=0.0)
/// array([[-1.,  1.],
///        [-1.,  1.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight=None, bias=None, eps=1e-5, *, activation=None, backend=None))]
pub(crate) fn layer_norm<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::activation)] activation: Option<&'static str>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let config = Config::LayerNorm { normalized_shape, eps, fusion: activated(activation) };
    forward(&config, &array("input", input)?, (weight, bias), input.py(), backend)
}

/// Root-mean-square normalization over the last axes (Zhang, Sennrich 2019, arXiv 1910.07467), as
/// ``torch.nn.functional.rms_norm``::
///
///     y = x / sqrt(mean(x²) + eps) * (weight + offset)
///
/// `eps` of None is ``finfo(input.dtype).eps``, as in torch. `offset` is 1 for weights that are stored around zero.
/// `cast` repeats the habit of a model: ``"fp32"`` rounds once, at the end; ``"llama"`` rounds the normalized value to the
/// input's dtype before the weight; ``"gemma"`` has an offset of 1 and rounds once. `partial` takes the mean square
/// from the first part of each row, ``floor(partial * size)`` elements.
///
/// `normalized_shape`, `weight`, `activation`, `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.rms_norm(numpy.float32([[3, 4, 0, 0]]), 4, eps=0.0)
/// array([[1.2, 1.6, 0. , 0. ]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight=None, eps=None, *, offset=0.0, cast="fp32", partial=1.0, activation=None, backend=None))]
pub(crate) fn rms_norm<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::partial)] partial: f64,
    #[pyo3(from_py_with = arg::activation)] activation: Option<&'static str>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (cast, fusion) = (self::cast(cast), activated(activation));
    let config = Config::RmsNorm { normalized_shape, eps, offset, cast, partial, fusion };
    forward(&config, &array("input", input)?, (weight, None), input.py(), backend)
}

/// Batch normalization of each channel (Ioffe, Szegedy 2015, arXiv 1502.03167), as
/// ``torch.nn.functional.batch_norm``::
///
///     y = (x - mean) / sqrt(var + eps) * weight + bias
///
/// `input` is ``[N, C, ...]``, with any strides, channels-last ones included. With `training`, mean and biased variance
/// are those of the batch, and the running statistics, unless they are None, are moved in place:
/// ``running = (1 - momentum) * running + momentum * new``, by the unbiased variance; an empty batch leaves them. Without, the
/// running statistics are used. `weight`, `bias` and the running statistics have shape ``[C]``.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`; ValueError, too, for one value per channel in
/// training, and for running statistics that may not be written.
///
/// >>> import numpy, normkit
/// >>> mean, var = numpy.zeros(1, "float32"), numpy.ones(1, "float32")
/// >>> normkit.batch_norm(numpy.float32([[1], [3]]), mean, var, training=True, eps=0.0)
/// array([[-1.],
///        [ 1.]], dtype=float32)
/// >>> mean
/// array([0.2], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, running_mean, running_var, weight=None, bias=None, training=false, momentum=0.1, eps=1e-5, *, backend=None))]
pub(crate) fn batch_norm<'py>(
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::training)] training: bool,
    #[pyo3(from_py_with = arg::momentum)] momentum: f64,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let arrays = RunningArrays::new(Autograd::Refused, input, (running_mean, running_var), (weight, bias))?;
    let running = arrays.running(eps);
    if training {
        return running.train(input.py(), momentum, backend).map(|(output, _)| output);
    }
    running.frozen(input.py(), backend)
}

/// Group normalization (Wu, He 2018, arXiv 1803.08494), as ``torch.nn.functional.group_norm``::
///
///     y = (x - mean) / sqrt(var + eps) * weight + bias
///
/// Mean and biased variance are those of each of the `num_groups` groups of channels of each sample of
/// ``[N, C, ...]``. `weight` and `bias` have shape ``[C]``, and each may be None.
///
/// `activation`, `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.group_norm(numpy.float32([[1, 3, 2, 6]]), 2, eps=0.0)
/// array([[-1.,  1., -1.,  1.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, num_groups, weight=None, bias=None, eps=1e-5, *, activation=None, backend=None))]
pub(crate) fn group_norm<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::num_groups)] num_groups: usize,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::activation)] activation: Option<&'static str>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let array = array("input", input)?;
    let num_channels = channels(&array)?;
    let config = Config::GroupNorm { num_groups, num_channels, eps, fusion: activated(activation) };
    forward(&config, &array, (weight, bias), input.py(), backend)
}

/// Instance normalization (Ulyanov, Vedaldi, Lempitsky 2016, arXiv 1607.08022), as
/// ``torch.nn.functional.instance_norm``::
///
///     y = (x - mean) / sqrt(var + eps) * weight + bias
///
/// With `use_input_stats`, mean and biased variance are those of each channel of each sample of ``[N, C, ...]``, and the
/// running statistics, unless they are None, are moved in place, as in :func:`batch_norm` by `momentum`, towards the
/// means, over the samples, of the means and unbiased variances. Without, the running statistics are used. `weight`,
/// `bias` and the running statistics have shape ``[C]``.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`; ValueError, too, for channels of one position, and
/// for running statistics that may not be written.
///
/// >>> import numpy, normkit
/// >>> normkit.instance_norm(numpy.float32([[[1, 3], [2, 6]]]), eps=0.0)
/// array([[[-1.,  1.],
///         [-1.,  1.]]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=true, momentum=0.1, eps=1e-5, *, backend=None))]
pub(crate) fn instance_norm<'py>(
    input: &Any<'py>,
    running_mean: Optional<'_, 'py>,
    running_var: Optional<'_, 'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::use_input_stats)] use_input_stats: bool,
    #[pyo3(from_py_with = arg::momentum)] momentum: f64,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let arrays = RunningArrays::new(Autograd::Refused, input, (running_mean, running_var), (weight, bias))?;
    let running = arrays.running(eps);
    if use_input_stats {
        return running.train_instances(input.py(), momentum, backend).map(|(output, _)| output);
    }
    running.frozen(input.py(), backend)
}

/// Division of vectors by their p-norm, as ``torch.nn.functional.normalize``::
///
///     y = x / max(norm(x, p), eps)
///
/// The vectors lie along the axis `dim`; a negative one counts from the end. `p` is at least 1, or infinity; up to 100
/// otherwise.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.normalize(numpy.float32([[3, 4]]))
/// array([[0.6, 0.8]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, p=2.0, dim=1, eps=1e-12, *, backend=None))]
pub(crate) fn normalize<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::p)] p: f64,
    #[pyo3(from_py_with = arg::dim)] dim: isize,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let config = Config::Normalize { p, dim, eps };
    forward(&config, &array("input", input)?, (None, None), input.py(), backend)
}

/// Dynamic tanh, an elementwise function in place of a norm (Zhu, Chen, He, LeCun, Liu 2025, arXiv 2503.10622)::
///
///     y = weight * tanh(alpha * x) + bias
///
/// `alpha` is an array of one element, or a number. `weight` and `bias` vary along the last axis, or along as many last
/// axes as they have; each may be None.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.dyt(numpy.float32([[0, 100]]), 0.5)
/// array([[0., 1.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, alpha, weight=None, bias=None, *, backend=None))]
pub(crate) fn dyt<'py>(
    input: &Any<'py>,
    alpha: &Any<'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (py, input) = (input.py(), array("input", input)?);
    let alpha = if alpha.hasattr(pyo3::intern!(py, "__dlpack__"))? {
        array("alpha", alpha)?
    } else if let Ok(number) = alpha.extract::<f64>() {
        Array::number("alpha", number, input.dtype())?
    } else {
        array("alpha", alpha)?
    };
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let (weight, bias) = (weight.as_ref(), bias.as_ref());
    let Some(&last) = input.shape().last() else {
        return Err(value_error("input: expected at least one axis, found shape []"));
    };
    let normalized_shape = match weight.or(bias) {
        Some(parameter) if parameter.shape().is_empty() || !input.shape().ends_with(parameter.shape()) => {
            let (name, found) = (parameter.name, parameter.shape());
            return Err(value_error(format!("{name}: expected shape [{last}], found shape {found:?}")));
        }
        Some(parameter) => parameter.shape().to_vec(),
        None => vec![last],
    };
    let config = Config::DyT { normalized_shape };
    let call = Call { weight, bias, alpha: Some(&alpha), ..Call::new(&config, &input) };
    call.forward(py, backend)
}

/// Weight normalization (Salimans, Kingma 2016, arXiv 1602.07868), as ``torch._weight_norm``::
///
///     w = g * v / norm(v)
///
/// The 2-norm is that of each slice of `v` at an index of the axis `dim`; of all of it where `dim` is -1 or None. `g` has
/// the shape of `v` with 1 for every other axis, or just the size of `dim`; one element for the whole. Where a slice is
/// zero, so is the result.
///
/// `backend`, the result (like `v`) and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.weight_norm(numpy.float32([[3, 4]]), numpy.float32([[10]]))
/// array([[6., 8.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (v, g, dim=Some(0), *, backend=None), text_signature = "(v, g, dim=0, *, backend=None)")]
pub(crate) fn weight_norm<'py>(
    v: &Any<'py>,
    g: &Any<'py>,
    #[pyo3(from_py_with = arg::kept_dim)] dim: Option<usize>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let config = Config::WeightNorm { dim };
    let (input, weight) = (array("v", v)?, array("g", g)?);
    Call { weight: Some(&weight), ..Call::new(&config, &input) }.forward(v.py(), backend)
}
