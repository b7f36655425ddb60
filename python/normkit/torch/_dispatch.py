"""Whether torch's dispatcher has anything to say about a call."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad

_included_keys = _C._dispatch_tls_local_include_set
_any_autocast = _C._is_any_autocast_enabled


def _undisturbed_states() -> frozenset[int]:
    """The dispatcher's states where no mode, transform or tracer is on: those of a new thread."""
    states: set[int] = set()

    def look() -> None:
        states.add(_included_keys().raw_repr())
        with torch.inference_mode():
            states.add(_included_keys().raw_repr())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return frozenset(states)


_undisturbed = _undisturbed_states()
_plain_types = frozenset((Tensor, torch.nn.Parameter, type(None)))


def is_plain(tensors: Sequence[Tensor | None]) -> bool:
    """Whether a kernel may be called on these tensors without asking the dispatcher.

    They lie on the CPU, or all on CUDA; the kernel checks that it is one device. The first is not None.
    """
    if (
        torch.compiler.is_compiling()
        or _included_keys().raw_repr() not in _undisturbed
        or _any_autocast()
        or forward_ad._current_level >= 0
    ):
        return False
    first = tensors[0]
    if not isinstance(first, Tensor):
        return False
    on_cpu = first.is_cpu
    for tensor in tensors:
        if type(tensor) not in _plain_types:
            return False
        if tensor is not None and (not (tensor.is_cpu if on_cpu else tensor.is_cuda) or tensor.is_neg()):
            return False
    return first.layout is torch.strided


def wants_grad(tensors: Sequence[Tensor | None]) -> bool:
    """Whether reverse mode is on and some tensor requires a gradient."""
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return True
    return False


def tracks(tensors: Sequence[Tensor | None]) -> bool:
    """Whether autograd must see the call: also one with a tangent, which it refuses, so that none is lost."""
    return wants_grad(tensors) or forward_ad._current_level >= 0
