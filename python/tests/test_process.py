"""What a process can do around a call: threads, forks, interpreters; and what memory a call takes."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import torch

import normkit

X = np.random.default_rng(1).standard_normal((64, 512), dtype=np.float32)


def run(code: str, *arguments: str) -> str:
    """What a process of its own prints."""
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_many_threads_at_once() -> None:
    wanted = [normkit.layer_norm(X * k, 512) for k in range(8)]

    def work(index: int) -> bool:
        k = index % 8
        return np.array_equal(normkit.layer_norm(X * k, 512), wanted[k])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(400)))


def test_threads_share_running_statistics_of_their_own_only() -> None:
    def work(_: int) -> tuple[float, float]:
        mean, var = np.zeros(512, np.float32), np.ones(512, np.float32)
        for _ in range(20):
            normkit.batch_norm(X, mean, var, training=True)
        return float(mean.sum()), float(var.sum())

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(16)))) == 1


def test_other_threads_run_during_a_call() -> None:
    """Two threads overlap: while one is inside a call of some tens of milliseconds, this one counts."""
    large = np.ones((1024, 16384), np.float32)
    for convert in (lambda x: x, torch.from_numpy):
        array = convert(large)
        shares = []
        for _ in range(20):
            inside: list[float] = []

            def work(array: object = array, inside: list[float] = inside) -> None:
                inside.append(time.perf_counter())
                normkit.dyt(array, 0.5)
                inside.append(time.perf_counter())

            thread = threading.Thread(target=work)
            seen = [time.perf_counter()]
            thread.start()
            while thread.is_alive():
                seen.append(time.perf_counter())
            start, end = inside
            pauses = [min(b, end) - max(a, start) for a, b in pairwise(seen)]
            shares.append(max(pauses) / (end - start))
            if shares[-1] < 0.25:
                break
        assert min(shares) < 0.25, f"this thread stood still for {min(shares):.0%} of a call"


def test_a_forked_process_computes_the_same() -> None:
    """By multiprocessing, after the parent has used threads of its own; twice."""
    out = run(
        """
        import multiprocessing
        import numpy as np, torch, normkit
        x = np.random.default_rng(1).standard_normal((4096, 512), dtype=np.float32)
        def compute():
            return normkit.layer_norm(x, 512), normkit.rms_norm(torch.from_numpy(x), 512).numpy()
        def child(connection):
            connection.send(compute())
        wanted = compute()
        context = multiprocessing.get_context("fork")
        for _ in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=child, args=(theirs,))
            process.start()
            assert ours.poll(60), "the forked process did not answer"
            found = ours.recv()
            process.join(30)
            assert process.exitcode == 0
            print(all(np.array_equal(a, b) for a, b in zip(found, wanted)))
        """
    )
    assert out.split() == ["True", "True"]


def test_a_fork_of_a_fork_and_one_during_a_call() -> None:
    out = run(
        """
        import os, threading, numpy as np, normkit
        x = np.ones((4096, 512), np.float32); wanted = normkit.rms_norm(x, 512)
        stop = threading.Event()
        def busy():
            while not stop.is_set(): normkit.rms_norm(x, 512)
        thread = threading.Thread(target=busy); thread.start()
        def fork(depth):
            pid = os.fork()
            if pid == 0:
                good = np.array_equal(normkit.rms_norm(x, 512), wanted)
                if depth: good = fork(depth - 1) and good
                os._exit(0 if good else 1)
            return os.waitpid(pid, 0)[1] == 0
        good = all(fork(1) for _ in range(5))
        stop.set(); thread.join(); print(good)
        """
    )
    assert out.strip() == "True"


def test_tensors_are_worked_on_by_torchs_threads() -> None:
    """No further threads for them, as many as torch is told to use, and others for arrays of NumPy."""
    out = run(
        """
        import os, numpy as np, torch, normkit
        def threads(): return len(os.listdir("/proc/self/task"))
        torch.set_num_threads(3)
        x = torch.randn(4096, 512)
        torch.nn.functional.layer_norm(x, (512,))
        before = threads()
        wanted = normkit.rms_norm(x, 512)
        print(threads() - before)
        torch.set_num_threads(1)
        print(torch.equal(normkit.rms_norm(x, 512), wanted))
        found = normkit.rms_norm(x.numpy(), 512)
        print(threads() > before or os.cpu_count() == 1, np.array_equal(found, wanted.numpy()))
        """
    )
    assert out.split() == ["0", "True", "True", "True"]


def test_a_sub_interpreter_imports_or_is_refused() -> None:
    out = run(
        """
        import sys
        try:
            import _interpreters as interpreters
        except ImportError:
            import _xxsubinterpreters as interpreters
        import normkit
        interpreter = interpreters.create()
        code = '''
        try:
            import normkit
            print("works", normkit.backends()[0])
        except ImportError as error:
            print("refused:", error)
        '''
        import textwrap
        failure = interpreters.run_string(interpreter, textwrap.dedent(code))
        assert failure is None, failure
        import numpy as np
        print(normkit.normalize(np.array([[3.0, 4.0]])).tolist())
        """
    )
    assert out.startswith(("works", "refused: ")) and "[[0.6" in out, out


def test_no_copy_of_a_strided_input() -> None:
    """The peak of the process's memory grows by the result, and not by a copy of the input."""
    out = run(
        """
        import gc, resource
        import numpy as np, torch, normkit
        torch.set_num_threads(1)
        normkit.layer_norm(np.ones((64, 512), np.float32), 512)
        # Pages that were touched once, so that the peak is what is in use now.
        MiB, rows, cols = 1 << 20, 4096, 8192
        memory = np.ones((rows, 2 * cols), np.float16)
        image = memory.reshape(64, 64, 64, 256)
        def resident():
            with open("/proc/self/status") as status:
                lines = dict(line.split(":") for line in status)
            return int(lines["VmRSS"].split()[0]) // 1024
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        filler = np.ones(max(peak() - resident(), 0) * MiB + MiB, np.uint8)
        tensor = torch.from_numpy(memory)
        calls = {
            "every second": lambda: normkit.rms_norm(memory[:, ::2], cols),
            "backwards": lambda: normkit.layer_norm(memory[::-1, ::-2], cols),
            "broadcast": lambda: normkit.dyt(np.broadcast_to(memory[0, :cols], (rows, cols)), 0.5),
            "torch": lambda: normkit.layer_norm(tensor[:, ::2], cols),
            "transposed": lambda: normkit.layer_norm(memory[:, :cols].T, rows),
            "channels last": lambda: normkit.batch_norm(
                np.moveaxis(image[:, :, :, :128], -1, 1), None, None, training=True),
        }
        for name, call in calls.items():
            before = peak()
            result = call()
            size = result.nbytes // MiB
            print(name, peak() - before, size, sep=";")
            del result
            gc.collect()
        """
    )
    seen = [line.split(";") for line in out.splitlines()]
    assert len(seen) == 6
    # The peak only rises, so that a later call with a copy shows as growth beyond that of the first.
    first, *others = [(name, int(growth), int(size)) for name, growth, size in seen]
    assert first[1] < 1.4 * first[2], out
    for name, growth, size in others:
        assert growth < 0.4 * size, f"{name}\n{out}"
