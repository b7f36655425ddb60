"""Norms with what surrounds them in their models, in one pass over memory, with autograd.

What holds of [`functional`](normkit.torch.functional) holds here: dtypes, layouts, transforms, errors. Only what
is returned is rounded: what is computed on the way stays in float32 (float64 for float64).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normkit.torch._heads import together
from normkit.torch.functional import sizes
from normkit.torch.ops import OPERATORS

__all__ = [
    "add_layer_norm",
    "add_rms_norm",
    "gated_rms_norm",
    "hypersphere_step",
    "layer_norm_add",
    "layer_norm_add_layer_norm",
    "modulated_layer_norm",
    "modulated_rms_norm",
    "qk_norm_rope",
    "rms_norm_add",
    "rms_norm_add_rms_norm",
]

_add_layer_norm = OPERATORS["add_layer_norm"]
_add_rms_norm = OPERATORS["add_rms_norm"]
_layer_norm_add = OPERATORS["layer_norm_add"]
_rms_norm_add = OPERATORS["rms_norm_add"]
_layer_norm_add_layer_norm = OPERATORS["layer_norm_add_layer_norm"]
_rms_norm_add_rms_norm = OPERATORS["rms_norm_add_rms_norm"]
_modulated_layer_norm = OPERATORS["modulated_layer_norm"]
_modulated_rms_norm = OPERATORS["modulated_rms_norm"]
_gated_rms_norm = OPERATORS["gated_rms_norm"]
_head_norm_rope = OPERATORS["head_norm_rope"]
_hypersphere_step = OPERATORS["hypersphere_step"]


def _dropout(p: float, seed: int | None, offset: int) -> tuple[float, int, int]:
    if p == 0.0:
        return 0.0, 0, 0
    if seed is None:
        seed = int(torch.randint(2**63 - 1, ()).item())
    return p, seed, offset


def add_layer_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
    branch_bias: Tensor | None = None,
    branch_scale: Tensor | None = None,
    dropout_p: float = 0.0,
    dropout_seed: int | None = None,
    dropout_offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Gives `(layer_norm(h, ...), h)` of a sum.

    `h = input_scale * branch_scale * dropout(input + branch_bias) + residual_scale * residual`

    residual has the shape of input and may have another dtype, such as float32 beside bfloat16; h is rounded
    to the residual's, but the norm sees it as it was computed. Either result may go unused. Where both are
    float32, or both float64, h is all that backward keeps of them, unless the branch has a bias or a scale. DeepNorm
    is a residual_scale above 1 (Wang et al. 2022).

    branch_bias and branch_scale have the shape of weight: the bias of the linear layer before, and LayerScale
    (Touvron et al. 2021). None stands for 0 and 1. Their gradients are sums over rows, as those of weight and bias.

    dropout_p is the probability of an element of input to be left out; whether it is, depends on the seed, the
    offset and its index alone, so that no mask is kept, and calls with the same three give the same mask, whatever
    the device. Without a seed, one is drawn from torch's generator of the CPU.
    """
    dropout = _dropout(dropout_p, dropout_seed, dropout_offset)
    settings = (sizes(normalized_shape), eps, input_scale, residual_scale, *dropout)
    return _add_layer_norm.pair(settings, input, weight, bias, branch_bias, branch_scale, residual)


def add_rms_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    offset: float = 0.0,
    cast: str = "fp32",
    input_scale: float = 1.0,
    residual_scale: float = 1.0,
    branch_bias: Tensor | None = None,
    branch_scale: Tensor | None = None,
    dropout_p: float = 0.0,
    dropout_seed: int | None = None,
    dropout_offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """Gives `(rms_norm(h, ...), h)` of a sum.

    `h = input_scale * branch_scale * dropout(input + branch_bias) + residual_scale * residual`

    residual, branch_bias, branch_scale, h, dropout and what backward keeps are as in `add_layer_norm`; the rest is
    that of `rms_norm`. It is what stands between the sublayers of Llama and its kin.
    """
    dropout = _dropout(dropout_p, dropout_seed, dropout_offset)
    settings = (sizes(normalized_shape), eps, offset, cast, input_scale, residual_scale, *dropout)
    return _add_rms_norm.pair(settings, input, weight, branch_bias, branch_scale, residual)


def layer_norm_add(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`residual + layer_norm(input, ...)`: the norm at the end of a sublayer (Peri-LN, Kim et al. 2025).

    residual has the shape of input and may have another dtype; the result has that of input.
    """
    return _layer_norm_add((sizes(normalized_shape), eps), input, weight, bias, residual)


def rms_norm_add(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    offset: float = 0.0,
    cast: str = "fp32",
) -> Tensor:
    """`residual + rms_norm(input, ...)`, as in OLMo 2. residual is that of `layer_norm_add`."""
    settings = (sizes(normalized_shape), eps, offset, cast, 1.0)
    return _rms_norm_add(settings, input, weight, residual)


def rms_norm_add_rms_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    next_weight: Tensor | None = None,
    eps: float | None = None,
    *,
    offset: float = 0.0,
    cast: str = "fp32",
) -> tuple[Tensor, Tensor]:
    """`h = residual + rms_norm(input, weight)`; gives `(rms_norm(h, next_weight), h)`.

    The norm after a sublayer, the residual and the norm before the next sublayer, as in Gemma 2 and 3: there
    weight is that of `post_attention_layernorm`, next_weight that of `pre_feedforward_layernorm`, and cast
    `"gemma"`. residual and h are as in `add_rms_norm`: of any dtype, h being rounded to it, but not for the
    second norm. eps, offset and cast are those of both norms. Gradients on the CPU only.
    """
    settings = (sizes(normalized_shape), eps, offset, cast)
    return _rms_norm_add_rms_norm.pair(settings, input, weight, next_weight, residual)


def layer_norm_add_layer_norm(
    input: Tensor,
    residual: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    next_weight: Tensor | None = None,
    next_bias: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    """`h = residual + layer_norm(input, weight, bias)`; gives `(layer_norm(h, next_weight, next_bias), h)`.

    As `rms_norm_add_rms_norm`: the sandwich norm of CogView (Ding et al. 2021) and of Peri-LN (Kim et al. 2025).
    """
    settings = (sizes(normalized_shape), eps)
    return _layer_norm_add_layer_norm.pair(settings, input, weight, bias, next_weight, next_bias, residual)


def hypersphere_step(
    input: Tensor,
    branch: Tensor,
    alpha: Tensor,
    eps: float = 1e-12,
    *,
    alpha_scale: float = 1.0,
) -> Tensor:
    """`unit(a + |alpha_scale * alpha| * (b - a))` of `a = unit(input)` and `b = unit(branch)`: a step of nGPT.

    `unit(v)` is `normalize(v, dim=-1, eps=eps)`. input is the residual stream, branch the output of a sublayer:
    of the input's shape, of any dtype. alpha has the shape of the last axis. In nGPT's code it is a parameter
    times `init_value / init_scaling`, which is alpha_scale. Loshchilov et al. 2024.
    """
    return _hypersphere_step((eps, alpha_scale), input, alpha, branch)


def modulated_layer_norm(input: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-6) -> Tensor:
    """`layer_norm(x) * (1 + scale) + shift` over the last axis: the adaptive norm of diffusion transformers.

    For an input `[B, ..., C]` scale and shift have one shape, `[C]`, `[B, C]`, `[B, 1, C]` or `[B, ..., C]`:
    their axes but the last are the input's first ones, or 1. Peebles and Xie 2023.
    """
    return _modulated_layer_norm((eps,), input, scale, shift)


def modulated_rms_norm(
    input: Tensor, scale: Tensor, shift: Tensor | None = None, eps: float = 1e-6
) -> Tensor:
    """`rms_norm(x) * (1 + scale) + shift` over the last axis.

    scale and shift are those of `modulated_layer_norm`; shift may be None.
    """
    return _modulated_rms_norm((eps,), input, scale, shift)


def gated_rms_norm(
    input: Tensor,
    gate: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    group_size: int | None = None,
    norm_before_gate: bool = True,
) -> Tensor:
    """`rms_norm(x) * silu(gate)` over the last axis, or without norm_before_gate `rms_norm(x * silu(gate))`.

    gate has the shape of input, `[..., C]`; weight and bias, which belong to the norm, are `[C]`. With
    group_size, which divides C, each group of so many neighbours has a mean square of its own. The norm of
    state-space models (mamba_ssm's `rmsnorm_fn`); Dao and Gu 2024.
    """
    return _gated_rms_norm((eps, group_size, norm_before_gate), input, weight, bias, gate)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    cos: Tensor,
    sin: Tensor,
    positions: Tensor | None = None,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    kind: str = "rms",
    interleaved: bool = False,
) -> tuple[Tensor, Tensor]:
    """`qk_norm` and the rotary position embedding after it, in one pass (Su et al. 2021).

    Of each head the first R columns are rotated, pairs being `(i, i + R/2)`, or `(2 i, 2 i + 1)` with interleaved:
    `v[a] * cos - v[b] * sin` and `v[b] * cos + v[a] * sin`. cos and sin end with an axis of R/2; their other
    axes are the first ones of q and k, or 1, and those that they lack repeat: `[tokens, R/2]` for `[tokens, heads,
    head_dim]`, `[batch, 1, seq, R/2]` for `[batch, heads, seq, head_dim]`. With positions, int32 or int64, whose axes
    are found likewise, cos and sin are `[rows, R/2]`, and each token takes the row that it names; on a GPU a row that is
    not there gives NaN. cos and sin have no gradients. kind, eps and the weights are those of `qk_norm`, and so is what
    is one launch.
    """
    if k.dim() < 1 or q.dim() < 1 or k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k: expected head_dim {list(q.shape[-1:])}, found {list(k.shape[-1:])}")
    settings = (kind, eps, interleaved)
    both = together(settings, q, k, q_weight, k_weight, cos, sin, positions)
    if both is not None:
        return both
    return (
        _head_norm_rope(settings, q, q_weight, cos, sin, positions),
        _head_norm_rope(settings, k, k_weight, cos, sin, positions),
    )
