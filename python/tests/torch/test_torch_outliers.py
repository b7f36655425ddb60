"""Codes of int8 with outliers set apart in PyTorch: the operator, tracing, and the backward pass that there is not."""

from __future__ import annotations

import pytest
import torch

import normkit
import normkit.torch as nk


def inputs(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return [torch.randn(5, 128).to(dtype), torch.randn(5, 128).to(dtype), 2 * torch.rand(128)]


def test_results_are_those_of_the_functions_on_arrays() -> None:
    x, r, w = inputs(torch.bfloat16)
    calls = [
        ("rms_norm_quant_outliers", (x, 128, w)),
        ("layer_norm_quant_outliers", (x, 128, w, w)),
        ("add_rms_norm_quant_outliers", (x, r, 128, w)),
        ("add_layer_norm_quant_outliers", (x, r, 128, w, w)),
    ]
    for name, arguments in calls:
        found = getattr(nk, name)(*arguments, threshold=3.0)
        expected = getattr(normkit, name)(*arguments, threshold=3.0)
        assert len(found) == len(expected) and 0 < len(found[2]) < 128
        for a, b in zip(found, expected, strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
        assert torch.equal(found[3], getattr(nk, name.removesuffix("_quant_outliers"))(*arguments)[0][:, found[2]]
                           if name.startswith("add")
                           else getattr(nk, name.removesuffix("_quant_outliers"))(*arguments)[:, found[2]])


@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("centred", [False, True])
def test_the_operator(add: bool, centred: bool) -> None:
    x, r, w = inputs()
    arguments = (x, r if add else None, w, None, [128], centred, 1e-5, 0.0, "fp32", 1.0, 1.0, 3.0)
    torch.library.opcheck(torch.ops.normkit.norm_quant_outliers.default, arguments)


def test_compiled() -> None:
    x, r, w = inputs()

    def f(x: torch.Tensor, r: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        codes, scales, flags, h = nk.norm_quant_flags(2 * x, 128, w, None, 1e-6, residual=r, threshold=3.0)
        assert h is not None
        return codes.float() * scales, flags, h

    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")
    for a, b in zip(compiled(x, r), f(x, r), strict=True):
        assert torch.equal(a, b)
    columns = nk.add_rms_norm_quant_outliers(2 * x, r, 128, w, 1e-6, threshold=3.0)[2]
    assert torch.equal(f(x, r)[1].nonzero().reshape(-1), columns) and len(columns) > 0


def test_there_is_no_backward_pass() -> None:
    x, _, w = inputs()
    weight = torch.nn.Parameter(w)
    with pytest.raises(RuntimeError, match="no backward pass"):
        nk.rms_norm_quant_outliers(x, 128, weight)
    with torch.no_grad():
        found = nk.rms_norm_quant_outliers(x, 128, weight, threshold=3.0)
    for a, b in zip(found, nk.rms_norm_quant_outliers(x, 128, w, threshold=3.0), strict=True):
        assert torch.equal(a, b) and not a.requires_grad
    with torch.inference_mode():
        assert torch.equal(nk.rms_norm_quant_outliers(x, 128, weight, threshold=3.0)[3], found[3])


def test_bad_arguments_are_named() -> None:
    for threshold in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected"):
            nk.rms_norm_quant_outliers(inputs()[0], 128, threshold=threshold)
