"""Autograd's side of an operator: its outputs with their derivative, and its gradients with theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad

from normkit.torch._methods import Method
from normkit.torch._second_derivative import second_derivative

if TYPE_CHECKING:
    from normkit.torch.ops import Operators

Settings = tuple[Any, ...]


@contextmanager
def below_autograd() -> Iterator[None]:
    """For calls of what lies below autograd, at this level of torch.func's transforms.

    An autograd function's forward runs with derivatives off, which must not reach the levels further down.
    """
    with torch.enable_grad(), forward_ad._set_fwd_grad_enabled(True), _C._AutoDispatchBelowAutograd():
        yield


class _Differentiable(torch.autograd.function._SingleLevelFunction):
    """An autograd function at the Autograd key, where torch.func's transforms have chosen the level."""

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise NotImplementedError(
            "normkit.torch has no forward-mode derivatives; use reverse mode, such as torch.func.jacrev"
        )


class Forward(_Differentiable):
    """A method's outputs with their derivative. `plain` says whether to go round the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any, operators: Operators, plain: bool, settings: Settings, *tensors: Tensor | None
    ) -> Any:
        *outputs, statistics = operators.train(plain, settings, tensors)
        ctx.save_for_backward(*operators.kept(tensors, outputs), statistics)
        ctx.operators = operators
        ctx.settings = settings
        if operators.method.hidden:
            ctx.set_materialize_grads(False)
            ctx.mark_non_differentiable(*_constant(ctx, outputs))
            return tuple(outputs)
        return outputs[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor | None) -> Any:
        *tensors, statistics = ctx.saved_tensors
        operators: Operators = ctx.operators
        needs, wanted = 0, ctx.needs_input_grad
        for position in range(1 + operators.method.learned):
            needs |= wanted[3 + position] << position
        grad_outputs = grad_outputs[: operators.method.outputs]
        grads = operators.differentiate(grad_outputs, tensors, statistics, ctx.settings, needs)
        return None, None, None, *grads, *(None,) * (len(wanted) - 3 - len(grads))


def _constant(ctx: Any, outputs: Sequence[Tensor]) -> Sequence[Tensor]:
    """Of the outputs, which have derivatives in general, those that are constants here: a sum of constants."""
    wanted = ctx.needs_input_grad
    method: Method = ctx.operators.method
    if not method.branch:
        return () if wanted[3] or any(wanted[-3:]) else outputs[1:]
    # Of a branch's norm the sum has the parameters, too.
    own = [
        wanted[4 + position]
        for position, name in enumerate(method.parameters)
        if not name.startswith("next_")
    ]
    return () if wanted[3] or wanted[-1] or any(own) else outputs[1:]


class Train(Forward):
    """The same with the statistics as another output."""

    @staticmethod
    def forward(
        ctx: Any, operators: Operators, plain: bool, settings: Settings, *tensors: Tensor | None
    ) -> Any:
        outputs = Forward.forward(ctx, operators, plain, settings, *tensors)
        outputs = outputs if operators.method.hidden else (outputs,)
        statistics = ctx.to_save[-1]
        ctx.mark_non_differentiable(*_constant(ctx, outputs), statistics)
        return *outputs, statistics


class Backward(_Differentiable):
    """`Operators.backward` with its derivative, through torch's own operations."""

    @staticmethod
    def forward(
        ctx: Any,
        operators: Operators,
        settings: Settings,
        needs: int,
        statistics: Tensor | None,
        *tensors: Tensor | None,
    ) -> Any:
        ctx.operators = operators
        ctx.settings = settings
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        count = operators.method.outputs
        with below_autograd():
            return operators.backward_op(
                *tensors[: count + 1], statistics, *tensors[count + 1 :], *settings, needs
            )

    @staticmethod
    def backward(ctx: Any, *second_grads: Tensor | None) -> Any:
        tensors, count = ctx.saved_tensors, ctx.operators.method.outputs
        grads = second_derivative(
            ctx.operators.method,
            ctx.settings,
            tensors[:count],
            tensors[count:],
            second_grads,
            ctx.needs_input_grad[4:],
        )
        return None, None, None, None, *grads
