//! The functions that users call for queries and keys.

use crate::arguments as arg;
use crate::array::Array;
use crate::config::{HeadKind, embedding, head_kind, heads, rotary_style};
use crate::errors::renamed;
use crate::fresh::Fresh;
use crate::functions::{Any, Optional, array, optional};
use crate::place::{Place, Target};
use normkit::norm::Pair;
use normkit::spec::RotaryStyle;
use pyo3::prelude::*;

/// A rotary embedding: its style, cosines, sines and positions.
pub(crate) type Angles<'a, 'py> = (RotaryStyle, [Option<&'a Array<'py>>; 3]);

/// The norms of queries and keys, and the rotary embedding after them.
fn normalized<'py>(
    (q, k): (&Any<'py>, &Any<'py>),
    (q_weight, k_weight): (Optional<'_, 'py>, Optional<'_, 'py>),
    settings: (HeadKind, f64),
    angles: Option<Angles<'_, 'py>>,
    backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let (py, q, k) = (q.py(), array("q", q)?, array("k", k)?);
    let (q_weight, k_weight) = (optional("q_weight", q_weight)?, optional("k_weight", k_weight)?);
    both(py, (&q, &k), [q_weight.as_ref(), k_weight.as_ref()], settings, angles, backend)
}

/// The same of arrays.
pub(crate) fn both<'py>(
    py: Python<'py>,
    (q, k): (&Array<'py>, &Array<'py>),
    [q_weight, k_weight]: [Option<&Array<'py>>; 2],
    (kind, eps): (HeadKind, f64),
    angles: Option<Angles<'_, 'py>>,
    backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let place = Place::of(q, backend)?;
    let (q_out, k_out) = (Fresh::new(py, q, q.shape(), None)?, Fresh::new(py, k, k.shape(), None)?);
    let (style, [cos, sin, positions]) = angles.unwrap_or((RotaryStyle::HalfSplit, [None; 3]));
    let inputs = [Some(q), Some(k), q_weight, k_weight, cos, sin, positions];
    let outputs = [Some(Target::New(&q_out.memory)), Some(Target::New(&k_out.memory))];
    let result = place.run(py, inputs, outputs, move |inputs, outputs, stream| {
        let [Some(query), Some(key), q_weight, k_weight, cos, sin, positions] = inputs else { return Ok(()) };
        let [Some(mut q_out), Some(mut k_out)] = outputs else { return Ok(()) };
        let mut norm = heads(kind).eps(eps);
        if let Some(weight) = q_weight {
            norm = norm.query_weight_view(weight);
        }
        if let Some(weight) = k_weight {
            norm = norm.key_weight_view(weight);
        }
        if let Some(tables) = cos.zip(sin) {
            norm = norm.rotary(&embedding(style, tables, positions));
        }
        let input = Pair { query: &query, key: &key };
        let output = Pair { query: &mut q_out, key: &mut k_out };
        norm.forward_into(input, output, Pair { query: None, key: None }, stream)
    })?;
    result.map_err(|error| {
        let weights = [("query_weight", "q_weight"), ("key_weight", "k_weight")];
        renamed(error, &[&[("query", "q"), ("key", "k"), ("dims", "cos")], &weights[..]].concat())
    })?;
    Ok((q_out.finish()?, k_out.finish()?))
}

/// Normalization of queries and keys before attention: each head, the last axis of ``[..., heads, head_dim]``, by itself.
///
/// `kind` is ``"rms"`` (as in Qwen3 and OLMo 2), ``"l2"`` (Henry et al. 2020, arXiv 2010.04245: ``x / max(|x|, eps)``, the
/// learned scale of the logits being `q_weight`) or ``"layer"`` (Dehghani et al. 2023, arXiv 2302.05442)::
///
///     rms:   y = x / sqrt(mean(x²) + eps) * weight
///     l2:    y = x / max(norm(x), eps) * weight
///     layer: y = (x - mean(x)) / sqrt(var(x) + eps) * weight
///
/// A weight has shape ``[head_dim]``, ``[heads, head_dim]`` or one element, and may be None. `q` and `k` may be strided
/// views of one packed tensor, and `k` may have fewer heads, which divide those of `q`.
///
/// Returns the normalized queries and keys, which are one launch on the CPU and, where they are alike, on CUDA. `backend`, the
/// results and the errors are as in :func:`layer_norm`.
///
/// >>> import numpy, normkit
/// >>> heads = numpy.float32([[[3, 4]]])
/// >>> normkit.qk_norm(heads, heads, kind="l2")[0]
/// array([[[0.6, 0.8]]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (q, k, q_weight=None, k_weight=None, eps=1e-6, *, kind="rms", backend=None))]
pub(crate) fn qk_norm<'py>(
    q: &Any<'py>,
    k: &Any<'py>,
    q_weight: Optional<'_, 'py>,
    k_weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::kind)] kind: &'static str,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    normalized((q, k), (q_weight, k_weight), (head_kind(kind), eps), None, backend)
}

/// Normalization of queries and keys, and the rotary position embedding (Su et al. 2021, arXiv 2104.09864) after it, in one pass::
///
///     v          = qk_norm(x)
///     y[i]       = v[i] * cos[i] - v[i + R/2] * sin[i]
///     y[i + R/2] = v[i + R/2] * cos[i] + v[i] * sin[i]
///
/// for the first R columns of each head; the others are `v`. With `interleaved`, pairs are ``(2 i, 2 i + 1)``.
///
/// `cos` and `sin` have R/2 numbers for each position, in a last axis of that size. Without `positions`, their other axes are the
/// first ones of `q` and `k`, or 1, and those that they lack are repeated: ``[tokens, R/2]`` for ``[tokens, heads, head_dim]``,
/// ``[batch, seq, R/2]`` or ``[1, seq, R/2]`` for ``[batch, seq, heads, head_dim]``, ``[batch, 1, seq, R/2]`` for
/// ``[batch, heads, seq, head_dim]``. With `positions`, integers whose axes are found likewise, they are ``[rows, R/2]``, and
/// each token takes the row that it names. Of tables with both halves the same, as transformers has them, ``cos[..., : R // 2]`` is the one
/// to give; of a cache that has the cosines before the sines, each half.
///
/// A position that an array on the CPU names and the tables do not have is a ValueError; on a GPU its token's rotated columns become NaN.
/// cos and sin have no gradients. `q`, `k`, `q_weight`, `k_weight`, `eps`, `kind`, `backend`, the results and the errors are as in
/// :func:`qk_norm`.
///
/// >>> import numpy, normkit
/// >>> heads, angle = numpy.float32([[[3, 4]]]), numpy.float32([[numpy.pi / 2]])
/// >>> normkit.qk_norm_rope(heads, heads, numpy.cos(angle), numpy.sin(angle), kind="l2")[0].round(6)
/// array([[[-0.8,  0.6]]], dtype=float32)
#[pyfunction]
#[pyo3(signature = (q, k, cos, sin, positions=None, q_weight=None, k_weight=None, eps=1e-6, *, kind="rms", interleaved=false, backend=None))]
pub(crate) fn qk_norm_rope<'py>(
    q: &Any<'py>,
    k: &Any<'py>,
    cos: &Any<'py>,
    sin: &Any<'py>,
    positions: Optional<'_, 'py>,
    q_weight: Optional<'_, 'py>,
    k_weight: Optional<'_, 'py>,
    #[pyo3(from_py_with = arg::eps)] eps: f64,
    #[pyo3(from_py_with = arg::kind)] kind: &'static str,
    #[pyo3(from_py_with = arg::interleaved)] interleaved: bool,
    #[pyo3(from_py_with = arg::backend)] backend: Option<&'static str>,
) -> PyResult<(Any<'py>, Any<'py>)> {
    let (cos, sin) = (array("cos", cos)?, array("sin", sin)?);
    let positions = Array::indices("positions", positions)?;
    let angles = Some((rotary_style(interleaved), [Some(&cos), Some(&sin), positions.as_ref()]));
    normalized((q, k), (q_weight, k_weight), (head_kind(kind), eps), angles, backend)
}
