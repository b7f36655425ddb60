"""Every function of normkit.torch beside torch's, on small inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import normkit.torch as nk

Tensors = list[Tensor]


@dataclass(frozen=True)
class Case:
    """`ours(*tensors)` and `theirs(*tensors)` are the same function; `shapes` are those of the tensors."""

    name: str
    ours: Callable[..., Tensor]
    theirs: Callable[..., Tensor]
    shapes: Sequence[Sequence[int]]

    def tensors(self, dtype: torch.dtype, seed: int = 0) -> Tensors:
        generator = torch.Generator().manual_seed(seed)
        return [
            torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype)
            for shape in self.shapes
        ]

    def __str__(self) -> str:
        return self.name


def rms_norm(
    x: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-6,
    offset: float = 0.0,
    cast: str = "fp32",
    partial: float = 1.0,
) -> Tensor:
    """RMSNorm of the last axis as the papers and the models' code have it."""
    wide = x.double() if x.dtype == torch.float64 else x.float()
    seen = wide[..., : int(x.shape[-1] * partial)]
    y = wide * torch.rsqrt(seen.pow(2).mean(-1, keepdim=True) + eps)
    if cast == "llama":
        y = y.to(x.dtype)
    if weight is not None:
        y = y * ((weight + 1 if cast == "gemma" else weight + offset) if cast != "llama" else weight)
    return y.to(x.dtype)


def unit(x: Tensor, weight: Tensor | None = None) -> Tensor:
    y = F.normalize(x, 2.0, -1, 1e-6)
    return y if weight is None else y * weight


def head_layer(x: Tensor, weight: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], None, None, 1e-6) * weight


def pair(q: Tensor, k: Tensor) -> Tensor:
    """Both results of qk_norm in one tensor."""
    return torch.cat([q.flatten(), k.flatten()])


def added(x: Tensor, residual: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    return pair(norm(x + residual), x + residual)


X = (2, 3, 8)
IMAGE = (3, 4, 3, 2)

CASES = [
    Case(
        "layer_norm",
        lambda x, w, b: nk.layer_norm(x, (8,), w, b),
        lambda x, w, b: F.layer_norm(x, (8,), w, b),
        [X, (8,), (8,)],
    ),
    Case(
        "layer_norm of two axes",
        lambda x, w, b: nk.layer_norm(x, (3, 8), w, b),
        lambda x, w, b: F.layer_norm(x, (3, 8), w, b),
        [X, (3, 8), (3, 8)],
    ),
    Case(
        "layer_norm without bias",
        lambda x, w: nk.layer_norm(x, (8,), w, eps=1e-3),
        lambda x, w: F.layer_norm(x, (8,), w, eps=1e-3),
        [X, (8,)],
    ),
    Case("layer_norm alone", lambda x: nk.layer_norm(x, (8,)), lambda x: F.layer_norm(x, (8,)), [X]),
    Case(
        "rms_norm",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6),
        lambda x, w: F.rms_norm(x, (8,), w, 1e-6),
        [X, (8,)],
    ),
    Case(
        "rms_norm of eps None",
        lambda x, w: nk.rms_norm(x, (8,), w),
        lambda x, w: F.rms_norm(x, (8,), w),
        [X, (8,)],
    ),
    Case(
        "rms_norm alone",
        lambda x: nk.rms_norm(x, (3, 8), None, 1e-6),
        lambda x: F.rms_norm(x, (3, 8), None, 1e-6),
        [X],
    ),
    Case(
        "rms_norm partial",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6, partial=0.4),
        lambda x, w: rms_norm(x, w, partial=0.4),
        [X, (8,)],
    ),
    Case(
        "rms_norm offset",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6, offset=0.5),
        lambda x, w: rms_norm(x, w, offset=0.5),
        [X, (8,)],
    ),
    Case(
        "rms_norm llama",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6, cast="llama"),
        lambda x, w: rms_norm(x, w, cast="llama"),
        [X, (8,)],
    ),
    Case(
        "rms_norm gemma",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6, cast="gemma"),
        lambda x, w: rms_norm(x, w, cast="gemma"),
        [X, (8,)],
    ),
    Case(
        "add_layer_norm",
        lambda x, r, w, b: pair(*nk.add_layer_norm(x, r, (8,), w, b)),
        lambda x, r, w, b: added(x, r, lambda h: F.layer_norm(h, (8,), w, b)),
        [X, X, (8,), (8,)],
    ),
    Case(
        "add_rms_norm",
        lambda x, r, w: pair(*nk.add_rms_norm(x, r, (8,), w, 1e-6)),
        lambda x, r, w: added(x, r, lambda h: rms_norm(h, w)),
        [X, X, (8,)],
    ),
    Case(
        "batch_norm training",
        lambda x, w, b: nk.batch_norm(x, None, None, w, b, True),
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True),
        [IMAGE, (4,), (4,)],
    ),
    Case(
        "batch_norm frozen",
        lambda x, w, b: nk.batch_norm(x, *running(x), w, b),
        lambda x, w, b: F.batch_norm(x, *running(x), w, b),
        [IMAGE, (4,), (4,)],
    ),
    Case(
        "batch_norm frozen alone",
        lambda x: nk.batch_norm(x, *running(x)),
        lambda x: F.batch_norm(x, *running(x)),
        [(6, 4)],
    ),
    Case(
        "group_norm",
        lambda x, w, b: nk.group_norm(x, 2, w, b),
        lambda x, w, b: F.group_norm(x, 2, w, b),
        [IMAGE, (4,), (4,)],
    ),
    Case(
        "instance_norm",
        lambda x, w, b: nk.instance_norm(x, None, None, w, b),
        lambda x, w, b: F.instance_norm(x, None, None, w, b),
        [IMAGE, (4,), (4,)],
    ),
    Case(
        "instance_norm frozen",
        lambda x, w, b: nk.instance_norm(x, *running(x), w, b, False),
        lambda x, w, b: F.instance_norm(x, *running(x), w, b, False),
        [IMAGE, (4,), (4,)],
    ),
    Case("normalize", lambda x: nk.normalize(x), lambda x: F.normalize(x), [X]),
    Case("normalize p 3", lambda x: nk.normalize(x, 3.0, -1), lambda x: F.normalize(x, 3.0, -1), [X]),
    Case(
        "normalize infinity",
        lambda x: nk.normalize(x, float("inf"), 0),
        lambda x: F.normalize(x, float("inf"), 0),
        [X],
    ),
    Case(
        "dyt",
        lambda x, a, w, b: nk.dyt(x, a, w, b),
        lambda x, a, w, b: w * torch.tanh(a * x) + b,
        [X, (1,), (8,), (8,)],
    ),
    Case("dyt alone", lambda x, a: nk.dyt(x, a), lambda x, a: torch.tanh(a * x), [X, (1,)]),
    Case(
        "qk_norm rms",
        lambda q, k, w, u: pair(*nk.qk_norm(q, k, w, u)),
        lambda q, k, w, u: pair(rms_norm(q, w), rms_norm(k, u)),
        [(2, 3, 2, 4), (2, 3, 1, 4), (4,), (4,)],
    ),
    Case(
        "qk_norm l2",
        lambda q, k, w: pair(*nk.qk_norm(q, k, w, kind="l2")),
        lambda q, k, w: pair(unit(q, w), unit(k)),
        [(2, 3, 2, 4), (2, 3, 1, 4), (1,)],
    ),
    Case(
        "qk_norm layer",
        lambda q, k, w, u: pair(*nk.qk_norm(q, k, w, u, kind="layer")),
        lambda q, k, w, u: pair(head_layer(q, w), head_layer(k, u)),
        [(3, 2, 4), (3, 2, 4), (2, 4), (4,)],
    ),
    Case(
        "weight_norm",
        lambda v, g: nk.weight_norm(v, g),
        lambda v, g: v * (g / v.pow(2).sum((1, 2), keepdim=True).sqrt()),
        [(6, 4, 3), (6, 1, 1)],
    ),
    Case(
        "weight_norm dim 1",
        lambda v, g: nk.weight_norm(v, g, 1),
        lambda v, g: v * (g / v.pow(2).sum((0, 2), keepdim=True).sqrt()),
        [(6, 4, 3), (1, 4, 1)],
    ),
    Case(
        "weight_norm whole",
        lambda v, g: nk.weight_norm(v, g, None),
        lambda v, g: v * (g / v.norm()),
        [(6, 4), ()],
    ),
]


def running(x: Tensor) -> tuple[Tensor, Tensor]:
    """Running statistics that are neither 0 and 1 nor the input's."""
    channels = x.shape[1]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.linspace(-1, 1, channels, dtype=wide), torch.linspace(0.5, 2, channels, dtype=wide)
