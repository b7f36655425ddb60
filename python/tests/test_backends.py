"""Other backends than the CPU: the same bits, on copies of the arrays that are brought back."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from arrays import as_torch, bits
from fused import every_case

import normkit

F32 = np.dtype(np.float32)
# A shader takes seconds to compile: one function of each kind of kernel.
ON_WGPU = (
    "layer_norm",
    "rms_norm",
    "batch_norm, training",
    "batch_norm",
    "normalize, p=2.0",
    "dyt",
    "weight_norm",
    "add_rms_norm",
    "layer_norm_add",
    "rms_norm_add_rms_norm",
    "hypersphere_step",
    "modulated_layer_norm, each",
    "gated_rms_norm, groups",
)


def test_wgpu_is_usable() -> None:
    """`make setup` brings a software adapter where there is no other."""
    assert normkit.backends()[:2] == ["cpu", "wgpu"]


@pytest.mark.parametrize("name", ON_WGPU)
def test_wgpu_gives_the_bits_of_the_cpu(name: str) -> None:
    (case,) = [case for case in every_case(F32, 3, 100) if case.name.startswith(f"{name} float32")]
    wanted = case.call(normkit)
    for convert in (lambda x: x, as_torch, lambda x: np.asfortranarray(x)[::-1][::-1]):
        for found, expected in zip(case.call(normkit, convert, backend="wgpu"), wanted, strict=True):
            assert type(found) is type(convert(expected))
            assert np.array_equal(bits(found), bits(expected)), case.name


def test_wgpu_updates_running_statistics() -> None:
    x = np.random.default_rng(1).standard_normal((6, 5, 8), dtype=np.float32)
    results: list[list[Any]] = []
    for backend in (None, "wgpu"):
        memory = np.zeros((5, 3), np.float32)
        memory[:, 1] = 1
        y = normkit.batch_norm(x, memory[:, 0], memory[:, 1], training=True, backend=backend)
        results.append([y, memory])
    for found, wanted in zip(*results, strict=True):
        assert np.array_equal(bits(found), bits(wanted))


def test_wgpu_has_no_float64() -> None:
    with pytest.raises((TypeError, ValueError), match=r"float64|f64"):
        normkit.layer_norm(np.ones((2, 8)), 8, backend="wgpu")


@pytest.mark.parametrize("function", ["layer_norm", "dyt"])
def test_cuda_host_gives_the_bits_of_the_cpu(function: str) -> None:
    """The CUDA kernels, compiled for this CPU."""
    x = np.random.default_rng(2).standard_normal((3, 40), dtype=np.float32)
    more: tuple[Any, ...] = (40,) if function == "layer_norm" else (0.5,)
    wanted = getattr(normkit, function)(x, *more)
    found = getattr(normkit, function)(x, *more, backend="cuda-host")
    assert np.array_equal(bits(found), bits(wanted))


def test_cuda_without_a_gpu_says_so() -> None:
    if "cuda" in normkit.backends():
        tensor = torch.ones(2, 8, device="cuda")
        assert torch.equal(normkit.layer_norm(tensor, 8).cpu(), normkit.layer_norm(tensor.cpu(), 8))
        return
    with pytest.raises(RuntimeError, match="no usable cuda device"):
        normkit.layer_norm(np.ones((2, 8), np.float32), 8, backend="cuda")


def test_devices_say_what_is_here() -> None:
    found = normkit.devices()
    assert found[0]["backend"] == "cpu" and {"cpu", "wgpu", "cuda"} <= {device["backend"] for device in found}
    for device in found:
        assert device["usable"] in ("yes", "no") and device["detail"]
        assert all(isinstance(text, str) for pair in device.items() for text in pair)
    usable = {device["backend"] for device in found if device["usable"] == "yes"}
    assert set(normkit.backends()) == usable


def test_the_command_prints_it() -> None:
    command = [sys.executable, "-m", "normkit"]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for device in normkit.devices():
        line = next(line for line in text.splitlines() if line.strip().startswith(device["backend"]))
        assert device["detail"] in text and ("no: " in line) == (device["usable"] == "no")
    as_json = subprocess.run(
        [*command, "--json"], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert '"backends"' in as_json and normkit.__version__ in as_json
