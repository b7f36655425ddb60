"""Modules on normkit's fused functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from normkit.torch import fused, modules

__all__ = ["AddLayerNorm", "AddRMSNorm", "GatedRMSNorm"]


class AddLayerNorm(modules.LayerNorm):
    """A residual connection and the LayerNorm after it.

    `forward(input, residual)` gives the norm of the sum, and the sum, which is the next residual, by
    [`add_layer_norm`](normkit.torch.fused.add_layer_norm). Constructor and state_dict are those of
    `torch.nn.LayerNorm`, but for dropout, the probability of an element of input to be left out in training.
    """

    def __init__(self, *args: Any, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout

    def forward(self, input: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return fused.add_layer_norm(
            input,
            residual,
            self.normalized_shape,
            self.weight,
            self.bias,
            self.eps,
            dropout_p=self.dropout if self.training else 0.0,
        )


class AddRMSNorm(modules.RMSNorm):
    """A residual connection and the RMSNorm after it.

    `forward(x, residual)` gives the norm of the sum, and the sum, which is the next residual, by
    [`add_rms_norm`](normkit.torch.fused.add_rms_norm). Constructor and state_dict are those of
    `torch.nn.RMSNorm`; offset and cast are the function's, dropout is that of `AddLayerNorm`.
    """

    def __init__(self, *args: Any, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dropout = dropout

    def forward(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
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
