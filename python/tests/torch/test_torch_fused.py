"""What fused functions do that functions of their parts do not: rounding, saving, sharing gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_cases import FUSED_CASES, Case, rms_norm

import normkit
import normkit.torch as nk

HALF = (torch.float16, torch.bfloat16)


def leaves(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def saved_by(call: Any) -> list[Tensor]:
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        call()
    return packed


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_residual_in_float32_beside_half_precision(dtype: torch.dtype) -> None:
    """As models have it whose stream stays in float32."""
    (x,), (r, w) = leaves((4, 16), dtype=dtype), leaves((4, 16), (16,))
    y, h = nk.add_rms_norm(x, r, 16, w, 1e-6)
    assert (y.dtype, h.dtype) == (dtype, torch.float32)
    assert torch.equal(h, x.float() + r)
    wide = [tensor.detach().double().requires_grad_() for tensor in (x, r, w)]
    exact = rms_norm(wide[0] + wide[1], wide[2])
    torch.testing.assert_close(y.double(), exact, rtol=2 * torch.finfo(dtype).eps, atol=1e-3)
    gy, gh = torch.randn(4, 16).to(dtype), torch.randn(4, 16)
    grads = torch.autograd.grad((y, h), (x, r, w), (gy, gh))
    wanted = torch.autograd.grad((exact, wide[0] + wide[1]), wide, (gy.double(), gh.double()))
    assert [grad.dtype for grad in grads] == [dtype, torch.float32, torch.float32]
    torch.testing.assert_close(grads[1].double(), wanted[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads[2].double(), wanted[2], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads[0].double(), wanted[0], rtol=2 * torch.finfo(dtype).eps, atol=1e-3)
    added = nk.rms_norm_add(x, r, 16, w, 1e-6)
    assert added.dtype == dtype
    assert torch.autograd.grad(added, r, gy)[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_one_rounding_is_nearer_than_many(dtype: torch.dtype) -> None:
    """The largest error and the mean one, beside the same from functions that round in between."""
    x, r, z, w = (tensor.detach() for tensor in leaves((64, 256), (64, 256), (64, 256), (256,), dtype=dtype))
    exact = [tensor.double() for tensor in (x, r, z, w)]
    pairs = {
        "add": (
            nk.add_rms_norm(x, r, 256, w, 1e-6)[0],
            nk.rms_norm(x + r, 256, w, 1e-6),
            rms_norm(exact[0] + exact[1], exact[3]),
        ),
        "gate": (
            nk.gated_rms_norm(x, z, w, eps=1e-6),
            nk.rms_norm(x, 256, w, 1e-6) * F.silu(z),
            rms_norm(exact[0], exact[3]) * F.silu(exact[2]),
        ),
        "modulation": (
            nk.modulated_layer_norm(x, r, z),
            nk.layer_norm(x, 256, eps=1e-6) * (1 + r) + z,
            F.layer_norm(exact[0], (256,), eps=1e-6) * (1 + exact[1]) + exact[2],
        ),
        "activation": (
            nk.layer_norm(x, 256, w, activation="silu"),
            F.silu(nk.layer_norm(x, 256, w)),
            F.silu(F.layer_norm(exact[0], (256,), exact[3])),
        ),
        "after": (
            nk.rms_norm_add(x, r, 256, w, 1e-6),
            r + nk.rms_norm(x, 256, w, 1e-6),
            exact[1] + rms_norm(exact[0], exact[3]),
        ),
    }
    for name, (ours, parts, right) in pairs.items():
        one, many = (ours.double() - right).abs(), (parts.double() - right).abs()
        assert one.max() <= many.max() and one.mean() < 0.9 * many.mean(), name


def test_the_summands_share_one_gradient() -> None:
    x, r, w = leaves((4, 16), (4, 16), (16,))
    one, two, _ = torch.autograd.grad(nk.add_rms_norm(x, r, 16, w)[0].pow(2).sum(), (x, r, w))
    assert one is two
    one, two = torch.autograd.grad(nk.add_rms_norm(x, r, 16, w, residual_scale=2.0)[0].pow(2).sum(), (x, r))
    torch.testing.assert_close(two, 2 * one)
    # The same tensor twice, and its own sum again.
    y, h = nk.add_rms_norm(x, x, 16)
    (found,) = torch.autograd.grad(y.pow(2).sum() + h.sum(), x)
    (wanted,) = torch.autograd.grad(nk.rms_norm(x + x, 16).pow(2).sum() + (x + x).sum(), x)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_an_exact_sum_is_all_that_is_kept(dtype: torch.dtype) -> None:
    x, r, w = leaves((4, 16), (4, 16), (16,), dtype=dtype)
    packed = saved_by(lambda: nk.add_rms_norm(x, r, 16, w))
    of_shape = [tensor for tensor in packed if tensor.shape == x.shape]
    assert len(of_shape) == (2 if dtype in HALF else 1)
    after = saved_by(lambda: nk.rms_norm_add(x, r, 16, w))
    assert len([tensor for tensor in after if tensor.shape == x.shape]) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 2.0)], ids=str)
def test_either_result_may_go_unused(dtype: torch.dtype, scales: tuple[float, float]) -> None:
    x, r, w = leaves((4, 16), (4, 16), (16,), dtype=dtype)
    named = {"input_scale": scales[0], "residual_scale": scales[1]}
    y, h = nk.add_rms_norm(x, r, 16, w, **named)
    of_sum = torch.autograd.grad(h.sum(), (x, r, w), allow_unused=True, retain_graph=True)
    assert of_sum[2] is None
    for grad, scale in zip(of_sum, scales, strict=False):
        assert grad is not None and grad.dtype == dtype and grad.eq(scale).all()
    of_norm = torch.autograd.grad(y.sum(), (x, r, w), retain_graph=True)
    both = torch.autograd.grad(y.sum() + 3 * h.sum(), (x, r, w))
    tolerance = 4 * torch.finfo(dtype).eps
    for alone, together, scale in zip(of_norm, both, scales, strict=False):
        torch.testing.assert_close(
            together - alone, torch.full_like(alone, 3 * scale), rtol=tolerance, atol=tolerance
        )
    torch.testing.assert_close(both[2], of_norm[2])


def test_a_sum_of_constants_is_one() -> None:
    x, r, w = leaves((4, 16), (4, 16), (16,))
    y, h = nk.add_rms_norm(x.detach(), r.detach(), 16, w)
    assert y.requires_grad and not h.requires_grad
    (grad,) = torch.autograd.grad(y.pow(2).sum(), w, create_graph=True)
    torch.autograd.grad(grad.pow(2).sum(), w)
    y, h = torch.ops.normkit.add_rms_norm(x.detach(), w, None, None, r, [16], None, 0.0, "fp32", 1.0, 1.0, 0.0, 0, 0)
    assert h.requires_grad


def test_a_chain_of_blocks_is_that_of_its_parts() -> None:
    """Pre-norm: each norm's sum is the next one's residual."""
    x, *weights = leaves((2, 5, 16), *[(16,)] * 4, dtype=torch.float64)

    def chain(fused: bool) -> Tensor:
        residual, branch = x, torch.sin(x)
        for weight in weights:
            if fused:
                normed, residual = nk.add_rms_norm(branch, residual, 16, weight, 1e-6)
            else:
                residual = branch + residual
                normed = rms_norm(residual, weight)
            branch = torch.tanh(normed)
        return (branch + residual).pow(2).sum()

    for one, two in zip(
        torch.autograd.grad(chain(True), (x, *weights)),
        torch.autograd.grad(chain(False), (x, *weights)),
        strict=True,
    ):
        torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


def test_a_changed_sum_is_noticed() -> None:
    """As it is kept, where it is exact."""
    x, r = leaves((4, 16), (4, 16))
    y, h = nk.add_rms_norm(x, r, 16)
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize(
    ("shape", "own"),
    [
        ((2, 3, 8), [(8,), (2, 8), (1, 8), (2, 1, 8), (2, 3, 8), (1, 3, 8), (1, 1, 8)]),
        ((2, 3, 4, 8), [(8,), (2, 8), (2, 3, 8), (2, 1, 8), (2, 3, 4, 8), (1, 1, 4, 8)]),
        ((3, 8), [(8,), (3, 8), (1, 8)]),
        ((1, 3, 1), [(1,), (1, 1), (1, 3, 1)]),
    ],
    ids=str,
)
def test_shapes_of_scale_and_shift(shape: tuple[int, ...], own: list[tuple[int, ...]]) -> None:
    """Their axes but the last are the input's first ones."""
    for sizes in own:
        x, scale, shift = leaves(shape, sizes, sizes, dtype=torch.float64)
        full = (*sizes[:-1], *[1] * (len(shape) - len(sizes)), sizes[-1])
        for norm, plain in (
            (nk.modulated_layer_norm, F.layer_norm(x, shape[-1:], eps=1e-6)),
            (nk.modulated_rms_norm, rms_norm(x)),
        ):
            found, wanted = norm(x, scale, shift), plain * (1 + scale.reshape(full)) + shift.reshape(full)
            torch.testing.assert_close(found, wanted)
            grad = torch.randn(shape, dtype=torch.float64)
            for one, two in zip(
                torch.autograd.grad(found, (x, scale, shift), grad),
                torch.autograd.grad(wanted, (x, scale, shift), grad),
                strict=True,
            ):
                torch.testing.assert_close(one, two)


def test_a_chunked_modulation() -> None:
    """Six parts of one projection, strided as chunk leaves them, are read where they lie."""
    x, packed = leaves((2, 5, 16), (2, 6 * 16))
    shift, scale = packed.chunk(6, dim=-1)[:2]
    y = nk.modulated_layer_norm(x, scale, shift)
    torch.testing.assert_close(y, F.layer_norm(x, (16,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None])
    y.pow(2).sum().backward()
    assert packed.grad is not None
    assert packed.grad[:, :32].ne(0).any() and packed.grad[:, 32:].eq(0).all()


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_tanh"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF], ids=str)
def test_activations(activation: str, dtype: torch.dtype) -> None:
    functions = {"relu": F.relu, "silu": F.silu, "gelu_tanh": lambda v: F.gelu(v, approximate="tanh")}
    function, tolerance = (
        functions[activation],
        max(4 * torch.finfo(dtype).eps, 1e-6 if dtype == torch.float32 else 0),
    )
    x, w, b = leaves((3, 6, 8), (8,), (8,), dtype=dtype)
    channels = torch.randn(6).to(dtype)
    wide, W, B = (tensor.detach().double() for tensor in (x, w, b))
    for ours, plain in (
        (nk.layer_norm(x, 8, w, b, activation=activation), F.layer_norm(wide, (8,), W, B)),
        (nk.rms_norm(x, 8, w, 1e-6, activation=activation), rms_norm(wide, W)),
        (
            nk.group_norm(x, 2, channels, activation=activation),
            F.group_norm(wide, 2, channels.double()),
        ),
    ):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), function(plain), rtol=tolerance, atol=tolerance)


def test_modules() -> None:
    x, r, z = (tensor.detach() for tensor in leaves((2, 5, 16), (2, 5, 16), (2, 5, 16)))
    layer, rms = nk.AddLayerNorm(16), nk.AddRMSNorm(16, eps=1e-6, offset=1.0)
    layer.load_state_dict(torch.nn.LayerNorm(16).state_dict())
    rms.load_state_dict({"weight": torch.randn(16)})
    for found, wanted in (
        (layer(x, r), nk.add_layer_norm(x, r, 16, layer.weight, layer.bias)),
        (rms(x, r), nk.add_rms_norm(x, r, 16, rms.weight, 1e-6, offset=1.0)),
    ):
        assert all(torch.equal(one, two) for one, two in zip(found, wanted, strict=True))
    with pytest.raises(ValueError, match="^partial:"):
        nk.AddRMSNorm(16, partial=0.5)(x, r)
    gated = nk.GatedRMSNorm(16, group_size=4, norm_before_gate=False)
    assert list(gated.state_dict()) == ["weight"] and gated.weight.eq(1).all()
    wanted = nk.gated_rms_norm(x, z, gated.weight, group_size=4, norm_before_gate=False)
    assert torch.equal(gated(x, z), wanted)
    assert "group_size=4" in repr(gated)
    with pytest.raises(ValueError, match="^group_size:"):
        nk.GatedRMSNorm(16, group_size=5)
    gated(x, z).sum().backward()
    assert gated.weight.grad is not None


@pytest.mark.parametrize("case", [case for case in FUSED_CASES if " " not in case.name], ids=str)
def test_training_compiled_by_inductor(case: Case) -> None:
    torch._dynamo.reset()
    tensors = [tensor.requires_grad_() for tensor in case.tensors(torch.float32)]
    compiled = torch.compile(case.ours, fullgraph=True, dynamic=True)
    one, two = compiled(*tensors), case.ours(*tensors)
    torch.testing.assert_close(one, two)
    for ours, right in zip(
        torch.autograd.grad(one.pow(2).sum(), tensors),
        torch.autograd.grad(two.pow(2).sum(), tensors),
        strict=True,
    ):
        torch.testing.assert_close(ours, right)


def test_rotary_positions_are_rows_of_a_cache() -> None:
    """As vLLM and FlashInfer keep it, cosines before sines; and as transformers gives them, both halves the same."""
    torch.manual_seed(3)
    q, k = (torch.randn(5, heads, 8, dtype=torch.float64, requires_grad=True) for heads in (4, 2))
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    angle = torch.rand(9, 4, dtype=torch.float64)
    cache, chosen = torch.cat((angle.cos(), angle.sin()), -1), torch.tensor([7, 0, 7, 8, 2])

    def run(cos: Tensor, sin: Tensor, positions: Tensor | None) -> list[Tensor]:
        results = nk.qk_norm_rope(q, k, cos, sin, positions, weight, weight)
        loss = sum((y * torch.arange(y.numel()).reshape(y.shape).sin()).sum() for y in results)
        return [*results, *torch.autograd.grad(loss, (q, k, weight))]

    found = run(cache[:, :4], cache[:, 4:], chosen)
    twice = torch.cat((angle, angle), -1)[chosen]
    halves = twice.cos()[..., :4], twice.sin()[..., :4]
    for other in (run(*halves, None), run(cache[:, :4], cache[:, 4:], chosen.int())):
        for a, b in zip(found, other, strict=True):
            assert torch.equal(a, b)
    compiled = torch.compile(nk.qk_norm_rope, fullgraph=True, backend="aot_eager")
    again = compiled(q, k, cache[:, :4], cache[:, 4:], chosen, weight, weight)
    assert all(torch.equal(a, b) for a, b in zip(again, found[:2], strict=True))
    with pytest.raises(ValueError, match="positions"):
        nk.qk_norm_rope(q, k, cache[:, :4], cache[:, 4:], chosen + 2)
    with pytest.raises(TypeError, match="positions"):
        nk.qk_norm_rope(q, k, cache[:, :4], cache[:, 4:], chosen.double())
    cos = cache[:, :4].clone().requires_grad_()
    y = nk.qk_norm_rope(q, k, cos, cache[:, 4:], chosen)[0]
    assert torch.autograd.grad(y.sum(), cos, allow_unused=True) == (None,)


def test_dropout_is_that_of_the_seed_forward_and_backward() -> None:
    x = torch.rand(40, 250).add(0.5).requires_grad_()
    r = torch.zeros(40, 250)
    options = {"dropout_p": 0.3, "dropout_seed": 11, "dropout_offset": 2}
    _, h = nk.add_rms_norm(x, r, 250, **options)
    kept = h != 0
    assert abs(kept.double().mean() - 0.7) < 0.02
    torch.testing.assert_close(h[kept], x.detach()[kept] / 0.7)
    (grad,) = torch.autograd.grad(h.sum(), x)
    assert torch.equal(grad != 0, kept) and torch.equal(grad[kept], torch.full_like(grad[kept], 1 / 0.7))
    # The same for every norm and library, other for other seeds and offsets.
    assert torch.equal(nk.add_layer_norm(x, r, 250, **options)[1], h)
    own = normkit.add_layer_norm(x.detach().numpy(), r.numpy(), 250, **options)[1]
    assert torch.equal(torch.from_numpy(own), h)
    for other in ({"dropout_seed": 12}, {"dropout_offset": 3}):
        both = (nk.add_rms_norm(x, r, 250, **{**options, **other})[1] != 0) & kept
        assert abs(both.double().mean() - 0.49) < 0.02


def test_dropout_without_a_seed_takes_torchs() -> None:
    x, r = torch.rand(8, 64) + 0.5, torch.zeros(8, 64)

    def run() -> Tensor:
        return nk.add_layer_norm(x, r, 64, dropout_p=0.5)[1]

    torch.manual_seed(3)
    one, two = run(), run()
    torch.manual_seed(3)
    assert torch.equal(run(), one) and not torch.equal(one, two)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_dropout_without_a_seed_compiles_whole(backend: str) -> None:
    x, r, weight = leaves((6, 32), (6, 32), (32,))
    compiled = torch.compile(nk.add_rms_norm, fullgraph=True, backend=backend)
    seen = []
    for _ in range(2):
        y, h = compiled(x, r, (32,), weight, dropout_p=0.5)
        kept = h.detach() != r.detach()
        assert 0.2 < kept.double().mean() < 0.8
        # The backward pass leaves out the same elements.
        (grad,) = torch.autograd.grad((y * torch.linspace(0.5, 2.0, 32)).sum(), [x])
        assert torch.equal(grad != 0, kept)
        seen.append(kept)
    assert not torch.equal(*seen)


@pytest.mark.parametrize("keeps_sum", [False, True])
def test_gradients_through_dropout(keeps_sum: bool) -> None:
    dtype = torch.float64
    x, w, b = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in ((3, 8), (8,), (8,)))
    r = torch.randn(3, 8, dtype=dtype, requires_grad=True)

    def f(x: Tensor, r: Tensor, w: Tensor, b: Tensor) -> Any:
        # A residual of the input's dtype: backward keeps the sum alone.
        r = r if keeps_sum else 2.0 * r
        return nk.add_layer_norm(
            x, r, 8, w, b, input_scale=0.5, dropout_p=0.4, dropout_seed=5, dropout_offset=1
        )

    torch.autograd.gradcheck(f, (x, r, w, b))
    torch.autograd.gradgradcheck(f, (x, r, w, b))


@pytest.mark.parametrize("module", [nk.AddLayerNorm(32, dropout=0.5), nk.AddRMSNorm(32, dropout=0.5)])
def test_modules_drop_in_training_only(module: torch.nn.Module) -> None:
    x, r = torch.rand(16, 32) + 0.5, torch.zeros(16, 32)
    assert (module.train()(x, r)[1] == 0).any()
    assert torch.equal(module.eval()(x, r)[1], x)
    assert list(module.state_dict()) in (["weight", "bias"], ["weight"])


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_probabilities_that_are_none_are_refused(p: float) -> None:
    x = torch.ones(2, 8)
    for function in (nk.add_layer_norm, nk.add_rms_norm, normkit.add_layer_norm, normkit.add_rms_norm):
        with pytest.raises(ValueError, match="dropout_p: expected"):
            function(x, x, 8, dropout_p=p)


def test_a_learned_scale_of_the_branch() -> None:
    for module in (nk.AddLayerNorm(8, layer_scale=0.5), nk.AddRMSNorm(8, layer_scale=0.5, dtype=torch.float32)):
        x, r, c = torch.randn(5, 8), torch.randn(5, 8), torch.randn(8, requires_grad=True)
        assert torch.equal(module.branch_scale, torch.full((8,), 0.5))
        assert list(module.state_dict())[-1] == "branch_scale"
        _, h = module(x, r, branch_bias=c)
        torch.testing.assert_close(h, 0.5 * (x + c) + r)
        h.sum().backward()
        torch.testing.assert_close(module.branch_scale.grad, (x + c).sum(0).detach())
        torch.testing.assert_close(c.grad, torch.full((8,), 2.5))
        with torch.no_grad():
            module.branch_scale.zero_()
        module.reset_parameters()
        assert torch.equal(module.branch_scale, torch.full((8,), 0.5))
    assert nk.AddLayerNorm(8).branch_scale is None


def test_gradients_of_a_branch_through_dropout() -> None:
    dtype = torch.float64
    x, r = (torch.randn(3, 8, dtype=dtype, requires_grad=True) for _ in range(2))
    w, c, s = (torch.randn(8, dtype=dtype, requires_grad=True) for _ in range(3))

    def f(x: Tensor, r: Tensor, w: Tensor, c: Tensor, s: Tensor) -> Any:
        options = {"input_scale": 0.5, "dropout_p": 0.4, "dropout_seed": 5, "dropout_offset": 1}
        return nk.add_rms_norm(x, r, 8, w, branch_bias=c, branch_scale=s, **options)

    torch.autograd.gradcheck(f, (x, r, w, c, s))
    torch.autograd.gradgradcheck(f, (x, r, w, c, s))
