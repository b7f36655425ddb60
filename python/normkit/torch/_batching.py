"""The operators under `torch.vmap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.torch._methods import Method


def batching(method: Method, op: Any) -> Callable[..., Any]:
    """The rule for `torch.vmap`: one call where only the input is batched and its leading axes are free, else
    one call for each of the batch."""
    backward = op._opname.endswith("_backward")
    count = 3 + method.saved if backward else 1 + len(method.parameters)
    running = [position for position, argument in enumerate(op._schema.arguments) if argument.is_write]

    def rule(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
        tensors, settings, dims = arguments[:count], arguments[count:], in_dims[:count]
        if any(tensors[position] is not None for position in running):
            raise RuntimeError(f"{op}: running statistics cannot be updated under vmap")
        if method.batch_leads and not backward and all(dim is None for dim in dims[1:]):
            result = op(tensors[0].movedim(dims[0], 0), *arguments[1:])
            if isinstance(result, Tensor):
                return result, 0
            output, statistics = result
            return (output, statistics.reshape(info.batch_size, -1, 4)), (0, 0)
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
