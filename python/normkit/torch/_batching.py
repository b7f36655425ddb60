"""The operators under `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.torch._methods import Method


def batching(method: Method, op: Any) -> Callable[..., Any]:
    """The rule for `torch.vmap`: one call where nothing but the input, and what has its shape, is batched and its
    leading axes are free, else one call for each of the batch."""
    backward = op._opname.endswith("_backward")
    schema = op._schema.arguments
    count = sum("Tensor" in str(argument.type) for argument in schema)
    running = [position for position, argument in enumerate(schema) if argument.is_write]
    # Those of the input's shape.
    whole = {0, count - 1} if method.operand else {0}

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        tensors, settings, dims = arguments[:count], arguments[count:], in_dims[:count]
        if any(tensors[position] is not None for position in running):
            raise RuntimeError(f"{op}: running statistics cannot be updated under vmap")
        alone = all(dim is None for position, dim in enumerate(dims) if position not in whole)
        if method.batch_leads and not backward and alone:
            batched = [
                _leading(tensor, dim, info.batch_size) if position in whole else tensor
                for position, (tensor, dim) in enumerate(zip(tensors, dims, strict=True))
            ]
            result = op(*batched, *settings)
            if isinstance(result, Tensor):
                return result, 0
            if op._opname.endswith("_train"):
                *outputs, statistics = result
                result = (*outputs, statistics.reshape(info.batch_size, -1, 4))
            return result, (0,) * len(result)
        each = [
            op(
                *(t if dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)),
                *settings,
            )
            for i in range(info.batch_size)
        ]
        if isinstance(each[0], Tensor):
            return torch.stack(each), 0
        results = [None if parts[0] is None else torch.stack(parts) for parts in zip(*each, strict=True)]
        return tuple(results), tuple(None if part is None else 0 for part in results)

    return rule


def _leading(tensor: Tensor, dim: int | None, batch_size: int) -> Tensor:
    """The tensor with the batch as its first axis."""
    if dim is None:
        return tensor.expand(batch_size, *tensor.shape)
    return tensor.movedim(dim, 0)
