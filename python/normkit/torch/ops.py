"""The operators `torch.ops.normkit.*`: kernels, shapes for tracing, derivatives, batching, autocast.

Each method has up to three: `NAME` gives the output, `NAME_train` the output and the statistics that the
backward pass needs, `NAME_backward` the gradients. `NAME` and `NAME_train` are differentiable; the derivative
of `NAME_backward`, which double backward needs, goes through torch's own operations. Forward-mode derivatives
raise NotImplementedError.

Importing this module registers them. [`OPERATORS`] is the way in from Python: where nothing but autograd
would look at the call it skips torch's dispatcher, which costs more than normalizing a short row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import _C, Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._prims_common import suggest_memory_format
from torch.autograd import forward_ad

from normkit.torch._batching import batching
from normkit.torch._dispatch import is_plain, tracks, wants_grad
from normkit.torch._methods import METHODS, Grads, Method

_library: Any = torch.library.Library("normkit", "DEF")  # type: ignore[no-untyped-call]
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)
_devices = ("CPU", "CUDA")
_function: Any = torch.autograd.function.FunctionMeta

Settings = tuple[Any, ...]


@contextmanager
def _below_autograd() -> Iterator[None]:
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


class _Forward(_Differentiable):
    """A method's output, with its derivative. `plain` says whether to go round the dispatcher."""

    @staticmethod
    def forward(
        ctx: Any, operators: Operators, plain: bool, settings: Settings, *tensors: Tensor | None
    ) -> Any:
        output, statistics = operators.train(plain, settings, tensors)
        ctx.save_for_backward(*tensors[: operators.kept], statistics)
        ctx.operators = operators
        ctx.settings = settings
        return output

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, *grad_statistics: None) -> Any:
        *tensors, statistics = ctx.saved_tensors
        operators: Operators = ctx.operators
        needs, wanted = 0, ctx.needs_input_grad
        for position in range(1 + operators.method.learned):
            needs |= wanted[3 + position] << position
        grads = operators.differentiate(grad_output, tensors, statistics, ctx.settings, needs)
        return None, None, None, *grads, *(None,) * (len(wanted) - 3 - len(grads))


class _Train(_Forward):
    """The same with the statistics as a second output."""

    @staticmethod
    def forward(
        ctx: Any, operators: Operators, plain: bool, settings: Settings, *tensors: Tensor | None
    ) -> Any:
        output = _Forward.forward(ctx, operators, plain, settings, *tensors)
        statistics = ctx.to_save[-1]
        ctx.mark_non_differentiable(statistics)
        return output, statistics


class _Backward(_Differentiable):
    """`Operators.backward` with its derivative, through torch's own operations."""

    @staticmethod
    def forward(
        ctx: Any,
        operators: Operators,
        settings: Settings,
        needs: int,
        grad_output: Tensor,
        statistics: Tensor | None,
        *tensors: Tensor | None,
    ) -> Any:
        ctx.operators = operators
        ctx.settings = settings
        ctx.save_for_backward(grad_output, *tensors)
        ctx.set_materialize_grads(False)
        with _below_autograd():
            return operators.backward_op(grad_output, tensors[0], statistics, *tensors[1:], *settings, needs)

    @staticmethod
    def backward(ctx: Any, *second_grads: Tensor | None) -> Any:
        grad_output, *tensors = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[3], *ctx.needs_input_grad[5:])
        composite = ctx.operators.method.composite
        first, *rest = _second_derivative(composite, ctx.settings, grad_output, tensors, second_grads, wanted)
        return None, None, None, first, None, *rest


def _second_derivative(
    composite: Callable[..., Tensor],
    settings: Settings,
    grad_output: Tensor,
    tensors: Sequence[Tensor | None],
    second_grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> list[Tensor | None]:
    """Gradients of `grad_output` and `tensors`; `second_grads` are those of the gradients of `tensors`."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Aliases, as grad_output may itself depend on the tensors, by ways that are not asked for here.
        leaves: list[Any] = [tensor if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        asked = []
        for position, second in enumerate(second_grads):
            if second is not None:
                leaf = leaves[position]
                leaves[position] = leaf if leaf.requires_grad else leaf.detach().requires_grad_()
                asked.append((leaves[position], second))
        if not asked:
            return [None] * len(wanted)
        output = composite(*leaves, *settings)
        grads = torch.autograd.grad(output, [leaf for leaf, _ in asked], grad_output, create_graph=True)
        pairs = [(grad, second) for grad, (_, second) in zip(grads, asked, strict=True) if grad.requires_grad]
        results = iter(
            torch.autograd.grad(
                [grad for grad, _ in pairs],
                [leaf for leaf, want in zip((grad_output, *leaves), wanted, strict=True) if want],
                [second for _, second in pairs],
                create_graph=create_graph,
                allow_unused=True,
            )
        )
    return [next(results) if want else None for want in wanted]


def _empty_like(tensor: Tensor) -> Tensor:
    """Row-major, or channels-last for images and volumes that are so, as the kernels' results are."""
    return torch.empty_like(tensor, memory_format=suggest_memory_format(tensor))


class Operators:
    """The operators of one method, registered."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.arity = 1 + len(method.parameters)
        self.kept = 1 + method.saved
        # Classes of their own, whose names are those of the gradient's nodes: LayerNormBackward.
        name = method.name.title().replace("_", "")
        self.forward_function = _function(name, (_Forward,), {})
        self.train_function = _function(name, (_Train,), {})
        self.backward_function = _function(f"{name}Gradient", (_Backward,), {})
        aliases = iter("ab")
        tensors = "Tensor input" + "".join(
            f", Tensor({next(aliases)}!)? {name}"
            if method.mutates and name.startswith("running_")
            else f", Tensor? {name}"
            for name in method.parameters
        )
        saved = "".join(f", Tensor? {name}" for name in method.parameters[: method.saved])
        grads = ", ".join(["Tensor"] * (1 + method.learned))
        if method.forward:
            self.forward_op = self._define(
                method.name,
                f"({tensors}, {method.settings}) -> Tensor",
                kernel=lambda *a: self._kernel(a).forward(*a[: self.arity]),
                fake=lambda *a: self._fake_train(*a)[0],
                autograd=self._differentiable_forward,
            )
        if method.rows is not None:
            self.train_op = self._define(
                f"{method.name}_train",
                f"({tensors}, {method.settings}) -> (Tensor, Tensor)",
                kernel=lambda *a: self._kernel(a).train(*a[: self.arity]),
                fake=self._fake_train,
                autograd=self._differentiable_train,
            )
        self.backward_op = self._define(
            f"{method.name}_backward",
            f"(Tensor grad_output, Tensor input, Tensor? statistics{saved}, {method.settings}, int needs)"
            f" -> ({grads})",
            kernel=self._backward_kernel,
            fake=self._fake_backward,
            autograd=self._differentiable_backward,
        )

    def _define(
        self,
        name: str,
        schema: str,
        kernel: Callable[..., Any],
        fake: Callable[..., Any],
        autograd: Callable[..., Any],
    ) -> Any:
        _library.define(name + schema, tags=_tags)
        for device in _devices:
            _library.impl(name, kernel, device)
        _library.impl(name, autograd, "Autograd")
        torch.library.register_fake(f"normkit::{name}", fake, lib=_library)
        op = getattr(torch.ops.normkit, name).default
        if self.method.autocast and not name.endswith("_backward"):
            torch.library.register_autocast(op, "cuda", torch.float32, lib=_library)
        torch.library.register_vmap(op, batching(self.method, op), lib=_library)
        return op

    def _kernel(self, arguments: Sequence[Any]) -> Any:
        return self.method.kernel(arguments[0], *arguments[self.arity :])

    # Entered from Python, and from the Autograd key: tensors are the input and the parameters.

    def __call__(self, settings: Settings, *tensors: Tensor | None) -> Tensor:
        """The output, with autograd; `tensors` are the input and the parameters in the method's order."""
        if not is_plain(tensors):
            self._check_kinds(tensors)
            if self.method.forward:
                return cast(Tensor, self.forward_op(*tensors, *settings))
            return cast(Tensor, self.train_op(*tensors, *settings)[0])
        if wants_grad(tensors):
            return cast(Tensor, self.forward_function.apply(self, True, settings, *tensors))
        return self.method.kernel(tensors[0], *settings).forward(*tensors)

    def _check_kinds(self, tensors: Sequence[object]) -> None:
        for name, tensor in zip(("input", *self.method.parameters), tensors, strict=True):
            if not isinstance(tensor, Tensor) and (tensor is not None or name == "input"):
                raise TypeError(f"{name}: expected a torch.Tensor, found {type(tensor).__name__}")

    def train(self, plain: bool, settings: Settings, tensors: Sequence[Tensor | None]) -> tuple[Tensor, Any]:
        if plain:
            return self.method.kernel(tensors[0], *settings).train(*tensors)
        with _below_autograd():
            if self.method.rows is None:
                return self.forward_op(*tensors, *settings), None
            return cast(tuple[Tensor, Any], self.train_op(*tensors, *settings))

    def differentiate(
        self,
        grad_output: Tensor,
        tensors: Sequence[Tensor | None],
        statistics: Tensor | None,
        settings: Settings,
        needs: int,
    ) -> Grads:
        if not torch.is_grad_enabled() and is_plain((grad_output, *tensors)):
            kernel = self.method.kernel(tensors[0], *settings)
            grads = kernel.backward(grad_output, tensors[0], statistics, *tensors[1:], needs=needs)
            return grads[: 1 + self.method.learned]
        input, *parameters = tensors
        grads = self.backward_op(grad_output, input, statistics, *parameters, *settings, needs)
        return cast(Grads, grads if self.method.learned else (grads,))

    def _differentiable_forward(self, *arguments: Any) -> Tensor:
        tensors, settings = arguments[: self.arity], arguments[self.arity :]
        if tracks(tensors):
            with enable_single_level_autograd_function():
                return cast(Tensor, self.forward_function.apply(self, False, settings, *tensors))
        with _C._AutoDispatchBelowAutograd():
            return cast(Tensor, self.forward_op(*arguments))

    def _differentiable_train(self, *arguments: Any) -> Any:
        tensors, settings = arguments[: self.arity], arguments[self.arity :]
        if tracks(tensors):
            with enable_single_level_autograd_function():
                return self.train_function.apply(self, False, settings, *tensors)
        with _C._AutoDispatchBelowAutograd():
            return self.train_op(*arguments)

    def _differentiable_backward(
        self, grad_output: Tensor, input: Tensor, statistics: Any, *rest: Any
    ) -> Any:
        parameters, settings, needs = rest[: self.method.saved], rest[self.method.saved : -1], rest[-1]
        if tracks((grad_output, input, *parameters)):
            with enable_single_level_autograd_function():
                return self.backward_function.apply(
                    self, settings, needs, grad_output, statistics, input, *parameters
                )
        with _C._AutoDispatchBelowAutograd():
            return self.backward_op(grad_output, input, statistics, *rest)

    # Below autograd.

    def _backward_kernel(self, grad_output: Tensor, input: Tensor, statistics: Any, *rest: Any) -> Any:
        parameters, settings, needs = rest[: self.method.saved], rest[self.method.saved : -1], rest[-1]
        kernel = self.method.kernel(input, *settings)
        grads = kernel.backward(grad_output, input, statistics, *parameters, needs=needs)
        return self._as_returned(grads[: 1 + self.method.learned])

    def _fake_train(self, *arguments: Any) -> tuple[Tensor, Tensor | None]:
        (input, *parameters), settings = arguments[: self.arity], arguments[self.arity :]
        shape = self.method.expected(input.shape, *settings)
        for name, parameter in zip(self.method.parameters, parameters, strict=True):
            if parameter is None:
                continue
            if parameter.device != input.device:
                raise RuntimeError(
                    f"{name}: expected a tensor on {input.device}, found one on {parameter.device}"
                )
            if name != "alpha" and shape is not None and list(parameter.shape) != list(shape):
                raise ValueError(f"{name}: expected shape {list(shape)}, found shape {list(parameter.shape)}")
        output = _empty_like(input)
        if self.method.rows is None:
            return output, None
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        return output, input.new_empty((self.method.rows(input.shape, *settings), 4), dtype=dtype)

    def _fake_backward(self, grad_output: Tensor, input: Tensor, statistics: Any, *rest: Any) -> Any:
        learned = (input, *rest[: self.method.learned])
        needs = rest[-1]
        return self._as_returned(
            tuple(
                None if tensor is None or not needs >> position & 1 else _empty_like(tensor)
                for position, tensor in enumerate(learned)
            )
        )

    def _as_returned(self, grads: Grads) -> Any:
        """An operator with one result gives that, not a tuple."""
        return grads if self.method.learned else grads[0]


OPERATORS = {method.name: Operators(method) for method in METHODS}
