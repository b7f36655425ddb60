"""Speed beside PyTorch: medians of interleaved runs, as ratios of normkit's time to torch's.

    python benches/run.py                   a Markdown table, for python/README.md
    python benches/run.py --json            the same as JSON
    python benches/run.py --write README.md put the table between the markers there
    python benches/run.py --small           tensors of 1 MiB, few rounds: does it run?

Both libraries run in this process with torch's default number of threads. A round times ours and torch's in
turn, calls for 20 ms each: after a call OpenMP's threads keep the processors busy for milliseconds, in case another
comes, which a single call of ours would pay for. The ratio is that of the medians. Results are fresh in each call, on
both sides. Inputs, weights and gradients are torch tensors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

# Before threads start: as many as torch's.
import torch

os.environ.setdefault("RAYON_NUM_THREADS", str(torch.get_num_threads()))

import torch.nn.functional as F
from torch import Tensor

import normkit
import normkit.torch as nk
import normkit.torch.functional as nF

BEGIN, END = "<!-- ratios: begin -->", "<!-- ratios: end -->"
# Seconds that the calls of a round take, at least.
ROUND = 2e-2
COMMAND = "python benches/run.py --write README.md"
LARGE, ROW = "16 MiB", "one row of 768"
# At least 1.8 times faster than torch's sequence of calls.
FUSED_GOAL = 1 / 1.8
Call = Callable[[], object]


@dataclass
class Bench:
    """Two calls that do the same, and the ratio of times to reach."""

    name: str
    passes: str
    size: str
    dtype: str
    ours: Call
    torchs: Call
    goal: float | None


@dataclass
class Result:
    """Medians in microseconds, and their ratio."""

    name: str
    passes: str
    size: str
    dtype: str
    ours: float
    torchs: float
    ratio: float
    goal: float | None

    @property
    def missed(self) -> bool:
        """Whether there is a goal above which the ratio is."""
        return self.goal is not None and self.ratio > self.goal


def torch_dyt(x: Tensor, alpha: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.tanh(alpha * x) * weight + bias


def bound(function: Callable[..., Any], tensors: list[Tensor]) -> Call:
    return lambda: function(*tensors)


def trained(function: Callable[..., Any], tensors: list[Tensor], grad: Any, backward: bool) -> Call:
    """A forward pass that autograd follows, and a backward pass, if wanted."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]

    def call() -> object:
        y = function(*leaves)
        return torch.autograd.grad(y, leaves, grad) if backward else y

    return call


def large(mebibytes: int, dtype: torch.dtype) -> Iterator[Bench]:
    """Tensors of this size, whose rows are 1024 long where they are rows."""
    torch.manual_seed(0)
    name, count = str(dtype).removeprefix("torch."), (mebibytes << 20) // dtype.itemsize

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype)

    x = randn(count // 1024, 1024)
    weight, bias, alpha = randn(1024), randn(1024), torch.tensor([0.5], dtype=dtype)
    size = LARGE if mebibytes == 16 else f"{mebibytes} MiB"

    def bench(what: str, ours: Call, torchs: Call, goal: float, passes: str = "forward") -> Bench:
        return Bench(what, passes, size, name, ours, torchs, goal)

    shape = (1024,)
    yield bench(
        "layer_norm",
        lambda: normkit.layer_norm(x, shape, weight, bias),
        lambda: F.layer_norm(x, shape, weight, bias),
        1.0,
    )
    yield bench(
        "rms_norm", lambda: normkit.rms_norm(x, shape, weight), lambda: F.rms_norm(x, shape, weight), 0.4
    )
    yield bench(
        "dyt", lambda: normkit.dyt(x, alpha, weight, bias), lambda: torch_dyt(x, alpha, weight, bias), 0.4
    )
    yield bench("normalize", lambda: normkit.normalize(x), lambda: F.normalize(x), 0.7)

    image = randn(count // (64 * 1024), 64, 32, 32)
    scale, shift = randn(64), randn(64)
    # Of the input's dtype on both sides.
    mean, var = torch.zeros(64, dtype=dtype), torch.ones(64, dtype=dtype)
    yield bench(
        "batch_norm, training",
        lambda: normkit.batch_norm(image, mean, var, scale, shift, training=True),
        lambda: F.batch_norm(image, mean, var, scale, shift, training=True),
        0.5,
    )
    yield bench(
        "group_norm, 32 groups",
        lambda: normkit.group_norm(image, 32, scale, shift),
        lambda: F.group_norm(image, 32, scale, shift),
        1.0,
    )

    grad, both = randn(*x.shape), "forward and backward"
    yield bench(
        "layer_norm",
        trained(lambda x, w, b: nF.layer_norm(x, shape, w, b), [x, weight, bias], grad, True),
        trained(lambda x, w, b: F.layer_norm(x, shape, w, b), [x, weight, bias], grad, True),
        0.9,
        both,
    )
    yield bench(
        "rms_norm",
        trained(lambda x, w: nF.rms_norm(x, shape, w), [x, weight], grad, True),
        trained(lambda x, w: F.rms_norm(x, shape, w), [x, weight], grad, True),
        0.3,
        both,
    )
    yield bench(
        "dyt",
        trained(nF.dyt, [x, alpha, weight, bias], grad, True),
        trained(torch_dyt, [x, alpha, weight, bias], grad, True),
        0.4,
        both,
    )


def fused(mebibytes: int, dtype: torch.dtype) -> Iterator[Bench]:
    """Norms with what surrounds them, beside the calls that they stand for: torch's, and with
    normkit's plain norm in their place."""
    torch.manual_seed(0)
    name, count = str(dtype).removeprefix("torch."), (mebibytes << 20) // dtype.itemsize
    size = LARGE if mebibytes == 16 else f"{mebibytes} MiB"
    shape, tokens = (1024,), 256

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape).to(dtype)

    x, other = (randn(count // (1024 * tokens), tokens, 1024) for _ in range(2))
    weight, (scale, shift) = randn(1024), (randn(x.shape[0], 1024) for _ in range(2))

    def torch_add(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        h = x + r
        return F.rms_norm(h, shape, w, 1e-6), h

    def own_add(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        h = x + r
        return nF.rms_norm(h, shape, w, 1e-6), h

    def torch_sandwich(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        h = r + F.rms_norm(x, shape, w, 1e-6)
        return F.rms_norm(h, shape, w, 1e-6), h

    def own_sandwich(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        h = nk.rms_norm_add(x, r, shape, w, 1e-6)
        return nF.rms_norm(h, shape, w, 1e-6), h

    def modulate(normed: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return normed * (1 + scale[:, None]) + shift[:, None]

    calls: list[tuple[str, list[Tensor], list[Callable[..., Any]]]] = [
        (
            "add + rms_norm",
            [x, other, weight],
            [lambda x, r, w: nk.add_rms_norm(x, r, shape, w, 1e-6), torch_add, own_add],
        ),
        (
            "rms_norm + add + rms_norm",
            [x, other, weight],
            [
                lambda x, r, w: nk.rms_norm_add_rms_norm(x, r, shape, w, w, 1e-6),
                torch_sandwich,
                own_sandwich,
            ],
        ),
        (
            "layer_norm, modulated",
            [x, scale, shift],
            [
                nk.modulated_layer_norm,
                lambda x, s, t: modulate(F.layer_norm(x, shape, eps=1e-6), s, t),
                lambda x, s, t: modulate(nF.layer_norm(x, shape, eps=1e-6), s, t),
            ],
        ),
        (
            "rms_norm, gated",
            [x, other, weight],
            [
                lambda x, z, w: nk.gated_rms_norm(x, z, w),
                lambda x, z, w: F.rms_norm(x, shape, w, 1e-5) * F.silu(z),
                lambda x, z, w: nF.rms_norm(x, shape, w, 1e-5) * F.silu(z),
            ],
        ),
    ]
    grad = randn(*x.shape)
    for backward in (False, True):
        passes = "forward and backward" if backward else "forward"
        for what, tensors, (ours, torchs, own) in calls:
            grads = (grad, grad) if "add" in what else grad
            timed = [
                trained(f, tensors, grads, True) if backward else bound(f, tensors)
                for f in (ours, torchs, own)
            ]
            yield Bench(what, passes, size, name, timed[0], timed[1], FUSED_GOAL)
            yield Bench(f"{what}, beside its parts", passes, size, name, timed[0], timed[2], None)

    heads = (count // 1024, 8, 128)
    q, k, of_head = randn(*heads), randn(heads[0], 2, 128), randn(128)
    angles = torch.outer(torch.arange(heads[0]) % 4096, 10000.0 ** (-torch.arange(64) / 64))
    cos, sin = angles.cos(), angles.sin()

    def rotated(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        c, s = cos[:, None].to(x.dtype), sin[:, None].to(x.dtype)
        return torch.cat((first * c - second * s, second * c + first * s), -1)

    def fused_rope(q: Tensor, k: Tensor, w: Tensor) -> object:
        return nk.qk_norm_rope(q, k, cos, sin, None, w, w)

    def torch_rope(q: Tensor, k: Tensor, w: Tensor) -> object:
        return tuple(rotated(F.rms_norm(x, (128,), w, 1e-6)) for x in (q, k))

    def own_rope(q: Tensor, k: Tensor, w: Tensor) -> object:
        return tuple(rotated(x) for x in nk.qk_norm(q, k, w, w))

    what, tensors = "qk_norm + rotary", [q, k, of_head]
    for backward in (False, True):
        passes = "forward and backward" if backward else "forward"
        timed = [
            trained(f, tensors, (q, k), True) if backward else bound(f, tensors)
            for f in (fused_rope, torch_rope, own_rope)
        ]
        yield Bench(what, passes, size, name, timed[0], timed[1], FUSED_GOAL)
        yield Bench(f"{what}, beside its parts", passes, size, name, timed[0], timed[2], None)

    def codes(v: Tensor) -> tuple[Tensor, Tensor]:
        scale = (v.abs().amax(-1, keepdim=True).float() / 127).clamp(min=2**-23)
        return (v.float() / scale).round().clamp(-128, 127).to(torch.int8), scale

    def torch_codes(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, h = torch_add(x, r, w)
        return *codes(normed), h

    def own_codes(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        normed, h = nk.add_rms_norm(x, r, shape, w, 1e-6)
        return *codes(normed), h

    def fused_codes(x: Tensor, r: Tensor, w: Tensor) -> object:
        return nk.add_rms_norm_quant(x, r, shape, w, 1e-6)

    what, tensors = "add + rms_norm + int8 codes", [x, other, weight]
    timed = [bound(f, tensors) for f in (fused_codes, torch_codes, own_codes)]
    yield Bench(what, "forward", size, name, timed[0], timed[1], FUSED_GOAL)
    yield Bench(f"{what}, beside its parts", "forward", size, name, timed[0], timed[2], None)


def one_row() -> Iterator[Bench]:
    """A single row: what a call costs of itself. With autograd apart, for which there is no goal."""
    torch.manual_seed(0)
    x, weight, bias, alpha = torch.randn(1, 768), torch.randn(768), torch.randn(768), torch.tensor([0.5])
    shape, channel = (768,), torch.randn(1, 1, 768)
    mean, var = torch.zeros(1), torch.ones(1)
    calls: list[tuple[str, Call, Call, float]] = [
        (
            "layer_norm",
            lambda: normkit.layer_norm(x, shape, weight, bias),
            lambda: F.layer_norm(x, shape, weight, bias),
            2.0,
        ),
        ("rms_norm", lambda: normkit.rms_norm(x, shape, weight), lambda: F.rms_norm(x, shape, weight), 1.0),
        ("dyt", lambda: normkit.dyt(x, alpha, weight, bias), lambda: torch_dyt(x, alpha, weight, bias), 1.0),
        ("normalize", lambda: normkit.normalize(x), lambda: F.normalize(x), 1.0),
        (
            "batch_norm, training",
            lambda: normkit.batch_norm(channel, mean, var, training=True),
            lambda: F.batch_norm(channel, mean, var, training=True),
            2.0,
        ),
        (
            "group_norm, 1 group",
            lambda: normkit.group_norm(x, 1, weight, bias),
            lambda: F.group_norm(x, 1, weight, bias),
            2.0,
        ),
    ]
    for name, ours, torchs, goal in calls:
        yield Bench(name, "forward", ROW, "float32", ours, torchs, goal)
    grad = torch.randn(1, 768)
    functions: list[tuple[str, Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]] = [
        (
            "layer_norm",
            lambda x, w, b: nF.layer_norm(x, shape, w, b),
            lambda x, w, b: F.layer_norm(x, shape, w, b),
            [x, weight, bias],
        ),
        (
            "rms_norm",
            lambda x, w: nF.rms_norm(x, shape, w),
            lambda x, w: F.rms_norm(x, shape, w),
            [x, weight],
        ),
        ("dyt", nF.dyt, torch_dyt, [x, alpha, weight, bias]),
    ]
    for backward in (False, True):
        passes = "forward and backward" if backward else "forward, autograd"
        for name, our_function, torch_function, tensors in functions:
            ours = trained(our_function, tensors, grad, backward)
            torchs = trained(torch_function, tensors, grad, backward)
            yield Bench(name, passes, ROW, "float32", ours, torchs, None)


def seconds(call: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def measure(bench: Bench, rounds: int) -> Result:
    """Interleaved: what disturbs the machine disturbs both."""
    once = min(seconds(bench.torchs, 2) for _ in range(2))
    seconds(bench.ours, 2)
    repeats = max(1, int(ROUND / once))
    ours, torchs = [], []
    for _ in range(rounds):
        ours.append(seconds(bench.ours, repeats))
        torchs.append(seconds(bench.torchs, repeats))
    our, their = 1e6 * statistics.median(ours), 1e6 * statistics.median(torchs)
    return Result(bench.name, bench.passes, bench.size, bench.dtype, our, their, our / their, bench.goal)


def table(results: list[Result]) -> str:
    """The Markdown table; goals that were missed are marked."""
    lines = [
        "| function | passes | input | dtype | normkit | torch | ratio | goal |",
        "|---|---|---|---|--:|--:|--:|--:|",
    ]
    for r in results:
        ratio = f"{r.ratio:.2f}" + (" (missed)" if r.missed else "")
        goal = "" if r.goal is None else f"{r.goal:.2f}".removesuffix("0")
        lines.append(
            f"| {r.name} | {r.passes} | {r.size} | {r.dtype} | {r.ours:,.0f} µs | {r.torchs:,.0f} µs "
            f"| {ratio} | {goal} |"
        )
    threads = torch.get_num_threads()
    lines += ["", f"PyTorch {torch.__version__.split('+')[0]}, {threads} threads, `{COMMAND}`."]
    return "\n".join(lines)


def write(path: Path, text: str) -> None:
    """Replaces what stands between the markers."""
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """Prints the table. The exit code does not tell whether goals were met."""
    parser = argparse.ArgumentParser(description="normkit's speed beside PyTorch's")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="put the table between the markers in FILE"
    )
    parser.add_argument("--small", action="store_true", help="tensors of 1 MiB and few rounds")
    parser.add_argument("--rounds", type=int, default=31, help="rounds of each bench (default 31)")
    parser.add_argument("--only", default="", metavar="WORD", help="benches whose name has WORD")
    options = parser.parse_args()
    rounds = 3 if options.small else options.rounds
    results = []
    mebibytes = 1 if options.small else 16
    # Generators: the tensors of one dtype are gone when those of the next are made.
    dtypes = (torch.float32, torch.bfloat16)
    benches = [make(mebibytes, dtype) for dtype in dtypes for make in (large, fused)]
    for bench in chain(*benches, one_row()):
        if options.only in bench.name:
            results.append(measure(bench, rounds))
            print(f"{bench.name}, {bench.passes}, {bench.dtype}: {results[-1].ratio:.2f}", file=sys.stderr)
    if options.json:
        print(json.dumps([asdict(result) | {"missed": result.missed} for result in results], indent=2))
    else:
        print(table(results))
    if options.write:
        write(options.write, table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
