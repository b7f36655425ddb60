"""PyTorch's own samples for its normalization functions and modules, given to ours: its test suite's values, its errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

import normkit.torch as nk
import normkit.torch.functional as nF

FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    f"nn.functional.{name}": getattr(nF, name)
    for name in ("layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm", "normalize")
}
OPERATORS = [op for op in op_db if op.name in FUNCTIONS]
MODULES = [info for info in module_db if hasattr(nk, info.module_cls.__name__)]
dtypes = pytest.mark.parametrize("dtype", (torch.float64, torch.float32), ids=str)


def refused(arguments: tuple[Any, ...], settings: dict[str, Any]) -> str | None:
    """The argument that normkit refuses although torch makes something of it."""
    if settings.get("eps", 0.0) < 0:
        return "eps"
    if settings.get("p", 2.0) < 1:
        return "p"
    if arguments[0].dim() == 0:
        return "dim"
    # Of one axis, which torch takes for channels when it is empty.
    return "input" if arguments[0].shape == (0,) and "training" in settings else None


def copied(values: Any) -> Any:
    """The same with tensors of their own."""
    if isinstance(values, Tensor):
        return values.detach().clone().requires_grad_(values.requires_grad)
    if isinstance(values, dict):
        return {name: copied(value) for name, value in values.items()}
    return tuple(map(copied, values)) if isinstance(values, tuple | list) else values


def leaves(arguments: tuple[Any, ...], settings: dict[str, Any]) -> list[Tensor]:
    values = (*arguments, *settings.values())
    return [value for value in values if isinstance(value, Tensor) and value.requires_grad]


def assert_near(ours: Any, theirs: Any, dtype: torch.dtype) -> None:
    # torch's own float32 has errors, too.
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance, equal_nan=True)


def samples(op: Any, dtype: torch.dtype) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    for maker in (op.sample_inputs, op.reference_inputs):
        for sample in maker("cpu", dtype, requires_grad=True):
            yield (sample.input, *sample.args), sample.kwargs


@dtypes
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.formatted_name)
def test_functions_agree_on_torchs_samples(op: Any, dtype: torch.dtype) -> None:
    ours = FUNCTIONS[op.name]
    count = 0
    for arguments, settings in samples(op, dtype):
        own, named = copied(arguments), copied(settings)
        if name := refused(arguments, settings):
            with pytest.raises(ValueError, match=name):
                ours(*own, **named)
            continue
        expected, found = op.op(*arguments, **settings), ours(*own, **named)
        assert_near(found, expected, dtype)
        # Running statistics among them.
        for mine, right in zip(own, arguments, strict=True):
            if isinstance(mine, Tensor):
                assert_near(mine, right, dtype)
        grad = torch.randn_like(expected)
        right = torch.autograd.grad(expected, leaves(arguments, settings), grad, allow_unused=True)
        mine = torch.autograd.grad(found, leaves(own, named), grad, allow_unused=True)
        assert_near(mine, right, dtype)
        count += 1
    assert count > 5


@pytest.mark.parametrize("op", [op for op in OPERATORS if op.error_inputs_func], ids=lambda op: op.formatted_name)
def test_functions_refuse_what_torch_refuses(op: Any) -> None:
    for case in op.error_inputs("cpu"):
        sample = case.sample_input
        with pytest.raises((ValueError, TypeError), match=r"^\w+: expected"):
            FUNCTIONS[op.name](sample.input, *sample.args, **sample.kwargs)


def filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with other numbers, which are no module's initial ones."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
        if value.is_floating_point()
        else value
        for name, value in state.items()
    }


@pytest.mark.parametrize("training", (False, True), ids=("eval", "train"))
@dtypes
@pytest.mark.parametrize("info", MODULES, ids=lambda info: info.module_cls.__name__)
def test_modules_agree_on_torchs_samples(info: Any, dtype: torch.dtype, training: bool) -> None:
    inputs = info.module_inputs_func(info, device="cpu", dtype=dtype, requires_grad=True, training=training)
    assert inputs
    for sample in inputs:
        arguments, settings = sample.constructor_input.args, sample.constructor_input.kwargs
        theirs = info.module_cls(*arguments, **settings).to(dtype).train(training)
        ours = getattr(nk, info.module_cls.__name__)(*arguments, **settings).to(dtype).train(training)
        assert repr(ours) == repr(theirs)
        for module in (ours, theirs):
            module.load_state_dict(filled(theirs.state_dict()))
        given = sample.forward_input.args
        own = copied(given)
        expected, found = theirs(*given), ours(*own)
        assert_near(found, expected, dtype)
        assert_near(dict(ours.state_dict()), dict(theirs.state_dict()), dtype)
        grad = torch.randn_like(expected)
        right = torch.autograd.grad(expected, [*given, *theirs.parameters()], grad)
        mine = torch.autograd.grad(found, [*own, *ours.parameters()], grad)
        assert_near(mine, right, dtype)
