"""The derivative of a method's gradients, through torch's own operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from normkit.torch._methods import Method


def second_derivative(
    method: Method,
    settings: Sequence[Any],
    grad_outputs: Sequence[Tensor | None],
    tensors: Sequence[Tensor | None],
    second_grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of `grad_outputs` and `tensors`; `second_grads` are those of the gradients of `tensors`."""
    create_graph = torch.is_grad_enabled()
    composite: Callable[..., Any] = method.composite
    with torch.enable_grad():
        # Aliases, as gradients may themselves depend on the tensors, by ways that are not asked for here.
        leaves: list[Any] = [tensor if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        hidden = leaves[0] if method.hidden and tensors[-1] is None else None
        if hidden is not None:
            # It came in the input's place: gradients are those of what is added to it.
            composite = partial(composite, base=hidden)
            leaves = [torch.zeros_like(hidden), *leaves[1:-1], torch.zeros_like(hidden)]
        asked = []
        for position, second in enumerate(second_grads):
            if second is not None:
                leaf = leaves[position]
                leaves[position] = leaf if leaf.requires_grad else leaf.detach().requires_grad_()
                asked.append((leaves[position], second))
        if not asked:
            return [None] * len(wanted)
        sources = leaves if hidden is None else [hidden, *leaves[1:-1], None]
        results = composite(*leaves, *settings)
        results = results if method.hidden else (results,)
        given = [(one, grad) for one, grad in zip(results, grad_outputs, strict=True) if grad is not None]
        grads = torch.autograd.grad(
            [one for one, _ in given],
            [leaf for leaf, _ in asked],
            [grad for _, grad in given],
            create_graph=True,
        )
        pairs = [(grad, second) for grad, (_, second) in zip(grads, asked, strict=True) if grad.requires_grad]
        second_derivatives = iter(
            torch.autograd.grad(
                [grad for grad, _ in pairs],
                [leaf for leaf, want in zip((*grad_outputs, *sources), wanted, strict=True) if want],
                [second for _, second in pairs],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    return [next(second_derivatives) if want else None for want in wanted]
