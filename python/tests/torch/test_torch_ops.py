"""The operators under torch's own checks, compilers, transforms and modes."""

from __future__ import annotations

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch_cases import CASES, Case, running

import normkit.torch as nk
from normkit.torch._fused_methods import FUSED
from normkit.torch._methods import METHODS
from normkit.torch.ops import OPERATORS

by_case = pytest.mark.parametrize("case", CASES, ids=str)

# name of the method, shape of the input, shapes of its parameters, settings
OPS: list[tuple[str, tuple[int, ...], list[tuple[int, ...] | None], tuple[Any, ...]]] = [
    ("layer_norm", (3, 5, 8), [(8,), (8,)], ([8], 1e-5)),
    ("layer_norm", (3, 5, 8), [None, None], ([5, 8], 1e-5)),
    ("rms_norm", (3, 5, 8), [(8,)], ([8], None, 0.0, "llama", 1.0)),
    ("batch_norm", (3, 4, 5), [(4,), (4,), (4,), (4,)], (0.1, 1e-5)),
    ("batch_norm", (3, 4, 5), [(4,), None, None, None], (0.1, 1e-5)),
    ("batch_norm_frozen", (3, 4, 5), [(4,), (4,), (4,), (4,)], (1e-5,)),
    ("group_norm", (3, 4, 5), [(4,), (4,)], (2, 1e-5)),
    ("instance_norm", (3, 4, 5), [(4,), (4,)], (1e-5,)),
    ("instance_norm_running", (3, 4, 5), [(4,), (4,), (4,), (4,)], (0.1, 1e-5)),
    ("normalize", (3, 5, 8), [], (2.0, 1, 1e-12)),
    ("dyt", (3, 5, 8), [(8,), (8,), (1,)], ([8],)),
    ("head_norm", (2, 6, 4, 8), [(8,)], ("rms", 1e-6)),
    ("weight_norm", (6, 4, 3), [(6, 1, 1)], (0,)),
    ("layer_norm_activated", (3, 5, 8), [(8,), (8,)], ([8], 1e-5, "silu")),
    ("rms_norm_activated", (3, 5, 8), [(8,)], ([8], None, 0.0, "fp32", 1.0, "relu")),
    ("group_norm_activated", (3, 4, 5), [(4,), (4,)], (2, 1e-5, "gelu_tanh")),
    ("add_layer_norm", (3, 5, 8), [(8,), (8,), None, None, (3, 5, 8)], ([8], 1e-5, 1.0, 1.0, 0.0, 0, 0)),
    ("add_layer_norm", (3, 5, 8), [None, None, (5, 8), (5, 8), (3, 5, 8)], ([5, 8], 1e-5, 0.5, 2.0, 0.25, 7, 1)),
    ("add_rms_norm", (3, 5, 8), [(8,), None, (8,), (3, 5, 8)], ([8], None, 0.0, "llama", 1.0, 1.0, 0.5, 3, 0)),
    ("layer_norm_add", (3, 5, 8), [(8,), (8,), (3, 5, 8)], ([8], 1e-5)),
    ("rms_norm_add", (3, 5, 8), [(8,), (3, 5, 8)], ([8], None, 0.0, "fp32", 1.0)),
    ("rms_norm_add_rms_norm", (3, 5, 8), [(8,), (8,), (3, 5, 8)], ([8], None, 0.0, "gemma")),
    ("rms_norm_add_rms_norm", (3, 5, 8), [None, (5, 8), (3, 5, 8)], ([5, 8], 1e-6, 0.5, "fp32")),
    ("layer_norm_add_layer_norm", (3, 5, 8), [(8,), (8,), (8,), None, (3, 5, 8)], ([8], 1e-5)),
    ("hypersphere_step", (3, 5, 8), [(8,), (3, 5, 8)], (1e-12, 0.5)),
    ("modulated_layer_norm", (3, 5, 8), [(3, 8), (3, 8)], (1e-6,)),
    ("modulated_rms_norm", (3, 5, 8), [(3, 1, 8), None], (1e-6,)),
    ("head_norm_rope", (3, 2, 8), [(8,), (3, 4), (3, 4), None], ("rms", 1e-6, False)),
    ("gated_rms_norm", (3, 5, 8), [(8,), (8,), (3, 5, 8)], (1e-5, 4, True)),
    ("gated_rms_norm", (3, 5, 8), [(8,), None, (3, 5, 8)], (1e-5, None, False)),
]
by_op = pytest.mark.parametrize(
    ("name", "shape", "parameters", "settings"), OPS, ids=[f"{i}-{op[0]}" for i, op in enumerate(OPS)]
)


def arguments(name: str, shape: Any, parameters: Any) -> list[Tensor | None]:
    """Positive parameters, so that they can serve as variances."""
    return [torch.randn(shape)] + [None if size is None else torch.rand(size) + 0.5 for size in parameters]


@by_op
def test_opcheck(name: str, shape: Any, parameters: Any, settings: Any) -> None:
    """Schema, autograd, shapes under FakeTensor, and AOTAutograd with static and dynamic shapes."""
    operators = OPERATORS[name]
    method = operators.method
    learned = 1 + method.learned
    tensors = arguments(name, shape, parameters)
    for tensor in tensors[:learned]:
        if tensor is not None:
            tensor.requires_grad_()
    for op in {"forward_op", "train_op"} & vars(operators).keys():
        torch.library.opcheck(getattr(operators, op), (*tensors, *settings))
    detached = [t if t is None else t.detach() for t in tensors]
    *outputs, statistics = operators.train(True, settings, detached)
    if method.derivative is not None:
        assert "backward_op" not in vars(operators)
        return
    grads = [torch.randn_like(output) for output in outputs]
    saved = tensors[1 : 1 + method.saved]
    checked = (*grads, tensors[0], statistics, *saved, *settings, (1 << learned) - 1)
    torch.library.opcheck(operators.backward_op, checked)
    if method.hidden and not method.branch and saved[-3] is None and saved[-2] is None:
        # The hidden value in the place of the input and the residual, where their branch has no parameters.
        of_hidden = (outputs[1].requires_grad_(), statistics, *saved[:-1], None)
        torch.library.opcheck(operators.backward_op, (*grads, *of_hidden, *settings, (1 << learned) - 1))


@pytest.mark.parametrize("which", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 0, 0)], ids=str)
def test_opcheck_with_some_gradients(which: tuple[int, ...]) -> None:
    """Static shapes too; `needs` says which gradients the operator gives."""
    operators = OPERATORS["layer_norm"]
    x, weight, bias = (
        t if t is None else t.requires_grad_(bool(want))
        for t, want in zip(arguments("layer_norm", (3, 8), [(8,), (8,)]), which, strict=True)
    )
    both = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_static")
    torch.library.opcheck(operators.forward_op, (x, weight, bias, [8], 1e-5), test_utils=both)
    with torch.no_grad():
        output, statistics = operators.train_op(x, weight, bias, [8], 1e-5)
    needs = sum(want << position for position, want in enumerate(which))
    checked = (output, x, statistics, weight, bias, [8], 1e-5, needs)
    torch.library.opcheck(operators.backward_op, checked, test_utils=both)
    with torch.no_grad():
        grads = operators.backward_op(*checked)
    assert [grad is not None for grad in grads] == [bool(want) for want in which]


@by_op
def test_fakes_know_the_statistics_rows(name: str, shape: Any, parameters: Any, settings: Any) -> None:
    """The fake implementation's shapes and dtypes are the kernel's."""
    operators = OPERATORS[name]
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        tensors = [t if t is None else t.to(dtype) for t in arguments(name, shape, parameters)]
        meta = [t if t is None else t.to("meta") for t in tensors]
        real, fake = operators.train(True, settings, tensors), operators.train(False, settings, meta)
        for one, two in zip(real, fake, strict=True):
            assert (one is None) == (two is None)
            if one is not None:
                assert (one.shape, one.dtype, one.stride()) == (two.shape, two.dtype, two.stride())


def test_every_method_is_checked() -> None:
    assert {op[0] for op in OPS} == {method.name for method in (*METHODS, *FUSED)}


def test_schemas_say_what_is_updated() -> None:
    schema = str(torch.ops.normkit.batch_norm_train.default._schema)
    assert "Tensor(a!)? running_mean, Tensor(b!)? running_var" in schema
    assert "!" not in str(torch.ops.normkit.batch_norm_frozen.default._schema)


class Names(TorchDispatchMode):
    """Writes down the operators that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def test_modes_see_the_operators() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    with Names() as seen:
        nk.layer_norm(x, (8,)).sum().backward()
        with torch.no_grad():
            nk.layer_norm(x, (8,))
    ours = [name for name in seen.names if name.startswith("normkit::")]
    assert ours == ["normkit::layer_norm_train", "normkit::layer_norm_backward", "normkit::layer_norm"]


@by_case
def test_the_dispatcher_changes_nothing(case: Case) -> None:
    """Going round the dispatcher gives the bits that going through it gives."""
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float32)]
    around = case.ours(*tensors)
    grads = torch.autograd.grad(around.pow(2).sum(), tensors)
    with Names() as seen:
        through = case.ours(*tensors)
        again = torch.autograd.grad(through.pow(2).sum(), tensors)
    assert any(name.startswith("normkit::") for name in seen.names)
    assert torch.equal(around, through)
    assert all(torch.equal(one, two) for one, two in zip(grads, again, strict=True))


@by_case
def test_compile_without_a_graph_break(case: Case) -> None:
    torch._dynamo.reset()
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float32)]
    compiled = torch.compile(case.ours, backend="aot_eager", fullgraph=True)
    one, two = compiled(*tensors), case.ours(*tensors)
    assert torch.equal(one, two)
    for ours, right in zip(
        torch.autograd.grad(one.sum(), tensors), torch.autograd.grad(two.sum(), tensors), strict=True
    ):
        assert torch.equal(ours, right)


def test_compiled_graphs_keep_the_operators() -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, inputs: object) -> torch.fx.GraphModule:
        graphs.append(graph)
        return graph

    backend = torch._dynamo.backends.common.aot_autograd(fw_compiler=keep, bw_compiler=keep)
    x, mean, var = torch.randn(3, 4, requires_grad=True), *running(torch.randn(3, 4))

    def model(x: Tensor) -> Tensor:
        return nk.rms_norm(nk.batch_norm(nk.layer_norm(x, (4,)), mean, var, training=True), (4,))

    torch.compile(model, backend=backend, fullgraph=True)(x).sum().backward()
    # An operator that updates its arguments stands in a functional graph as an argument of another.
    called = [
        [str(op) for node in graph.graph.nodes for op in (node.target, *node.args[:1])] for graph in graphs
    ]
    ops = [[op for op in ops if op.startswith("normkit.")] for ops in called]
    assert ops == [
        [
            "normkit.layer_norm_train.default",
            "normkit.batch_norm_train.default",
            "normkit.rms_norm_train.default",
        ],
        [
            "normkit.rms_norm_backward.default",
            "normkit.batch_norm_backward.default",
            "normkit.layer_norm_backward.default",
        ],
    ]


@pytest.mark.parametrize("dynamic", [False, True])
def test_inductor_trains_a_small_model(dynamic: bool) -> None:
    torch._dynamo.reset()
    model = torch.nn.Sequential(
        torch.nn.Conv1d(3, 8, 1),
        nk.BatchNorm1d(8),
        torch.nn.GELU(),
        nk.GroupNorm(2, 8),
        nk.LayerNorm(5),
        nk.DyT(5),
    )
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, fullgraph=True, dynamic=dynamic)
    for batch in (2, 4) if dynamic else (2,):
        x = torch.randn(batch, 3, 5)
        one, two = compiled(x), eager(x)
        torch.testing.assert_close(one, two)
        one.pow(2).sum().backward()
        two.pow(2).sum().backward()
    for mine, right in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, right.grad)
    for mine, right in zip(model.buffers(), eager.buffers(), strict=True):
        torch.testing.assert_close(mine, right)


@by_case
def test_vmap(case: Case) -> None:
    """Over each argument alone, and over all of them."""
    stacked = [
        torch.stack([a, b])
        for a, b in zip(case.tensors(torch.float64, 1), case.tensors(torch.float64, 2), strict=True)
    ]
    single = case.tensors(torch.float64, 1)
    choices = [tuple(0 if i == chosen else None for i in range(len(single))) for chosen in range(len(single))]
    for in_dims in {*choices, (0,) * len(single)}:
        mixed = [batch if dim == 0 else one for batch, one, dim in zip(stacked, single, in_dims, strict=True)]
        ours = torch.vmap(case.ours, in_dims=in_dims)(*mixed)
        each = [
            case.ours(*(t[i] if dim == 0 else t for t, dim in zip(mixed, in_dims, strict=True)))
            for i in (0, 1)
        ]
        torch.testing.assert_close(ours, torch.stack(each), rtol=0, atol=0)
        if in_dims[0] == 0:
            elsewhere = torch.vmap(case.ours, in_dims=(1, *in_dims[1:]))(mixed[0].transpose(0, 1), *mixed[1:])
            assert torch.equal(elsewhere, ours)


@by_case
def test_gradients_per_sample(case: Case) -> None:
    """`torch.func.vmap` of `torch.func.grad`, and a second derivative by nesting."""
    tensors = case.tensors(torch.float64)
    batch = torch.stack([tensors[0], tensors[0] * 2 + 1])
    every = tuple(range(len(tensors)))

    def per_sample(function: Any) -> Any:
        loss = torch.func.grad(lambda *t: function(*t).pow(3).sum(), argnums=every)
        return torch.vmap(loss, in_dims=(0, *(None,) * (len(tensors) - 1)))(batch, *tensors[1:])

    def nested(function: Any) -> Any:
        first = torch.func.grad(lambda *t: function(*t).pow(3).sum())
        return torch.func.grad(lambda *t: first(*t).pow(2).sum(), argnums=every)(*tensors)

    for transformed in (per_sample, nested):
        for ours, theirs in zip(transformed(case.ours), transformed(case.theirs), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_jacrev_and_batched_gradients() -> None:
    x = torch.randn(3, 8, dtype=torch.float64)
    ours = torch.func.jacrev(lambda x: nk.layer_norm(x, (8,)))(x)
    torch.testing.assert_close(ours, torch.func.jacrev(lambda x: F.layer_norm(x, (8,)))(x))
    leaf = x.clone().requires_grad_()
    output = nk.layer_norm(leaf, (8,))
    many = torch.autograd.grad(
        output, leaf, torch.eye(24, dtype=torch.float64).reshape(24, 3, 8), is_grads_batched=True
    )
    torch.testing.assert_close(many[0].reshape(3, 8, 3, 8), ours)


def test_running_statistics_under_vmap_are_refused() -> None:
    mean, var = running(torch.randn(3, 4))
    with pytest.raises(RuntimeError, match="running statistics cannot be updated under vmap"):
        torch.vmap(lambda x: nk.batch_norm(x, mean, var, training=True))(torch.randn(2, 3, 4))
    batched = torch.vmap(lambda x: nk.batch_norm(x, None, None, training=True))(torch.randn(2, 3, 4))
    assert batched.shape == (2, 3, 4)


@pytest.mark.parametrize("needs_grad", [False, True])
def test_forward_mode_is_refused_and_never_dropped(needs_grad: bool) -> None:
    x, weight = torch.randn(3, 8), torch.ones(8, requires_grad=needs_grad)
    with forward_ad.dual_level():
        for dual in (
            lambda: nk.layer_norm(forward_ad.make_dual(x, x), (8,), weight),
            lambda: nk.layer_norm(x, (8,), forward_ad.make_dual(weight, weight)),
        ):
            with pytest.raises(NotImplementedError, match="forward-mode"):
                dual()
        assert nk.layer_norm(x, (8,)).shape == (3, 8)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda x: nk.layer_norm(x, (8,)), (x,), (x,))


def test_autocast_on_the_cpu_is_torchs() -> None:
    """torch leaves its norms alone there."""
    weight = torch.ones(8)
    for dtype, mixed in itertools.product((torch.float32, torch.bfloat16), (False, True)):
        x = torch.randn(3, 8).to(dtype)
        affine = weight if mixed else weight.to(dtype)
        plain = nk.layer_norm(x, (8,), affine)
        with torch.autocast("cpu", torch.bfloat16):
            assert F.layer_norm(x, (8,), affine).dtype == dtype
            ours = nk.layer_norm(x, (8,), affine)
            assert torch.equal(ours, plain)
            assert nk.LayerNorm(8)(torch.nn.Linear(8, 8)(torch.randn(3, 8))).dtype == torch.bfloat16
    block = torch.nn.Sequential(torch.nn.Linear(8, 8), nk.LayerNorm(8), nk.DyT(8), torch.nn.Linear(8, 8))
    with torch.autocast("cpu", torch.bfloat16):
        loss = block(torch.randn(3, 8)).float().pow(2).sum()
    loss.backward()
    assert [p.grad.dtype for p in block.parameters() if p.grad is not None] == [torch.float32] * 9


@pytest.mark.parametrize(
    "name", ["layer_norm", "rms_norm", "group_norm", "normalize", *(method.name for method in FUSED)]
)
def test_autocast_on_cuda_casts_to_float32(name: str) -> None:
    """As torch's list of operators has it; seen here in the registration, which needs no device."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"normkit::{name}", "AutocastCUDA")
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"normkit::{name}_train", "AutocastCUDA")
    assert not torch._C._dispatch_has_kernel_for_dispatch_key("normkit::dyt", "AutocastCUDA")


def test_inference_mode_and_no_grad() -> None:
    x, weight = torch.randn(3, 8), torch.ones(8, requires_grad=True)
    expected = nk.layer_norm(x, (8,), weight).detach()
    with torch.no_grad():
        assert nk.layer_norm(x, (8,), weight).grad_fn is None
    with torch.inference_mode():
        output = nk.layer_norm(x, (8,), weight)
        assert output.grad_fn is None
        mean, var = torch.zeros(8), torch.ones(8)
        nk.batch_norm(x, mean, var, training=True)
        assert mean.ne(0).any()
    assert torch.equal(output, expected)


def test_meta_tensors() -> None:
    x = torch.empty(3, 4, 5, device="meta", dtype=torch.bfloat16, requires_grad=True)
    output = nk.group_norm(nk.layer_norm(x, (5,)), 2)
    assert (output.shape, output.dtype, output.device.type) == ((3, 4, 5), torch.bfloat16, "meta")
    output.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (3, 4, 5)
    with torch.device("meta"):
        module = nk.LayerNorm(5)
    assert module(x).shape == (3, 4, 5)


def test_errors_on_meta_tensors() -> None:
    """Tracing refuses what the kernels refuse."""
    x = torch.empty(4, 8, device="meta")
    wrong = torch.empty(7, device="meta")
    for name, call in [
        ("weight", lambda: nk.layer_norm(x, (8,), wrong)),
        ("bias", lambda: nk.group_norm(x, 2, None, wrong)),
        ("running_mean", lambda: nk.batch_norm(x, wrong, wrong)),
        ("input", lambda: nk.rms_norm(x, (7,))),
        ("input", lambda: nk.instance_norm(x[0])),
        ("num_groups", lambda: nk.group_norm(x, 3)),
        ("dim", lambda: nk.normalize(x, 2.0, 2)),
        ("residual", lambda: nk.add_rms_norm(x, x[:2], (8,))),
        ("residual", lambda: nk.layer_norm_add(x, None, (8,))),
        ("gate", lambda: nk.gated_rms_norm(x, wrong)),
        ("weight", lambda: nk.gated_rms_norm(x, x, wrong)),
        ("group_size", lambda: nk.gated_rms_norm(x, x, group_size=3)),
        ("scale", lambda: nk.modulated_layer_norm(x, wrong, wrong)),
    ]:
        with pytest.raises(ValueError, match=f"^{name}:"):
            call()


def test_export() -> None:
    module = torch.nn.Sequential(nk.LayerNorm(8), nk.RMSNorm(8)).eval()
    x = torch.randn(3, 8)
    program = torch.export.export(
        module, (x,), dynamic_shapes={"input": {0: torch.export.Dim("rows", min=1)}}
    )
    assert [str(n.target) for n in program.graph.nodes if "normkit" in str(n.target)] == [
        "normkit.layer_norm.default",
        "normkit.rms_norm.default",
    ]
    x = torch.randn(7, 8)
    assert torch.equal(program.module()(x), module(x))


def test_checkpointing_and_hooks_on_saved_tensors() -> None:
    x, weight = torch.randn(3, 8, requires_grad=True), torch.randn(8, requires_grad=True)
    plain = torch.autograd.grad(nk.layer_norm(x, (8,), weight).pow(2).sum(), (x, weight))
    again = torch.utils.checkpoint.checkpoint(
        lambda x: nk.layer_norm(x, (8,), weight), x, use_reentrant=False
    )
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        hooked = nk.layer_norm(x, (8,), weight)
    assert len(packed) == 3  # input, weight and statistics
    for output in (again, hooked):
        grads = torch.autograd.grad(output.pow(2).sum(), (x, weight))
        assert all(torch.equal(one, two) for one, two in zip(grads, plain, strict=True))


def test_a_changed_input_is_noticed() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    y = x * 2
    output = nk.layer_norm(y, (8,))
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_backward_in_many_threads() -> None:
    """Kernels are shared between calls."""
    x = torch.randn(64, 256)

    def work(_: int) -> Tensor:
        leaf = x.clone().requires_grad_()
        nk.layer_norm(leaf, (256,)).pow(3).sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(32)))
    assert all(torch.equal(result, results[0]) for result in results)
