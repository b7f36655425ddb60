"""Misuse, every line of which mypy --strict refuses."""

import numpy as np
from numpy.typing import NDArray

import normkit

x = np.ones((4, 8), np.float32)
normkit.layer_norm([1.0, 2.0], 2)  # refused
normkit.layer_norm(x)  # refused
normkit.layer_norm(x, "8")  # refused
normkit.layer_norm(x, 8.0)  # refused
normkit.layer_norm(x, 8, 1.0)  # refused
normkit.layer_norm(x, 8, backend="gpu")  # refused
normkit.layer_norm(x, 8, None, None, 1e-5, "cpu")  # refused
normkit.rms_norm(x, 8, cast="half")  # refused
normkit.rms_norm(x, 8, None, 1e-6, 0.5)  # refused
normkit.batch_norm(x)  # refused
normkit.group_norm(x, 2.0)  # refused
normkit.dyt(x)  # refused
normkit.dyt(x, "0.5")  # refused
normkit.qk_norm(x, x, kind="batch")  # refused
normkit.weight_norm(x)  # refused
normkit.normalize(x, axis=1)  # refused
normkit.softmax(x)  # refused
only: NDArray[np.float32] = normkit.qk_norm(x, x)  # refused
