"""Weight normalization of a module's parameter, as `torch.nn.utils.parametrizations.weight_norm`."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations as torch_parametrizations

from normkit.torch import functional

__all__ = ["weight_norm"]

Module = TypeVar("Module", bound=nn.Module)


class _WeightNorm(nn.Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return functional.weight_norm(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return torch.norm_except_dim(weight, 2, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Replaces the parameter `name` by a length and a direction: `weight = g * v / |v|`.

    The norm is taken over all axes but `dim`, with `dim` None over the whole. As
    `torch.nn.utils.parametrizations.weight_norm`: g is `parametrizations.NAME.original0` and v is
    `original1`, so state_dicts load both ways, those of `torch.nn.utils.weight_norm` included.
    `torch.nn.utils.parametrize.remove_parametrizations` undoes it. Salimans and Kingma 2016.
    """
    torch_parametrizations.weight_norm(module, name, dim)  # type: ignore[arg-type]
    parametrized: Any = module.parametrizations
    parametrized[name][len(parametrized[name]) - 1] = _WeightNorm(dim)
    return module
