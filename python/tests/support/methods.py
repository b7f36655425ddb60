"""One table of the plain functions: how each is called, what it should give, and torch's function beside it.

`fused` has the functions with something around the norm.

A case holds NumPy arrays of one dtype. `case.call(normkit)` calls the function and gives its results as a
list; `case.expected()` gives as many `Expected`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import reference as ref
import torch
import torch.nn.functional as F
from arrays import as_torch
from reference import Expected, Real

Arrays = dict[str, np.ndarray[Any, Any]]
Fill = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray[Any, Any]]


@dataclass
class Case:
    """A call, fully determined."""

    name: str
    function: str
    arrays: Arrays
    options: dict[str, Any]
    definition: Callable[[dict[str, Real], np.dtype[Any], dict[str, Any]], list[Expected]]
    torch_function: Callable[..., torch.Tensor] | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """The input's."""
        return next(iter(self.arrays.values())).dtype

    def call(
        self, module: Any, convert: Callable[[Any], Any] = lambda array: array, **more: Any
    ) -> list[Any]:
        """The results, with every array passed through `convert` first."""
        arrays = {name: convert(array) for name, array in self.arrays.items()}
        results = getattr(module, self.function)(**arrays, **self.options, **more)
        return list(results) if isinstance(results, tuple) else [results]

    def expected(self) -> list[Expected]:
        """What the results should be."""
        return self.definition(
            {name: ref.real(a) for name, a in self.arrays.items()}, self.dtype, self.options
        )

    def torch(self, dtype: torch.dtype | None = None) -> torch.Tensor | None:
        """What torch gives, computed in `dtype`; None where it has no such function."""
        if self.torch_function is None:
            return None
        arrays = {name: as_torch(array) for name, array in self.arrays.items()}
        if dtype is not None:
            arrays = {name: array.to(dtype) for name, array in arrays.items()}
        with torch.no_grad():
            return self.torch_function(**arrays, **self.options)


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape)


def trailing(x: Real, normalized_shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(range(x.ndim - len(normalized_shape), x.ndim))


def per_channel(x: Real | None, ndim: int) -> Real | None:
    return None if x is None else x.reshape(-1, *[1] * (ndim - 2))


def layer_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    axes = trailing(a["input"], o["normalized_shape"])
    return [ref.moments(a["input"], axes, o.get("eps", 1e-5)).affine(a.get("weight"), a.get("bias"))]


def rms_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    eps = o.get("eps")
    if eps is None:
        eps = 2.0 ** -ref.FORMATS[dtype.name][0]
    cast = o.get("cast", "fp32")
    axes = trailing(a["input"], o["normalized_shape"])
    normalized = ref.mean_square(a["input"], axes, eps, o.get("partial", 1.0))
    offset = 1.0 if cast == "gemma" else o.get("offset", 0.0)
    return [normalized.affine(a.get("weight"), None, offset, dtype if cast == "llama" else None)]


def batch_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x, eps = a["input"], o.get("eps", 1e-5)
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    if o["training"]:
        normalized = ref.moments(x, axes, eps)
    else:
        mean, var = per_channel(a["running_mean"], x.ndim), per_channel(a["running_var"], x.ndim)
        assert mean is not None and var is not None
        normalized = ref.given_moments(x, axes, mean, var, eps)
    return [normalized.affine(per_channel(a.get("weight"), x.ndim), per_channel(a.get("bias"), x.ndim))]


def group_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x, groups = a["input"], o["num_groups"]
    shape = (x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])
    weight, bias = [
        None if a.get(name) is None else a[name].reshape(shape[1:3]) for name in ("weight", "bias")
    ]
    axes = tuple(range(2, len(shape)))
    seen = [None if p is None else p.reshape(*p.shape, *[1] * (len(shape) - 3)) for p in (weight, bias)]
    expected = ref.moments(x.reshape(shape), axes, o.get("eps", 1e-5)).affine(*seen)
    expected.scale = np.broadcast_to(expected.scale, shape).reshape(x.shape)
    expected.value, expected.slack = expected.value.reshape(x.shape), 0.0
    return [expected]


def instance_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    x = a["input"]
    axes = tuple(range(2, x.ndim))
    weight, bias = per_channel(a.get("weight"), x.ndim), per_channel(a.get("bias"), x.ndim)
    return [ref.moments(x, axes, o.get("eps", 1e-5)).affine(weight, bias)]


def normalize(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    axis = o.get("dim", 1) % a["input"].ndim
    return [ref.p_norm(a["input"], (axis,), o.get("p", 2.0), o.get("eps", 1e-12)).affine()]


def dyt(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    return [ref.pointwise(ref.tanh(a["input"], a["alpha"]), a.get("weight"), a.get("bias"))]


def qk_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    eps, kind = o.get("eps", 1e-6), o.get("kind", "rms")

    def one(x: Real, weight: Real | None) -> Expected:
        axes = (x.ndim - 1,)
        if kind == "rms":
            return ref.mean_square(x, axes, eps).affine(weight)
        return (ref.moments(x, axes, eps) if kind == "layer" else ref.p_norm(x, axes, 2.0, eps)).affine(
            weight
        )

    return [one(a["q"], a.get("q_weight")), one(a["k"], a.get("k_weight"))]


def weight_norm(a: dict[str, Real], dtype: np.dtype[Any], o: dict[str, Any]) -> list[Expected]:
    v, dim = a["v"], o.get("dim", 0)
    kept = None if dim in (None, -1) else dim
    axes = tuple(axis for axis in range(v.ndim) if axis != kept)
    return [ref.p_norm(v, axes, 2.0, 0.0).affine(a["g"])]


def torch_dyt(
    input: torch.Tensor, alpha: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor
) -> torch.Tensor:
    return torch.tanh(alpha * input) * weight + bias


def torch_weight_norm(v: torch.Tensor, g: torch.Tensor, dim: int | None = 0) -> torch.Tensor:
    return torch._weight_norm(v, g, -1 if dim is None else dim)


def split(cols: int) -> tuple[int, int]:
    """Two axes that make `cols`, so that a row is not one run of memory where the method allows it."""
    slow = next((n for n in range(2, cols + 1) if cols % n == 0), 1)
    return slow, cols // slow


def matrices(
    dtype: np.dtype[Any], rows: int, cols: int, fill: Fill = normal, seed: int = 1
) -> Iterator[Case]:
    """Every plain function with `rows` rows of `cols` elements that share statistics, along whatever axes."""
    rng = np.random.default_rng(seed)
    slow, fast = split(cols)
    label = f"{dtype.name} {rows}x{cols}"

    def x(*shape: int) -> np.ndarray[Any, Any]:
        with np.errstate(over="ignore", under="ignore"):
            return fill(rng, shape).astype(dtype)

    def weight(*shape: int) -> np.ndarray[Any, Any]:
        return np.asarray(1 + 0.3 * rng.standard_normal(shape)).astype(dtype)

    def bias(*shape: int) -> np.ndarray[Any, Any]:
        return (0.5 * rng.standard_normal(shape)).astype(dtype)

    def affine(*shape: int) -> Arrays:
        return {"weight": weight(*shape), "bias": bias(*shape)}

    def case(
        name: str, function: str, arrays: Arrays, definition: Any, beside: Any = None, **options: Any
    ) -> Case:
        return Case(f"{name} {label}", function, arrays, options, definition, beside)

    last = (cols,)
    yield case(
        "layer_norm",
        "layer_norm",
        {"input": x(rows, cols), **affine(cols)},
        layer_norm,
        F.layer_norm,
        normalized_shape=last,
    )
    yield case(
        "layer_norm, two axes",
        "layer_norm",
        {"input": x(rows, slow, fast), **affine(slow, fast)},
        layer_norm,
        F.layer_norm,
        normalized_shape=(slow, fast),
        eps=1e-3,
    )
    with_weight = {"input": x(rows, cols), "weight": weight(cols)}
    yield case("rms_norm", "rms_norm", with_weight, rms_norm, F.rms_norm, normalized_shape=last)
    yield case(
        "rms_norm, llama", "rms_norm", with_weight, rms_norm, normalized_shape=last, eps=1e-6, cast="llama"
    )
    yield case(
        "rms_norm, gemma", "rms_norm", with_weight, rms_norm, normalized_shape=last, eps=1e-6, cast="gemma"
    )
    yield case("rms_norm, offset", "rms_norm", with_weight, rms_norm, normalized_shape=last, offset=0.5)
    if cols >= 16:
        yield case(
            "rms_norm, partial", "rms_norm", with_weight, rms_norm, normalized_shape=last, partial=0.75
        )
    if rows > 0:
        channels = {
            "input": x(slow, rows, fast),
            "running_mean": bias(rows),
            "running_var": weight(rows) ** 2,
        }
        channels |= affine(rows)
        if cols > 1:
            yield case(
                "batch_norm, training", "batch_norm", channels, batch_norm, F.batch_norm, training=True
            )
        yield case("batch_norm", "batch_norm", channels, batch_norm, F.batch_norm, training=False)
        if cols > 1:
            yield case(
                "instance_norm",
                "instance_norm",
                {"input": x(2, rows, cols), **affine(rows)},
                instance_norm,
                F.instance_norm,
            )
    yield case(
        "group_norm",
        "group_norm",
        {"input": x(rows, 2 * slow, fast), **affine(2 * slow)},
        group_norm,
        F.group_norm if cols > 1 else None,
        num_groups=2,
    )
    for p in (2.0, 1.0, float("inf"), 3.0, 2.5):
        yield case(f"normalize, p={p}", "normalize", {"input": x(1, cols, rows)}, normalize, F.normalize, p=p)
    yield case(
        "dyt",
        "dyt",
        {"input": x(rows, cols), "alpha": np.array([0.5], dtype), **affine(cols)},
        dyt,
        torch_dyt,
    )
    heads = {"q": x(2, 2 * rows, cols), "k": x(2, rows or 1, cols)}
    if rows > 0:
        for kind in ("rms", "l2", "layer"):
            yield case(
                f"qk_norm, {kind}",
                "qk_norm",
                {**heads, "q_weight": weight(cols), "k_weight": weight(cols)},
                qk_norm,
                kind=kind,
            )
    if rows > 0:
        yield case(
            "weight_norm",
            "weight_norm",
            {"v": x(rows, slow, fast), "g": weight(rows, 1, 1)},
            weight_norm,
            torch_weight_norm,
        )
        yield case(
            "weight_norm, last axis",
            "weight_norm",
            {"v": x(slow, fast, rows), "g": weight(1, 1, rows)},
            weight_norm,
            torch_weight_norm,
            dim=2,
        )
    yield case(
        "weight_norm, whole",
        "weight_norm",
        {"v": x(slow, fast), "g": weight()},
        weight_norm,
        torch_weight_norm,
        dim=None,
    )
