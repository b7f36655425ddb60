"""Norms with what surrounds them, as rows of the table in `methods`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import methods
import mpmath
import numpy as np
import reference as ref
from methods import Case, Fill, normal, split, trailing
from reference import Expected, Real

Definition = Callable[[dict[str, Real], np.dtype[Any], dict[str, Any]], list[Expected]]


def every_case(
    dtype: np.dtype[Any], rows: int, cols: int, fill: Fill = normal, seed: int = 1
) -> Iterator[Case]:
    """Every function, plain and fused, with `rows` rows of `cols` elements."""
    yield from methods.matrices(dtype, rows, cols, fill, seed)
    yield from matrices(dtype, rows, cols, fill, seed)


def matrices(
    dtype: np.dtype[Any], rows: int, cols: int, fill: Fill = normal, seed: int = 1
) -> Iterator[Case]:
    """Every fused function with `rows` rows of `cols` elements.

    Gates, scales and shifts are of size 1 whatever the fill, so that what is normalized is in range and of full
    precision where the input is.
    """
    rng = np.random.default_rng(seed)
    slow, fast = split(cols)
    label = f"{dtype.name} {rows}x{cols}"

    def x(*shape: int) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore", under="ignore"):
            return fill(rng, shape).astype(dtype)

    def of_one(*shape: int) -> np.ndarray[Any, Any]:
        return np.asarray(1 + 0.3 * rng.standard_normal(shape)).astype(dtype)

    def case(
        name: str, function: str, arrays: dict[str, Any], definition: Definition, **options: Any
    ) -> Case:
        return Case(f"{name} {label}", function, arrays, options, definition)

    def affine() -> dict[str, Any]:
        return {"weight": of_one(cols), "bias": of_one(cols) - of_one(cols)}

    pair = {"input": x(rows, cols), "residual": x(rows, cols)}
    weight = {"weight": of_one(cols)}
    last = (cols,)
    yield case(
        "add_layer_norm", "add_layer_norm", {**pair, **affine()}, add_layer_norm, normalized_shape=last
    )
    scales = {"input_scale": 0.75, "residual_scale": 1.25}
    of_size_one = {name: normal(rng, (rows, cols)).astype(dtype) for name in pair}
    yield case(
        "add_layer_norm, scaled",
        "add_layer_norm",
        of_size_one,
        add_layer_norm,
        normalized_shape=last,
        **scales,
    )
    yield case(
        "add_rms_norm", "add_rms_norm", {**pair, **weight}, add_rms_norm, normalized_shape=last, eps=1e-6
    )
    yield case(
        "add_rms_norm, gemma",
        "add_rms_norm",
        {**pair, **weight},
        add_rms_norm,
        normalized_shape=last,
        cast="gemma",
    )
    yield case(
        "layer_norm_add", "layer_norm_add", {**pair, **affine()}, layer_norm_add, normalized_shape=last
    )
    yield case("rms_norm_add", "rms_norm_add", {**pair, **weight}, rms_norm_add, normalized_shape=last)
    both = {f"next_{name}": values for name, values in affine().items()}
    # A branch's norm is what is added: the residual is of its size.
    beside = {"input": x(rows, cols), "residual": of_one(rows, cols)}
    yield case(
        "rms_norm_add_rms_norm",
        "rms_norm_add_rms_norm",
        {**beside, **weight, "next_weight": both["next_weight"]},
        rms_norm_add_rms_norm,
        normalized_shape=last,
        eps=1e-6,
        cast="gemma",
    )
    yield case(
        "layer_norm_add_layer_norm",
        "layer_norm_add_layer_norm",
        {**beside, **affine(), **both},
        layer_norm_add_layer_norm,
        normalized_shape=last,
    )
    yield case(
        "hypersphere_step",
        "hypersphere_step",
        {"input": x(rows, cols), "branch": x(rows, cols), "alpha": of_one(cols) - of_one(cols)},
        hypersphere_step,
        alpha_scale=0.75,
    )
    for name, shape in (("all", (cols,)), ("each", (rows, cols))):
        arrays = {"input": x(rows, cols), "scale": of_one(*shape), "shift": of_one(*shape)}
        yield case(f"modulated_layer_norm, {name}", "modulated_layer_norm", arrays, modulated)
    for name, shape in (("sample", (rows, cols)), ("repeated", (rows, 1, cols)), ("token", (rows, 2, cols))):
        arrays = {"input": x(rows, 2, cols), "scale": of_one(*shape), "shift": of_one(*shape)}
        yield case(f"modulated_rms_norm, {name}", "modulated_rms_norm", arrays, modulated)
    gated = {"input": x(rows, cols), "gate": rng.uniform(-1, 1, (rows, cols)).astype(dtype), **affine()}
    yield case("gated_rms_norm", "gated_rms_norm", gated, gated_rms_norm)
    yield case("gated_rms_norm, gate first", "gated_rms_norm", gated, gated_rms_norm, norm_before_gate=False)
    yield case("gated_rms_norm, groups", "gated_rms_norm", gated, gated_rms_norm, group_size=fast)
    if rows > 0 and cols > 1:
        pairs = (cols + 1) // 4 or 1
        for kind, interleaved in (("rms", False), ("layer", True)):
            angle = rng.uniform(-4, 4, (2, pairs))
            heads = {"q": x(2, 2 * rows, cols), "k": x(2, rows, cols)}
            tables = {"cos": np.cos(angle).astype(dtype), "sin": np.sin(angle).astype(dtype)}
            weights = {"q_weight": of_one(cols), "k_weight": of_one(cols)}
            yield case(
                f"qk_norm_rope, {kind}",
                "qk_norm_rope",
                {**heads, **tables, **weights},
                qk_norm_rope,
                kind=kind,
                interleaved=interleaved,
            )
    for activation in ("relu", "silu", "gelu", "gelu_tanh"):
        arrays = {"input": x(rows, cols), **affine()}
        yield case(
            f"layer_norm, {activation}",
            "layer_norm",
            arrays,
            activated,
            normalized_shape=last,
            activation=activation,
        )
    arrays = {"input": x(rows, 2 * slow, fast), "weight": of_one(2 * slow), "bias": of_one(2 * slow)}
    yield case("group_norm, silu", "group_norm", arrays, activated, num_groups=2, activation="silu")
    yield case(
        "rms_norm, silu",
        "rms_norm",
        {"input": x(rows, cols), **weight},
        activated,
        normalized_shape=last,
        activation="silu",
    )


def added(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> tuple[Real, Real, list[Expected]]:
    """The sum, its terms' magnitude, and what is returned of it, rounded to the arithmetic's dtype and to its own."""
    left, right = (a[name] * np.longdouble(o.get(f"{name}_scale", 1.0)) for name in ("input", "residual"))
    h, mag = left + right, np.abs(left) + np.abs(right)
    wide = ref.compute_dtype(dtype)
    exact = "input_scale" not in o
    near = ref.rounded(dtype, ref.rounded(wide, h)) if exact else h
    return h, mag, [Expected(near, np.zeros_like(h) if exact else mag, 0 if exact else 2)]


def add_layer_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    h, mag, hidden = added(a, dtype, o)
    normalized = ref.moments(h, trailing(h, o["normalized_shape"]), o.get("eps", 1e-5), mag)
    return [normalized.affine(a.get("weight"), a.get("bias")), *hidden]


def add_rms_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    h, mag, hidden = added(a, dtype, o)
    eps = o.get("eps", 2.0 ** -ref.FORMATS[dtype.name][0])
    normalized = ref.mean_square(h, trailing(h, o["normalized_shape"]), eps, terms=mag)
    return [normalized.affine(a.get("weight"), None, 1.0 if o.get("cast") == "gemma" else 0.0), *hidden]


def plus(expected: Expected, residual: Real) -> list[Expected]:
    """A residual added last."""
    mag = np.broadcast_to(expected.scale, residual.shape) + np.abs(residual)
    finite = np.where(np.isfinite(mag), mag, 0)
    scale = np.max(finite, axis=-1, keepdims=True, initial=0)
    return [dataclasses.replace(expected, value=expected.value + residual, scale=scale)]


def layer_norm_add(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x = a["input"]
    return plus(ref.moments(x, (x.ndim - 1,), 1e-5).affine(a["weight"], a["bias"]), a["residual"])


def rms_norm_add(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x, eps = a["input"], 2.0 ** -ref.FORMATS[dtype.name][0]
    return plus(ref.mean_square(x, (x.ndim - 1,), eps).affine(a["weight"]), a["residual"])


def around(branch: Expected, a: dict[str, Real], second: Callable[[Real, Real], Expected]) -> list[Expected]:
    """The norm of the sum of a residual and a branch's norm, and that sum."""
    (h,) = plus(branch, a["residual"])
    mag = np.broadcast_to(h.scale, h.value.shape)
    y = second(h.value, mag)
    # The branch's roundings come first.
    return [dataclasses.replace(y, allowed=y.allowed + branch.allowed), h]


def rms_norm_add_rms_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    axes, eps = trailing(a["input"], o["normalized_shape"]), o["eps"]
    branch = ref.mean_square(a["input"], axes, eps).affine(a["weight"], None, 1.0)
    return around(
        branch, a, lambda h, mag: ref.mean_square(h, axes, eps, terms=mag).affine(a["next_weight"], None, 1.0)
    )


def layer_norm_add_layer_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    axes = trailing(a["input"], o["normalized_shape"])
    branch = ref.moments(a["input"], axes, 1e-5).affine(a["weight"], a["bias"])
    return around(
        branch, a, lambda h, mag: ref.moments(h, axes, 1e-5, mag).affine(a["next_weight"], a["next_bias"])
    )


def hypersphere_step(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    axes = (a["input"].ndim - 1,)
    r, x = (ref.p_norm(a[name], axes, 2.0, 1e-12).x_hat for name in ("input", "branch"))
    share = np.abs(a["alpha"] * np.longdouble(o["alpha_scale"]))
    h, mag = r * (1 - share) + x * share, np.abs(r) * (1 + share) + np.abs(x) * share
    unit = ref.p_norm(h, axes, 2.0, 1e-12)
    with np.errstate(invalid="ignore", divide="ignore"):
        length = np.sqrt(ref.sum_over(h * h, axes))
        terms = np.where(length == 0, 0, mag / length)
    expected = ref.Normalized(unit.x_hat, terms, axes).affine()
    # The roundings of what is mixed come first.
    return [dataclasses.replace(expected, allowed=2 * expected.allowed)]


def modulated(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x = a["input"]
    own = a["scale"].shape
    shape = (*own[:-1], *[1] * (x.ndim - len(own)), own[-1])
    scale, shift = a["scale"].reshape(shape), a["shift"].reshape(shape)
    norm = ref.mean_square if x.ndim == 3 else ref.moments
    return [norm(x, (x.ndim - 1,), 1e-6).affine(scale, shift, 1.0)]


def silu(z: Real) -> Real:
    return z / (1 + np.exp(-z))


def times(normalized: Expected, factor: Real) -> Expected:
    """A result times a function, which is as inexact as what it multiplies."""
    scale = (np.broadcast_to(normalized.scale, factor.shape) + np.abs(normalized.value)) * np.abs(factor)
    return dataclasses.replace(normalized, value=normalized.value * factor, scale=scale)


def gated_rms_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x, gate = a["input"], silu(a["gate"])
    size = o.get("group_size", x.shape[-1])
    groups = (*x.shape[:-1], x.shape[-1] // size, size)
    first = not o.get("norm_before_gate", True)
    h = x * gate if first else x
    normalized = ref.mean_square(
        h.reshape(groups), (len(groups) - 1,), 1e-5, terms=(1 + first) * np.abs(h.reshape(groups))
    )
    y = normalized.affine(a["weight"].reshape(groups[-2:]), a["bias"].reshape(groups[-2:]))
    return [flat(y if first else times(y, gate.reshape(groups)), x.shape)]


def flat(expected: Expected, shape: tuple[int, ...]) -> Expected:
    """The same in another shape."""
    scale = np.broadcast_to(expected.scale, expected.value.shape).reshape(shape)
    return dataclasses.replace(expected, value=expected.value.reshape(shape), scale=scale, slack=0.0)


def rotated(expected: Expected, cos: Real, sin: Real, interleaved: bool) -> Expected:
    """Pairs of the first columns, rotated by the angles of each token `[tokens, heads, columns]`."""
    pairs = cos.shape[-1]
    first = np.arange(pairs) * (2 if interleaved else 1)
    second = first + (1 if interleaved else pairs)
    c, s = cos[:, None], sin[:, None]
    value = expected.value.copy()
    a, b = expected.value[..., first], expected.value[..., second]
    value[..., first], value[..., second] = a * c - b * s, b * c + a * s
    largest = np.max(np.abs(c) + np.abs(s), axis=-1, keepdims=True)
    return dataclasses.replace(expected, value=value, scale=expected.scale * np.maximum(largest, 1))


def qk_norm_rope(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    plain = {name: option for name, option in o.items() if name != "interleaved"}
    both = methods.qk_norm(a, dtype, plain)
    return [rotated(one, a["cos"], a["sin"], o["interleaved"]) for one in both]


def share_below(v: Any) -> Any:
    """The normal distribution's share below v, to more digits than longdouble has."""
    with mpmath.workdps(30):
        return np.longdouble(mpmath.nstr(mpmath.ncdf(mpmath.mpf(repr(v).split("'")[1])), 25))


FUNCTIONS: dict[str, Callable[[Real], Real]] = {
    "relu": lambda v: np.where(v <= 0, 0, v),
    "silu": silu,
    "gelu": lambda v: v * np.vectorize(share_below, otypes=[np.longdouble])(v),
    "gelu_tanh": lambda v: (
        v / (1 + np.exp(-2 * np.sqrt(2 / np.longdouble(np.pi)) * (v + np.longdouble(0.044715) * v**3)))
    ),
}


def activated(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    """The slope of no function is above 1.2, and what it computes is as inexact as its argument."""
    plain = {name: option for name, option in o.items() if name != "activation"}
    norm: Definition = (
        methods.group_norm if "num_groups" in o else methods.layer_norm if "bias" in a else methods.rms_norm
    )
    (expected,) = norm(a, dtype, plain)
    with np.errstate(over="ignore"):
        value = FUNCTIONS[o["activation"]](expected.value)
    # Far below zero the exponential is infinite, and the function zero.
    value = np.where(expected.value < -1e4, 0, value)
    scale = 1.2 * np.broadcast_to(expected.scale, value.shape) + np.abs(value)
    return [dataclasses.replace(expected, value=value, scale=scale)]
