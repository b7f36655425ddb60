//! The functions that users call for a norm with what surrounds it in their models, in one pass over memory.

use crate::arguments as arg;
use crate::array::Array;
use crate::call::{Call, Wanted};
use crate::config::{Config, cast};
use crate::errors::{renamed, value_error};
use crate::functions::{Any, Optional, array, optional};
use normkit::spec::{Dropout, Epilogue, Fusion, Prologue};
use pyo3::prelude::*;

/// The norm of `input_scale * input + residual_scale * residual`, and that sum.
fn added<'py>(
    config: &Config,
    (input, residual): (&Any<'py>, &Any<'py>),
    (weight, bias): (Optional<'_, 'py>, Optional<'_, 'py>),
    [branch_bias, branch_scale]: [Optional<'_, 'py>; 2],
    backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let (py, input, residual) = (input.py(), array("input", input)?, array("residual", residual)?);
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let (branch_bias, branch_scale) =
        (optional("branch_bias", branch_bias)?, optional("branch_scale", branch_scale)?);
    let (weight, bias, before) = (weight.as_ref(), bias.as_ref(), Some(&residual));
    let branch = [branch_bias.as_ref(), branch_scale.as_ref()];
    let call = Call { weight, bias, before, branch, ..Call::new(config, &input) };
    let results = call.run(py, backend, Wanted { hidden: true, ..Wanted::default() })?;
    Ok((results.output, results.hidden.unwrap_or_else(|| py.None().into_bound(py))))
}

/// A forward pass of `config` with an operand after the norm, or before it.
fn beside<'py>(
    config: &Config,
    input: &Array<'py>,
    operand: &Array<'py>,
    (weight, bias): (Optional<'_, 'py>, Optional<'_, 'py>),
    py: Python<'py>,
    backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (weight, bias) = (optional("weight", weight)?, optional("bias", bias)?);
    let is_first = config.fusion().prologue.operand().is_some();
    let (before, after) = if is_first { (Some(operand), None) } else { (None, Some(operand)) };
    Call { weight: weight.as_ref(), bias: bias.as_ref(), before, after, ..Call::new(config, input) }
        .forward(py, backend)
}

pub(crate) fn residual_before(input_scale: f64, residual_scale: f64) -> Fusion {
    Fusion { prologue: Prologue::Residual { input_scale, residual_scale }, ..Fusion::default() }
}

/// Dropout with this probability, unless that is 0.
pub(crate) fn dropped(probability: f64, seed: u64, offset: u64) -> PyResult<Option<Dropout>> {
    let dropout = Dropout { probability, seed, offset };
    dropout.check().map_err(|error| renamed(error, &[("probability", "dropout_p")]))?;
    Ok((probability > 0.0).then_some(dropout))
}

fn residual_after() -> Fusion {
    Fusion { epilogue: Epilogue::Residual, ..Fusion::default() }
}

/// Layer normalization of a sum, in one pass: a residual connection and the norm after it::
///
///     h = input_scale * branch_scale * (input + branch_bias) + residual_scale * residual
///     y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias
///
/// `residual` has the shape of `input`, and may have another dtype: float32 beside bfloat16, where a model keeps its stream
/// so. The norm sees `h` as it is computed; the `h` that is returned is rounded to the residual's dtype. A `residual_scale`
/// above 1 is that of DeepNorm (Wang et al. 2022, arXiv 2203.00555).
///
/// `branch_bias` and `branch_scale` are None, which stands for 0 and 1, or have the shape of `weight`: the bias of the linear layer
/// that `input` is the result of, and LayerScale (Touvron et al. 2021, arXiv 2103.17239).
///
/// With a `dropout_p` above 0 (and below 1), elements of ``input + branch_bias`` are left out of the sum with that probability, the
/// others being divided by ``1 - dropout_p``. Which ones, depends on `dropout_seed` and `dropout_offset` alone: element e of the input,
/// in row-major order, is kept where word ``e % 4`` of Philox 4x32-10 (Salmon et al. 2011) at the counter ``(e // 4,
/// dropout_offset)`` under the key `dropout_seed` is at least ``dropout_p * 2**32``.
///
/// Returns ``(y, h)``. `normalized_shape`, `weight`, `bias`, `eps`, `backend` and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> x = numpy.float32([[0, 1]])
/// >>> normkit.add_layer_norm(x, x, 2, eps=0.0)
/// (array([[-1.,  1.]], dtype=float32), array([[0., 2.]], dtype=float32))
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, bias=None, eps=1e-5, *, input_scale=1.0, residual_scale=1.0, branch_bias=None, branch_scale=None, dropout_p=0.0, dropout_seed=0, dropout_offset=0, backend=None))]
pub(crate) fn add_layer_norm<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    branch_bias: Optional<'_, 'py>,
    branch_scale: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::dropout_p)] dropout_p: f64,
    #[pyo3(from_py_with = arg::dropout_seed)] dropout_seed: u64,
    #[pyo3(from_py_with = arg::dropout_offset)] dropout_offset: u64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let dropout = dropped(dropout_p, dropout_seed, dropout_offset)?;
    let fusion = Fusion { dropout, ..residual_before(input_scale, residual_scale) };
    let config = Config::LayerNorm { normalized_shape, eps, fusion };
    added(&config, (input, residual), (weight, bias), [branch_bias, branch_scale], backend)
}

/// Root-mean-square normalization of a sum, in one pass: a residual connection and the norm after it, as in every block of
/// a Llama::
///
///     h = input_scale * branch_scale * (input + branch_bias) + residual_scale * residual
///     y = h / sqrt(mean(h²) + eps) * (weight + offset)
///
/// `residual`, `input_scale`, `residual_scale`, `branch_bias`, `branch_scale`, `dropout_p`, `dropout_seed`, `dropout_offset` and ``(y, h)``, which is returned, are
/// as in :func:`add_layer_norm`;
/// `normalized_shape`, `weight`, `eps`, `offset`, `cast`, `backend` and the errors as in :func:`rms_norm`.
///
/// >>> import numpy, normkit
/// >>> x = numpy.float32([[1.5, 2, 0, 0]])
/// >>> normkit.add_rms_norm(x, x, 4, eps=0.0)[0]
/// array([[1.2, 1.6, 0. , 0. ]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, eps=None, *, offset=0.0, cast="fp32", input_scale=1.0, residual_scale=1.0, branch_bias=None, branch_scale=None, dropout_p=0.0, dropout_seed=0, dropout_offset=0, backend=None))]
pub(crate) fn add_rms_norm<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::input_scale)] input_scale: f64,
    #[pyo3(from_py_with = arg::residual_scale)] residual_scale: f64,
    branch_bias: Optional<'_, 'py>,
    branch_scale: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::dropout_p)] dropout_p: f64,
    #[pyo3(from_py_with = arg::dropout_seed)] dropout_seed: u64,
    #[pyo3(from_py_with = arg::dropout_offset)] dropout_offset: u64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let dropout = dropped(dropout_p, dropout_seed, dropout_offset)?;
    let fusion = Fusion { dropout, ..residual_before(input_scale, residual_scale) };
    let cast = self::cast(cast);
    let config = Config::RmsNorm { normalized_shape, eps, offset, cast, partial: 1.0, fusion };
    added(&config, (input, residual), (weight, None), [branch_bias, branch_scale], backend)
}

/// A residual connection after a layer normalization, in one pass::
///
///     y = residual + ((x - mean(x)) / sqrt(var(x) + eps) * weight + bias)
///
/// As at the end of a sublayer whose output is normalized (Peri-LN, Kim et al. 2025, arXiv 2502.02732). `residual` has the
/// shape of `input`, and may have a dtype of its own; the result has the input's.
///
/// `normalized_shape`, `weight`, `bias`, `eps`, `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.layer_norm_add(numpy.float32([[1, 3]]), numpy.float32([[10, 20]]), 2, eps=0.0)
/// array([[ 9., 21.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, bias=None, eps=1e-5, *, backend=None))]
pub(crate) fn layer_norm_add<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let config = Config::LayerNorm { normalized_shape, eps, fusion: residual_after() };
    let (py, input, residual) = (input.py(), array("input", input)?, array("residual", residual)?);
    beside(&config, &input, &residual, (weight, bias), py, backend)
}

/// A residual connection after a root-mean-square normalization, in one pass::
///
///     y = residual + x / sqrt(mean(x²) + eps) * (weight + offset)
///
/// As in OLMo 2 (OLMo team 2025, arXiv 2501.00656). `residual` is as in :func:`layer_norm_add`; `normalized_shape`,
/// `weight`, `eps`, `offset`, `cast`, `backend`, the result and the errors are as in :func:`rms_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.rms_norm_add(numpy.float32([[3, 4, 0, 0]]), numpy.float32([[1, 1, 1, 1]]), 4, eps=0.0)
/// array([[2.2, 2.6, 1. , 1. ]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, residual, normalized_shape, weight=None, eps=None, *, offset=0.0, cast="fp32", backend=None))]
pub(crate) fn rms_norm_add<'py>(
    input: &Any<'py>,
    residual: &Any<'py>,
    #[pyo3(from_py_with = arg::normalized_shape)] normalized_shape: Vec<usize>,
    weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::optional_eps)] eps: Option<f64>,
    #[pyo3(from_py_with = arg::offset)] offset: f64,
    #[pyo3(from_py_with = arg::cast)] cast: &'static str,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (cast, fusion) = (self::cast(cast), residual_after());
    let config = Config::RmsNorm { normalized_shape, eps, offset, cast, partial: 1.0, fusion };
    let (py, input, residual) = (input.py(), array("input", input)?, array("residual", residual)?);
    beside(&config, &input, &residual, (weight, None), py, backend)
}

/// A norm of the last axis with a scale and a shift of each sample or token.
fn modulated<'py>(
    input: &Any<'py>,
    (scale, shift): (&Any<'py>, Optional<'_, 'py>),
    eps: f64,
    centred: bool,
    backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (py, input, scale) = (input.py(), array("input", input)?, array("scale", scale)?);
    let shift = optional("shift", shift)?;
    let config = Config::Modulated { centred, cols: last_axis(&input)?, eps };
    Call { weight: Some(&scale), bias: shift.as_ref(), ..Call::new(&config, &input) }.forward(py, backend)
}

fn last_axis(input: &Array<'_>) -> PyResult<usize> {
    let missing = || value_error("input: expected at least one axis, found shape []");
    input.shape().last().copied().ok_or_else(missing)
}

/// The adaptive layer normalization of diffusion transformers (Peebles, Xie 2023, arXiv 2212.09748), over the last axis::
///
///     y = (x - mean(x)) / sqrt(var(x) + eps) * (1 + scale) + shift
///
/// For an `input` ``[B, ..., C]``, `scale` and `shift` have one shape, ``[C]``, ``[B, C]``, ``[B, 1, C]`` or ``[B, ..., C]``:
/// their axes but the last are the first ones of the input, or 1.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> x, scale, shift = numpy.float32([[[1, 3]], [[1, 3]]]), numpy.float32([[0, 0], [1, 1]]), numpy.float32([[0, 0], [5, 5]])
/// >>> normkit.modulated_layer_norm(x, scale, shift, eps=0.0)
/// array([[[-1.,  1.]],
/// <BLANKLINE>
///        [[ 3.,  7.]]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, scale, shift, eps=1e-6, *, backend=None))]
pub(crate) fn modulated_layer_norm<'py>(
    input: &Any<'py>,
    scale: &Any<'py>,
    shift: &Any<'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    modulated(input, (scale, Some(shift)), eps, true, backend)
}

/// Adaptive root-mean-square normalization, over the last axis::
///
///     y = x / sqrt(mean(x²) + eps) * (1 + scale) + shift
///
/// `scale` and `shift` are as in :func:`modulated_layer_norm`; `shift` may be None, as in Lumina-Next (Zhuo et al. 2024,
/// arXiv 2406.18583). `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> normkit.modulated_rms_norm(numpy.float32([[3, 4, 0, 0]]), numpy.float32([1, 0, 0, 0]), eps=0.0)
/// array([[2.4, 1.6, 0. , 0. ]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, scale, shift=None, eps=1e-6, *, backend=None))]
pub(crate) fn modulated_rms_norm<'py>(
    input: &Any<'py>,
    scale: &Any<'py>,
    shift: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    modulated(input, (scale, shift), eps, false, backend)
}

/// The gated root-mean-square normalization of state-space models (Dao, Gu 2024, arXiv 2405.21060), over the last axis::
///
///     y = x / sqrt(mean(x²) + eps) * weight + bias, times silu(gate)       with norm_before_gate
///     y = h / sqrt(mean(h²) + eps) * weight + bias, h = x * silu(gate)     without
///
/// ``silu(z) = z / (1 + exp(-z))``. `gate` has the shape of `input`, ``[..., C]``, `weight` and `bias` ``[C]``, and each of
/// those two may be None. With `group_size`, which divides C, the mean is that of each group of so many neighbours; None is
/// all of them. All is computed in float32 (float64 for float64) and rounded once.
///
/// `backend`, the result and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> x, gate = numpy.float32([[3, 3, 4, 4]]), numpy.float32([[0, 100, 0, 100]])
/// >>> normkit.gated_rms_norm(x, gate, eps=0.0, group_size=2)
/// array([[  0., 100.,   0., 100.]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (input, gate, weight=None, bias=None, eps=1e-5, *, group_size=None, norm_before_gate=true, backend=None))]
pub(crate) fn gated_rms_norm<'py>(
    input: &Any<'py>,
    gate: &Any<'py>,
    weight: Optional<'_, 'py>,
    bias: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::optional_group_size)] group_size: Option<usize>,
    #[pyo3(from_py_with = arg::norm_before_gate)] norm_before_gate: bool,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<Any<'py>> {
    let (py, input, gate) = (input.py(), array("input", input)?, array("gate", gate)?);
    let cols = last_axis(&input)?;
    let group_size = group_size.unwrap_or(cols);
    let config = Config::GatedRmsNorm { cols, group_size, eps, norm_before_gate };
    beside(&config, &input, &gate, (weight, bias), py, backend)
}
