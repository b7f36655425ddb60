"""Typical use, which mypy --strict accepts: an array in gives an array of the same type out."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from typing_extensions import assert_type

import normkit

x: NDArray[np.float32] = np.ones((4, 8), np.float32)
weight: NDArray[np.float32] = np.ones(8, np.float32)
assert_type(normkit.layer_norm(x, 8), NDArray[np.float32])
assert_type(normkit.layer_norm(x, (8,), weight, None, 1e-6, backend="wgpu"), NDArray[np.float32])
assert_type(normkit.rms_norm(x, [8], weight, cast="gemma", partial=0.5), NDArray[np.float32])
assert_type(normkit.rms_norm(x, x.shape[1:], eps=None), NDArray[np.float32])
assert_type(normkit.normalize(x, float("inf"), -1), NDArray[np.float32])
assert_type(normkit.dyt(x, 0.5, weight), NDArray[np.float32])
assert_type(normkit.dyt(x, np.float32(0.5)), NDArray[np.float32])
assert_type(normkit.weight_norm(x, weight, None), NDArray[np.float32])
assert_type(normkit.qk_norm(x, x, kind="l2"), tuple[NDArray[np.float32], NDArray[np.float32]])
assert_type(normkit.add_rms_norm(x, x, 8), tuple[NDArray[np.float32], NDArray[np.float32]])
assert_type(normkit.add_layer_norm(x, x, 8, weight, weight), tuple[NDArray[np.float32], NDArray[np.float32]])
assert_type(normkit.rms_norm_add(x, x, 8, weight), NDArray[np.float32])
assert_type(normkit.modulated_layer_norm(x, x, x), NDArray[np.float32])
assert_type(normkit.gated_rms_norm(x, x, weight, group_size=4), NDArray[np.float32])
assert_type(normkit.layer_norm(x, 8, activation="silu"), NDArray[np.float32])

t = torch.ones(4, 8)
assert_type(normkit.layer_norm(t, t.shape[-1:]), torch.Tensor)
assert_type(normkit.batch_norm(t, torch.zeros(8), torch.ones(8), training=True), torch.Tensor)
assert_type(normkit.batch_norm(t, None, None, training=True), torch.Tensor)
assert_type(normkit.instance_norm(t.reshape(1, 4, 8)), torch.Tensor)
assert_type(normkit.group_norm(t, 2, t[0], t[0]), torch.Tensor)
assert_type(normkit.dyt(t, torch.tensor([0.5])), torch.Tensor)

j: jax.Array = normkit.normalize(jnp.ones((3, 4)))
b: NDArray[Any] = np.ones((4, 8), ml_dtypes.bfloat16)
normkit.layer_norm(b, np.int64(8))
names: list[str] = normkit.backends()
details: list[str] = [device["detail"] for device in normkit.devices()]
