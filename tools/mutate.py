#!/usr/bin/env python3
"""Break kernels in small ways and see that the tests notice each: `make mutate`.

Every breakage of tools/mutations/ is applied to a copy of the tree, on its own, and the tests that it names must
then fail. A breakage that no test notices survives; one survivor, or one whose old text is not found exactly once,
makes the run fail. The copy lives under target/mutate; its dependencies are those that are built already. Shaders and
CUDA kernels are read by the tests when they run, so that only breakages of Rust are built.

    python3 tools/mutate.py             all of them
    python3 tools/mutate.py eps tail    those whose name contains one of the words
    python3 tools/mutate.py --list      their names, and whether their old texts are still there
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "target" / "mutate"
TREE = PLACE / "tree"
# A removed barrier may make a test wait for ever; far more than any of the tests needs.
TIMEOUT = 900


def copy_tree() -> None:
    """Bring TREE up to the working tree; files that have not changed keep their time, so cargo rebuilds little."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                            check=True, capture_output=True).stdout.decode()
    wanted = {name for name in listed.split("\0") if name and (ROOT / name).is_file()}
    present = {str(path.relative_to(TREE)) for path in TREE.rglob("*") if path.is_file()}
    for name in present - wanted:
        (TREE / name).unlink()
    for name in wanted:
        source, target = ROOT / name, TREE / name
        content = source.read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def run(*command: str) -> tuple[int | None, str]:
    """Exit status (None after a timeout) and output of a command in TREE."""
    own = {"RUST_BACKTRACE": "0", "NORMKIT_SOURCES": str(TREE)}
    environment = {"CARGO_TARGET_DIR": str(ROOT / "target")} | os.environ | own
    try:
        done = subprocess.run(command, cwd=TREE, env=environment, timeout=TIMEOUT, text=True,
                              errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as late:
        return None, str(late)
    return done.returncode, done.stdout


def cargo(*arguments: str) -> tuple[int | None, str]:
    return run("cargo", *arguments)


@cache
def binary(target: str) -> str:
    """The test binary that the arguments of `cargo test` name."""
    _, output = cargo("test", "--no-run", "--message-format=json", *target.split())
    for line in output.splitlines():
        built = json.loads(line) if line.startswith("{") else {}
        if built.get("executable") and built["profile"]["test"]:
            return str(built["executable"])
    raise SystemExit(f"mutate: `cargo test {target}` builds no test:\n{output}")


def build(test: str) -> tuple[int | None, str]:
    """Builds what the arguments of a `cargo test` name, without running it."""
    return cargo("test", "--no-run", *test.split(" -- ")[0].split())


def run_built(test: str) -> tuple[int | None, str]:
    """Runs the binary that was built before anything was broken."""
    target, _, name = test.rpartition(" ") if test.split()[-2] != "--test" else (test, "", "")
    return run(binary(target), *([name] if name else []))


def failed_tests(output: str) -> str:
    """The first failed tests by name, for the table."""
    lines = output.splitlines()
    names = [line.split()[1] for line in lines if line.startswith("test ") and line.endswith("FAILED")]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")


def check_baseline(mutations: list[Mutation]) -> bool:
    """The tests must pass before anything is broken; else their failing would show nothing."""
    for test in sorted({test for mutation in mutations for test in mutation.tests}):
        status, output = cargo("test", "--quiet", *test.split())
        if status != 0 or "running " not in output or not any_passed(output):
            print(output)
            print(f"mutate: `cargo test {test}` does not pass, or runs nothing, on the unbroken tree")
            return False
    return True


def any_passed(output: str) -> bool:
    return any(line.startswith("test result: ok.") and not line.startswith("test result: ok. 0 passed")
               for line in output.splitlines())


def occurrences(mutation: Mutation, tree: Path) -> int:
    """How often the old text is found."""
    path = tree / mutation.file
    return path.read_text(encoding="utf-8").count(mutation.old) if path.is_file() else 0


def judge(mutation: Mutation) -> tuple[bool, str]:
    """Whether the breakage was noticed, and by what."""
    count = occurrences(mutation, TREE)
    if count != 1:
        return False, f"old text found {count} times in {mutation.file}"
    path = TREE / mutation.file
    original = path.read_text(encoding="utf-8")
    path.write_text(original.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        for test in mutation.tests:
            status, output = (0, "") if mutation.is_read else build(test)
            if status != 0:
                errors = [line for line in output.splitlines() if line.startswith("error")]
                return False, f"does not compile: {errors[0] if errors else output[-200:]}"
            status, output = run_built(test) if mutation.is_read else cargo("test", *test.split())
            if status is None:
                return True, "the test hung"
            if status != 0:
                return True, failed_tests(output) or "the test binary crashed"
        return False, "SURVIVED " + "; ".join(mutation.tests)
    finally:
        path.write_text(original, encoding="utf-8")


def main() -> int:
    words = sys.argv[1:]
    if words == ["--list"]:
        stale = 0
        for mutation in MUTATIONS:
            count = occurrences(mutation, ROOT)
            stale += count != 1
            print(mutation.name + ("" if count == 1 else f": old text found {count} times in {mutation.file}"))
        return 1 if stale else 0
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    if not chosen:
        print(f"mutate: no breakage is named like {words}")
        return 1
    copy_tree()
    # Those that need no build first: a build of broken Rust replaces the binaries.
    chosen.sort(key=lambda mutation: not mutation.is_read)
    if not check_baseline(chosen):
        return 1
    missed = 0
    width = max(len(mutation.name) for mutation in chosen)
    for mutation in chosen:
        start = time.monotonic()
        noticed, by = judge(mutation)
        missed += not noticed
        seconds = time.monotonic() - start
        print(f"{'caught' if noticed else 'MISSED'}  {mutation.name:{width}}  {seconds:4.0f} s  {by}", flush=True)
    print(f"mutate: {len(chosen) - missed} of {len(chosen)} breakages caught")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
