"""Modules on normkit's fused functions."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from normkit.torch import fused, modules

__all__ = ["AddLayerNorm", "AddRMSNorm", "GatedRMSNorm"]


class _Branch:
    """What modules with a residual have for its branch: dropout, and a learned `branch_scale`."""

    branch_scale: nn.Parameter | None

    def __init__(
        self, *args: Any, dropout: float = 0.0, layer_scale: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout
        self.layer_scale = layer_scale
        module: Any = self
        scale = None
        if layer_scale is not None:
            like = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
            if module.weight is not None:
                like = {"device": module.weight.device, "dtype": module.weight.dtype}
            scale = nn.Parameter(torch.full(tuple(module.normalized_shape), layer_scale, **like))
        module.register_parameter("branch_scale", scale)

    def reset_parameters(self) -> None:
        """Sets what is learned to what it begins with."""
        super().reset_parameters()  # type: ignore[misc]
        scale = getattr(self, "branch_scale", None)
        if scale is not None:
            nn.init.constant_(scale, cast(float, self.layer_scale))


class AddLayerNorm(_Branch, modules.LayerNorm):
    """A residual connection and the LayerNorm after it.

    `forward(input, residual)` gives the norm of the sum, and the sum, which is the next residual, by
    [`add_layer_norm`](normkit.torch.fused.add_layer_norm). Constructor and state_dict are those of
    `torch.nn.LayerNorm`, but for dropout, the probability of an element of input to be left out in training, and
    layer_scale: with that, input is multiplied by a learned `branch_scale`, which begins there (LayerScale, Touvron et al.
    2021). branch_bias is the bias of the linear layer that input is the result of, if that has not added it.
    """

    def forward(  # type: ignore[override]
        self, input: Tensor, residual: Tensor, branch_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return fused.add_layer_norm(
            input,
            residual,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            branch_bias=branch_bias,
            branch_scale=self.branch_scale,
            dropout_p=self.dropout if self.training else 0.0,
        )


class AddRMSNorm(_Branch, modules.RMSNorm):
    """A residual connection and the RMSNorm after it.

    `forward(x, residual)` gives the norm of the sum, and the sum, which is the next residual, by
    [`add_rms_norm`](normkit.torch.fused.add_rms_norm). Constructor and state_dict are those of
    `torch.nn.RMSNorm`; offset and cast are the function's, dropout, layer_scale and branch_bias those of `AddLayerNorm`.
    """

    def forward(  # type: ignore[override]
        self, x: Tensor, residual: Tensor, branch_bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        if self.partial != 1.0:
            raise ValueError(f"partial: expected 1.0 beside a residual, found {self.partial}")
        return fused.add_rms_norm(
            x,
            residual,
            self.normalized_shape,
            self.weight,
            self.eps,
            offset=self.offset,
            cast=self.cast,
            branch_bias=branch_bias,
            branch_scale=self.branch_scale,
            dropout_p=self.dropout if self.training else 0.0,
        )


class GatedRMSNorm(nn.Module):
    """[`gated_rms_norm`](normkit.torch.fused.gated_rms_norm) with a learned weight.

    It is `[hidden_size]` and begins at 1; `forward(input, gate)`. Constructor and state_dict are those of mamba_ssm's `RMSNorm`.
    """

    def __init__(
        self,
        hidden_size: int,
        eps: float = 1e-5,
        group_size: int | None = None,
        norm_before_gate: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if group_size is not None and (group_size < 1 or hidden_size % group_size != 0):
            raise ValueError(
                f"group_size: expected a divisor of hidden_size, {hidden_size}, found {group_size}"
            )
        self.hidden_size = hidden_size
        self.eps = eps
        self.group_size = group_size
        self.norm_before_gate = norm_before_gate
        self.weight = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sets the weight to 1."""
        nn.init.ones_(self.weight)

    def forward(self, input: Tensor, gate: Tensor) -> Tensor:
        return fused.gated_rms_norm(
            input,
            gate,
            self.weight,
            None,
            self.eps,
            group_size=self.group_size,
            norm_before_gate=self.norm_before_gate,
        )

    def extra_repr(self) -> str:
        return (
            f"{self.hidden_size}, eps={self.eps}, group_size={self.group_size}, "
            f"norm_before_gate={self.norm_before_gate}"
        )
