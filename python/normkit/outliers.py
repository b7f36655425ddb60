"""Norms whose results become codes of int8 with outliers set apart, as LLM.int8() has its activations (Dettmers et al. 2022,
arXiv 2208.07339), in one pass over memory. For inference, without a backward pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, SupportsFloat

from normkit._normkit import outlier_codes, outlier_values

if TYPE_CHECKING:
    from normkit._normkit import Backend, Cast, Shape, SupportsDLPack

__all__ = [
    "add_layer_norm_quant_outliers",
    "add_rms_norm_quant_outliers",
    "layer_norm_quant_outliers",
    "rms_norm_quant_outliers",
]


def indices(flags: Any) -> Any:
    """The places where flags are not 0, ascending, as an array of their library."""
    places = flags.nonzero()
    return places[0] if isinstance(places, tuple) else places.reshape(-1)


def _apart(norm: tuple[Any, ...], backend: Backend | None) -> tuple[Any, Any, Any, Any, Any]:
    codes, scales, flags, statistics, hidden = outlier_codes(*(*norm, backend))
    columns = indices(flags)
    values = outlier_values(*(*norm, statistics, columns.tolist(), backend))
    return codes, scales, columns, values, hidden


def rms_norm_quant_outliers(
    input: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    threshold: SupportsFloat = 6.0,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    backend: Backend | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Root-mean-square normalization whose result becomes codes of int8 under a scale of each row, with outliers set apart::

        v       = x / sqrt(mean(x²) + eps) * (weight + offset)        as float32
        outlier : |v| >= threshold; infinity is one, NaN is none
        scale   = max(c / 127, 2^-23)                                 c the largest |v| of a row that is no outlier
        columns : those in which any row has an outlier
        code    = nearest(v / scale), ties to even                    0 in `columns`
        values  = v[..., columns]                                     in the input's dtype

    so that ``v @ W`` is about ``scale * (codes @ W) + values @ W[columns]``. `threshold` must be a positive number. Whether an
    element is an outlier is decided before anything is rounded to 16 bits. NaN makes the scale of its row NaN and its codes 0.

    Returns ``(codes, scales, columns, values)``: int8 codes of the input's shape, float32 scales ``[..., 1]``, the ascending numbers
    of the columns (int64), and values ``[..., len(columns)]``. This waits for a device, since the number of columns has to be known.
    `normalized_shape`, `weight`, `eps`, `offset`, `cast`, `backend` and the errors are as in :func:`rms_norm`.

    >>> import numpy, normkit
    >>> x, w = numpy.float32([[1, -1, 1, 1]]), numpy.float32([0.5, 1, 2, 7])
    >>> codes, scales, columns, values = normkit.rms_norm_quant_outliers(x, 4, w, eps=0.0)
    >>> codes
    array([[ 32, -64, 127,   0]], dtype=int8)
    >>> columns, values
    (array([3]), array([[7.]], dtype=float32))
    """
    norm = (input, None, weight, None, normalized_shape, False, eps, offset, cast, 1.0, 1.0, threshold)
    return _apart(norm, backend)[:4]


def layer_norm_quant_outliers(
    input: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    threshold: SupportsFloat = 6.0,
    backend: Backend | None = None,
) -> tuple[Any, Any, Any, Any]:
    """Layer normalization, otherwise as :func:`rms_norm_quant_outliers`::

        v = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

    `threshold` and ``(codes, scales, columns, values)``, which is returned, are as there; `normalized_shape`, `weight`, `bias`, `eps`,
    `backend` and the errors are as in :func:`layer_norm`.

    >>> import numpy, normkit
    >>> x, w = numpy.float32([[1, 3]]), numpy.float32([2, 8])
    >>> codes, scales, columns, values = normkit.layer_norm_quant_outliers(x, 2, w, eps=0.0)
    >>> codes, columns, values
    (array([[-127,    0]], dtype=int8), array([1]), array([[8.]], dtype=float32))
    """
    norm = (input, None, weight, bias, normalized_shape, True, eps, 0.0, "fp32", 1.0, 1.0, threshold)
    return _apart(norm, backend)[:4]


def add_rms_norm_quant_outliers(
    input: SupportsDLPack,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: SupportsFloat | None = None,
    *,
    threshold: SupportsFloat = 6.0,
    offset: SupportsFloat = 0.0,
    cast: Cast = "fp32",
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    backend: Backend | None = None,
) -> tuple[Any, Any, Any, Any, Any]:
    """Root-mean-square normalization of ``h = input_scale * input + residual_scale * residual``, otherwise as
    :func:`rms_norm_quant_outliers`.

    Returns ``(codes, scales, columns, values, h)``; `residual`, `input_scale`, `residual_scale` and ``h`` are as in
    :func:`add_rms_norm`; `normalized_shape`, `weight`, `eps`, `threshold`, `offset`, `cast`, `backend` and the errors as in
    :func:`rms_norm_quant_outliers`.

    >>> import numpy, normkit
    >>> x, w = numpy.float32([[1, -1]]), numpy.float32([1, 9])
    >>> codes, scales, columns, values, h = normkit.add_rms_norm_quant_outliers(x, 2 * x, 2, w, eps=0.0)
    >>> codes, columns, values
    (array([[127,   0]], dtype=int8), array([1]), array([[-9.]], dtype=float32))
    >>> h
    array([[ 3., -3.]], dtype=float32)
    """
    scales = (input_scale, residual_scale)
    norm = (input, residual, weight, None, normalized_shape, False, eps, offset, cast, *scales, threshold)
    return _apart(norm, backend)


def add_layer_norm_quant_outliers(
    input: SupportsDLPack,
    residual: SupportsDLPack,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: SupportsFloat = 1e-5,
    *,
    threshold: SupportsFloat = 6.0,
    input_scale: SupportsFloat = 1.0,
    residual_scale: SupportsFloat = 1.0,
    backend: Backend | None = None,
) -> tuple[Any, Any, Any, Any, Any]:
    """Layer normalization of ``h = input_scale * input + residual_scale * residual``, otherwise as
    :func:`layer_norm_quant_outliers`.

    Returns ``(codes, scales, columns, values, h)``; `residual`, `input_scale`, `residual_scale` and ``h`` are as in
    :func:`add_layer_norm`; `normalized_shape`, `weight`, `bias`, `eps`, `threshold`, `backend` and the errors as in
    :func:`layer_norm_quant_outliers`.

    >>> import numpy, normkit
    >>> x, w = numpy.float32([[1, 3]]), numpy.float32([2, 8])
    >>> codes, scales, columns, values, h = normkit.add_layer_norm_quant_outliers(x, x, 2, w, eps=0.0)
    >>> columns, values, h
    (array([1]), array([[8.]], dtype=float32), array([[2., 6.]], dtype=float32))
    """
    scales = (input_scale, residual_scale)
    norm = (input, residual, weight, bias, normalized_shape, True, eps, 0.0, "fp32", *scales, threshold)
    return _apart(norm, backend)
