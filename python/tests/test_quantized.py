"""Codes of 8 bits: those of quantizing the float32 result by the rules of the documentation, bit for bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import normkit

LARGEST = {"int8": 127.0, "float8_e4m3fn": 448.0, "float8_e5m2": 57344.0}
Array = np.ndarray[Any, Any]


def quantized(values: Array, dtype: str, scale: float | None, block: int | None, bound: float | None) -> Any:
    """Codes as float64, and scales, of rows of float32 results."""
    largest = np.float32(LARGEST[dtype])
    least = np.float32(2.0**-23) if dtype == "int8" else np.float32(1) / (np.float32(512) * largest)
    rows, cols = values.shape
    codes, scales = np.empty(values.shape), []
    for row in range(rows):
        for at in range(0, cols, block or cols):
            part = values[row, at : at + (block or cols)]
            most = np.abs(part).max()
            of_part = np.maximum(np.minimum(most, np.float32(np.inf if bound is None else bound)) / largest, least)
            of_part = np.float32(scale) if scale is not None else of_part
            scales.append(of_part)
            exact = part / of_part
            if dtype == "int8":
                codes[row, at : at + len(part)] = np.clip(np.rint(exact), -128, 127)
            else:
                held = np.clip(exact, -largest, largest)
                codes[row, at : at + len(part)] = held.astype(getattr(ml_dtypes, dtype)).astype(np.float64)
    return codes, np.array(scales, np.float32).reshape(rows, -1)


def data(rows: int, cols: int, dtype: Any = np.float32, seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, cols)).astype(dtype)


@pytest.mark.parametrize("code", LARGEST)
@pytest.mark.parametrize("scaling", [{}, {"scale": 0.02}, {"block_size": 64}, {"upper_bound": 1.5}])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_codes(code: str, scaling: dict[str, Any], dtype: Any) -> None:
    x, r, w = data(7, 200, dtype), data(7, 200, dtype, 4), data(1, 200, dtype, 5)[0]
    wide = [a.astype(np.float32) for a in (x, r, w)]
    rules = (scaling.get("scale"), scaling.get("block_size"), scaling.get("upper_bound"))
    h = wide[0] + wide[1]
    cases: list[tuple[Any, Any]] = [
        (normkit.rms_norm_quant(x, 200, w, 1e-6, dtype=code, **scaling), normkit.rms_norm(wide[0], 200, wide[2], 1e-6)),
        (normkit.layer_norm_quant(x, 200, w, w, dtype=code, **scaling), normkit.layer_norm(wide[0], 200, wide[2], wide[2])),
        (normkit.add_rms_norm_quant(x, r, 200, w, 1e-6, dtype=code, **scaling), normkit.rms_norm(h, 200, wide[2], 1e-6)),
        (normkit.add_layer_norm_quant(x, r, 200, w, w, dtype=code, **scaling), normkit.layer_norm(h, 200, wide[2], wide[2])),
    ]
    for (codes, scales, *hidden), result in cases:
        expected, of_rows = quantized(result, code, *rules)
        assert codes.shape == x.shape and codes.dtype.name == code
        np.testing.assert_array_equal(codes.astype(np.float64), expected)
        if "scale" in scaling:
            assert scales is None
        else:
            assert scales.dtype == np.float32
            np.testing.assert_array_equal(scales, of_rows)
        for sum in hidden:
            np.testing.assert_array_equal(sum, h.astype(dtype))


def test_shapes() -> None:
    x = data(24, 64).reshape(2, 3, 4, 64)
    codes, scales = normkit.rms_norm_quant(x, 64)
    assert codes.shape == x.shape and scales.shape == (2, 3, 4, 1)
    codes, scales = normkit.layer_norm_quant(x, (4, 64), block_size=64)
    assert codes.shape == x.shape and scales.shape == (2, 3, 4)
    codes, scales = normkit.rms_norm_quant(x[:0], 64)
    assert codes.shape == (0, 3, 4, 64) and scales.shape == (0, 3, 4, 1)
    np.testing.assert_array_equal(normkit.rms_norm_quant(x[..., ::-1], 64)[0], normkit.rms_norm_quant(x, 64)[0][..., ::-1])


@pytest.mark.parametrize("name", LARGEST)
def test_dtypes_by_any_name(name: str) -> None:
    x = data(2, 32)
    expected = normkit.rms_norm_quant(x, 32, dtype=name)[0]
    kind = np.int8 if name == "int8" else getattr(ml_dtypes, name)
    for dtype in (kind, np.dtype(kind), getattr(torch, name)):
        found = normkit.rms_norm_quant(x, 32, dtype=dtype)[0]
        assert found.dtype == expected.dtype and found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", LARGEST)
def test_arrays_of_torch(name: str) -> None:
    x = data(3, 96)
    expected, of_rows = normkit.rms_norm_quant(x, 96, dtype=name)
    codes, scales = normkit.rms_norm_quant(torch.from_numpy(x), 96, dtype=getattr(torch, name))
    assert codes.dtype == getattr(torch, name)
    assert codes.view(torch.uint8).numpy().tobytes() == expected.tobytes()
    assert torch.equal(scales, torch.from_numpy(of_rows))


def test_nan_stays_in_its_row() -> None:
    x = data(3, 40)
    x[1, 7] = np.nan
    for name in LARGEST:
        codes, scales = normkit.rms_norm_quant(x, 40, dtype=name)
        codes = codes.astype(np.float32)
        assert np.isnan(scales[1]) and np.isfinite(scales[[0, 2]]).all() and np.isfinite(codes[[0, 2]]).all()
        assert (codes[1] == 0).all() if name == "int8" else np.isnan(codes[1]).all()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scale", {"scale": 0.0}),
        ("scale", {"scale": -1.0}),
        ("scale", {"scale": float("nan")}),
        ("block_size", {"block_size": 48}),
        ("block_size", {"block_size": 0}),
        ("block_size", {"block_size": 64, "scale": 1.0}),
        ("upper_bound", {"upper_bound": 0.0}),
        ("upper_bound", {"upper_bound": 1.0, "scale": 1.0}),
        ("dtype", {"dtype": "uint8"}),
        ("dtype", {"dtype": np.float32}),
        ("dtype", {"dtype": None}),
        ("dtype", {"dtype": torch.float8_e4m3fnuz}),
    ],
)
def test_what_makes_no_sense(name: str, options: dict[str, Any]) -> None:
    for function in (normkit.rms_norm_quant, normkit.layer_norm_quant):
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            function(data(2, 64), 64, **options)
