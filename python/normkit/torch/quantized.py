"""Norms whose results become codes of 8 bits, in one pass over memory: for inference, without a backward pass.

They are one operator, `torch.ops.normkit.norm_quant`, which torch.compile and torch.export see as it is. Calls
that a gradient would have to go through raise RuntimeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, _C

import normkit
from normkit.torch.functional import sizes

__all__ = ["add_layer_norm_quant", "add_rms_norm_quant", "layer_norm_quant", "rms_norm_quant"]

_library: Any = torch.library.Library("normkit", "FRAGMENT")  # type: ignore[no-untyped-call]
_CODES = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)

_library.define(
    "norm_quant(Tensor input, Tensor? residual, Tensor? weight, Tensor? bias, int[] normalized_shape,"
    " bool centred, float? eps, float offset, str cast, float input_scale, float residual_scale,"
    " ScalarType dtype, float? scale, int? block_size, float? upper_bound) -> (Tensor, Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout),
)


def _kernel(
    input: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    normalized_shape: Sequence[int],
    centred: bool,
    eps: float | None,
    offset: float,
    cast: str,
    input_scale: float,
    residual_scale: float,
    dtype: torch.dtype,
    scale: float | None,
    block_size: int | None,
    upper_bound: float | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, scales and the sum; what is not there is empty."""
    options: dict[str, Any] = {
        "normalized_shape": tuple(normalized_shape),
        "dtype": dtype,
        "scale": scale,
        "block_size": block_size,
        "upper_bound": upper_bound,
    }
    # Below autograd a tensor's own wish for a gradient has no meaning.
    arrays = {"input": input, "weight": weight}
    if centred:
        arrays["bias"] = bias
        options["eps"] = 1e-5 if eps is None else eps
    else:
        options |= {"eps": eps, "offset": offset, "cast": cast}
    if residual is not None:
        arrays["residual"] = residual
        options |= {"input_scale": input_scale, "residual_scale": residual_scale}
    name = ("add_" * (residual is not None)) + ("layer_norm_quant" if centred else "rms_norm_quant")
    detached = {name: None if tensor is None else tensor.detach() for name, tensor in arrays.items()}
    codes, scales, *hidden = getattr(normkit, name)(**detached, **options)
    none = input.new_empty(0, dtype=torch.float32)
    return codes, none if scales is None else scales, hidden[0] if hidden else input.new_empty(0)


def _fake(
    input: Tensor, residual: Tensor | None, *options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    normalized_shape, (dtype, scale, block_size, _) = options[2], options[-4:]
    kept, cols = input.shape[: input.dim() - len(normalized_shape)], 1
    for size in normalized_shape:
        cols = cols * size
    blocks = 1 if block_size is None else -(-cols // block_size)
    scales = (0,) if scale is not None else (*kept, blocks)
    hidden = input.new_empty(0) if residual is None else input.new_empty(input.shape, dtype=residual.dtype)
    return input.new_empty(input.shape, dtype=dtype), input.new_empty(scales, dtype=torch.float32), hidden


def _autograd(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    tensors = [tensor for tensor in arguments[:4] if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        raise RuntimeError(
            "norms with a quantized result have no backward pass: call them under torch.no_grad() or "
            "torch.inference_mode(), or detach the tensors that require grad"
        )
    with _C._AutoDispatchBelowAutograd():
        result: tuple[Tensor, Tensor, Tensor] = torch.ops.normkit.norm_quant(*arguments)
        return result


for _device in ("CPU", "CUDA"):
    _library.impl("norm_quant", _kernel, _device)
_library.impl("norm_quant", _autograd, "Autograd")
torch.library.register_fake("normkit::norm_quant", _fake, lib=_library)


def _code_dtype(dtype: torch.dtype | str) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if found not in _CODES:
        raise ValueError(f"dtype: expected torch.int8, torch.float8_e4m3fn or torch.float8_e5m2, found {dtype}")
    return found


def _run(
    tensors: tuple[Tensor, Tensor | None, Tensor | None, Tensor | None],
    normalized_shape: int | Sequence[int],
    norm: tuple[bool, float | None, float, str, float, float],
    codes: tuple[torch.dtype | str, float | None, int | None, float | None],
) -> tuple[Tensor, Tensor | None, Tensor]:
    dtype, scale, *rest = codes
    arguments = (*tensors, sizes(normalized_shape), *norm, _code_dtype(dtype), scale, *rest)
    result, scales, hidden = torch.ops.normkit.norm_quant(*arguments)
    return result, scales if scale is None else None, hidden


def rms_norm_quant(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    dtype: torch.dtype | str = torch.int8,
    scale: float | None = None,
    block_size: int | None = None,
    upper_bound: float | None = None,
    offset: float = 0.0,
    cast: str = "fp32",
) -> tuple[Tensor, Tensor | None]:
    """`rms_norm(input, ...)` as codes of 8 bits, and their scales: `normkit.rms_norm_quant` has the rules.

    dtype is torch.int8, torch.float8_e4m3fn or torch.float8_e5m2. Each row has a scale, or with block_size each
    so many of its columns, or all have the one that is given; then the second result is None.
    """
    norm = (False, eps, offset, cast, 1.0, 1.0)
    codes = (dtype, scale, block_size, upper_bound)
    return _run((input, None, weight, None), normalized_shape, norm, codes)[:2]


def layer_norm_quant(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    dtype: torch.dtype | str = torch.int8,
    scale: float | None = None,
    block_size: int | None = None,
    upper_bound: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    """`layer_norm(input, ...)` as codes of 8 bits, and their scales, as by `rms_norm_quant`."""
    norm = (True, eps, 0.0, "fp32", 1.0, 1.0)
    codes = (dtype, scale, block_size, upper_bound)
    return _run((input, None, weight, bias), normalized_shape, norm, codes)[:2]


def add_rms_norm_quant(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    dtype: torch.dtype | str = torch.int8,
    scale: float | None = None,
    block_size: int | None = None,
    upper_bound: float | None = None,
    offset: float = 0.0,
    cast: str = "fp32",
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The codes and scales of `add_rms_norm`'s first result, and its second, the sum."""
    norm = (False, eps, offset, cast, input_scale, residual_scale)
    return _run((input, residual, weight, None), normalized_shape, norm, (dtype, scale, block_size, upper_bound))


def add_layer_norm_quant(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    dtype: torch.dtype | str = torch.int8,
    scale: float | None = None,
    block_size: int | None = None,
    upper_bound: float | None = None,
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """The codes and scales of `add_layer_norm`'s first result, and its second, the sum."""
    norm = (True, eps, 0.0, "fp32", input_scale, residual_scale)
    return _run((input, residual, weight, bias), normalized_shape, norm, (dtype, scale, block_size, upper_bound))
