"""normkit's functions on tensors, with autograd.

Names, argument order and defaults are those of `torch.nn.functional` where it has the function. Inputs are
float16, bfloat16, float32 or float64, of any strides, on the CPU or on CUDA; results have the input's dtype and
are contiguous, in the channels-last format where the input is. Arithmetic is in float32 (float64 for float64),
with one rounding at the end. Weights may have a dtype of their own.

All functions work under `torch.compile` without graph breaks, under `torch.vmap` and `torch.func.grad`, and
can be differentiated twice. `torch.autocast("cuda")` casts to float32 where torch does it (layer_norm,
rms_norm, group_norm, normalize, and these with what surrounds them); on the CPU it changes nothing, as in torch.

ValueError and TypeError name the argument that is wrong; RuntimeError is for devices.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from normkit.torch._heads import together
from normkit.torch.ops import OPERATORS

__all__ = [
    "batch_norm",
    "dyt",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "normalize",
    "qk_norm",
    "rms_norm",
    "weight_norm",
]

_layer_norm = OPERATORS["layer_norm"]
_layer_norm_activated = OPERATORS["layer_norm_activated"]
_rms_norm = OPERATORS["rms_norm"]
_rms_norm_activated = OPERATORS["rms_norm_activated"]
_batch_norm = OPERATORS["batch_norm"]
_batch_norm_frozen = OPERATORS["batch_norm_frozen"]
_group_norm = OPERATORS["group_norm"]
_group_norm_activated = OPERATORS["group_norm_activated"]
_instance_norm = OPERATORS["instance_norm"]
_instance_norm_running = OPERATORS["instance_norm_running"]
_normalize = OPERATORS["normalize"]
_dyt = OPERATORS["dyt"]
_head_norm = OPERATORS["head_norm"]
_weight_norm = OPERATORS["weight_norm"]


def sizes(normalized_shape: int | Sequence[int]) -> Sequence[int]:
    return (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """`weight * (x - mean) / sqrt(var + eps) + bias` over the last axes, whose sizes are `normalized_shape`.

    weight and bias have that shape. The variance is the biased one. As `torch.nn.functional.layer_norm`; Ba,
    Kiros and Hinton 2016. activation is a function of the result, in the same pass: "relu", "silu", "gelu",
    "gelu_tanh" (as `torch.nn.functional.gelu` with approximate="tanh"), or None.
    """
    if activation is not None:
        settings = (sizes(normalized_shape), eps, activation)
        return _layer_norm_activated(settings, input, weight, bias)
    return _layer_norm((sizes(normalized_shape), eps), input, weight, bias)


def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    offset: float = 0.0,
    cast: str = "fp32",
    partial: float = 1.0,
    activation: str | None = None,
) -> Tensor:
    """`(weight + offset) * x / sqrt(mean(x²) + eps)` over the last axes, whose sizes are `normalized_shape`.

    eps None is `torch.finfo(input.dtype).eps`. cast says where a half-precision model rounds: "fp32" once at
    the end, "llama" also before the weight, "gemma" once at the end with the weight stored as a difference
    from one. With `partial` the mean square is that of the first `floor(partial * cols)` elements only. As
    `torch.nn.functional.rms_norm`; Zhang and Sennrich 2019. activation is that of `layer_norm`.
    """
    if activation is not None:
        activated = (sizes(normalized_shape), eps, offset, cast, partial, activation)
        return _rms_norm_activated(activated, input, weight)
    return _rms_norm((sizes(normalized_shape), eps, offset, cast, partial), input, weight)


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`weight * (x - mean) / sqrt(var + eps) + bias` for each channel of `[N, C, ...]`.

    In training mean and var are the batch's, and the running statistics, where given, move in place:
    `momentum` is the weight of the new batch, whose unbiased variance enters. Otherwise they are the running
    statistics. As `torch.nn.functional.batch_norm`; Ioffe and Szegedy 2015.
    """
    if training:
        _both_or_none(running_mean, running_var)
        return _batch_norm((momentum, eps), input, weight, bias, running_mean, running_var)
    if running_mean is None or running_var is None:
        name = "running_mean" if running_mean is None else "running_var"
        raise ValueError(f"{name}: expected a tensor when training is False, found None")
    return _batch_norm_frozen((eps,), input, weight, bias, running_mean, running_var)


def _both_or_none(running_mean: Tensor | None, running_var: Tensor | None) -> None:
    if (running_mean is None) != (running_var is None):
        raise ValueError(
            "running_var: expected a tensor where running_mean is one, and None where it is None"
        )


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """LayerNorm of each of `num_groups` groups of channels of each sample of `[N, C, ...]`.

    weight and bias are `[C]`. As `torch.nn.functional.group_norm`; Wu and He 2018. activation is that of
    `layer_norm`: "silu" is what follows in the residual blocks of diffusion models.
    """
    if activation is not None:
        return _group_norm_activated((num_groups, eps, activation), input, weight, bias)
    return _group_norm((num_groups, eps), input, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`weight * (x - mean) / sqrt(var + eps) + bias` for each channel of each sample of `[N, C, ...]`.

    With `use_input_stats` mean and var are the input's, and the running statistics, where given, move in
    place towards their means over the batch; otherwise they are the running statistics. As
    `torch.nn.functional.instance_norm`; Ulyanov, Vedaldi and Lempitsky 2016.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    _both_or_none(running_mean, running_var)
    if running_mean is None:
        return _instance_norm((eps,), input, weight, bias)
    return _instance_norm_running((momentum, eps), input, weight, bias, running_mean, running_var)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """`x / max(norm_p(x), eps)` along the axis `dim`, p from 1 to 100 or infinity.

    As `torch.nn.functional.normalize` with one axis.
    """
    return _normalize((p, dim, eps), input)


def dyt(
    input: Tensor,
    alpha: Tensor | float,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """`weight * tanh(alpha * x) + bias`, weight and bias over the last axes.

    alpha is a number or a tensor of one element. Zhu et al. 2025.
    """
    if not isinstance(alpha, Tensor):
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        alpha = torch.full((1,), alpha, dtype=dtype, device=input.device)
    affine = weight if weight is not None else bias
    shape = input.shape[-1:] if affine is None else affine.shape
    return _dyt((shape,), input, weight, bias, alpha)


def qk_norm(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
    *,
    kind: str = "rms",
) -> tuple[Tensor, Tensor]:
    """Normalizes each head, the last axis, of queries and of keys.

    kind "rms": `x / sqrt(mean(x²) + eps)` (Qwen3); "l2": `x / max(|x|, eps)` (Henry et al. 2020); "layer":
    centred and divided by the deviation (Dehghani et al. 2023). A weight is `[head_dim]`, `[heads, head_dim]`
    or one element. There may be fewer key heads than query heads. Strided views of a packed tensor are read
    where they lie. Without gradients both are one launch.
    """
    if k.dim() < 1 or q.dim() < 1 or k.shape[-1] != q.shape[-1]:
        raise ValueError(f"k: expected head_dim {list(q.shape[-1:])}, found {list(k.shape[-1:])}")
    both = together((kind, eps), q, k, q_weight, k_weight)
    if both is not None:
        return both
    return _head_norm((kind, eps), q, q_weight), _head_norm((kind, eps), k, k_weight)


def weight_norm(v: Tensor, g: Tensor, dim: int | None = 0) -> Tensor:
    """`g * v / |v|`, the norm taken over all axes but `dim`; over the whole of v with `dim` None or -1.

    g has v's shape with 1 for every axis but `dim`, or no axes for the whole. A zero vector gives zeros. As
    `torch._weight_norm`; Salimans and Kingma 2016.
    """
    return _weight_norm((None if dim == -1 else dim,), v, g)
