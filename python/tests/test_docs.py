"""What is written for readers works: docstrings, README, examples."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import normkit
from normkit import _normkit

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
FUNCTIONS = sorted(name for name in normkit.__all__ if callable(getattr(normkit, name)))


def examples_of(name: str, function: Any) -> doctest.DocTest:
    text = inspect.getdoc(function) or ""
    return doctest.DocTestParser().get_doctest(text, {}, name, None, 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_say_what_they_should(name: str) -> None:
    """A doctest that passes, every argument's name, and for what computes a formula, errors and defaults."""
    function = getattr(normkit, name)
    test = examples_of(name, function)
    assert test.examples, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    result = runner.run(test, out=report.append)
    assert result.failed == 0, "".join(report)
    text = " ".join((test.docstring or "").split())
    # In formulas the input is x; what holds for one weight or statistic holds for the other.
    apart = {"input", "k_weight", "running_mean", "running_var"}
    assert ("running_mean" in inspect.signature(function).parameters) == ("running statistics" in text)
    for parameter in set(inspect.signature(function).parameters) - apart:
        # What add_* share with the norm itself is explained there.
        explained = re.search(rf"\b{parameter}\b", text) or "the other arguments are those of" in text
        assert explained, f"{name}: {parameter} is not explained"


def test_every_docstring_of_the_extension_runs() -> None:
    """Those that are not public at the top, too; and everything has one."""
    things: dict[str, Any] = {"_normkit": _normkit, "normkit": normkit}
    for name in dir(_normkit):
        thing = getattr(_normkit, name)
        if not name.startswith("_") and not isinstance(thing, types.ModuleType):
            things[name] = thing
            if isinstance(thing, type):
                things |= {f"{name}.{key}": getattr(thing, key) for key in dir(thing) if key[0] != "_"}
    for name, thing in things.items():
        assert inspect.getdoc(thing), f"{name} has no docstring"
        report: list[str] = []
        result = doctest.DocTestRunner().run(examples_of(name, thing), out=report.append)
        assert result.failed == 0, "".join(report)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_readme_works_as_printed(tmp_path: Path) -> None:
    """Its blocks of Python, one after the other in one session; a line's result is what its comment says."""
    code = blocks("python")
    assert len(code) >= 4
    script = tmp_path / "readme.py"
    script.write_text("\n".join(code))
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    promised = [
        line.split("  # prints ")[1] for block in code for line in block.splitlines() if "  # prints " in line
    ]
    assert promised and done.stdout.splitlines() == promised


def test_readme_names_every_function() -> None:
    text = README.read_text()
    for name in FUNCTIONS:
        assert f"`{name}" in text, name


def test_readme_has_the_table_of_ratios() -> None:
    text = README.read_text()
    table = text.split("<!-- ratios: begin -->")[1].split("<!-- ratios: end -->")[0]
    assert "python benches/run.py" in text and table.count("|") > 100


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    """In a process of their own, with one thread, well within a minute."""
    code = path.read_text()
    assert code.count("# %%") >= 3
    picture = tmp_path / "picture.png"
    arguments = [str(picture)] if "sys.argv" in code else []
    environment = {
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "MPLBACKEND": "Agg",
        "PATH": "/usr/bin:/bin",
    }
    environment |= {"PYTHONPATH": str(Path(normkit.__file__).parents[1]), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning", str(path), *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 3
    if arguments:
        assert picture.read_bytes()[:4] == b"\x89PNG" and picture.stat().st_size > 10_000
