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


def angles(x: Tensor, pairs: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of made-up angles along the first axis."""
    angle = (torch.arange(x.shape[0] * pairs, device=x.device) * 0.7).reshape(-1, pairs).to(x.dtype)
    return angle.cos(), angle.sin()


def rope(x: Tensor, pairs: int, interleaved: bool = False) -> Tensor:
    cos, sin = (table.reshape(-1, *[1] * (x.dim() - 2), pairs) for table in angles(x, pairs))
    turned = x[..., : 2 * pairs].unflatten(-1, (pairs, 2) if interleaved else (2, pairs))
    a, b = turned.unbind(-1 if interleaved else -2)
    both = torch.stack((a * cos - b * sin, b * cos + a * sin), -1 if interleaved else -2)
    return torch.cat((both.flatten(-2), x[..., 2 * pairs :]), -1)


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
        "qk_norm_rope",
        lambda q, k, w, u: pair(*nk.qk_norm_rope(q, k, *angles(q, 2), None, w, u)),
        lambda q, k, w, u: pair(rope(rms_norm(q, w), 2), rope(rms_norm(k, u), 2)),
        [(3, 2, 4), (3, 1, 4), (4,), (4,)],
    ),
    Case(
        "qk_norm_rope in part, interleaved",
        lambda q, k: pair(*nk.qk_norm_rope(q, k, *angles(q, 2), kind="l2", interleaved=True)),
        lambda q, k: pair(rope(unit(q), 2, True), rope(unit(k), 2, True)),
        [(2, 3, 2, 5), (2, 3, 1, 5)],
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


def added(
    x: Tensor, residual: Tensor, norm: Callable[[Tensor], Tensor], scales: tuple[float, float] = (1.0, 1.0)
) -> Tensor:
    """Both results of a norm of a sum in one tensor."""
    h = scales[0] * x + scales[1] * residual
    return pair(norm(h), h)


def hypersphere_step(r: Tensor, x: Tensor, alpha: Tensor) -> Tensor:
    """As nGPT's code has it."""
    a, b = F.normalize(r, dim=-1), F.normalize(x, dim=-1)
    return F.normalize(a + alpha.abs() * (b - a), dim=-1)


def modulated(normalized: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """By a scale and a shift `[B, C]`."""
    return normalized * (1 + scale[:, None]) + shift[:, None]


def gated(x: Tensor, z: Tensor, w: Tensor, b: Tensor, size: int = 8, first: bool = False) -> Tensor:
    """As mamba_ssm's rms_norm_ref."""
    x = x * F.silu(z) if first else x
    y = rms_norm(x.unflatten(-1, (-1, size)), eps=1e-5).flatten(-2) * w + b
    return y if first else y * F.silu(z)


SCALED = {"input_scale": 0.75, "residual_scale": 1.25}

FUSED_CASES = [
    Case(
        "add_layer_norm",
        lambda x, r, w, b: pair(*nk.add_layer_norm(x, r, (8,), w, b)),
        lambda x, r, w, b: added(x, r, lambda h: F.layer_norm(h, (8,), w, b)),
        [X, X, (8,), (8,)],
    ),
    Case(
        "add_layer_norm scaled",
        lambda x, r, w: pair(*nk.add_layer_norm(x, r, (3, 8), w, **SCALED)),
        lambda x, r, w: added(x, r, lambda h: F.layer_norm(h, (3, 8), w), (0.75, 1.25)),
        [X, X, (3, 8)],
    ),
    Case(
        "add_rms_norm",
        lambda x, r, w: pair(*nk.add_rms_norm(x, r, (8,), w, 1e-6)),
        lambda x, r, w: added(x, r, lambda h: rms_norm(h, w)),
        [X, X, (8,)],
    ),
    Case(
        "add_rms_norm scaled",
        lambda x, r, w: pair(*nk.add_rms_norm(x, r, (8,), w, 1e-6, cast="gemma", **SCALED)),
        lambda x, r, w: added(x, r, lambda h: rms_norm(h, w, cast="gemma"), (0.75, 1.25)),
        [X, X, (8,)],
    ),
    Case(
        "add_layer_norm with a branch",
        lambda x, r, w, c, s: pair(*nk.add_layer_norm(x, r, (8,), w, branch_bias=c, branch_scale=s, **SCALED)),
        lambda x, r, w, c, s: added(s * (x + c), r, lambda h: F.layer_norm(h, (8,), w), (0.75, 1.25)),
        [X, X, (8,), (8,), (8,)],
    ),
    Case(
        "add_rms_norm with a branch",
        lambda x, r, w, s: pair(*nk.add_rms_norm(x, r, (8,), w, 1e-6, branch_scale=s)),
        lambda x, r, w, s: added(s * x, r, lambda h: rms_norm(h, w)),
        [X, X, (8,), (8,)],
    ),
    Case(
        "add_rms_norm with a branch, without the sum",
        lambda x, r, c: nk.add_rms_norm(x, r, (8,), None, 1e-6, branch_bias=c)[0],
        lambda x, r, c: rms_norm(x + c + r, None),
        [X, X, (8,)],
    ),
    Case(
        "add_rms_norm without the sum",
        lambda x, r, w: nk.add_rms_norm(x, r, (8,), w, 1e-6)[0],
        lambda x, r, w: rms_norm(x + r, w),
        [X, X, (8,)],
    ),
    Case(
        "layer_norm_add",
        lambda x, r, w, b: nk.layer_norm_add(x, r, (8,), w, b),
        lambda x, r, w, b: r + F.layer_norm(x, (8,), w, b),
        [X, X, (8,), (8,)],
    ),
    Case(
        "rms_norm_add",
        lambda x, r, w: nk.rms_norm_add(x, r, (8,), w, 1e-6, offset=0.5),
        lambda x, r, w: r + rms_norm(x, w, offset=0.5),
        [X, X, (8,)],
    ),
    Case(
        "rms_norm_add_rms_norm",
        lambda x, r, w, v: pair(*nk.rms_norm_add_rms_norm(x, r, (8,), w, v, 1e-6, cast="gemma")),
        lambda x, r, w, v: added(
            rms_norm(x, w, cast="gemma"), r, lambda h: rms_norm(h, v, cast="gemma")
        ),
        [X, X, (8,), (8,)],
    ),
    Case(
        "rms_norm_add_rms_norm without the sum",
        lambda x, r, w: nk.rms_norm_add_rms_norm(x, r, (8,), w, None, 1e-6)[0],
        lambda x, r, w: rms_norm(r + rms_norm(x, w), torch.ones(8, dtype=x.dtype)),
        [X, X, (8,)],
    ),
    Case(
        "layer_norm_add_layer_norm",
        lambda x, r, w, b, v, c: pair(*nk.layer_norm_add_layer_norm(x, r, (8,), w, b, v, c)),
        lambda x, r, w, b, v, c: added(F.layer_norm(x, (8,), w, b), r, lambda h: F.layer_norm(h, (8,), v, c)),
        [X, X, (8,), (8,), (8,), (8,)],
    ),
    Case(
        "hypersphere_step",
        lambda r, x, a: nk.hypersphere_step(r, x, a, alpha_scale=0.5),
        lambda r, x, a: hypersphere_step(r, x, 0.5 * a),
        [X, X, (8,)],
    ),
    Case(
        "modulated_layer_norm",
        lambda x, s, t: nk.modulated_layer_norm(x, s, t),
        lambda x, s, t: modulated(F.layer_norm(x, (8,), eps=1e-6), s, t),
        [X, (2, 8), (2, 8)],
    ),
    Case(
        "modulated_layer_norm of tokens",
        lambda x, s, t: nk.modulated_layer_norm(x, s, t, 1e-3),
        lambda x, s, t: F.layer_norm(x, (8,), eps=1e-3) * (1 + s) + t,
        [X, X, X],
    ),
    Case(
        "modulated_rms_norm",
        lambda x, s, t: nk.modulated_rms_norm(x, s, t),
        lambda x, s, t: rms_norm(x) * (1 + s) + t,
        [X, (2, 1, 8), (2, 1, 8)],
    ),
    Case(
        "modulated_rms_norm without shift",
        lambda x, s: nk.modulated_rms_norm(x, s),
        lambda x, s: rms_norm(x) * (1 + s),
        [X, (8,)],
    ),
    Case(
        "gated_rms_norm",
        lambda x, z, w, b: nk.gated_rms_norm(x, z, w, b),
        gated,
        [X, X, (8,), (8,)],
    ),
    Case(
        "gated_rms_norm in groups",
        lambda x, z, w, b: nk.gated_rms_norm(x, z, w, b, group_size=4),
        lambda x, z, w, b: gated(x, z, w, b, 4),
        [X, X, (8,), (8,)],
    ),
    Case(
        "gated_rms_norm gate first",
        lambda x, z, w, b: nk.gated_rms_norm(x, z, w, b, group_size=2, norm_before_gate=False),
        lambda x, z, w, b: gated(x, z, w, b, 2, True),
        [X, X, (8,), (8,)],
    ),
    Case(
        "layer_norm relu",
        lambda x, w, b: nk.layer_norm(x, (8,), w, b, activation="relu"),
        lambda x, w, b: F.relu(F.layer_norm(x, (8,), w, b)),
        [X, (8,), (8,)],
    ),
    Case(
        "rms_norm silu",
        lambda x, w: nk.rms_norm(x, (8,), w, 1e-6, activation="silu"),
        lambda x, w: F.silu(rms_norm(x, w)),
        [X, (8,)],
    ),
    Case(
        "group_norm gelu",
        lambda x, w, b: nk.group_norm(x, 2, w, b, activation="gelu_tanh"),
        lambda x, w, b: F.gelu(F.group_norm(x, 2, w, b), approximate="tanh"),
        [IMAGE, (4,), (4,)],
    ),
]
CASES += FUSED_CASES


def running(x: Tensor) -> tuple[Tensor, Tensor]:
    """Running statistics that are neither 0 and 1 nor the input's."""
    channels = x.shape[1]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return torch.linspace(-1, 1, channels, dtype=wide), torch.linspace(0.5, 2, channels, dtype=wide)
