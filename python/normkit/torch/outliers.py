"""Norms whose results become codes of int8 with outliers set apart: for inference, without a backward pass.

How many columns have outliers is known when the pass is done. So the operator that torch.compile and torch.export see,
`torch.ops.normkit.norm_quant_outliers`, has a flag for each column, and what it returns has shapes that are known before;
`norm_quant_flags` is that with named arguments. The functions that are named after norms go on to the list of these columns and the
results in them, which waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, _C

from normkit._normkit import outlier_codes, outlier_values
from normkit.outliers import indices
from normkit.torch.functional import sizes

__all__ = [
    "OutlierFlags",
    "add_layer_norm_quant_outliers",
    "add_rms_norm_quant_outliers",
    "layer_norm_quant_outliers",
    "norm_quant_flags",
    "rms_norm_quant_outliers",
]

_library: Any = torch.library.Library("normkit", "FRAGMENT")  # type: ignore[no-untyped-call]

_library.define(
    "norm_quant_outliers(Tensor input, Tensor? residual, Tensor? weight, Tensor? bias, int[] normalized_shape,"
    " bool centred, float? eps, float offset, str cast, float input_scale, float residual_scale,"
    " float threshold) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout),
)

_Five = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def _detached(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Below autograd a tensor's own wish for a gradient has no meaning."""
    tensors = (None if tensor is None else tensor.detach() for tensor in arguments[:4])
    return (*tensors, tuple(arguments[4]), *arguments[5:])


def _kernel(*arguments: Any) -> _Five:
    """Codes, scales, flags, statistics and the sum, which is empty where there is no residual."""
    codes, scales, flags, statistics, hidden = outlier_codes(*(*_detached(arguments), None))
    return codes, scales, flags, statistics, arguments[0].new_empty(0) if hidden is None else hidden


def _fake(input: Tensor, residual: Tensor | None, *options: Any) -> _Five:
    normalized_shape = options[2]
    kept, rows, cols = input.shape[: input.dim() - len(normalized_shape)], 1, 1
    for size in kept:
        rows = rows * size
    for size in normalized_shape:
        cols = cols * size
    compute = torch.float64 if input.dtype == torch.float64 else torch.float32
    return (
        input.new_empty(input.shape, dtype=torch.int8),
        input.new_empty((*kept, 1), dtype=torch.float32),
        input.new_empty((cols,), dtype=torch.int32),
        input.new_empty((rows, 4), dtype=compute),
        input.new_empty(0) if residual is None else input.new_empty(input.shape, dtype=residual.dtype),
    )


def _autograd(*arguments: Any) -> _Five:
    tensors = [tensor for tensor in arguments[:4] if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise RuntimeError(
            "norms with a quantized result have no backward pass: call them under torch.no_grad() or "
            "torch.inference_mode(), or detach the tensors that require grad"
        )
    with _C._AutoDispatchBelowAutograd():
        result: _Five = torch.ops.normkit.norm_quant_outliers(*arguments)
        return result


for _device in ("CPU", "CUDA"):
    _library.impl("norm_quant_outliers", _kernel, _device)
_library.impl("norm_quant_outliers", _autograd, "Autograd")
torch.library.register_fake("normkit::norm_quant_outliers", _fake, lib=_library)


class OutlierFlags(NamedTuple):
    """What is known of outliers without waiting."""

    codes: Tensor
    """int8, of the input's shape; 0 in columns that have an outlier."""
    scales: Tensor
    """float32, of each row."""
    flags: Tensor
    """int32, 1 for each column that has an outlier, else 0."""
    hidden: Tensor | None
    """The sum, where there is a residual."""


def norm_quant_flags(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float | None = None,
    *,
    residual: Tensor | None = None,
    centred: bool = False,
    threshold: float = 6.0,
    offset: float = 0.0,
    cast: str = "fp32",
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
) -> OutlierFlags:
    """Codes, scales and flags of columns of RMSNorm, or with `centred` of LayerNorm, of the input or of its sum with a
    residual. torch.compile takes it with fullgraph=True. eps of None is that of `rms_norm`, or 1e-5.
    """
    arguments = (input, residual, weight, bias, sizes(normalized_shape), centred, eps, offset, cast)
    found = torch.ops.normkit.norm_quant_outliers(*arguments, input_scale, residual_scale, threshold)
    codes, scales, flags, _, hidden = found
    return OutlierFlags(codes, scales, flags, None if residual is None else hidden)


def _run(*norm: Any) -> _Five:
    """Codes, scales, columns, values and the sum."""
    arguments = (*norm[:4], sizes(norm[4]), *norm[5:])
    codes, scales, flags, statistics, hidden = torch.ops.normkit.norm_quant_outliers(*arguments)
    columns = indices(flags)
    values = outlier_values(*(*_detached(arguments), statistics, columns.tolist(), None))
    return codes, scales, columns, values, hidden


def rms_norm_quant_outliers(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    threshold: float = 6.0,
    offset: float = 0.0,
    cast: str = "fp32",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`rms_norm(input, ...)` as codes of int8, their scales, the columns that have outliers, and the results in those:
    `normkit.rms_norm_quant_outliers` has the rules.
    """
    return _run(input, None, weight, None, normalized_shape, False, eps, offset, cast, 1.0, 1.0, threshold)[:4]


def layer_norm_quant_outliers(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    threshold: float = 6.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same of `layer_norm(input, ...)`."""
    return _run(input, None, weight, bias, normalized_shape, True, eps, 0.0, "fp32", 1.0, 1.0, threshold)[:4]


def add_rms_norm_quant_outliers(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    threshold: float = 6.0,
    offset: float = 0.0,
    cast: str = "fp32",
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
) -> _Five:
    """The same of `add_rms_norm`'s first result, and its second, the sum."""
    scales = (input_scale, residual_scale)
    return _run(input, residual, weight, None, normalized_shape, False, eps, offset, cast, *scales, threshold)


def add_layer_norm_quant_outliers(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    threshold: float = 6.0,
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
) -> _Five:
    """The same of `add_layer_norm`'s first result, and its second, the sum."""
    scales = (input_scale, residual_scale)
    return _run(input, residual, weight, bias, normalized_shape, True, eps, 0.0, "fp32", *scales, threshold)
