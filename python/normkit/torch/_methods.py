"""What each operator is: its parameters, its settings, the kernel behind it, the shapes of what it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor

from normkit import _normkit
from normkit._normkit import Norm
from normkit.torch import _composites

Shape = Sequence[int]
Grads = tuple[Tensor | None, ...]


class Kernel(Protocol):
    """A method with its settings; `*parameters` are in the order of [`Method.parameters`].

    `forward(input, *parameters)` gives the output, `train(input, *parameters)` output and statistics,
    `backward(grad_output, input, statistics, *parameters, needs=...)` the gradients of input and parameters.
    """

    @property
    def forward(self) -> Callable[..., Tensor]: ...

    @property
    def train(self) -> Callable[..., tuple[Tensor, Tensor | None]]: ...

    @property
    def backward(self) -> Callable[..., Grads]: ...


@dataclass(frozen=True)
class Method:
    """One row of the table below.

    `kernel(input, *settings)` gives the kernel, `expected(shape, *settings)` the shape of weight and bias (or
    raises the ValueError that says what is wrong with the input), `rows(shape, *settings)` the rows of the
    statistics; a method without `rows` saves none. `composite(input, *parameters, *settings)` is the method
    in torch's operations.

    The last `constants` of the parameters have no gradient.

    With `operand` the last parameter is a tensor of the input's shape. With `hidden` it is a residual, the two
    before it shift and scale the input before it is added, and the method gives a second result, what is
    normalized; the composite then gives both. With `branch`, the input has a norm of its own instead before the
    residual is added: parameters of the norm of the sum are called `next_...`, and there are two rows of
    statistics for each row. `derivative` names the
    method whose derivative this one has, its last parameter being added to the result. `fits(own, shape)`
    says whether a parameter may have the shape `own`, for methods without an expected one.
    """

    name: str
    parameters: tuple[str, ...]
    settings: str
    kernel: Callable[..., Kernel]
    expected: Callable[..., Shape | None]
    composite: Callable[..., Any]
    rows: Callable[..., int] | None = None
    forward: bool = True
    batch_leads: bool = False
    autocast: bool = False
    operand: bool = False
    hidden: bool = False
    branch: bool = False
    derivative: str | None = None
    constants: int = 0
    fits: Callable[[Shape, Shape], bool] | None = None

    @property
    def mutates(self) -> bool:
        """Whether the operator updates running statistics in place."""
        return not self.forward

    @property
    def saved(self) -> int:
        """How many parameters backward takes: all, but for running statistics that forward has updated."""
        return self.learned if self.mutates else len(self.parameters)

    @property
    def learned(self) -> int:
        """How many parameters have a gradient: all but the running statistics and the constants."""
        return sum(not name.startswith("running_") for name in self.parameters) - self.constants

    @property
    def outputs(self) -> int:
        """How many results it has that are differentiated."""
        return 1 + self.hidden

    def check(self, shape: Shape, parameters: Sequence[Tensor | None], settings: Sequence[Any]) -> None:
        """Raises the ValueError that says which of the tensors has the wrong shape."""
        expected = self.expected(shape, *settings)
        for name, parameter in zip(self.parameters, parameters, strict=True):
            is_operand = self.operand and name == self.parameters[-1]
            if parameter is None:
                if is_operand:
                    raise ValueError(f"{name}: expected a tensor of the input's shape, found None")
                continue
            own, wanted = list(parameter.shape), shape if is_operand else expected
            if self.fits is not None and not self.fits(own, shape):
                raise ValueError(
                    f"{name}: expected the first and the last axes of {_sizes(shape)}, or 1 for any but the "
                    f"last, found shape {own}"
                )
            # A function's alpha is one number of any shape.
            is_number = name == "alpha" and not self.operand
            if not is_number and wanted is not None and own != list(wanted):
                raise ValueError(f"{name}: expected shape {list(wanted)}, found shape {own}")


def _sizes(size: Any) -> str:
    return str(list(size))


def trailing(shape: Shape, normalized_shape: Shape) -> Shape:
    start = len(shape) - len(normalized_shape)
    if start < 0 or not normalized_shape or list(shape[start:]) != list(normalized_shape):
        raise ValueError(
            f"input: expected a shape that ends with normalized_shape {_sizes(normalized_shape)}, "
            f"found shape {_sizes(shape)}"
        )
    return normalized_shape


def leading(shape: Shape, normalized_shape: Shape) -> int:
    return math.prod(shape[: len(shape) - len(normalized_shape)])


def channels(shape: Shape) -> int:
    if len(shape) < 2:
        raise ValueError(f"input: expected shape [N, C, ...], found shape {_sizes(shape)}")
    return shape[1]


def channels_in_groups(shape: Shape, num_groups: int) -> Shape:
    count = channels(shape)
    if num_groups < 1 or count % num_groups != 0:
        raise ValueError(f"num_groups: expected a divisor of {count} channels, found {num_groups}")
    return [count]


def _in_range(shape: Shape, dim: int) -> None:
    if not -len(shape) <= dim < len(shape):
        raise ValueError(f"dim: expected an axis of shape {_sizes(shape)}, found {dim}")


def _vectors(shape: Shape, dim: int) -> int:
    return math.prod(size for axis, size in enumerate(shape) if axis != dim % len(shape))


@lru_cache(maxsize=512)
def _layer_norm(normalized_shape: tuple[int, ...], eps: float) -> Kernel:
    return Norm.layer_norm(normalized_shape, eps)


@lru_cache(maxsize=512)
def _rms_norm(
    normalized_shape: tuple[int, ...], eps: float | None, offset: float, cast: Any, partial: float
) -> Kernel:
    return Norm.rms_norm(normalized_shape, eps, offset, cast, partial)


@lru_cache(maxsize=512)
def _dyt(normalized_shape: tuple[int, ...]) -> Kernel:
    return Norm.dyt(normalized_shape)


_group_norm = lru_cache(maxsize=512)(Norm.group_norm)
_instance_norm = lru_cache(maxsize=512)(Norm.instance_norm)
_batch_norm = lru_cache(maxsize=512)(Norm.batch_norm)
_normalize = lru_cache(maxsize=512)(Norm.normalize)
_head_norm = lru_cache(maxsize=512)(Norm.head_norm)
_weight_norm = lru_cache(maxsize=512)(Norm.weight_norm)


@dataclass(frozen=True)
class _Training:
    """Batch statistics that also update running ones."""

    norm: Kernel
    run: Callable[..., tuple[Tensor, Tensor]]
    momentum: float
    eps: float

    def forward(self, input: Tensor, *parameters: Tensor | None) -> Tensor:
        return self.train(input, *parameters)[0]

    def train(self, input: Tensor, *parameters: Tensor | None) -> tuple[Tensor, Tensor]:
        weight, bias, running_mean, running_var = parameters
        result = self.run(input, running_mean, running_var, self.momentum, weight, bias, self.eps)
        updated = [tensor for tensor in (running_mean, running_var) if tensor is not None]
        torch.autograd.graph.increment_version(updated)
        return result

    def backward(
        self, grad_output: Tensor, input: Tensor, statistics: Tensor | None, *parameters: Any, needs: int
    ) -> Grads:
        return self.norm.backward(grad_output, input, statistics, *parameters, needs=needs)


@lru_cache(maxsize=512)
def _batch_norm_training(num_features: int, momentum: float, eps: float) -> Kernel:
    return _Training(_batch_norm(num_features, eps), _normkit.batch_norm_train, momentum, eps)


@lru_cache(maxsize=512)
def _instance_norm_training(num_features: int, momentum: float, eps: float) -> Kernel:
    return _Training(_instance_norm(num_features, eps), _normkit.instance_norm_train, momentum, eps)


@dataclass(frozen=True)
class _Frozen:
    """Running statistics as they are."""

    eps: float

    def forward(self, input: Tensor, *parameters: Any) -> Tensor:
        weight, bias, running_mean, running_var = parameters
        return _normkit.batch_norm_frozen(input, running_mean, running_var, weight, bias, self.eps)

    def train(self, input: Tensor, *parameters: Tensor | None) -> tuple[Tensor, None]:
        return self.forward(input, *parameters), None

    def backward(
        self, grad_output: Tensor, input: Tensor, statistics: Tensor | None, *parameters: Any, needs: int
    ) -> Grads:
        weight, bias, running_mean, running_var = parameters
        grads = _normkit.batch_norm_frozen_backward(
            grad_output, input, running_mean, running_var, weight, bias, self.eps, needs & 7
        )
        return grads


METHODS = (
    Method(
        "layer_norm",
        ("weight", "bias"),
        "SymInt[] normalized_shape, float eps",
        kernel=lambda x, shape, eps: _layer_norm(tuple(shape), eps),
        expected=lambda shape, normalized, eps: trailing(shape, normalized),
        rows=lambda shape, normalized, eps: leading(shape, normalized),
        composite=_composites.layer_norm,
        batch_leads=True,
        autocast=True,
    ),
    Method(
        "rms_norm",
        ("weight",),
        "SymInt[] normalized_shape, float? eps, float offset, str cast, float partial",
        kernel=lambda x, shape, *settings: _rms_norm(tuple(shape), *settings),
        expected=lambda shape, normalized, *settings: trailing(shape, normalized),
        rows=lambda shape, normalized, *settings: leading(shape, normalized),
        composite=_composites.rms_norm,
        batch_leads=True,
        autocast=True,
    ),
    Method(
        "batch_norm",
        ("weight", "bias", "running_mean", "running_var"),
        "float momentum, float eps",
        kernel=lambda x, momentum, eps: _batch_norm_training(channels(x.shape), momentum, eps),
        expected=lambda shape, momentum, eps: [channels(shape)],
        rows=lambda shape, momentum, eps: shape[1],
        composite=lambda x, weight, bias, momentum, eps: _composites.batch_norm(x, weight, bias, eps),
        forward=False,
    ),
    Method(
        "batch_norm_frozen",
        ("weight", "bias", "running_mean", "running_var"),
        "float eps",
        kernel=lambda x, eps: _Frozen(eps),
        expected=lambda shape, eps: [channels(shape)],
        composite=_composites.batch_norm_frozen,
    ),
    Method(
        "group_norm",
        ("weight", "bias"),
        "int num_groups, float eps",
        kernel=lambda x, num_groups, eps: _group_norm(num_groups, channels(x.shape), eps),
        expected=lambda shape, num_groups, eps: channels_in_groups(shape, num_groups),
        rows=lambda shape, num_groups, eps: shape[0] * num_groups,
        composite=_composites.group_norm,
        autocast=True,
    ),
    Method(
        "instance_norm",
        ("weight", "bias"),
        "float eps",
        kernel=lambda x, eps: _instance_norm(channels(x.shape), eps),
        expected=lambda shape, eps: [channels(shape)],
        rows=lambda shape, eps: shape[0] * shape[1],
        composite=_composites.instance_norm,
    ),
    Method(
        "instance_norm_running",
        ("weight", "bias", "running_mean", "running_var"),
        "float momentum, float eps",
        kernel=lambda x, momentum, eps: _instance_norm_training(channels(x.shape), momentum, eps),
        expected=lambda shape, momentum, eps: [channels(shape)],
        rows=lambda shape, momentum, eps: shape[0] * shape[1],
        composite=lambda x, weight, bias, momentum, eps: _composites.instance_norm(x, weight, bias, eps),
        forward=False,
    ),
    Method(
        "normalize",
        (),
        "float p, int dim, float eps",
        kernel=lambda x, p, dim, eps: _normalize(p, dim, eps),
        expected=lambda shape, p, dim, eps: _in_range(shape, dim),
        rows=lambda shape, p, dim, eps: _vectors(shape, dim),
        composite=_composites.normalize,
        autocast=True,
    ),
    Method(
        "dyt",
        ("weight", "bias", "alpha"),
        "SymInt[] normalized_shape",
        kernel=lambda x, shape: _dyt(tuple(shape)),
        expected=trailing,
        composite=_composites.dyt,
        batch_leads=True,
    ),
    Method(
        "head_norm",
        ("weight",),
        "str kind, float eps",
        kernel=lambda x, kind, eps: _head_norm(kind, eps),
        expected=lambda shape, kind, eps: None,
        rows=lambda shape, kind, eps: math.prod(shape[:-1]),
        composite=_composites.head_norm,
        batch_leads=True,
    ),
    Method(
        "weight_norm",
        ("weight",),
        "int? dim",
        kernel=lambda v, dim: _weight_norm(dim),
        expected=lambda shape, dim: None,
        rows=lambda shape, dim: 1 if dim is None else shape[dim],
        composite=_composites.weight_norm,
    ),
)
