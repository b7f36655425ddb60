#!/usr/bin/env python3
"""Tests and benchmarks on an NVIDIA GPU: `make gpu-test`, `make gpu-bench`.

    gpu.py bundle    build what the other two run into target/gpu; needs Rust, and no GPU
    gpu.py test      the device's self-test, the property tests, and compute-sanitizer on a few of them
    gpu.py bench     speeds beside a copy of the same bytes, and PyTorch's where it is installed, into
                     benches/results/<gpu>.json

The last two need a driver, NVRTC (`pip install nvidia-cuda-nvrtc`, of the driver's major version or an older one) and
Python; where target/gpu is missing they make it first. The bundle can be carried to a machine without Rust.
"""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "target" / "gpu"
RESULTS = ROOT / "benches" / "results"
# Those that run on every device, or on CUDA.
TESTS = ["cuda_schedules", "numbers", "range", "determinism", "any_tensor", "steps", "queries_and_keys"]
SANITIZED = [("memcheck", "masks"), ("memcheck", "long_rows"), ("racecheck", "batch_norm")]
# Rows of the row norms: with 1024 columns of float32, 128 MiB, several times a second-level cache.
ROWS = 32768
COLS = [64, 256, 768, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 262144]
# Bytes of an input at most, so that a backward pass and its copy fit any GPU.
MOST_BYTES = 2 << 30


def run(*command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run(command, check=True, **options)


def bundle():
    """The release command and the tests, without what only a debugger needs."""
    cargo = os.environ.get("CARGO", "cargo")
    shutil.rmtree(BUNDLE, ignore_errors=True)
    BUNDLE.mkdir(parents=True)
    chosen = [argument for test in TESTS for argument in ("--test", test)]
    features = ["--no-default-features", "--features", "ndarray,rayon,check,cuda"]
    built = [run(cargo, "test", "--no-run", "--message-format=json", "-p", "normkit", *features, *chosen,
                 cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout,
             run(cargo, "build", "--release", "--message-format=json", "-p", "normkit-cli", "--no-default-features",
                 "--features", "cuda", cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout]
    for line in "".join(built).splitlines():
        message = json.loads(line)
        program = message.get("executable")
        if program and message["target"]["name"] in [*TESTS, "normkit"]:
            target = BUNDLE / message["target"]["name"]
            shutil.copy(program, target)
            subprocess.run(["strip", target], check=False)
    # The tests look for their data where they were compiled.
    print(f"{BUNDLE}: {sum(f.stat().st_size for f in BUNDLE.iterdir()) >> 20} MiB")


def test():
    environment = os.environ | {"NORMKIT_TEST_GPU": "1"}
    run(BUNDLE / "normkit", "devices")
    run(BUNDLE / "normkit", "check", "--backend", "cuda", "--quick")
    failed = []
    for name in TESTS:
        print(f"+ {name}", flush=True)
        # One after the other: the tests of a process share the GPU.
        # AddressSanitizer is the host driver's; compute-sanitizer comes below.
        command = [BUNDLE / name, "--test-threads=2", "--skip", "sanitizer"]
        done = subprocess.run(command, env=environment, cwd=ROOT)
        if done.returncode != 0:
            failed.append(name)
    sanitizer = shutil.which("compute-sanitizer")
    for tool, tests in SANITIZED if sanitizer else []:
        command = [sanitizer, "--tool", tool, "--error-exitcode", "3", BUNDLE / "cuda_schedules", tests]
        if subprocess.run(command, env=environment, cwd=ROOT).returncode != 0:
            failed.append(f"{tool} {tests}")
    print("compute-sanitizer is not here and was not run" if not sanitizer else "", flush=True)
    if failed:
        sys.exit("failed: " + ", ".join(failed))


def ask_driver():
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm,clocks.max.mem"
    answer = run("nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", stdout=subprocess.PIPE, text=True)
    return dict(zip(query.split(","), (part.strip() for part in answer.stdout.splitlines()[0].split(","))))


def ours(method, dtype, shape):
    command = [BUNDLE / "normkit", "bench", "--backend", "cuda", "--json", "--method", method, "--dtype", dtype,
               "--shape", ",".join(map(str, shape))]
    return json.loads(run(*command, stdout=subprocess.PIPE, text=True).stdout)["results"]


def peers(dtype, shape):
    """Milliseconds of PyTorch's passes, eager and compiled, by CUDA events."""
    try:
        import torch
    except ImportError:
        return {}
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    rows, cols = shape
    x = torch.randn(rows, cols, device="cuda", dtype=kind, requires_grad=True)
    w = torch.randn(cols, device="cuda", dtype=kind, requires_grad=True)
    b = torch.randn(cols, device="cuda", dtype=kind, requires_grad=True)
    g = torch.randn_like(x)
    norms = {"layer_norm": lambda x: torch.nn.functional.layer_norm(x, (cols,), w, b),
             "rms_norm": lambda x: torch.nn.functional.rms_norm(x, (cols,), w)}

    def milliseconds(call):
        for _ in range(5):
            call()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        times = []
        for _ in range(15):
            start.record()
            for _ in range(20):
                call()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end) / 20)
        return sorted(times)[len(times) // 2]

    found = {}
    for name, norm in norms.items():
        for way, function in [("eager", norm), ("compiled", torch.compile(norm))]:
            y = function(x)
            with torch.no_grad():
                found[f"{name} {way} forward"] = milliseconds(lambda: function(x))
            found[f"{name} {way} backward"] = milliseconds(
                lambda: torch.autograd.grad(y, [x, w] + ([b] if name == "layer_norm" else []), g, retain_graph=True))
        torch._dynamo.reset()
    return found


def bench():
    about = ask_driver()
    result = {"date": datetime.date.today().isoformat(), "gpu": about, "results": [], "peers": []}
    for dtype, size in [("bf16", 2), ("f32", 4)]:
        for cols in COLS:
            shape = [max(1, min(ROWS, MOST_BYTES // size // cols)), cols]
            for method in ("layer_norm", "rms_norm"):
                result["results"] += ours(method, dtype, shape)
            result["peers"].append({"dtype": dtype, "shape": shape, "milliseconds": peers(dtype, shape)})
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / (about["name"].lower().replace(" ", "-") + ".json")
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{'pass':34}{'shape':>18}{'ms':>9}{'of copy':>9}")
    for row in result["results"]:
        name = f"{row['method']} {row['dtype']} {row['direction']}"
        shape = "x".join(map(str, row["shape"]))
        print(f"{name:34}{shape:>18}{1e3 * row['seconds']:9.3f}{100 * row['share_of_copy']:8.0f}%")
    print(path)


def main():
    commands = {"bundle": bundle, "test": test, "bench": bench}
    if len(sys.argv) != 2 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    if sys.argv[1] != "bundle" and not BUNDLE.is_dir():
        bundle()
    commands[sys.argv[1]]()


if __name__ == "__main__":
    main()
