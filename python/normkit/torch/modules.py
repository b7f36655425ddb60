"""torch's normalization modules on normkit's functions, and DyT and QKNorm.

Each subclasses torch's class of the same name: constructor, state_dict, hooks and `isinstance` are torch's
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normkit.torch import functional

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "DyT",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "QKNorm",
    "RMSNorm",
]


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` on [`functional.layer_norm`](normkit.torch.functional.layer_norm)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` on [`functional.rms_norm`](normkit.torch.functional.rms_norm).

    offset, cast and partial are that function's. With cast "gemma", or an offset of 1, the weight begins at
    0.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        offset: float = 0.0,
        cast: str = "fp32",
        partial: float = 1.0,
    ) -> None:
        self.offset = offset
        self.cast = cast
        self.partial = partial
        shape = normalized_shape if isinstance(normalized_shape, int) else list(normalized_shape)
        super().__init__(shape, eps, elementwise_affine, device, dtype)

    def reset_parameters(self) -> None:
        """Sets the weight so that it multiplies by 1."""
        if self.elementwise_affine:
            nn.init.constant_(self.weight, 1.0 - (1.0 if self.cast == "gemma" else self.offset))

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(
            x,
            self.normalized_shape,
            self.weight,
            self.eps,
            offset=self.offset,
            cast=self.cast,
            partial=self.partial,
        )

    def extra_repr(self) -> str:
        own = (("offset", self.offset, 0.0), ("cast", self.cast, "fp32"), ("partial", self.partial, 1.0))
        named = [f"{name}={value}" for name, value, default in own if value != default]
        return ", ".join([super().extra_repr(), *named])


class _NormkitBatchNorm(_BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        tracks = self.training and self.track_running_stats
        factor = 0.0 if self.momentum is None else self.momentum
        if tracks and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        keeps = tracks or not self.training
        return functional.batch_norm(
            input,
            self.running_mean if keeps else None,
            self.running_var if keeps else None,
            self.weight,
            self.bias,
            self.training or (self.running_mean is None and self.running_var is None),
            factor,
            self.eps,
        )


class BatchNorm1d(_NormkitBatchNorm, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d` on [`functional.batch_norm`](normkit.torch.functional.batch_norm)."""


class BatchNorm2d(_NormkitBatchNorm, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` on [`functional.batch_norm`](normkit.torch.functional.batch_norm)."""


class BatchNorm3d(_NormkitBatchNorm, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d` on [`functional.batch_norm`](normkit.torch.functional.batch_norm)."""


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` on [`functional.group_norm`](normkit.torch.functional.group_norm)."""

    def forward(self, input: Tensor) -> Tensor:
        return functional.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class _NormkitInstanceNorm(_InstanceNorm):
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        return functional.instance_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum,
            self.eps,
        )


class InstanceNorm1d(_NormkitInstanceNorm, nn.InstanceNorm1d):
    """`torch.nn.InstanceNorm1d` on [`functional.instance_norm`](normkit.torch.functional.instance_norm)."""


class InstanceNorm2d(_NormkitInstanceNorm, nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` on [`functional.instance_norm`](normkit.torch.functional.instance_norm)."""


class InstanceNorm3d(_NormkitInstanceNorm, nn.InstanceNorm3d):
    """`torch.nn.InstanceNorm3d` on [`functional.instance_norm`](normkit.torch.functional.instance_norm)."""


class DyT(nn.Module):
    """Dynamic tanh, `weight * tanh(alpha * x) + bias`, which stands where a LayerNorm or RMSNorm stood.

    alpha is one number, `[1]`, that begins at `alpha_init`; weight begins at 1 and bias at 0, both of
    `normalized_shape`. Zhu et al. 2025; their language models have no bias.
    """

    normalized_shape: tuple[int, ...]
    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        alpha_init: float = 0.5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = sizes
        self.alpha_init = alpha_init
        self.elementwise_affine = elementwise_affine
        self.alpha = nn.Parameter(torch.empty(1, device=device, dtype=dtype))
        for name, learned in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            empty = nn.Parameter(torch.empty(sizes, device=device, dtype=dtype)) if learned else None
            self.register_parameter(name, empty)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets alpha to `alpha_init`, weight to 1 and bias to 0."""
        nn.init.constant_(self.alpha, self.alpha_init)
        if self.weight is not None:
            nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return functional.dyt(input, self.alpha, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, alpha_init={self.alpha_init}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class QKNorm(nn.Module):
    """[`functional.qk_norm`](normkit.torch.functional.qk_norm) with learned weights.

    `forward(q, k)` gives `(q, k)`. kind "rms" and "layer": `q_weight` and `k_weight`, `[head_dim]`, begin at
    1, and the logits are divided by `sqrt(head_dim)` as usual. kind "l2": `q_weight` is one learned scale
    `g`, keys have none, and the logits are not divided; g begins at `scale_init`, for which Henry et al. 2020
    give `log2(L² - L)` with L the length of nearly all (97.5 %) of the training sequences.
    """

    q_weight: nn.Parameter | None
    k_weight: nn.Parameter | None

    def __init__(
        self,
        head_dim: int,
        eps: float = 1e-6,
        *,
        kind: str = "rms",
        elementwise_affine: bool = True,
        scale_init: float = 1.0,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("rms", "l2", "layer"):
            raise ValueError(f'kind: expected "rms", "l2" or "layer", found {kind!r}')
        self.head_dim = head_dim
        self.eps = eps
        self.kind = kind
        self.elementwise_affine = elementwise_affine
        self.scale_init = scale_init
        for name in ("q_weight", "k_weight"):
            learned = elementwise_affine and (kind != "l2" or name == "q_weight")
            empty = torch.empty(1 if kind == "l2" else head_dim, device=device, dtype=dtype)
            self.register_parameter(name, nn.Parameter(empty) if learned else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the weights to 1, or the scale of kind "l2" to `scale_init`."""
        for weight in self.parameters(recurse=False):
            nn.init.constant_(weight, self.scale_init if self.kind == "l2" else 1.0)

    def forward(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        if q.shape[-1:] != (self.head_dim,):
            raise ValueError(f"q: expected head_dim {self.head_dim}, found shape {list(q.shape)}")
        return functional.qk_norm(q, k, self.q_weight, self.k_weight, self.eps, kind=self.kind)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.head_dim}, eps={self.eps}, kind={self.kind!r}, elementwise_affine={affine}"
