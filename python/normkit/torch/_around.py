"""Two norms around a residual, in one pass: the kernels of their operators."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from normkit._normkit import Sandwich
from normkit.torch._methods import Grads, Kernel

_PLACES = {
    name: place
    for place, name in enumerate(("input", "residual", "weight", "bias", "next_weight", "next_bias"))
}


@dataclass(frozen=True)
class _Around:
    """Two norms around a residual, whose parameters are, in their order, those that they call `slots`."""

    norms: Sandwich
    slots: tuple[str, ...]

    def forward(self, input: Tensor, *parameters: Tensor | None) -> Any:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        return self.norms.forward(input, **named, statistics=False)[:2]

    def train(self, input: Tensor, *parameters: Tensor | None) -> Any:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        return self.norms.forward(input, **named)

    def backward(
        self,
        grad_output: Tensor,
        input: Tensor,
        statistics: Tensor,
        *parameters: Tensor | None,
        needs: int,
        grad_hidden: Tensor | None = None,
    ) -> Grads:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        places = [_PLACES[slot] for slot in ("input", *self.slots)]
        bits = sum((needs >> position & 1) << place for position, place in enumerate(places))
        grads = self.norms.backward(
            grad_output, input, statistics=statistics, **named, grad_hidden=grad_hidden, needs=bits
        )
        return tuple(grads[place] for place in places)


@lru_cache(maxsize=512)
def rms_norm_add_rms_norm(
    shape: tuple[int, ...], eps: float | None, offset: float, cast: Any
) -> Kernel:
    return _Around(Sandwich.rms_norm(shape, eps, offset, cast), ("weight", "next_weight", "residual"))


@lru_cache(maxsize=512)
def layer_norm_add_layer_norm(shape: tuple[int, ...], eps: float) -> Kernel:
    slots = ("weight", "bias", "next_weight", "next_bias", "residual")
    return _Around(Sandwich.layer_norm(shape, eps), slots)
