"""Running statistics: batch_norm and instance_norm, training and inference, updated in place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import as_numpy, as_torch, bits
from reference import DTYPES, assert_within, compute_dtype, real, running_update

import normkit


def data(dtype: np.dtype[Any], shape: tuple[int, ...] = (6, 5, 37), seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    offsets = 20.0 * np.arange(shape[1]).reshape(-1, *[1] * (len(shape) - 2))
    return (rng.standard_normal(shape) + offsets).astype(dtype)


@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0, 0.37])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_updates_are_within_the_bound(dtype: np.dtype[Any], momentum: float) -> None:
    for running_dtype in {dtype, compute_dtype(dtype)}:
        mean, var = np.zeros(5, running_dtype), np.ones(5, running_dtype)
        for batch in range(3):
            x = data(dtype, seed=batch)
            wanted = running_update(real(x), real(mean), real(var), momentum, compute_dtype(dtype))
            normkit.batch_norm(x, mean, var, training=True, momentum=momentum)
            for found, expected in zip((mean, var), wanted, strict=True):
                assert_within(found, expected, f"{dtype} {running_dtype} {momentum} batch {batch}")


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (2, 5, 3, 4), (2, 5, 3, 2, 2)])
def test_as_torch_does(shape: tuple[int, ...]) -> None:
    x = data(np.dtype(np.float64), shape)
    ours, theirs = [(np.full(5, 0.5), np.full(5, 2.0)) for _ in range(2)]
    weight, bias = np.linspace(1, 2, 5), np.linspace(-1, 1, 5)
    for training in (True, True, False):
        found = normkit.batch_norm(x, *ours, weight, bias, training, 0.3, 1e-3)
        tensors = [torch.from_numpy(a) for a in (x, *theirs, weight, bias)]
        wanted = F.batch_norm(*tensors, training, 0.3, 1e-3)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


def test_strided_statistics_are_updated_in_place() -> None:
    x = data(np.dtype(np.float32))
    plain = [np.zeros(5, np.float32), np.ones(5, np.float32)]
    wanted = normkit.batch_norm(x, *plain, training=True)
    memory = np.full((5, 4), 7, np.float32)
    memory[:, 1], memory[:, 2] = 0, 1
    found = normkit.batch_norm(x, memory[::-1, 1], memory[:, 2], training=True)
    assert np.array_equal(bits(found), bits(wanted))
    assert np.array_equal(memory[::-1, 1], plain[0]) and np.array_equal(memory[:, 2], plain[1])
    assert (memory[:, [0, 3]] == 7).all()
    tensor = torch.zeros(5, 2)
    tensor[:, 1] = 1
    normkit.batch_norm(torch.from_numpy(x), tensor[:, 0], tensor[:, 1], training=True)
    assert np.array_equal(tensor[:, 0].numpy(), plain[0]) and np.array_equal(tensor[:, 1].numpy(), plain[1])


def test_inference_writes_nothing() -> None:
    x, mean, var = data(np.dtype(np.float32)), np.full(5, 3.0, np.float32), np.full(5, 2.0, np.float32)
    for array in (mean, var):
        array.flags.writeable = False
    found = normkit.batch_norm(x, mean, var)
    np.testing.assert_allclose(found, (x - 3) / np.sqrt(2 + 1e-5), rtol=1e-6)
    assert (mean == 3).all() and (var == 2).all()


def test_training_without_statistics() -> None:
    x = data(np.dtype(np.float32))
    mean, var = np.zeros(5, np.float32), np.ones(5, np.float32)
    wanted = normkit.batch_norm(x, mean, var, training=True)
    assert np.array_equal(normkit.batch_norm(x, None, None, training=True), wanted)


def test_what_is_refused_leaves_no_trace() -> None:
    x, mean, var = data(np.dtype(np.float32)), np.zeros(5, np.float32), np.ones(5, np.float32)
    frozen = mean.copy()
    frozen.flags.writeable = False
    for name, arguments in {
        "running_mean": (frozen, var),
        "running_var": (mean, np.ones(4, np.float32)),
        "weight": (mean, var, np.ones(6, np.float32)),
        "bias": (mean, var, None, np.ones(6, np.float32)),
    }.items():
        with pytest.raises(ValueError, match=name):
            normkit.batch_norm(x, *arguments, training=True)
        assert (mean == 0).all() and (var == 1).all(), name
    for momentum in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="momentum"):
            normkit.batch_norm(x, mean, var, training=True, momentum=momentum)
    with pytest.raises((ValueError, TypeError), match="running_var"):
        normkit.batch_norm(x, mean, None, training=True)
    with pytest.raises((ValueError, TypeError), match="running_mean"):
        normkit.batch_norm(x, None, None)
    with pytest.raises(ValueError, match="input"):
        normkit.batch_norm(x[:1, :, 0], mean, var, training=True)
    assert (mean == 0).all() and (var == 1).all()


def test_statistics_apart_from_the_input() -> None:
    """One array in two roles would be read while it is written."""
    x = np.ones((5, 5), np.float32)
    shared = np.ones(5, np.float32)
    with pytest.raises(ValueError, match="running_"):
        normkit.batch_norm(x, shared, shared, training=True)
    with pytest.raises(ValueError, match="running_mean"):
        normkit.batch_norm(x, x[0], np.ones(5, np.float32), training=True)
    expanded = torch.zeros(1).expand(5)
    with pytest.raises(ValueError, match="running_mean"):
        normkit.batch_norm(torch.ones(3, 5), expanded, torch.ones(5), training=True)
    assert (shared == 1).all() and (x == 1).all() and expanded[0] == 0


@pytest.mark.parametrize("use_input_stats", [True, False])
@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 5, 3, 4)])
def test_instance_norm_as_torch_does(shape: tuple[int, ...], use_input_stats: bool) -> None:
    x = data(np.dtype(np.float64), shape)
    ours, theirs = [(np.full(5, 0.5), np.full(5, 2.0)) for _ in range(2)]
    weight, bias = np.linspace(1, 2, 5), np.linspace(-1, 1, 5)
    for _ in range(2):
        found = normkit.instance_norm(x, *ours, weight, bias, use_input_stats, 0.3, 1e-3)
        tensors = [torch.from_numpy(a) for a in (x, *theirs, weight, bias)]
        wanted = F.instance_norm(*tensors, use_input_stats, 0.3, 1e-3)
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert use_input_stats == (ours[0][0] != 0.5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_tensors_are_updated(dtype: np.dtype[Any]) -> None:
    x = data(dtype)
    compute = compute_dtype(dtype)
    plain = [np.zeros(5, compute), np.ones(5, compute)]
    normkit.batch_norm(x, *plain, training=True)
    tensors = [
        torch.zeros(5, dtype=getattr(torch, compute.name)),
        torch.ones(5).to(getattr(torch, compute.name)),
    ]
    result = normkit.batch_norm(as_torch(x), *tensors, training=True)
    assert as_numpy(result).dtype == dtype
    for found, wanted in zip(tensors, plain, strict=True):
        assert np.array_equal(found.numpy(), wanted)
