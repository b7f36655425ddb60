"""The operators `torch.ops.normkit.*`: kernels, shapes for tracing, derivatives, batching, autocast.

Each method has up to three: `NAME` gives the output (or the output and the hidden value), `NAME_train` also
the statistics that the backward pass needs, `NAME_backward` the gradients. `NAME` and `NAME_train` are
differentiable; the derivative of `NAME_backward`, which double backward needs, goes through torch's own
operations. Forward-mode derivatives raise NotImplementedError.

Importing this module registers them. [`OPERATORS`] is the way in from Python: where nothing but autograd
would look at the call it skips torch's dispatcher, which costs more than normalizing a short row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import _C, Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch._prims_common import suggest_memory_format

from normkit.torch._autograd import Backward, Forward, Settings, Train, below_autograd
from normkit.torch._batching import batching
from normkit.torch._dispatch import is_plain, tracks, wants_grad
from normkit.torch._fused_methods import FUSED
from normkit.torch._methods import METHODS, Grads, Method

_library: Any = torch.library.Library("normkit", "DEF")  # type: ignore[no-untyped-call]
_tags = (torch.Tag.pt2_compliant_tag, torch.Tag.flexible_layout)
_devices = ("CPU", "CUDA")
_function: Any = torch.autograd.function.FunctionMeta

# dtypes of tensors that hold what arithmetic in them gives.
_unrounded = {torch.float32, torch.float64}


def _empty_like(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Row-major, or channels-last for images and volumes that are so, as the kernels' results are."""
    return torch.empty_like(tensor, dtype=dtype, memory_format=suggest_memory_format(tensor))


class Operators:
    """The operators of one method, registered."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.arity = 1 + len(method.parameters)
        # Classes of their own, whose names are those of the gradient's nodes: LayerNormBackward.
        name = method.name.title().replace("_", "")
        self.forward_function = _function(name, (Forward,), {})
        self.train_function = _function(name, (Train,), {})
        self.backward_function = _function(f"{name}Gradient", (Backward,), {})
        aliases = iter("ab")
        tensors = "Tensor input" + "".join(
            f", Tensor({next(aliases)}!)? {name}"
            if method.mutates and name.startswith("running_")
            else f", Tensor? {name}"
            for name in method.parameters
        )
        saved = "".join(f", Tensor? {name}" for name in method.parameters[: method.saved])
        grads = ", ".join(["Tensor"] * (1 + method.learned))
        outputs = ", ".join(["Tensor"] * method.outputs)
        if method.forward:
            self.forward_op = self._define(
                method.name,
                f"({tensors}, {method.settings}) -> ({outputs})",
                kernel=lambda *a: self._kernel(a).forward(*a[: self.arity]),
                fake=lambda *a: self._fake_train(*a)[:2] if method.hidden else self._fake_train(*a)[0],
                autograd=self._differentiable_forward,
            )
        if method.rows is not None:
            self.train_op = self._define(
                f"{method.name}_train",
                f"({tensors}, {method.settings}) -> ({outputs}, Tensor)",
                kernel=lambda *a: self._kernel(a).train(*a[: self.arity]),
                fake=self._fake_train,
                autograd=self._differentiable_train,
            )
        if method.derivative is None:
            grad_outputs = "Tensor grad_output" + ", Tensor? grad_hidden" * method.hidden
            self.backward_op = self._define(
                f"{method.name}_backward",
                f"({grad_outputs}, Tensor input, Tensor? statistics{saved}, {method.settings}, int needs)"
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

    def pair(self, settings: Settings, *tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        """The output and the hidden value of a method that gives both."""
        return cast(tuple[Tensor, Tensor], self(settings, *tensors))

    def _check_kinds(self, tensors: Sequence[object]) -> None:
        for name, tensor in zip(("input", *self.method.parameters), tensors, strict=True):
            if not isinstance(tensor, Tensor) and (tensor is not None or name == "input"):
                raise TypeError(f"{name}: expected a torch.Tensor, found {type(tensor).__name__}")

    def train(self, plain: bool, settings: Settings, tensors: Sequence[Tensor | None]) -> tuple[Any, ...]:
        """The outputs and the statistics."""
        if plain:
            return self.method.kernel(tensors[0], *settings).train(*tensors)
        with below_autograd():
            if self.method.rows is None:
                return self.forward_op(*tensors, *settings), None
            return cast(tuple[Any, ...], self.train_op(*tensors, *settings))

    def kept(self, tensors: Sequence[Tensor | None], outputs: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """What backward takes: in the place of two summands their sum, where that was not rounded."""
        if self.method.derivative is not None:
            return tensors[:-1]
        if self.method.hidden and not self.method.branch and tensors[-3] is None and tensors[-2] is None:
            dtypes = {tensor.dtype for tensor in (tensors[0], tensors[-1]) if tensor is not None}
            if len(dtypes) == 1 and dtypes <= _unrounded:
                return outputs[1], *tensors[1:-1], None
        return tensors[: 1 + self.method.saved]

    def differentiate(
        self,
        grad_outputs: Sequence[Tensor | None],
        tensors: Sequence[Tensor | None],
        statistics: Tensor | None,
        settings: Settings,
        needs: int,
    ) -> Grads:
        """The gradients of input and parameters, given what was [`kept`](Operators.kept)."""
        last = 1 << len(self.method.parameters)
        if self.method.hidden:
            return self._of_a_sum(grad_outputs, tensors, statistics, settings, needs)
        if self.method.derivative is not None:
            norm, others = OPERATORS[self.method.derivative], needs & ~last
            grads = (
                norm.differentiate(grad_outputs, tensors, statistics, settings, others)
                if others
                else (None,) * len(tensors)
            )
            # Autograd casts it to the residual's dtype.
            return *grads[: len(tensors)], grad_outputs[0]
        return self._gradients(grad_outputs, tensors, statistics, settings, needs)

    def _of_a_sum(
        self,
        grad_outputs: Sequence[Tensor | None],
        tensors: Sequence[Tensor | None],
        statistics: Tensor | None,
        settings: Settings,
        needs: int,
    ) -> Grads:
        """The gradients of a norm of a sum: of the summands it is one tensor where nothing scales them."""
        grad_output, grad_hidden = grad_outputs
        if grad_output is None and grad_hidden is None:
            return (None,) * len(tensors)
        if self.method.branch:
            if grad_output is None:
                grad_outputs = (torch.zeros_like(cast(Tensor, tensors[0])), grad_hidden)
            return self._gradients(grad_outputs, tensors, statistics, settings, needs)
        (*_, first_scale, last_scale, p, _, _), (input, *others, residual) = settings, tensors
        scales = (first_scale, last_scale)
        is_plain_branch = others[-2] is None and others[-1] is None
        summands = [input, input if residual is None else residual]
        if grad_output is None and (p > 0.0 or not is_plain_branch):
            # The kernels know which elements there were, and what became of them.
            grad_outputs = (torch.zeros_like(cast(Tensor, input)), grad_hidden)
        elif grad_output is None:
            assert grad_hidden is not None
            first, last = (
                (grad_hidden if scale == 1.0 else grad_hidden * scale).to(summand.dtype)
                for scale, summand in zip(scales, cast(list[Tensor], summands), strict=True)
            )
            return first, *(None for _ in others), last
        first_bit, last_bit = 1, 1 << len(self.method.parameters)
        dtypes = {cast(Tensor, summand).dtype for summand in summands}
        is_one = scales == (1.0, 1.0) and p == 0.0 and is_plain_branch and len(dtypes) == 1
        asked = needs & ~last_bit | first_bit if is_one and needs & last_bit else needs
        grads = self._gradients(grad_outputs, tensors, statistics, settings, asked)
        if not is_one:
            return grads
        first, *middle, _ = grads
        return first if needs & first_bit else None, *middle, first if needs & last_bit else None

    def _gradients(
        self,
        grad_outputs: Sequence[Tensor | None],
        tensors: Sequence[Tensor | None],
        statistics: Tensor | None,
        settings: Settings,
        needs: int,
    ) -> Grads:
        if not torch.is_grad_enabled() and is_plain((*grad_outputs, *tensors)):
            grads = self._run_backward(grad_outputs, tensors, statistics, settings, needs)
            return grads[: 1 + self.method.learned]
        input, *parameters = tensors
        grads = self.backward_op(*grad_outputs, input, statistics, *parameters, *settings, needs)
        return cast(Grads, grads if self.method.learned else (grads,))

    def _run_backward(
        self,
        grad_outputs: Sequence[Tensor | None],
        tensors: Sequence[Tensor | None],
        statistics: Tensor | None,
        settings: Settings,
        needs: int,
    ) -> Grads:
        kernel, (input, *parameters) = self.method.kernel(tensors[0], *settings), tensors
        if self.method.hidden:
            grad_output, grad_hidden = grad_outputs
            return kernel.backward(
                grad_output, input, statistics, *parameters, needs=needs, grad_hidden=grad_hidden
            )
        return kernel.backward(grad_outputs[0], input, statistics, *parameters, needs=needs)

    def _differentiable_forward(self, *arguments: Any) -> Any:
        tensors, settings = arguments[: self.arity], arguments[self.arity :]
        if tracks(tensors):
            with enable_single_level_autograd_function():
                return self.forward_function.apply(self, False, settings, *tensors)
        with _C._AutoDispatchBelowAutograd():
            return self.forward_op(*arguments)

    def _differentiable_train(self, *arguments: Any) -> Any:
        tensors, settings = arguments[: self.arity], arguments[self.arity :]
        if tracks(tensors):
            with enable_single_level_autograd_function():
                return self.train_function.apply(self, False, settings, *tensors)
        with _C._AutoDispatchBelowAutograd():
            return self.train_op(*arguments)

    def _differentiable_backward(self, *arguments: Any) -> Any:
        grad_outputs, tensors, statistics, settings, needs = self._of_backward(arguments)
        if tracks((*grad_outputs, *tensors)):
            with enable_single_level_autograd_function():
                return self.backward_function.apply(
                    self, settings, needs, statistics, *grad_outputs, *tensors
                )
        with _C._AutoDispatchBelowAutograd():
            return self.backward_op(*arguments)

    def _of_backward(self, arguments: Sequence[Any]) -> Any:
        """A backward operator's arguments: gradients of outputs, tensors, statistics, settings and needs."""
        count, saved = self.method.outputs, self.method.saved
        input, statistics, *rest = arguments[count:]
        return arguments[:count], (input, *rest[:saved]), statistics, tuple(rest[saved:-1]), rest[-1]

    # Below autograd.

    def _backward_kernel(self, *arguments: Any) -> Any:
        grads = self._run_backward(*self._of_backward(arguments))
        return self._as_returned(grads[: 1 + self.method.learned])

    def _fake_train(self, *arguments: Any) -> tuple[Tensor | None, ...]:
        (input, *parameters), settings = arguments[: self.arity], arguments[self.arity :]
        for name, parameter in zip(self.method.parameters, parameters, strict=True):
            if parameter is not None and parameter.device != input.device:
                raise RuntimeError(
                    f"{name}: expected a tensor on {input.device}, found one on {parameter.device}"
                )
        self.method.check(input.shape, parameters, settings)
        outputs = [_empty_like(input)]
        if self.method.hidden:
            outputs.append(_empty_like(input, parameters[-1].dtype))
        if self.method.rows is None:
            return *outputs, None
        dtype = torch.float64 if input.dtype == torch.float64 else torch.float32
        return *outputs, input.new_empty((self.method.rows(input.shape, *settings), 4), dtype=dtype)

    def _fake_backward(self, *arguments: Any) -> Any:
        _, tensors, _, _, needs = self._of_backward(arguments)
        if self.method.hidden and tensors[-1] is None:
            # The hidden value stands for the residual, too.
            tensors = (*tensors[:-1], tensors[0])
        return self._as_returned(
            tuple(
                None if tensor is None or not needs >> position & 1 else _empty_like(tensor)
                for position, tensor in enumerate(tensors[: 1 + self.method.learned])
            )
        )

    def _as_returned(self, grads: Grads) -> Any:
        """An operator with one result gives that, not a tuple."""
        return grads if self.method.learned else grads[0]


OPERATORS = {method.name: Operators(method) for method in (*METHODS, *FUSED)}
