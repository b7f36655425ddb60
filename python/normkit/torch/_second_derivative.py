"""The derivative of a method's gradients, through torch's own operations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.torch._composites import dropped
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
    with torch.enable_grad():
        # Aliases, as gradients may themselves depend on the tensors, by ways that are not asked for here.
        leaves: list[Any] = [tensor if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        if method.hidden and tensors[-1] is None:
            # The sum is there in the place of both summands, whose gradients are its gradient, scaled.
            first, *middle, last = second_grads
            *_, input_scale, residual_scale, p, seed, offset = settings
            scaled = []
            if first is not None:
                scaled.append(input_scale * dropped(first, p, seed, offset))
            if last is not None:
                scaled.append(residual_scale * last)
            second_grads = [functools.reduce(torch.add, scaled) if scaled else None, *middle, None]
        asked = []
        for position, second in enumerate(second_grads):
            if second is not None:
                leaf = leaves[position]
                leaves[position] = leaf if leaf.requires_grad else leaf.detach().requires_grad_()
                asked.append((leaves[position], second))
        if not asked:
            return [None] * len(wanted)
        results = method.composite(*leaves, *settings)
        results = results if method.hidden else (results,)
        pairs = zip(results, grad_outputs, strict=True)
        given = [(one, grad) for one, grad in pairs if grad is not None and one.requires_grad]
        grads = torch.autograd.grad(
            [one for one, _ in given],
            [leaf for leaf, _ in asked],
            [grad for _, grad in given],
            create_graph=True,
        )
        curved = [
            (grad, second) for grad, (_, second) in zip(grads, asked, strict=True) if grad.requires_grad
        ]
        second_derivatives = iter(
            torch.autograd.grad(
                [grad for grad, _ in curved],
                [leaf for leaf, want in zip((*grad_outputs, *leaves), wanted, strict=True) if want],
                [second for _, second in curved],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    return [next(second_derivatives) if want else None for want in wanted]
