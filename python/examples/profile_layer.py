"""Profiling one layer: time and error of layer_norm and rms_norm by row length, beside torch's, in a plot."""

# %% What is measured: rows that make 4 MiB, whatever their length; medians of interleaved calls.
from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import Tensor

import normkit

torch.manual_seed(0)
COLS = [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192]
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "layer_norm": (
        lambda x: normkit.layer_norm(x, x.shape[-1:]),
        lambda x: F.layer_norm(x, x.shape[-1:]),
    ),
    "rms_norm": (
        lambda x: normkit.rms_norm(x, x.shape[-1:]),
        lambda x: F.rms_norm(x, x.shape[-1:]),
    ),
}


def gigabytes_per_second(calls: tuple[Callable[[Tensor], Tensor], ...], x: Tensor) -> list[float]:
    """Of reading the input and writing the result once."""
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(9):
        for call, of_call in zip(calls, times, strict=True):
            start = time.perf_counter()
            call(x)
            of_call.append(time.perf_counter() - start)
    return [2 * x.nbytes / statistics.median(of_call) / 1e9 for of_call in times]


def largest_error(call: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """In units of 2^-24 of the row's largest result, beside the same function in float64."""
    exact = call(x.double())
    largest = exact.abs().amax(-1, keepdim=True)
    return ((call(x).double() - exact).abs() / largest).max().item() * 2**24


# %% Measure. The mean of 30 deviations is what costs careless formulas their digits.
speeds: dict[str, list[list[float]]] = {}
errors: dict[str, list[list[float]]] = {}
for name, calls in FUNCTIONS.items():
    for cols in COLS:
        x = torch.randn((1 << 20) // cols, cols)
        speeds.setdefault(name, []).append(gigabytes_per_second(calls, x))
        far = x[:64] + 30
        errors.setdefault(name, []).append([largest_error(call, far) for call in calls])
    ours, theirs = speeds[name][5]
    error, torchs = errors[name][5]
    print(f"{name}, 1024 columns: {ours:.1f} GB/s, torch {theirs:.1f}; error {error:.1f}, torch {torchs:.1f}")

# %% Draw.
figure, axes = plt.subplots(2, 2, figsize=(10, 6.5), sharex=True, sharey="row", layout="constrained")
for column, name in enumerate(FUNCTIONS):
    above, below = axes[0][column], axes[1][column]
    for axis, values in ((above, speeds[name]), (below, errors[name])):
        axis.plot(COLS, [pair[0] for pair in values], "o-", color="tab:blue", label="normkit")
        axis.plot(COLS, [pair[1] for pair in values], "s--", color="tab:orange", label="torch")
        axis.set_xscale("log", base=2)
        axis.grid(alpha=0.3)
    above.set_title(name)
    above.legend()
    below.set_xlabel("columns of a row")
for axis in axes.flat:
    # Now that all is drawn: limits that are set are not adapted any more.
    axis.set_ylim(bottom=0)
axes[0][0].set_ylabel("GB/s, input and result")
axes[1][0].set_ylabel("largest error, units of $2^{-24}$\nrows with a mean of 30 deviations")
figure.suptitle(f"float32, threads: {torch.get_num_threads()}")

path = sys.argv[1] if len(sys.argv) > 1 else "layer.png"
figure.savefig(path, dpi=110)
print(f"picture: {path}")
