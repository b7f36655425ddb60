"""Values and derivatives of every function, for every dtype, layout and choice of gradients."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch_cases import CASES, Case, Tensors, running

import normkit.torch as nk
from normkit.torch._heads import together

by_case = pytest.mark.parametrize("case", CASES, ids=str)

# Of the largest magnitude of a result: 4 ulp and the oracle's own in float32; half precision rounds once
# more, and the llama cast twice.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def gradients(output: Tensor, inputs: Tensors, seed: int = 1) -> tuple[Tensor, ...]:
    grad_output = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    return torch.autograd.grad(output, inputs, grad_output.to(output.dtype))


def assert_near(ours: Tensor, exact: Tensor, tolerance: float) -> None:
    scale = float(exact.detach().abs().max()) if exact.numel() else 0.0
    torch.testing.assert_close(ours.double(), exact, rtol=0.0, atol=tolerance * max(scale, 1e-30))


@by_case
@dtypes
def test_values_and_gradients_are_those_of_torch_in_float64(case: Case, dtype: torch.dtype) -> None:
    tensors = [tensor.requires_grad_() for tensor in case.tensors(dtype)]
    if "eps None" in case.name and dtype != torch.float64:
        return  # eps is another one in another dtype; the next test has it
    wide = [tensor.detach().double().requires_grad_() for tensor in tensors]
    output, exact = case.ours(*tensors), case.theirs(*wide)
    assert output.dtype == dtype
    assert output.is_contiguous()
    assert_near(output, exact, TOLERANCE[dtype])
    grad_output = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    ).to(dtype)
    ours = torch.autograd.grad(output, tensors, grad_output)
    theirs = torch.autograd.grad(exact, wide, grad_output.double())
    for mine, right, tensor in zip(ours, theirs, tensors, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == tensor.shape
        # Gradients of parameters add up many rounded terms of torch's in half precision; ours add up exact
        # ones.
        assert_near(mine, right, 2 * TOLERANCE[dtype])


@dtypes
def test_eps_none_is_that_of_the_dtype(dtype: torch.dtype) -> None:
    x = (torch.randn(4, 8) * 1e-3).to(dtype)
    assert torch.equal(nk.rms_norm(x, (8,)), nk.rms_norm(x, (8,), eps=torch.finfo(dtype).eps))


@by_case
def test_gradcheck(case: Case) -> None:
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float64)]
    assert torch.autograd.gradcheck(case.ours, tensors)


@by_case
def test_gradgradcheck(case: Case) -> None:
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float64)]
    assert torch.autograd.gradgradcheck(case.ours, tensors)


@by_case
def test_a_gradient_penalty_is_torchs(case: Case) -> None:
    """Here the gradient of the output depends on the input as well."""

    def penalty(function: object) -> tuple[Tensor, ...]:
        tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float64)]
        output = function(*tensors)
        first = torch.autograd.grad(output.pow(3).sum(), tensors, create_graph=True)
        return torch.autograd.grad(sum(grad.pow(2).sum() for grad in first), tensors)

    for ours, theirs in zip(penalty(case.ours), penalty(case.theirs), strict=True):
        assert_near(ours, theirs, 1e-11)


@by_case
def test_every_subset_of_gradients(case: Case) -> None:
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float64)]
    every = gradients(case.ours(*tensors), tensors)
    for chosen in itertools.product((False, True), repeat=len(tensors)):
        some = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, chosen, strict=True)]
        output = case.ours(*some)
        assert output.requires_grad == any(chosen)
        wanted = [tensor for tensor in some if tensor.requires_grad]
        if not wanted:
            assert output.grad_fn is None
            continue
        expected = [grad for grad, want in zip(every, chosen, strict=True) if want]
        for ours, right in zip(gradients(output, wanted), expected, strict=True):
            assert torch.equal(ours, right)


def strided(tensor: Tensor) -> list[Tensor]:
    """The tensor's values in other places of memory."""
    if tensor.dim() == 0:
        return []
    axes = tuple(range(tensor.dim()))
    reversed_axes = tensor.permute(axes[::-1]).contiguous().permute(axes[::-1])
    spaced = torch.zeros(*tensor.shape[:-1], tensor.shape[-1] * 2, dtype=tensor.dtype)[..., ::2]
    spaced.copy_(tensor)
    layouts = [reversed_axes, spaced]
    if tensor.dim() == 4:
        layouts.append(tensor.contiguous(memory_format=torch.channels_last))
    return layouts


@by_case
def test_strides_change_nothing(case: Case) -> None:
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float32)]
    output = case.ours(*tensors)
    grads = gradients(output, tensors)
    for layout in range(2):
        others = [
            (strided(tensor.detach())[layout] if tensor.dim() else tensor.detach()).requires_grad_()
            for tensor in tensors
        ]
        again = case.ours(*others)
        assert torch.equal(again, output)
        for one, two in zip(gradients(again, others), grads, strict=True):
            assert torch.equal(one, two)


@by_case
def test_expanded_inputs_and_gradients(case: Case) -> None:
    first, *rest = case.tensors(torch.float32)
    expanded = first[:1].expand_as(first).requires_grad_()
    plain = expanded.detach().clone().requires_grad_()
    one, two = case.ours(expanded, *rest), case.ours(plain, *rest)
    assert torch.equal(one, two)
    # sum() gives a gradient of stride 0
    scale = torch.linspace(0.5, 1.5, one.shape[-1])
    (one * scale).sum().backward(inputs=[expanded])
    (two * scale).contiguous().sum().backward(inputs=[plain])
    assert torch.equal(expanded.grad, plain.grad)
    summed = torch.autograd.grad(case.ours(plain, *rest).sum(), plain)[0]
    ones = torch.autograd.grad(case.ours(plain, *rest), plain, torch.ones_like(two))[0]
    assert torch.equal(summed, ones)


@pytest.mark.parametrize(
    "name", ["layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize", "dyt", "qk_norm rms"]
)
def test_empty_batches(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    tensors = [
        tensor[:0].requires_grad_() if tensor.dim() > 2 else tensor.requires_grad_()
        for tensor in case.tensors(torch.float32)
    ]
    output = case.ours(*tensors)
    assert output.numel() == 0
    for tensor, grad in zip(tensors, torch.autograd.grad(output.sum(), tensors), strict=True):
        assert torch.equal(grad, torch.zeros_like(tensor))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_weights_of_their_own_dtype(dtype: torch.dtype) -> None:
    x = torch.randn(4, 8).to(dtype).requires_grad_()
    weight, bias = torch.randn(8, requires_grad=True), torch.randn(8, requires_grad=True)
    output = nk.layer_norm(x, (8,), weight, bias)
    assert output.dtype == dtype
    exact = F.layer_norm(x.detach().double(), (8,), weight.detach().double(), bias.detach().double())
    assert_near(output, exact, TOLERANCE[dtype])
    grads = torch.autograd.grad(output, (x, weight, bias), torch.ones_like(output))
    assert [grad.dtype for grad in grads] == [dtype, torch.float32, torch.float32]


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.0])
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_running_statistics_move_in_place(name: str, momentum: float) -> None:
    x = torch.randn(3, 4, 5, 2)
    function, reference = getattr(nk, name), getattr(F, name)
    ours, theirs = running(x), running(x)
    versions = [tensor._version for tensor in ours]
    output = function(x, *ours, None, None, True, momentum)
    exact = reference(x, *theirs, None, None, True, momentum)
    torch.testing.assert_close(output, exact)
    for mine, right, version in zip(ours, theirs, versions, strict=True):
        torch.testing.assert_close(mine, right)
        assert mine._version > version


def test_running_statistics_that_backward_needs_may_not_move() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    mean, var = running(x)
    output = nk.batch_norm(x, mean, var)
    nk.batch_norm(x.detach(), mean, var, training=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_one_size_may_be_a_number() -> None:
    x = torch.randn(3, 8)
    assert torch.equal(nk.layer_norm(x, 8), nk.layer_norm(x, (8,)))
    assert torch.equal(nk.rms_norm(x, 8), nk.rms_norm(x, [8]))


def test_nodes_of_the_graph_have_names() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    assert type(nk.layer_norm(x, (8,)).grad_fn).__name__ == "LayerNormBackward"
    first = torch.autograd.grad(nk.normalize(x).pow(2).sum(), x, create_graph=True)[0]
    assert type(first.grad_fn).__name__ == "NormalizeGradientBackward"


@pytest.mark.parametrize(
    "wrong", [1.0, torch.ones(3, 8).numpy(), [[1.0]], "x"], ids=lambda v: type(v).__name__
)
def test_what_is_no_tensor_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^input: expected a torch\.Tensor"):
        nk.layer_norm(wrong, (8,))
    with pytest.raises(TypeError, match=r"^weight: expected a torch\.Tensor"):
        nk.layer_norm(torch.randn(3, 8), (8,), wrong)
    with pytest.raises(TypeError, match=r"^input: expected a torch\.Tensor, found NoneType"):
        nk.normalize(None)


def test_views_of_conjugates_keep_their_sign() -> None:
    """The imaginary part of a conjugate is a view whose memory holds the other sign."""
    x = torch.randn(3, 8, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    plain = x.clone()
    assert torch.equal(nk.layer_norm(x, (8,)), nk.layer_norm(plain, (8,)))
    assert torch.equal(nk.layer_norm(plain, (8,), x[0]), nk.layer_norm(plain, (8,), plain[0]))
    leaf = plain.clone().requires_grad_()
    output = nk.layer_norm(leaf, (8,))
    one, two = (torch.autograd.grad(output, leaf, grad, retain_graph=True)[0] for grad in (x, plain))
    assert torch.equal(one, two)


def test_alpha_may_be_a_number() -> None:
    x = torch.randn(3, 8, requires_grad=True)
    assert torch.equal(nk.dyt(x, 0.7), nk.dyt(x, torch.tensor([0.7])))
    nk.dyt(x, 0.7).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize("kind", ["rms", "l2", "layer"])
def test_queries_and_keys_without_gradients_are_one_launch(kind: str) -> None:
    """The bits are those of calls with gradients, where each is normalized by itself."""
    torch.manual_seed(1)
    packed = torch.randn(2, 6, 8 * 8)
    q, k, _ = (part.unflatten(-1, (-1, 8)) for part in packed.split([4 * 8, 2 * 8, 2 * 8], -1))
    weight, angle = torch.nn.Parameter(torch.randn(8)), torch.rand(6, 4)
    tables = angle.cos()[None], angle.sin()[None]
    with torch.no_grad():
        assert together((kind, 1e-6), q, k, weight, None) is not None
        one = (*nk.qk_norm(q, k, weight, kind=kind), *nk.qk_norm_rope(q, k, *tables, None, weight, kind=kind))
    assert together((kind, 1e-6), q, k, weight, None) is None
    two = (*nk.qk_norm(q, k, weight, kind=kind), *nk.qk_norm_rope(q, k, *tables, None, weight, kind=kind))
    assert all(torch.equal(a, b) and not a.requires_grad for a, b in zip(one, two, strict=True))
    # Of shapes that make no pair each is normalized all the same.
    other = torch.randn(3, 5, 8)
    assert together((kind, 1e-6), q, other, None, None) is None
    assert nk.qk_norm(q, other, kind=kind)[1].shape == other.shape
    with pytest.raises(ValueError, match="^k_weight: "):
        nk.qk_norm(q, k, None, torch.ones(7), kind=kind)


def test_heads_of_a_packed_projection() -> None:
    """Queries, and fewer keys, as views of one tensor."""
    packed = torch.randn(2, 6, 8 * 8, requires_grad=True)
    q, k, _ = (part.unflatten(-1, (-1, 8)) for part in packed.split([4 * 8, 2 * 8, 2 * 8], -1))
    one = nk.qk_norm(q, k, torch.ones(8), torch.ones(8))
    two = nk.qk_norm(q.contiguous(), k.contiguous(), torch.ones(8), torch.ones(8))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    (one[0].pow(3).sum() + one[1].pow(3).sum()).backward()
    assert packed.grad is not None
    assert packed.grad[..., 48:].eq(0).all()
    assert packed.grad[..., :48].ne(0).any()


BAD = [
    ("weight", ValueError, lambda x: nk.layer_norm(x, (8,), torch.ones(7))),
    ("bias", ValueError, lambda x: nk.layer_norm(x, (8,), torch.ones(8), torch.ones(2, 4))),
    ("input", ValueError, lambda x: nk.layer_norm(x, (7,))),
    ("input", TypeError, lambda x: nk.layer_norm(x.long(), (8,))),
    ("input", TypeError, lambda x: nk.layer_norm(x.to(torch.complex64), (8,))),
    ("weight", TypeError, lambda x: nk.layer_norm(x.bfloat16(), (8,), torch.ones(8, dtype=torch.float64))),
    ("eps", ValueError, lambda x: nk.layer_norm(x, (8,), eps=-1.0)),
    ("cast", ValueError, lambda x: nk.rms_norm(x, (8,), cast="qwen")),
    ("partial", ValueError, lambda x: nk.rms_norm(x, (8,), partial=2.0)),
    ("residual", ValueError, lambda x: nk.add_layer_norm(x, x[:1], (8,))),
    ("residual", TypeError, lambda x: nk.add_rms_norm(x, x.double(), (8,))),
    ("residual", ValueError, lambda x: nk.add_rms_norm(x, None, (8,))),
    ("residual", TypeError, lambda x: nk.add_rms_norm(x, [[1.0]], (8,))),
    ("residual_scale", ValueError, lambda x: nk.add_rms_norm(x, x, (8,), residual_scale=float("inf"))),
    ("residual", ValueError, lambda x: nk.layer_norm_add(x, x[0], (8,))),
    ("residual", RuntimeError, lambda x: nk.rms_norm_add(x, x.to("meta"), (8,))),
    ("scale", ValueError, lambda x: nk.modulated_layer_norm(x, x[:2], x[:2])),
    ("scale", ValueError, lambda x: nk.modulated_layer_norm(x, None, x)),
    ("shift", ValueError, lambda x: nk.modulated_layer_norm(x, x, x[0])),
    ("scale", TypeError, lambda x: nk.modulated_rms_norm(x, x.long())),
    ("gate", ValueError, lambda x: nk.gated_rms_norm(x, x[:1])),
    ("gate", ValueError, lambda x: nk.gated_rms_norm(x, None)),
    ("weight", ValueError, lambda x: nk.gated_rms_norm(x, x, x, group_size=4)),
    ("group_size", ValueError, lambda x: nk.gated_rms_norm(x, x, group_size=3)),
    ("group_size", ValueError, lambda x: nk.gated_rms_norm(x, x, group_size=0)),
    ("activation", ValueError, lambda x: nk.layer_norm(x, (8,), activation="tanh")),
    ("activation", TypeError, lambda x: nk.rms_norm(x, (8,), activation=1)),
    ("num_groups", ValueError, lambda x: nk.group_norm(x, 3)),
    ("running_mean", ValueError, lambda x: nk.batch_norm(x, None, torch.ones(8))),
    ("running_var", ValueError, lambda x: nk.batch_norm(x, torch.ones(8), None, training=True)),
    ("running_mean", ValueError, lambda x: nk.batch_norm(x, torch.ones(7), torch.ones(7), training=True)),
    ("input", ValueError, lambda x: nk.batch_norm(x[:1], None, None, training=True)),
    ("p", ValueError, lambda x: nk.normalize(x, 0.5)),
    ("dim", ValueError, lambda x: nk.normalize(x, 2.0, 2)),
    ("alpha", ValueError, lambda x: nk.dyt(x, torch.ones(2))),
    ("kind", ValueError, lambda x: nk.qk_norm(x, x, kind="max")),
    ("k", ValueError, lambda x: nk.qk_norm(x, x[:, :4])),
    ("g", ValueError, lambda x: nk.weight_norm(x, torch.ones(3, 1))),
    ("weight", RuntimeError, lambda x: nk.layer_norm(x, (8,), torch.ones(8, device="meta"))),
    ("weight", RuntimeError, lambda x: nk.layer_norm(x.to("meta"), (8,), torch.ones(8))),
    (
        "running_mean",
        RuntimeError,
        lambda x: nk.batch_norm(x, torch.ones(8, device="meta"), torch.ones(8, device="meta")),
    ),
]


@pytest.mark.parametrize(
    ("name", "kind", "call"), BAD, ids=[f"{index}-{bad[0]}" for index, bad in enumerate(BAD)]
)
def test_errors_name_the_argument(name: str, kind: type[Exception], call: object) -> None:
    for needs_grad in (False, True):
        with pytest.raises(kind, match=rf"\b{name}\b") as caught:
            call(torch.randn(4, 8, requires_grad=needs_grad))
        assert type(caught.value) is kind


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 1, 4, 5), (2, 3, 1, 1), (1, 3, 4, 5), (2, 1, 1, 1), (2, 3, 4, 5, 6)])
def test_channels_last_images_stay_so(shape: tuple[int, ...]) -> None:
    """By torch's rule for tensors that can be read both ways; traced results have the strides of computed ones."""
    last = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    x = torch.randn(shape).contiguous(memory_format=last)
    for view in (x, x[:, ::2], x.transpose(0, 1), x.contiguous(), x[:1].expand(shape)):
        leaf = view.detach().requires_grad_()
        output = nk.normalize(leaf)
        assert output.stride() == torch.empty_like(view, memory_format=suggest_memory_format(view)).stride()
        traced = torch.empty_strided(view.shape, view.stride(), device="meta")
        assert output.stride() == torch.ops.normkit.normalize(traced, 2.0, 1, 1e-12).stride()
        torch.testing.assert_close(output, F.normalize(view))
        output.relu_().sum().backward()
        assert leaf.grad is not None


def test_batch_norm_of_channels_last_images() -> None:
    """The result may be changed in place, as a ReLU does, and the gradient has the input's format."""
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    mine, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = nk.batch_norm(mine * 1, None, None, training=True).relu_()
    wanted = F.batch_norm(theirs * 1, None, None, training=True).relu_()
    assert ours.stride() == wanted.stride() == x.stride()
    torch.testing.assert_close(ours, wanted)
    (ours * x).sum().backward()
    (wanted * x).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad)
