"""Turning a model's norms into normkit's, in place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from normkit.torch import modules
from normkit.torch._probe import rms_habit

__all__ = ["Conversion", "Left", "Replaced", "convert"]


@dataclass(frozen=True)
class Replaced:
    """A module that became normkit's: its name in the model, its class before, and what it is now."""

    name: str
    was: str
    now: str


@dataclass(frozen=True)
class Left:
    """A norm that stayed as it was, and why."""

    name: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Conversion:
    """What [`convert`] did. `str()` sums it up, one line for each kind of module."""

    replaced: list[Replaced] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    def __str__(self) -> str:
        done = Counter((item.was, item.now) for item in self.replaced)
        lines = [f"replaced {len(self.replaced)}"]
        lines += [f"  {count:4} {was} -> {now}" for (was, now), count in done.items()]
        if self.left:
            lines.append(f"left {len(self.left)}")
            lines += [f"  {item.name or '(the model)'}: {item.kind}: {item.reason}" for item in self.left]
        return "\n".join(lines)


_TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.LayerNorm: modules.LayerNorm,
    nn.RMSNorm: modules.RMSNorm,
    nn.BatchNorm1d: modules.BatchNorm1d,
    nn.BatchNorm2d: modules.BatchNorm2d,
    nn.BatchNorm3d: modules.BatchNorm3d,
    nn.GroupNorm: modules.GroupNorm,
    nn.InstanceNorm1d: modules.InstanceNorm1d,
    nn.InstanceNorm2d: modules.InstanceNorm2d,
    nn.InstanceNorm3d: modules.InstanceNorm3d,
}
_OURS = (*_TWINS.values(), modules.DyT, modules.QKNorm)

# What a subclass may define without being another norm.
_HARMLESS = {"__init__", "__module__", "__doc__", "__annotations__", "__parameters__", "__constants__"} | {
    "__firstlineno__",
    "__static_attributes__",
    "__annotate_func__",
    "__annotations_cache__",
    "extra_repr",
    "reset_parameters",
}
_UNINITIALIZED = "not initialized yet; run the model once"
_EPS_NAMES = ("variance_epsilon", "eps", "epsilon", "norm_eps")


class _Leave(Exception):
    """The module stays; the argument says why."""


def convert(model: nn.Module, to: str | None = None, *, alpha_init: float = 0.5) -> Conversion:
    """Makes the norms of `model` normkit's, in place, and says what was done.

    With `to` None each LayerNorm, RMSNorm, BatchNorm, GroupNorm and InstanceNorm of torch becomes its
    namesake in `normkit.torch`, and so does every module that behaves as an RMSNorm: one `weight`, an eps,
    and on random rows the outputs of RMSNorm in one of the cast modes "fp32", "llama" and "gemma", in float32
    and in bfloat16. That is how the classes of the transformers library are found; their names do not matter.
    Such a module's result has the dtype of its input, also where its weight is wider.

    With `to="dyt"` LayerNorm and RMSNorm become DyT with alpha at `alpha_init`. Weights and biases stay as
    they are, but DyT is another function: the model must be trained.

    A module changes its class and stays the same object, with the same parameters, buffers, hooks, training
    flag and places in the model. Subclasses with methods of their own, such as a changed forward, are left
    and reported. `torch.nn.TransformerEncoderLayer` calls torch's own LayerNorm in inference, whatever its
    modules are.
    """
    if to not in (None, "dyt"):
        raise ValueError(f'to: expected None or "dyt", found {to!r}')
    report = Conversion()
    for name, module in list(model.named_modules()):
        if "parametrizations" in name.split("."):
            continue
        was = _kind(module)
        try:
            change = _change(module, to, alpha_init)
        except _Leave as why:
            report.left.append(Left(name, was, str(why)))
            continue
        if change is not None:
            change()
            report.replaced.append(Replaced(name, was, f"normkit.{type(module).__name__}{_habit(module)}"))
    return report


def _kind(module: nn.Module) -> str:
    return f"{type(module).__module__.partition('.')[0]}.{type(module).__name__}"


def _habit(module: nn.Module) -> str:
    own = [part for part in module.extra_repr().split(", ") if part.startswith(("cast=", "offset="))]
    return f"({', '.join(own)})" if own else ""


def _change(module: nn.Module, to: str | None, alpha_init: float) -> Callable[[], None] | None:
    """What is to be done to the module; None if it is not a norm, or is what it shall be."""
    if isinstance(module, modules.DyT | modules.QKNorm) or (to is None and isinstance(module, _OURS)):
        return None
    base = next((base for base in _TWINS if isinstance(module, base)), None)
    if base is None:
        return _change_foreign(module, to, alpha_init)
    if to == "dyt" and base not in (nn.LayerNorm, nn.RMSNorm):
        return None
    if not isinstance(module, _OURS):
        _refuse_subclass(module, base)
    if to == "dyt":
        return lambda: _become_dyt(module, alpha_init)
    if base is nn.RMSNorm:
        return lambda: _become(module, modules.RMSNorm, offset=0.0, cast=_torch_rms_cast(), partial=1.0)
    return lambda: _become(module, _TWINS[base])


def _refuse_subclass(module: nn.Module, base: type[nn.Module]) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise _Leave("a scripted module cannot change")
    own = {name for cls in type(module).__mro__[: type(module).__mro__.index(base)] for name in vars(cls)}
    if "forward" in own or "forward" in vars(module):
        raise _Leave("has a forward of its own")
    if own - _HARMLESS:
        raise _Leave(f"defines {', '.join(sorted(own - _HARMLESS))}")


def _change_foreign(module: nn.Module, to: str | None, alpha_init: float) -> Callable[[], None] | None:
    """For a class that is none of torch's: an RMSNorm, if it has the looks and the behaviour of one."""
    named = "norm" in type(module).__name__.lower() and next(module.children(), None) is None
    if isinstance(module, nn.modules.lazy.LazyModuleMixin):
        if named:
            raise _Leave(_UNINITIALIZED)
        return None
    if isinstance(module, nn.SyncBatchNorm):
        raise _Leave("its statistics are those of all processes")
    eps = next((getattr(module, name) for name in _EPS_NAMES if hasattr(module, name)), None)
    weight = module._parameters.get("weight")
    alone = len(module._parameters) == 1 and not module._buffers and not module._modules
    if weight is None or weight.dim() != 1 or not alone or not isinstance(eps, float):
        if named:
            raise _Leave("has more or less than a weight and an eps")
        return None
    habit = None if "forward" in vars(module) else rms_habit(module, weight.numel(), eps)
    if habit is None:
        if named:
            raise _Leave("does not compute RMSNorm in any cast mode")
        return None
    if to == "dyt":
        return lambda: _become_dyt(module, alpha_init, offset=1.0 if habit == "gemma" else 0.0)
    shape = tuple(weight.shape)
    return lambda: _become(
        module,
        modules.RMSNorm,
        normalized_shape=shape,
        eps=eps,
        elementwise_affine=True,
        offset=0.0,
        cast=habit,
        partial=1.0,
    )


@lru_cache(maxsize=1)
def _torch_rms_cast() -> str:
    """Where the installed torch's RMSNorm rounds."""
    return rms_habit(nn.RMSNorm(64, eps=1e-6), 64, 1e-6) or "fp32"


def _become(module: nn.Module, cls: type[nn.Module], **attributes: Any) -> None:
    module.__class__ = cls
    module.__dict__.update(attributes)


def _become_dyt(module: nn.Module, alpha_init: float, offset: float = 0.0) -> None:
    weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
    if isinstance(module, modules.RMSNorm):
        offset = 1.0 if module.cast == "gemma" else module.offset
    if weight is not None and offset != 0.0:
        with torch.no_grad():
            weight.add_(offset)
    alpha = torch.full((1,), alpha_init) if weight is None else weight.detach().new_full((1,), alpha_init)
    _become(
        module,
        modules.DyT,
        normalized_shape=tuple(
            getattr(module, "normalized_shape", weight.shape if weight is not None else ())
        ),
        alpha_init=alpha_init,
        elementwise_affine=weight is not None,
    )
    module.register_parameter("alpha", nn.Parameter(alpha))
    module.register_parameter("weight", weight)
    module.register_parameter("bias", bias)
