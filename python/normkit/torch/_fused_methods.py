"""The operators of norms with what surrounds them in their models, in one pass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor

from normkit._normkit import HypersphereStep, Norm
from normkit.torch import _composites
from normkit.torch._around import layer_norm_add_layer_norm, rms_norm_add_rms_norm
from normkit.torch._methods import (
    Grads,
    Kernel,
    Method,
    Shape,
    channels,
    channels_in_groups,
    leading,
    trailing,
)

# The names and bits by which `Norm.backward` knows what has a gradient, in the order of its results.
_PLACES = {
    name: place
    for place, name in enumerate(
        ("input", "weight", "bias", "alpha", "before", "after", "branch_bias", "branch_scale")
    )
}

_SCALES_AND_DROPOUT = (
    "float input_scale, float residual_scale, float dropout_p, SymInt dropout_seed, SymInt dropout_offset"
)


@dataclass(frozen=True)
class _Named:
    """A norm whose parameters are, in their order, those that it calls `slots`.

    With `hidden` it also gives what is normalized, the hidden value.
    """

    norm: Norm
    slots: tuple[str, ...]
    hidden: bool = False

    def forward(self, input: Tensor, *parameters: Tensor | None) -> Any:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        if self.hidden:
            return self.norm.hidden(input, **named, statistics=False)[:2]
        return self.norm.forward(input, **named)

    def train(self, input: Tensor, *parameters: Tensor | None) -> Any:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        return self.norm.hidden(input, **named) if self.hidden else self.norm.train(input, **named)

    def backward(
        self,
        grad_output: Tensor,
        input: Tensor,
        statistics: Tensor | None,
        *parameters: Tensor | None,
        needs: int,
        grad_hidden: Tensor | None = None,
    ) -> Grads:
        named: dict[str, Any] = dict(zip(self.slots, parameters, strict=True))
        places = [0, *(_PLACES[slot] for slot in self.slots)]
        bits = sum((needs >> position & 1) << place for position, place in enumerate(places))
        grads = self.norm.backward(
            grad_output, input, statistics, **named, grad_hidden=grad_hidden, needs=bits
        )
        return tuple(grads[place] for place in places)


@lru_cache(maxsize=512)
def _layer_norm(shape: tuple[int, ...], eps: float, activation: Any) -> Kernel:
    return Norm.layer_norm(shape, eps).fused(activation=activation)


@lru_cache(maxsize=512)
def _rms_norm(
    shape: tuple[int, ...], eps: float | None, offset: float, cast: Any, partial: float, activation: Any
) -> Kernel:
    return Norm.rms_norm(shape, eps, offset, cast, partial).fused(activation=activation)


@lru_cache(maxsize=512)
def _group_norm(num_groups: int, num_channels: int, eps: float, activation: Any) -> Kernel:
    return Norm.group_norm(num_groups, num_channels, eps).fused(activation=activation)


@lru_cache(maxsize=512)
def _add_layer_norm(shape: tuple[int, ...], eps: float, *scales_and_dropout: Any) -> Kernel:
    norm = Norm.layer_norm(shape, eps).fused("residual", None, None, *scales_and_dropout)
    return _Named(norm, ("weight", "bias", "branch_bias", "branch_scale", "before"), hidden=True)


@lru_cache(maxsize=512)
def _add_rms_norm(
    shape: tuple[int, ...], eps: float | None, offset: float, cast: Any, *scales_and_dropout: Any
) -> Kernel:
    norm = Norm.rms_norm(shape, eps, offset, cast).fused("residual", None, None, *scales_and_dropout)
    return _Named(norm, ("weight", "branch_bias", "branch_scale", "before"), hidden=True)


@lru_cache(maxsize=512)
def _layer_norm_add(shape: tuple[int, ...], eps: float) -> Kernel:
    return _Named(Norm.layer_norm(shape, eps).fused(after="residual"), ("weight", "bias", "after"))


@lru_cache(maxsize=512)
def _rms_norm_add(
    shape: tuple[int, ...], eps: float | None, offset: float, cast: Any, partial: float
) -> Kernel:
    norm = Norm.rms_norm(shape, eps, offset, cast, partial).fused(after="residual")
    return _Named(norm, ("weight", "after"))


@lru_cache(maxsize=512)
def _gated_rms_norm(cols: int, eps: float, group_size: int | None, norm_before_gate: bool) -> Kernel:
    norm = Norm.gated_rms_norm(cols, eps, group_size, norm_before_gate)
    return _Named(norm, ("weight", "bias", "after" if norm_before_gate else "before"))


@dataclass(frozen=True)
class _Rotated:
    """The norm of heads with a rotary embedding: of its parameters, the weight alone has a gradient."""

    norm: Norm

    def forward(self, input: Tensor, weight: Tensor | None, *tables: Tensor | None) -> Tensor:
        return self.norm.forward(input, weight, **self._named(tables))

    def train(self, input: Tensor, weight: Tensor | None, *tables: Tensor | None) -> Any:
        return self.norm.train(input, weight, **self._named(tables))

    def backward(
        self,
        grad_output: Tensor,
        input: Tensor,
        statistics: Tensor | None,
        weight: Tensor | None,
        *tables: Tensor | None,
        needs: int,
    ) -> Grads:
        named = self._named(tables)
        return self.norm.backward(grad_output, input, statistics, weight, needs=needs & 3, **named)[:2]

    @staticmethod
    def _named(tables: tuple[Tensor | None, ...]) -> dict[str, Any]:
        return dict(zip(("cos", "sin", "positions"), tables, strict=True))


@lru_cache(maxsize=512)
def _head_norm_rope(kind: Any, eps: float, interleaved: bool) -> Kernel:
    return _Rotated(Norm.head_norm_rope(kind, eps, interleaved))


_modulated = lru_cache(maxsize=512)(Norm.modulated)
_hypersphere_step = lru_cache(maxsize=512)(HypersphereStep.of)


def _last_axis(shape: Shape) -> int:
    if not shape:
        raise ValueError("input: expected at least one axis, found shape []")
    return shape[-1]


def _group_size(shape: Shape, group_size: int | None) -> int:
    cols = _last_axis(shape)
    if group_size is None:
        return cols
    if group_size < 1 or cols % group_size != 0:
        raise ValueError(f"group_size: expected a divisor of the last axis, {cols}, found {group_size}")
    return group_size


def _grouped(shape: Shape, eps: float, group_size: int | None, norm_before_gate: bool) -> Shape:
    _group_size(shape, group_size)
    return shape[-1:]


def _modulation(own: Shape, shape: Shape) -> bool:
    """Whether the axes of a scale but the last are the input's first ones, or 1."""
    return (
        0 < len(own) <= len(shape)
        and own[-1] == shape[-1]
        and all(size in (1, other) for size, other in zip(own[:-1], shape, strict=False))
    )


FUSED = (
    Method(
        "layer_norm_activated",
        ("weight", "bias"),
        "SymInt[] normalized_shape, float eps, str activation",
        kernel=lambda x, shape, *settings: _layer_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.activated(_composites.layer_norm),
        batch_leads=True,
        autocast=True,
    ),
    Method(
        "rms_norm_activated",
        ("weight",),
        "SymInt[] normalized_shape, float? eps, float offset, str cast, float partial, str activation",
        kernel=lambda x, shape, *settings: _rms_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.activated(_composites.rms_norm),
        batch_leads=True,
        autocast=True,
    ),
    Method(
        "group_norm_activated",
        ("weight", "bias"),
        "int num_groups, float eps, str activation",
        kernel=lambda x, num_groups, *settings: _group_norm(num_groups, channels(x.shape), *settings),
        expected=lambda shape, num_groups, *settings: channels_in_groups(shape, num_groups),
        rows=lambda shape, num_groups, *settings: shape[0] * num_groups,
        composite=_composites.activated(_composites.group_norm),
        autocast=True,
    ),
    Method(
        "add_layer_norm",
        ("weight", "bias", "branch_bias", "branch_scale", "residual"),
        f"SymInt[] normalized_shape, float eps, {_SCALES_AND_DROPOUT}",
        kernel=lambda x, shape, *settings: _add_layer_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.add_layer_norm,
        batch_leads=True,
        autocast=True,
        operand=True,
        hidden=True,
    ),
    Method(
        "add_rms_norm",
        ("weight", "branch_bias", "branch_scale", "residual"),
        f"SymInt[] normalized_shape, float? eps, float offset, str cast, {_SCALES_AND_DROPOUT}",
        kernel=lambda x, shape, *settings: _add_rms_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.add_rms_norm,
        batch_leads=True,
        autocast=True,
        operand=True,
        hidden=True,
    ),
    Method(
        "layer_norm_add",
        ("weight", "bias", "residual"),
        "SymInt[] normalized_shape, float eps",
        kernel=lambda x, shape, eps: _layer_norm_add(tuple(shape), eps),
        expected=lambda shape, normalized, eps: trailing(shape, normalized),
        rows=lambda shape, normalized, eps: leading(shape, normalized),
        composite=_composites.layer_norm,
        batch_leads=True,
        autocast=True,
        operand=True,
        derivative="layer_norm",
    ),
    Method(
        "rms_norm_add",
        ("weight", "residual"),
        "SymInt[] normalized_shape, float? eps, float offset, str cast, float partial",
        kernel=lambda x, shape, *settings: _rms_norm_add(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.rms_norm,
        batch_leads=True,
        autocast=True,
        operand=True,
        derivative="rms_norm",
    ),
    Method(
        "rms_norm_add_rms_norm",
        ("weight", "next_weight", "residual"),
        "SymInt[] normalized_shape, float? eps, float offset, str cast",
        kernel=lambda x, shape, *settings: rms_norm_add_rms_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: 2 * leading(shape, normalized),
        composite=_composites.rms_norm_add_rms_norm,
        autocast=True,
        operand=True,
        hidden=True,
        branch=True,
    ),
    Method(
        "layer_norm_add_layer_norm",
        ("weight", "bias", "next_weight", "next_bias", "residual"),
        "SymInt[] normalized_shape, float eps",
        kernel=lambda x, shape, eps: layer_norm_add_layer_norm(tuple(shape), eps),
        expected=lambda shape, normalized, eps: trailing(shape, normalized),
        rows=lambda shape, normalized, eps: 2 * leading(shape, normalized),
        composite=_composites.layer_norm_add_layer_norm,
        autocast=True,
        operand=True,
        hidden=True,
        branch=True,
    ),
    Method(
        "hypersphere_step",
        ("alpha", "branch"),
        "float eps, float alpha_scale",
        kernel=lambda x, *settings: _hypersphere_step(*settings),
        expected=lambda shape, *settings: [_last_axis(shape)],
        rows=lambda shape, *settings: 3 * math.prod(shape[:-1]),
        composite=_composites.hypersphere_step,
        autocast=True,
        operand=True,
    ),
    Method(
        "modulated_layer_norm",
        ("scale", "shift"),
        "float eps",
        kernel=lambda x, eps: _modulated(_last_axis(x.shape), eps, True),
        expected=lambda shape, eps: None,
        rows=lambda shape, eps: math.prod(shape[:-1]),
        composite=_composites.modulated_layer_norm,
        autocast=True,
        fits=_modulation,
    ),
    Method(
        "modulated_rms_norm",
        ("scale", "shift"),
        "float eps",
        kernel=lambda x, eps: _modulated(_last_axis(x.shape), eps, False),
        expected=lambda shape, eps: None,
        rows=lambda shape, eps: math.prod(shape[:-1]),
        composite=_composites.modulated_rms_norm,
        autocast=True,
        fits=_modulation,
    ),
    Method(
        "gated_rms_norm",
        ("weight", "bias", "gate"),
        "float eps, int? group_size, bool norm_before_gate",
        kernel=lambda x, *settings: _gated_rms_norm(_last_axis(x.shape), *settings),
        expected=_grouped,
        rows=lambda shape, eps, size, first: math.prod(shape) // max(_group_size(shape, size), 1),
        composite=_composites.gated_rms_norm,
        batch_leads=True,
        autocast=True,
        operand=True,
    ),
    Method(
        "head_norm_rope",
        ("weight", "cos", "sin", "positions"),
        "str kind, float eps, bool interleaved",
        kernel=lambda x, *settings: _head_norm_rope(*settings),
        expected=lambda shape, *settings: None,
        rows=lambda shape, *settings: math.prod(shape[:-1]),
        composite=_composites.head_norm_rope,
        autocast=True,
        constants=3,
    ),
)
