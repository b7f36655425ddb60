"""The stubs: the same signatures as the extension, and types that hold."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from normkit import _normkit

HERE = Path(__file__).parent
ROOT = HERE.parent
STUB = ast.parse((ROOT / "normkit" / "_normkit.pyi").read_text())
FUNCTIONS = {node.name: node for node in STUB.body if isinstance(node, ast.FunctionDef)}
CLASSES = {
    node.name: node
    for node in STUB.body
    if isinstance(node, ast.ClassDef) and node.name in ("HypersphereStep", "Norm", "Sandwich")
}
METHODS = {
    (name, node.name): node
    for name, of in CLASSES.items()
    for node in of.body
    if isinstance(node, ast.FunctionDef)
}

Parameters = list[tuple[str, Any, Any]]


def of_stub(node: ast.FunctionDef) -> Parameters:
    """Name, kind and default of each parameter."""
    arguments, empty = node.args, inspect.Parameter.empty
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [empty] * (len(plain) - len(arguments.defaults))
    defaults += [ast.literal_eval(default) for default in arguments.defaults]
    found: Parameters = [
        (argument.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default)
        for argument, default in zip(plain, defaults, strict=True)
    ]
    for argument, node_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        default = empty if node_default is None else ast.literal_eval(node_default)
        found.append((argument.arg, inspect.Parameter.KEYWORD_ONLY, default))
    return found


def of_runtime(function: Any) -> Parameters:
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [
        (p.name, inspect.Parameter.POSITIONAL_OR_KEYWORD if p.kind in positional else p.kind, p.default)
        for p in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_stubs_signature(name: str) -> None:
    assert of_stub(FUNCTIONS[name]) == of_runtime(getattr(_normkit, name))


@pytest.mark.parametrize("name", METHODS)
def test_methods_have_the_stubs_signature(name: tuple[str, str]) -> None:
    method = getattr(getattr(_normkit, name[0]), name[1])
    assert of_stub(METHODS[name]) == of_runtime(method)
    is_static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in METHODS[name].decorator_list)
    assert is_static == ("self" not in inspect.signature(method).parameters)


def test_nothing_is_left_out() -> None:
    public = {name for name in dir(_normkit) if not name.startswith("_")}
    assert public == {*FUNCTIONS, *CLASSES}
    methods = {
        (of, name) for of in CLASSES for name in dir(getattr(_normkit, of)) if not name.startswith("_")
    }
    assert methods == set(METHODS)


CONFIG = """
[mypy]
strict = true
[mypy-sklearn.*]
ignore_missing_imports = true
[mypy-drop_in,dyt,qk_norm,weight_norm]
# Tensor.backward has no types.
disallow_untyped_calls = false
"""


def mypy(config: Path, *paths: Path) -> str:
    config.write_text(CONFIG)
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--no-error-summary"]
    done = subprocess.run(
        [*command, *map(str, paths)], capture_output=True, text=True, timeout=300, check=False, cwd=ROOT
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def test_types_hold_where_they_should_and_nowhere_else(tmp_path: Path) -> None:
    """mypy --strict: package, examples, benches and typical use pass; misuse is refused line by line."""
    misuse = HERE / "typed" / "misuse.py"
    examples = sorted((ROOT / "examples").glob("*.py"))
    assert len(examples) == 5
    paths = [ROOT / "normkit", HERE / "typed" / "use.py", *examples, ROOT / "benches", misuse]
    errors = [line for line in mypy(tmp_path / "mypy.ini", *paths).splitlines() if ": error:" in line]
    of_misuse = [line for line in errors if "misuse.py" in line]
    assert [line for line in errors if line not in of_misuse] == []
    refused = {int(match[1]) for line in of_misuse if (match := re.search(r"misuse\.py:(\d+):", line))}
    lines = misuse.read_text().splitlines()
    assert refused == {number for number, line in enumerate(lines, 1) if line.endswith("# refused")}
