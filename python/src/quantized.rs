//! Norms whose results become codes of 8 bits, for inference.

use crate::arguments as arg;
use crate::array::Array;
use crate::call::{Call, bound};
use crate::config::{Config, cast};
use crate::errors::{exception, renamed, value_error};
use crate::fresh::Fresh;
use crate::functions::{Any, Optional, array, optional};
use crate::fused::residual_before;
use crate::place::{Place, Target};
use normkit::norm::Quantized;
use normkit::spec::{Fusion, Quantization, Scaling};
use normkit::tensor::{DType, Layout};
use pyo3::prelude::*;

/// The codes, their scales where they are computed, and the sum where there is a residual.
pub(crate) type Results<'py> = (Any<'py>, Option<Any<'py>>, Option<Any<'py>>);

/// What the results become, from the arguments.
pub(crate) fn quantization(
    dtype: DType,
    scale: Option<f64>,
    block_size: Option<usize>,
    upper_bound: Option<f64>,
) -> PyResult<Quantization> {
    let scaling = match (scale, block_size) {
        (Some(_), Some(block)) => {
            return Err(value_error(format!("block_size: expected None beside a scale, found {block}")));
        }
        (Some(scale), None) => Scaling::Static(scale),
        (None, Some(block)) => Scaling::Block(block),
        (None, None) => Scaling::Row,
    };
    let quantization = Quantization { dtype, scaling, upper_bound, outliers: None };
    quantization.check().map_err(|error| renamed(error, &[("block", "block_size")]))?;
    Ok(quantization)
}

/// The codes of the norm of `input`, or of its sum with a residual, which is given, too.
pub(crate) fn run<'py>(
    py: Python<'py>,
    config: &Config,
    input: &Array<'py>,
    residual: Option<&Array<'py>>,
    [weight, bias]: [Option<&Array<'py>>; 2],
    quantization: Quantization,
    backend: Option<&str>,
) -> PyResult<Results<'py>> {
    Call { weight, bias, before: residual, ..Call::new(config, input) }.check()?;
    let Quantization { dtype, scaling, upper_bound, .. } = quantization;
    let place = Place::of(input, backend)?;
    let codes = Fresh::new(py, input, input.shape(), Some(dtype))?;
    let hidden = |like: &Array<'py>| Fresh::new(py, input, input.shape(), Some(like.dtype()));
    let hidden = residual.map(hidden).transpose()?;
    let shape = {
        let norm = bound(config, input.shape(), [const { None }; 10]).map_err(exception)?;
        let norm = Quantized::new(&*norm, dtype, scaling);
        norm.scales_shape(input.shape(), input.dtype()).map_err(exception)?
    };
    let scales = match shape {
        None => None,
        Some([_, of_row]) => {
            let kept = input.shape().len() - config.axes();
            let shape: Vec<usize> = input.shape()[..kept].iter().copied().chain([of_row]).collect();
            Some(Fresh::new(py, input, &shape, Some(DType::F32))?)
        }
    };
    let inputs = [Some(input), weight, bias, residual];
    let outputs = [Some(&codes), scales.as_ref(), hidden.as_ref()]
        .map(|fresh| fresh.map(|fresh| Target::New(&fresh.memory)));
    let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
        let [Some(input), weight, bias, residual] = inputs else { return Ok(()) };
        let [Some(mut codes), scales, mut hidden] = outputs else { return Ok(()) };
        let norm =
            bound(config, input.shape(), [weight, bias, None, residual, None, None, None, None, None, None])?;
        let mut norm = Quantized::new(&*norm, dtype, scaling);
        if let Some(upper_bound) = upper_bound {
            norm = norm.upper_bound(upper_bound);
        }
        let rows = shape.unwrap_or_default();
        let mut scales = scales.map(|view| view.with_layout(Layout::contiguous(&rows))).transpose()?;
        norm.forward_into(&input, &mut codes, scales.as_mut(), hidden.as_mut(), stream)
    })?;
    result.map_err(exception)?;
    Ok((codes.finish()?, scales.map(Fresh::finish).transpose()?, hidden.map(Fresh::finish).transpose()?))
}

/// The same for what users give.
fn quantized<'py>(
    config: &Config,
    (input, residual): (&Any<'py>, Optional<'_, 'py>),
    (weight, bias): (Optional<'_, 'py>, Optional<'_, 'py>),
    quantization: Quantization,
    backend: Option<&'static str>,
) -> PyResult<Results<'py>> {
    let (py, input, residual) = (input.py(), array("input", input)?, optional("residual", residual)?);
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    run(py, config, &input, residual.as_ref(), [weight.as_ref(), bias.as_ref()], quantization, backend)
}

/// Root-mean-square normalization whose result becomes codes of 8 bits, in one pass::
///
///     v     = x / sqrt(mean(x²) + eps) * (weight + offset)
///     scale = max(min(max |v|, upper_bound) / largest, least)       of each row, or of each block of it
///     code  = nearest(v / scale)                                    ties to even; beyond the largest code, that
///
/// `dtype` is ``"int8"`` (codes from -128 to 127, `largest` 127, `least` 2^-23), ``"float8_e4m3fn"`` (448, 1 / (512 * 448)) or
/// ``"float8_e5m2"`` (57344, 1 / (512 * 57344)), or the dtype of that name of NumPy, ml_dtypes or PyTorch. All steps are
/// float32 operations, rounded once: the codes are those of the float32 result. NaN makes the scale of its row or block NaN
/// and its codes NaN, or 0 for int8.
///
/// By default each row, of `normalized_shape`, has a scale; with `block_size`, a power of two from 32 to 4096, each so many of
/// its columns, the last block being as long as is left. `scale` is one that is given for all. ``v ≈ code * scale``.
///
/// Returns ``(codes, scales)``: codes of the input's shape, and float32 scales ``[..., 1]`` or ``[..., blocks]``, the leading
/// axes being those of the input that are not normalized; None where `scale` was given. There is no backward pass.
/// `normalized_shape`, `weight`, `eps`, `offset`, `cast`, `backend` and the errors are as in :func:`rms_norm`.
///
/// >>> import numpy, normkit
/// >>> codes, scales = normkit.rms_norm_quant(numpy.float32([[3, 4, 0, 0]]), 4, eps=0.0)
/// >>> codes
/// array([[ 95, 127,   0,   0]], dtype=int8)
/// >>> codes * scales
/// array([[1.1968504, 1.6      , 0.       , 0.       ]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight=None, eps=None, *, dtype=DType::I8, scale=None, block_size=None, upper_bound=None, offset=0.0, cast="fp32", backend=None),
    text_signature = "(input, normalized_shape, weight=None, eps=None, *, dtype='int8', scale=None, block_size=None, upper_bound=None, offset=0.0, cast='fp32', backend=None)")]
pub(crate) fn rms_norm_quant<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::code_dtype)] dtype: DType,
    #[pyo3(from_py_with = arg::optional_scale)] scale: Option<f64>,
    #[pyo3(from_py_with = arg::optional_block_size)] block_size: Option<usize>,
    #[pyo3(from_py_with = arg::optional_upper_bound)] upper_bound: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Option<Any<'py>>)> {
    let codes = quantization(dtype, scale, block_size, upper_bound)?;
    let (cast, fusion) = (self::cast(cast), Fusion::default());
    let config = Config::RmsNorm { normalized_shape, eps, offset, cast, partial: 1.0, fusion };
    let (codes, scales, _) = quantized(&config, (input, None), (weight, None), codes, backend)?;
    Ok((codes, scales))
}

/// Layer normalization whose result becomes codes of 8 bits, in one pass::
///
///     v = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
///
/// `dtype`, `scale`, `block_size`, `upper_bound` and ``(codes, scales)``, which is returned, are as in :func:`rms_norm_quant`;
/// `normalized_shape`, `weight`, `bias`, `eps`, `backend` and the errors as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> codes, scales = normkit.layer_norm_quant(numpy.float32([[1, 3]]), 2, eps=0.0, scale=0.5)
/// >>> codes, scales
/// (array([[-2,  2]], dtype=int8), None)
#[pyfunction]
#[pyo3(signature = (input, normalized_shape, weight=None, bias=None, eps=1e-5, *, dtype=DType::I8, scale=None, block_size=None, upper_bound=None, backend=None),
    text_signature = "(input, normalized_shape, weight=None, bias=None, eps=1e-05, *, dtype='int8', scale=None, block_size=None, upper_bound=None, backend=None)")]
pub(crate) fn layer_norm_quant<'py>(
    input: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::code_dtype)] dtype: DType,
    #[pyo3(from_py_with = arg::optional_scale)] scale: Option<f64>,
    #[pyo3(from_py_with = arg::optional_block_size)] block_size: Option<usize>,
    #[pyo3(from_py_with = arg::optional_upper_bound)] upper_bound: Option<f64>,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Option<Any<'py>>)> {
    let codes = quantization(dtype, scale, block_size, upper_bound)?;
    let config = Config::LayerNorm { normalized_shape, eps, fusion: Fusion::default() };
    let (codes, scales, _) = quantized(&config, (input, None), (weight, bias), codes, backend)?;
    Ok((codes, scales))
}

/// Root-mean-square normalization of a sum, whose result becomes codes of 8 bits, in one pass::
///
///     h = input_scale * input + residual_scale * residual
///     v = h / sqrt(mean(h²) + eps) * (weight + offset)
///
/// Returns ``(codes, scales, h)``; `residual`, `input_scale`, `residual_scale` and ``h`` are as in :func:`add_rms_norm`;
/// `normalized_shape`, `weight`, `eps`, `dtype`, `scale`, `block_size`, `upper_bound`, `offset`, `cast`, `backend` and the errors as
/// in :func:`rms_norm_quant`.
///
/// >>> import numpy, normkit
/// >>> x = numpy.float32([[1.5, 2, 0, 0]])
/// >>> normkit.add_rms_norm_quant(x, x, 4, eps=0.0)[2]
/// array([[3., 4., 0., 0.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, eps=None, *, dtype=DType::I8, scale=None, block_size=None, upper_bound=None, offset=0.0, cast="fp32", input_scale=1.0, residual_scale=1.0, backend=None),
    text_signature = "(input, residual, normalized_shape, weight=None, eps=None, *, dtype='int8', scale=None, block_size=None, upper_bound=None, offset=0.0, cast='fp32', input_scale=1.0, residual_scale=1.0, backend=None)")]
pub(crate) fn add_rms_norm_quant<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::code_dtype)] dtype: DType,
    #[pyo3(from_py_with = arg::optional_scale)] scale: Option<f64>,
    #[pyo3(from_py_with = arg::optional_block_size)] block_size: Option<usize>,
    #[pyo3(from_py_with = arg::optional_upper_bound)] upper_bound: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Results<'py>> {
    let codes = quantization(dtype, scale, block_size, upper_bound)?;
    let (cast, fusion) = (self::cast(cast), residual_before(input_scale, residual_scale));
    let config = Config::RmsNorm { normalized_shape, eps, offset, cast, partial: 1.0, fusion };
    quantized(&config, (input, Some(residual)), (weight, None), codes, backend)
}

/// Layer normalization of a sum, whose result becomes codes of 8 bits, in one pass::
///
///     h = input_scale * input + residual_scale * residual
///     v = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias
///
/// Returns ``(codes, scales, h)``; `residual`, `input_scale`, `residual_scale` and ``h`` are as in :func:`add_layer_norm`;
/// `normalized_shape`, `weight`, `bias`, `eps`, `dtype`, `scale`, `block_size`, `upper_bound`, `backend` and the errors as in
/// :func:`layer_norm_quant`.
///
/// >>> import numpy, normkit
/// >>> x = numpy.float32([[0, 1]])
/// >>> codes, scales, h = normkit.add_layer_norm_quant(x, x, 2, eps=0.0)
/// >>> codes
/// array([[-127,  127]], dtype=int8)
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, bias=None, eps=1e-5, *, dtype=DType::I8, scale=None, block_size=None, upper_bound=None, input_scale=1.0, residual_scale=1.0, backend=None),
    text_signature = "(input, residual, normalized_shape, weight=None, bias=None, eps=1e-05, *, dtype='int8', scale=None, block_size=None, upper_bound=None, input_scale=1.0, residual_scale=1.0, backend=None)")]
pub(crate) fn add_layer_norm_quant<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::code_dtype)] dtype: DType,
    #[pyo3(from_py_with = arg::optional_scale)] scale: Option<f64>,
    #[pyo3(from_py_with = arg::optional_block_size)] block_size: Option<usize>,
    #[pyo3(from_py_with = arg::optional_upper_bound)] upper_bound: Option<f64>,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Results<'py>> {
    let codes = quantization(dtype, scale, block_size, upper_bound)?;
    let fusion = residual_before(input_scale, residual_scale);
    let config = Config::LayerNorm { normalized_shape, eps, fusion };
    quantized(&config, (input, Some(residual)), (weight, bias), codes, backend)
}
