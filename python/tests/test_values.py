"""Every function and dtype against its definition in extended precision, to the bound in README."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from arrays import as_numpy, bits
from fused import every_case
from methods import Case, Fill, normal
from reference import BF16, DTYPES, FORMATS, Expected, assert_within, real, ulp

import normkit

COLS = [1, 2, 3, 7, 31, 32, 33, 64, 255, 256, 257, 1000, 4095, 4096, 4097]
LONG = 20011


def check(cases: Iterator[Case]) -> None:
    checked = 0
    for case in cases:
        with np.errstate(all="ignore"):
            results, expected = case.call(normkit), case.expected()
        assert len(results) == len(expected), case.name
        for index, (found, wanted) in enumerate(zip(results, expected, strict=True)):
            assert type(found) is np.ndarray and found.dtype == case.dtype, case.name
            assert_within(found, wanted, f"{case.name}, result {index}")
        checked += 1
    assert checked >= 15


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("cols", COLS)
def test_values(dtype: np.dtype[Any], cols: int) -> None:
    check(every_case(dtype, 3, cols))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_long_rows(dtype: np.dtype[Any]) -> None:
    check(every_case(dtype, 2, LONG))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_no_rows_and_many(dtype: np.dtype[Any]) -> None:
    check(every_case(dtype, 0, 5))
    check(every_case(dtype, 70, 20))


def scaled(factor: float, shift: float = 0.0) -> Fill:
    return lambda rng, shape: np.asarray(rng.uniform(-0.99, 0.99, shape)) * factor + shift


def constant(value: float) -> Fill:
    return lambda rng, shape: np.full(shape, value)


def outliers(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """What misleads a kernel that estimates the mean from a row's first elements."""
    x = rng.standard_normal(shape)
    x[..., :4] = 1000.0
    return x


def decades(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)


FILLS: dict[str, Fill] = {
    "mean of 100": scaled(1, 100),
    "mean of -10000": scaled(1, -10000),
    "zeros": constant(0.0),
    "constant": constant(3.25),
    "outliers": outliers,
    "decades": decades,
    "sorted": lambda rng, shape: np.sort(rng.standard_normal(shape), axis=-1),
    "step": lambda rng, shape: rng.standard_normal(shape) + 50 * (np.arange(shape[-1]) * 2 < shape[-1]),
    "ties": lambda rng, shape: rng.integers(-3, 4, shape).astype(np.float64),
}


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_adverse_data(dtype: np.dtype[Any], fill: str) -> None:
    check(every_case(dtype, 3, 259, FILLS[fill]))
    check(every_case(dtype, 3, 12, FILLS[fill]))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_magnitudes(dtype: np.dtype[Any]) -> None:
    """From the subnormal numbers to the largest ones, which no square may overflow."""
    _, smallest, largest = FORMATS[dtype.name]
    most = {"float16": 7, "float64": 200}.get(dtype.name, 25)
    for exponent in {smallest - 4, *range(smallest + 1, largest, most), largest - 1}:
        check(every_case(dtype, 2, 67, scaled(float(2.0**exponent))))


@pytest.mark.parametrize("magnitude", [1e30, 1e-30])
@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float32)], ids=str)
def test_squares_out_of_range(dtype: np.dtype[Any], magnitude: float) -> None:
    """Whose squares float32 does not hold."""
    for case in every_case(dtype, 3, 300, scaled(magnitude)):
        if case.function == "batch_norm" and not case.options["training"]:
            continue
        with np.errstate(all="ignore"):
            results, expected = case.call(normkit), case.expected()
        for found, wanted in zip(results, expected, strict=True):
            assert np.isfinite(real(found)).all(), case.name
            assert_within(found, wanted, case.name)


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_not_finite_stays_in_its_row(dtype: np.dtype[Any], special: float) -> None:
    """The other rows keep every bit."""
    for case in every_case(dtype, 3, 30):
        name = next(iter(case.arrays))
        clean = case.call(normkit)[0]
        axis = {"batch_norm": 1, "instance_norm": 1, "normalize": 2}.get(case.function, 0)
        if case.function in ("qk_norm", "weight_norm"):
            axis = {"weight_norm, last axis": 2}.get(case.name.split(" float")[0].split(" bfloat")[0], 0)
        if case.name.startswith("weight_norm, whole"):
            continue
        marred_input = case.arrays[name].copy()
        row: list[int | slice] = [0] * marred_input.ndim
        row[axis] = 1
        marred_input[tuple(row)] = special
        case.arrays[name] = marred_input
        marred = case.call(normkit)[0]
        every: list[int | slice] = [slice(None)] * clean.ndim
        for other in (index for index in range(clean.shape[axis]) if index != 1):
            every[axis] = other
            assert np.array_equal(bits(clean[tuple(every)]), bits(marred[tuple(every)])), (
                f"{case.name}: {other}"
            )
        every[axis] = 1
        changed = real(marred[tuple(every)])
        assert not np.isfinite(changed).all() or case.function == "dyt", case.name


@pytest.mark.parametrize("cols", [5, 64, 768])
def test_definitions_agree_with_torch_in_float64(cols: int) -> None:
    """So that what the functions are compared with means what torch's functions do."""
    compared = set()
    for case in every_case(np.dtype(np.float64), 3, cols):
        beside = case.torch(torch.float64)
        if beside is not None:
            wanted = case.expected()[0]
            assert wanted.worst(as_numpy(beside)) < 40, case.name
            compared.add(case.function)
    assert len(compared) == 8


def of_largest(wanted: Expected, found: Any) -> float:
    """The largest error in float32 ulps of the row's largest magnitude of terms."""
    return float(np.max(wanted.distance(found) / ulp(np.dtype(np.float32), wanted.scale)))


@pytest.mark.parametrize("fill", ["normal", "mean of 100", "decades"])
def test_errors_beside_torchs(fill: str) -> None:
    """The largest error of float32 over many rows, beside that of torch's function on the same numbers.

    An ulp of difference is let pass: torch computes batch_norm's statistics in float64 on the CPU.
    """
    worst: dict[str, list[float]] = {}
    for cols in (64, 768, 4097):
        for case in every_case(np.dtype(np.float32), 40, cols, FILLS.get(fill, normal)):
            beside = case.torch()
            if beside is None:
                continue
            wanted = case.expected()[0]
            pair = worst.setdefault(case.function, [0.0, 0.0])
            pair[0] = max(pair[0], of_largest(wanted, case.call(normkit)[0]))
            pair[1] = max(pair[1], of_largest(wanted, as_numpy(beside)))
    assert len(worst) == 8
    for function, (ours, torchs) in worst.items():
        print(f"{function:14} {fill:12} ours {ours:.2f} ulp, torch's {torchs:.2f} ulp")
        assert ours <= torchs + 1.0, f"{function}: {ours:.2f} ulp, torch's {torchs:.2f}"


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), BF16, np.dtype(np.float32)], ids=str)
def test_weights_of_another_dtype(dtype: np.dtype[Any]) -> None:
    """The result has the input's dtype whatever the weights'."""
    for weight_dtype in (np.dtype(np.float16), BF16, np.dtype(np.float32)):
        for case in every_case(dtype, 3, 100):
            first, *others = case.arrays
            if {"residual", "gate", "k"} & set(others):
                continue
            case.arrays = {
                first: case.arrays[first],
                **{name: case.arrays[name].astype(weight_dtype) for name in others},
            }
            found = case.call(normkit)[0]
            assert found.dtype == dtype, case.name
            assert_within(found, case.expected()[0], f"{case.name}, weights {weight_dtype}")


@pytest.mark.parametrize("width", [np.int32, np.int64], ids=str)
def test_positions_choose_rows_of_the_tables(width: type[np.signedinteger[Any]]) -> None:
    """Tables of a cache, cosines before sines, and rows of it by number."""
    rng = np.random.default_rng(3)
    q, k = (rng.standard_normal((5, heads, 8)).astype(np.float32) for heads in (4, 2))
    angle = rng.uniform(-3, 3, (9, 3))
    cache = np.concatenate((np.cos(angle), np.sin(angle)), -1).astype(np.float32)
    chosen = np.array([7, 0, 7, 8, 2])
    cos, sin = cache[:, :3], cache[:, 3:]
    found = normkit.qk_norm_rope(q, k, cos, sin, chosen.astype(width))
    expected = normkit.qk_norm_rope(q, k, cos[chosen], sin[chosen])
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    strided = np.repeat(chosen, 3).astype(width)[::3]
    again = normkit.qk_norm_rope(q, k, cos, sin, strided)
    assert all(np.array_equal(a, b) for a, b in zip(again, expected, strict=True))
    for wrong in (9, -1):
        with pytest.raises(ValueError, match="positions"):
            normkit.qk_norm_rope(q, k, cos, sin, np.array([7, 0, wrong, 8, 2], width))
    with pytest.raises(TypeError, match="positions: expected dtype int32 or int64, found dtype float32"):
        normkit.qk_norm_rope(q, k, cos, sin, chosen.astype(np.float32))
    with pytest.raises(ValueError, match="positions"):
        normkit.qk_norm_rope(q, k, cos, sin, chosen[:4].astype(width))
