"""Norms with quantized results in PyTorch: the operator, tracing, and the backward pass that there is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import normkit
import normkit.torch as nk

CODES = [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2]


def bytes_of(codes: torch.Tensor) -> torch.Tensor:
    return codes.view(torch.uint8)


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(5, 128).to(dtype), torch.randn(5, 128).to(dtype), torch.rand(128)]


@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("options", [{}, {"scale": 0.03}, {"block_size": 64}, {"upper_bound": 1.0}])
def test_results_are_those_of_the_functions_on_arrays(dtype: torch.dtype, options: dict[str, Any]) -> None:
    x, r, w = inputs(torch.bfloat16)
    calls = [
        ("rms_norm_quant", (x, 128, w)),
        ("layer_norm_quant", (x, 128, w, w)),
        ("add_rms_norm_quant", (x, r, 128, w)),
        ("add_layer_norm_quant", (x, r, 128, w, w)),
    ]
    for name, arguments in calls:
        found = getattr(nk, name)(*arguments, dtype=dtype, **options)
        expected = getattr(normkit, name)(*arguments, dtype=dtype, **options)
        assert len(found) == len(expected)
        assert found[0].dtype == dtype and torch.equal(bytes_of(found[0]), bytes_of(expected[0]))
        for a, b in zip(found[1:], expected[1:], strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


@pytest.mark.parametrize("options", [{}, {"scale": 0.03}, {"block_size": 64}])
@pytest.mark.parametrize("add", [False, True])
def test_the_operator(options: dict[str, Any], add: bool) -> None:
    x, r, w = inputs()
    codes = (torch.int8, options.get("scale"), options.get("block_size"), None)
    for centred in (False, True):
        arguments = (x, r if add else None, w, None, [128], centred, 1e-5, 0.0, "fp32", 1.0, 1.0, *codes)
        torch.library.opcheck(torch.ops.normkit.norm_quant.default, arguments)


def test_compiled() -> None:
    x, r, w = inputs()

    def f(x: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, scales, h = nk.add_rms_norm_quant(2 * x, r, 128, w, 1e-6, dtype="float8_e4m3fn")
        assert scales is not None
        return codes.float() * scales, h

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(x, r), f(x, r), strict=True):
        assert torch.equal(a, b)


def test_there_is_no_backward_pass() -> None:
    x, _, w = inputs()
    weight = torch.nn.Parameter(w)
    with pytest.raises(RuntimeError, match="no backward pass"):
        nk.rms_norm_quant(x, 128, weight)
    with torch.no_grad():
        codes, _ = nk.rms_norm_quant(x, 128, weight)
    assert torch.equal(codes, nk.rms_norm_quant(x, 128, w)[0]) and not codes.requires_grad
    with torch.inference_mode():
        assert torch.equal(nk.rms_norm_quant(x, 128, weight)[0], codes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, "int4", "float32"])
def test_other_dtypes_are_refused(dtype: Any) -> None:
    with pytest.raises(ValueError, match="dtype: expected"):
        nk.rms_norm_quant(inputs()[0], 128, dtype=dtype)


def test_bad_arguments_are_named() -> None:
    x = inputs()[0]
    for name, options in (("scale", {"scale": 0.0}), ("block_size", {"block_size": 5})):
        with pytest.raises(ValueError, match=f"{name}: expected"):
            nk.rms_norm_quant(x, 128, **options)
