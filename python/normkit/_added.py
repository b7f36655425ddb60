"""Norms of a sum: a residual connection and the norm after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from normkit import _normkit

if TYPE_CHECKING:
    from normkit._normkit import Array, Backend, Cast, Shape, SupportsDLPack


def _sum(input: Array, residual: Array) -> Array:
    """The sum of two arrays of one kind, shape and dtype."""
    for name, array in (("input", input), ("residual", residual)):
        if not hasattr(array, "__dlpack__") or not hasattr(array, "shape"):
            raise TypeError(f"{name}: expected an array, found {type(array).__name__}")
        if getattr(array, "requires_grad", False):
            advice = "use normkit.torch, or tensor.detach()"
            raise RuntimeError(f"{name}: expected a tensor without gradient, found one that requires grad; {advice}")
    if type(input) is not type(residual):
        raise TypeError(f"residual: expected a {type(input).__name__}, as input is, found a {type(residual).__name__}")
    for what in ("shape", "dtype", "device"):
        expected, found = getattr(input, what, None), getattr(residual, what, None)
        if expected != found:
            error = ValueError if what == "shape" else TypeError
            raise error(f"residual: expected {what} {expected}, as input has, found {what} {found}")
    total: Array = input + residual  # type: ignore[operator]
    return total


def add_layer_norm(
    input: Array,
    residual: Array,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    bias: SupportsDLPack | None = None,
    eps: float = 1e-5,
    *,
    backend: Backend | None = None,
) -> tuple[Array, Array]:
    """Layer normalization of a sum::

        h = input + residual
        y = (h - mean(h)) / sqrt(var(h) + eps) * weight + bias

    `h` is rounded to the input's dtype. `input` and `residual` are of one library, shape and dtype; the other arguments
    are those of :func:`layer_norm`.

    Returns ``(y, h)``. Raises ValueError for shapes and values, TypeError for dtypes and objects, RuntimeError for devices.

    >>> import numpy, normkit
    >>> x = numpy.float32([[0, 1]])
    >>> normkit.add_layer_norm(x, x, 2, eps=0.0)
    (array([[-1.,  1.]], dtype=float32), array([[0., 2.]], dtype=float32))
    """
    total = _sum(input, residual)
    return _normkit.layer_norm(total, normalized_shape, weight, bias, eps, backend=backend), total


def add_rms_norm(
    input: Array,
    residual: Array,
    normalized_shape: Shape,
    weight: SupportsDLPack | None = None,
    eps: float | None = None,
    *,
    offset: float = 0.0,
    cast: Cast = "fp32",
    backend: Backend | None = None,
) -> tuple[Array, Array]:
    """Root-mean-square normalization of a sum::

        h = input + residual
        y = h / sqrt(mean(h²) + eps) * (weight + offset)

    `h` is rounded to the input's dtype. `input` and `residual` are of one library, shape and dtype; the other arguments
    are those of :func:`rms_norm`.

    Returns ``(y, h)``. Raises ValueError for shapes and values, TypeError for dtypes and objects, RuntimeError for devices.

    >>> import numpy, normkit
    >>> x = numpy.float32([[1.5, 2, 0, 0]])
    >>> normkit.add_rms_norm(x, x, 4, eps=0.0)[0]
    array([[1.2, 1.6, 0. , 0. ]], dtype=float32)
    """
    total = _sum(input, residual)
    output = _normkit.rms_norm(
        total, normalized_shape, weight, eps, offset=offset, cast=cast, backend=backend
    )
    return output, total
