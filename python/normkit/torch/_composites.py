"""The methods as torch's own differentiable operations.

They serve the second derivative only: a gradient's own gradient goes through them. Each takes the input, its
parameters and its settings in the order of the operator of the same name, computes in float32 (float64 for
float64), and gives the input's dtype.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def _wide(tensor: Tensor | None, like: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.to(_compute_dtype(like))


def _compute_dtype(like: Tensor) -> torch.dtype:
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def layer_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, normalized_shape: Sequence[int], eps: float
) -> Tensor:
    x = input.to(_compute_dtype(input))
    y = F.layer_norm(x, list(normalized_shape), _wide(weight, input), _wide(bias, input), eps)
    return y.to(input.dtype)


def rms_norm(
    input: Tensor,
    weight: Tensor | None,
    normalized_shape: Sequence[int],
    eps: float | None,
    offset: float,
    cast: str,
    partial: float,
) -> Tensor:
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    if cast == "gemma":
        offset = 1.0
    x = input.to(_compute_dtype(input)).flatten(input.dim() - len(normalized_shape))
    seen = x[..., : int(x.shape[-1] * partial)]
    y = (x * torch.rsqrt(seen.square().mean(-1, keepdim=True) + eps)).reshape(input.shape)
    if cast == "llama":
        y = y.to(input.dtype).to(x.dtype)
    if weight is not None:
        y = y * (weight.to(x.dtype) + offset)
    return y.to(input.dtype)


def batch_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    x = input.to(_compute_dtype(input))
    return F.batch_norm(x, None, None, _wide(weight, input), _wide(bias, input), True, 0.0, eps).to(
        input.dtype
    )


def batch_norm_frozen(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor,
    running_var: Tensor,
    eps: float,
) -> Tensor:
    x = input.to(_compute_dtype(input))
    mean, var = _wide(running_mean, input), _wide(running_var, input)
    y = F.batch_norm(x, mean, var, _wide(weight, input), _wide(bias, input), False, 0.0, eps)
    return y.to(input.dtype)


def group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, num_groups: int, eps: float
) -> Tensor:
    x = input.to(_compute_dtype(input))
    return F.group_norm(x, num_groups, _wide(weight, input), _wide(bias, input), eps).to(input.dtype)


def instance_norm(input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    return group_norm(input, weight, bias, input.shape[1], eps)


def normalize(input: Tensor, p: float, dim: int, eps: float) -> Tensor:
    return F.normalize(input.to(_compute_dtype(input)), p, dim, eps).to(input.dtype)


def dyt(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    alpha: Tensor,
    normalized_shape: Sequence[int],
) -> Tensor:
    x = input.to(_compute_dtype(input))
    y = torch.tanh(alpha.to(x.dtype).reshape(()) * x)
    if weight is not None:
        y = y * weight.to(x.dtype)
    if bias is not None:
        y = y + bias.to(x.dtype)
    return y.to(input.dtype)


def head_norm(input: Tensor, weight: Tensor | None, kind: str, eps: float) -> Tensor:
    if kind == "rms":
        return rms_norm(input, weight, [input.shape[-1]], eps, 0.0, "fp32", 1.0)
    x = input.to(_compute_dtype(input))
    y = F.layer_norm(x, [x.shape[-1]], eps=eps) if kind == "layer" else F.normalize(x, 2.0, -1, eps)
    if weight is not None:
        y = y * weight.to(y.dtype)
    return y.to(input.dtype)


def head_norm_rope(
    input: Tensor,
    weight: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None,
    kind: str,
    eps: float,
    interleaved: bool,
) -> Tensor:
    x = head_norm(input.to(_compute_dtype(input)), weight, kind, eps)
    pairs = cos.shape[-1]
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    lacks = (1,) * (x.dim() - cos.dim())
    c, s = (table.to(x.dtype).reshape(*table.shape[:-1], *lacks, pairs) for table in (cos, sin))
    rotated, rest = x[..., : 2 * pairs], x[..., 2 * pairs :]
    if interleaved:
        first, second = rotated[..., 0::2], rotated[..., 1::2]
    else:
        first, second = rotated[..., :pairs], rotated[..., pairs:]
    turned = first * c - second * s, second * c + first * s
    y = torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)
    return torch.cat((y, rest), -1).to(input.dtype)


def weight_norm(v: Tensor, g: Tensor, dim: int | None) -> Tensor:
    x = v.to(_compute_dtype(v))
    axes = [axis for axis in range(v.dim()) if dim is None or axis != dim % v.dim()]
    norm = torch.linalg.vector_norm(x, 2, axes, keepdim=True)
    scale = g.to(x.dtype).reshape(norm.shape) / torch.where(norm > 0, norm, 1.0)
    return torch.where(norm > 0, x * scale, 0.0).to(v.dtype)


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
}


def activated(norm: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The norm, and then the activation that its last setting names."""

    def composite(input: Tensor, *arguments: Any) -> Tensor:
        *others, activation = arguments
        output = norm(input, *others).to(_compute_dtype(input))
        return _ACTIVATIONS[activation](output).to(input.dtype)

    return composite


def _sum(
    input: Tensor,
    branch_bias: Tensor | None,
    branch_scale: Tensor | None,
    residual: Tensor | None,
    input_scale: float,
    residual_scale: float,
    *dropout: Any,
) -> Tensor:
    """Without a residual the input is the sum."""
    x = input.to(_compute_dtype(input))
    if residual is None:
        return x
    if branch_bias is not None:
        x = x + branch_bias.to(x.dtype)
    x = dropped(x, *dropout)
    if branch_scale is not None:
        x = x * branch_scale.to(x.dtype)
    return x * input_scale + residual.to(x.dtype) * residual_scale


def dropped(input: Tensor, p: float, seed: int, offset: int) -> Tensor:
    """The input times the mask of dropout, which is what the operator makes of ones and zeros."""
    if p == 0.0:
        return input
    ones = torch.ones(input.shape, dtype=_compute_dtype(input), device=input.device)
    settings = ([input.shape[-1]], None, 0.0, "fp32", 1.0, 1.0, p, seed, offset)
    zeros = torch.zeros_like(ones)
    mask: Tensor = torch.ops.normkit.add_rms_norm(ones, None, None, None, zeros, *settings)[1]
    return input * mask.to(input.dtype)


def add_layer_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    branch_bias: Tensor | None,
    branch_scale: Tensor | None,
    residual: Tensor | None,
    normalized_shape: Sequence[int],
    eps: float,
    input_scale: float,
    residual_scale: float,
    dropout_p: float,
    dropout_seed: int,
    dropout_offset: int,
) -> tuple[Tensor, Tensor]:
    dropout = (dropout_p, dropout_seed, dropout_offset)
    h = _sum(input, branch_bias, branch_scale, residual, input_scale, residual_scale, *dropout)
    y = layer_norm(h, weight, bias, normalized_shape, eps)
    return y.to(input.dtype), h.to((input if residual is None else residual).dtype)


def add_rms_norm(
    input: Tensor,
    weight: Tensor | None,
    branch_bias: Tensor | None,
    branch_scale: Tensor | None,
    residual: Tensor | None,
    normalized_shape: Sequence[int],
    eps: float | None,
    offset: float,
    cast: str,
    input_scale: float,
    residual_scale: float,
    dropout_p: float,
    dropout_seed: int,
    dropout_offset: int,
) -> tuple[Tensor, Tensor]:
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    dropout = (dropout_p, dropout_seed, dropout_offset)
    h = _sum(input, branch_bias, branch_scale, residual, input_scale, residual_scale, *dropout)
    y = rms_norm(h, weight, normalized_shape, eps, offset, cast, 1.0)
    return y.to(input.dtype), h.to((input if residual is None else residual).dtype)


def layer_norm_add_layer_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    next_weight: Tensor | None,
    next_bias: Tensor | None,
    residual: Tensor,
    normalized_shape: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor]:
    x = input.to(_compute_dtype(input))
    h = residual.to(x.dtype) + layer_norm(x, weight, bias, normalized_shape, eps)
    y = layer_norm(h, next_weight, next_bias, normalized_shape, eps)
    return y.to(input.dtype), h.to(residual.dtype)


def rms_norm_add_rms_norm(
    input: Tensor,
    weight: Tensor | None,
    next_weight: Tensor | None,
    residual: Tensor,
    normalized_shape: Sequence[int],
    eps: float | None,
    offset: float,
    cast: str,
) -> tuple[Tensor, Tensor]:
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    x = input.to(_compute_dtype(input))
    h = residual.to(x.dtype) + rms_norm(x, weight, normalized_shape, eps, offset, cast, 1.0)
    y = rms_norm(h, next_weight, normalized_shape, eps, offset, cast, 1.0)
    return y.to(input.dtype), h.to(residual.dtype)


def hypersphere_step(
    input: Tensor, alpha: Tensor, branch: Tensor, eps: float, alpha_scale: float
) -> Tensor:
    x = input.to(_compute_dtype(input))
    a, b = (F.normalize(v.to(x.dtype), dim=-1, eps=eps) for v in (x, branch))
    share = (alpha.to(x.dtype) * alpha_scale).abs()
    return F.normalize(a + share * (b - a), dim=-1, eps=eps).to(input.dtype)


def _modulate(normalized: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    def aligned(parameter: Tensor) -> Tensor:
        """With all axes of the input: those but the last are its first ones."""
        ones = [1] * (normalized.dim() - parameter.dim())
        wide = parameter.to(normalized.dtype)
        return wide.reshape(*parameter.shape[:-1], *ones, parameter.shape[-1])

    y = normalized * (1 + aligned(scale))
    return y if shift is None else y + aligned(shift)


def modulated_layer_norm(input: Tensor, scale: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    x = input.to(_compute_dtype(input))
    return _modulate(F.layer_norm(x, x.shape[-1:], eps=eps), scale, shift).to(input.dtype)


def modulated_rms_norm(input: Tensor, scale: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    x = input.to(_compute_dtype(input))
    y = rms_norm(x, None, x.shape[-1:], eps, 0.0, "fp32", 1.0)
    return _modulate(y, scale, shift).to(input.dtype)


def gated_rms_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate: Tensor,
    eps: float,
    group_size: int | None,
    norm_before_gate: bool,
) -> Tensor:
    x = input.to(_compute_dtype(input))
    z = F.silu(gate.to(x.dtype))
    if not norm_before_gate:
        x = x * z
    groups = x.reshape(*x.shape[:-1], -1, group_size) if group_size else x
    y = rms_norm(groups, None, groups.shape[-1:], eps, 0.0, "fp32", 1.0).reshape(x.shape)
    if weight is not None:
        y = y * weight.to(x.dtype)
    if bias is not None:
        y = y + bias.to(x.dtype)
    return (y * z if norm_before_gate else y).to(input.dtype)
