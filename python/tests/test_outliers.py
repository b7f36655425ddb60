"""Codes of int8 with outliers set apart: the rules of the documentation applied to the float32 result, bit for bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import normkit

Array = np.ndarray[Any, Any]


def apart(values: Array, threshold: float) -> tuple[Array, Array, Array]:
    """Codes, scales and columns of rows of float32 results."""
    outlier = np.abs(values) >= np.float32(threshold)
    most = np.where(outlier, np.float32(0), np.abs(values)).max(axis=1, keepdims=True)
    scales = np.maximum(most / np.float32(127), np.float32(2.0**-23))
    columns = np.flatnonzero(outlier.any(axis=0))
    codes = np.clip(np.rint(np.where(outlier, np.float32(0), values) / scales), -128, 127)
    codes[:, columns] = 0
    return codes.astype(np.int8), scales, columns


def data(rows: int, cols: int, dtype: Any = np.float32, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(dtype)


@pytest.mark.parametrize("threshold", [1.0, 2.5, 6.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_codes_columns_and_values(threshold: float, dtype: Any) -> None:
    x, r, w = data(7, 200, dtype), data(7, 200, dtype, 4), data(1, 200, dtype, 5)[0]
    wide = [a.astype(np.float32) for a in (x, r, w)]
    h = wide[0] + wide[1]
    more: dict[str, Any] = {"threshold": threshold}
    cases: list[tuple[Any, Any, Any]] = [
        (normkit.rms_norm_quant_outliers(x, 200, w, 1e-6, **more), normkit.rms_norm(wide[0], 200, wide[2], 1e-6),
         normkit.rms_norm(x, 200, w, 1e-6)),
        (normkit.layer_norm_quant_outliers(x, 200, w, w, **more), normkit.layer_norm(wide[0], 200, wide[2], wide[2]),
         normkit.layer_norm(x, 200, w, w)),
        (normkit.add_rms_norm_quant_outliers(x, r, 200, w, 1e-6, **more), normkit.rms_norm(h, 200, wide[2], 1e-6),
         normkit.add_rms_norm(x, r, 200, w, 1e-6)[0]),
        (normkit.add_layer_norm_quant_outliers(x, r, 200, w, w, **more), normkit.layer_norm(h, 200, wide[2], wide[2]),
         normkit.add_layer_norm(x, r, 200, w, w)[0]),
    ]  # fmt: skip
    for (codes, scales, columns, values, *hidden), result, rounded in cases:
        expected, of_rows, of_columns = apart(result, threshold)
        assert codes.dtype == np.int8 and scales.dtype == np.float32 and values.dtype == x.dtype
        np.testing.assert_array_equal(codes, expected)
        np.testing.assert_array_equal(scales, of_rows)
        np.testing.assert_array_equal(columns, of_columns)
        np.testing.assert_array_equal(values, rounded[:, of_columns])
        for sum in hidden:
            np.testing.assert_array_equal(sum, h.astype(dtype))


def test_a_row_by_hand_and_the_product() -> None:
    x, w = np.array([[1, -1, 1, 1]], np.float32), np.array([0.5, 1, 2, 7], np.float32)
    codes, scales, columns, values = normkit.rms_norm_quant_outliers(x, 4, w, eps=0.0)
    assert codes.tolist() == [[32, -64, 127, 0]] and columns.tolist() == [3] and values.tolist() == [[7.0]]
    matrix = data(4, 5)
    found = scales * (codes.astype(np.float32) @ matrix) + values @ matrix[columns]
    np.testing.assert_allclose(found, (x * w) @ matrix, atol=0.03)


def test_shapes() -> None:
    x = data(24, 64).reshape(2, 3, 4, 64)
    codes, scales, columns, values = normkit.rms_norm_quant_outliers(x, 64, threshold=2.0)
    count = len(columns)
    assert 0 < count < 64 and codes.shape == x.shape
    assert scales.shape == (2, 3, 4, 1) and values.shape == (2, 3, 4, count)
    codes, scales, columns, values = normkit.layer_norm_quant_outliers(x, (4, 64), threshold=2.0)
    assert scales.shape == (2, 3, 1) and values.shape == (2, 3, len(columns)) and columns.max() >= 64
    codes, scales, columns, values = normkit.rms_norm_quant_outliers(x[:0], 64)
    assert codes.shape == (0, 3, 4, 64) and columns.shape == (0,) and values.shape == (0, 3, 4, 0)
    codes, scales, columns, values = normkit.rms_norm_quant_outliers(x, 64, threshold=100.0)
    assert columns.shape == (0,) and columns.dtype == np.int64 and values.shape == (2, 3, 4, 0)
    np.testing.assert_array_equal(codes, normkit.rms_norm_quant(x, 64)[0])


def test_nan_and_infinity() -> None:
    x, bias = data(3, 40), data(1, 40, seed=5)[0] / 2
    x[1, 7], bias[5] = np.nan, -np.inf
    codes, scales, columns, values = normkit.layer_norm_quant_outliers(x, 40, None, bias)
    assert columns.tolist() == [5] and np.isnan(scales[1]) and np.isfinite(scales[[0, 2]]).all()
    assert (codes[1] == 0).all() and np.isneginf(values[[0, 2]]).all() and np.isnan(values[1]).all()


def test_arrays_of_torch() -> None:
    x = data(3, 96)
    expected = normkit.rms_norm_quant_outliers(x, 96, threshold=2.0)
    found = normkit.rms_norm_quant_outliers(torch.from_numpy(x), 96, threshold=2.0)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, torch.from_numpy(b))


@pytest.mark.parametrize("threshold", [0.0, -6.0, float("nan"), float("inf"), 1e-60, "6", None])
def test_thresholds_that_make_no_sense(threshold: Any) -> None:
    for function in (normkit.rms_norm_quant_outliers, normkit.layer_norm_quant_outliers):
        with pytest.raises((ValueError, TypeError), match="^threshold: expected"):
            function(data(2, 64), 64, threshold=threshold)


def test_other_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="^weight: expected"):
        normkit.rms_norm_quant_outliers(data(2, 64), 64, data(1, 63)[0])
    with pytest.raises(ValueError, match="^residual: expected"):
        normkit.add_rms_norm_quant_outliers(data(2, 64), data(2, 63), 64)
    with pytest.raises(ValueError, match="^input: expected"):
        normkit.rms_norm_quant_outliers(data(2, 64), 63)
