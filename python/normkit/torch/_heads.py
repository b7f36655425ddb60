"""Queries and keys in one launch, where nobody but the kernel looks at the call."""

from __future__ import annotations

from functools import lru_cache

from torch import Tensor

from normkit._normkit import Norm
from normkit.torch._dispatch import is_plain, wants_grad

_head_norm = lru_cache(maxsize=512)(Norm.head_norm)
_head_norm_rope = lru_cache(maxsize=512)(Norm.head_norm_rope)


def together(
    settings: tuple[str, float] | tuple[str, float, bool], q: Tensor, k: Tensor, *others: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """The normalized queries and keys; None where each is a call of its own.

    That is so with gradients, under transforms and modes, and of shapes that make no pair. `settings` are those of the
    operator of one of them; `others` are the weights, and the tables of a rotary embedding.
    """
    tensors = (q, k, *others)
    if not is_plain(tensors) or wants_grad(tensors) or k is None or q.dtype != k.dtype:
        return None
    if q.dim() < 2 or q.dim() != k.dim() or q.shape[:-2] != k.shape[:-2]:
        return None
    if k.shape[-2] == 0 or q.shape[-2] % k.shape[-2]:
        return None
    norm = _head_norm(*settings) if len(settings) == 2 else _head_norm_rope(*settings)
    return norm.heads(q, k, *others)
