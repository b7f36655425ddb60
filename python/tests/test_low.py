"""The class Norm, of which normkit.torch is made, on plain arrays: the functions' bits, and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from arrays import as_numpy, as_torch, bits
from reference import DTYPES

import normkit
from normkit import _normkit
from normkit._normkit import Norm

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(1)


def data(*shape: int, dtype: Any = np.float64) -> Array:
    return RNG.standard_normal(shape).astype(dtype)


X, IMAGE, HEADS = data(4, 6), data(3, 6, 5), data(2, 4, 6)
W, B = 1 + 0.3 * data(6), data(6)
ALPHA = np.array([0.5])


def grouped(x: torch.Tensor) -> torch.Tensor:
    """The RMS norm of groups of three."""
    return F.rms_norm(x.unflatten(-1, (-1, 3)), (3,), None, 1e-5).flatten(-2)


# Name, norm, input, parameters, the function of normkit and torch's on the same arguments.
Entry = tuple[Norm, Array, dict[str, Array], Callable[..., Any], Callable[..., torch.Tensor]]
NORMS: dict[str, Entry] = {
    "layer_norm": (
        Norm.layer_norm(6),
        X,
        {"weight": W, "bias": B},
        lambda input, weight, bias: normkit.layer_norm(input, 6, weight, bias),
        lambda input, weight, bias: F.layer_norm(input, (6,), weight, bias),
    ),
    "rms_norm": (
        Norm.rms_norm((6,), 1e-6),
        X,
        {"weight": W},
        lambda input, weight: normkit.rms_norm(input, 6, weight, 1e-6),
        lambda input, weight: F.rms_norm(input, (6,), weight, 1e-6),
    ),
    "batch_norm": (
        Norm.batch_norm(6),
        IMAGE,
        {"weight": W, "bias": B},
        lambda input, weight, bias: normkit.batch_norm(input, None, None, weight, bias, training=True),
        lambda input, weight, bias: F.batch_norm(input, None, None, weight, bias, training=True),
    ),
    "group_norm": (
        Norm.group_norm(3, 6),
        IMAGE,
        {"weight": W, "bias": B},
        lambda input, weight, bias: normkit.group_norm(input, 3, weight, bias),
        lambda input, weight, bias: F.group_norm(input, 3, weight, bias),
    ),
    "instance_norm": (
        Norm.instance_norm(6),
        IMAGE,
        {"weight": W, "bias": B},
        lambda input, weight, bias: normkit.instance_norm(input, None, None, weight, bias),
        lambda input, weight, bias: F.instance_norm(input, None, None, weight, bias),
    ),
    "normalize": (
        Norm.normalize(3.0, -1),
        X,
        {},
        lambda input: normkit.normalize(input, 3.0, -1),
        lambda input: F.normalize(input, 3.0, -1),
    ),
    "dyt": (
        Norm.dyt(6),
        X,
        {"weight": W, "bias": B, "alpha": ALPHA},
        lambda input, weight, bias, alpha: normkit.dyt(input, alpha, weight, bias),
        lambda input, weight, bias, alpha: torch.tanh(alpha * input) * weight + bias,
    ),
    "head_norm": (
        Norm.head_norm("l2", 1e-12),
        HEADS,
        {"weight": W},
        lambda input, weight: normkit.qk_norm(input, input, weight, kind="l2", eps=1e-12)[0],
        lambda input, weight: F.normalize(input, dim=-1) * weight,
    ),
    "weight_norm": (
        Norm.weight_norm(0),
        IMAGE,
        {"weight": data(3, 1, 1)},
        lambda input, weight: normkit.weight_norm(input, weight),
        lambda input, weight: torch._weight_norm(input, weight, 0),
    ),
    "weight_norm, whole": (
        Norm.weight_norm(None),
        X,
        {"weight": np.array(2.0)},
        lambda input, weight: normkit.weight_norm(input, weight, None),
        lambda input, weight: torch._weight_norm(input, weight, -1),
    ),
    "group_norm, silu": (
        Norm.group_norm(3, 6).fused(activation="silu"),
        IMAGE,
        {"weight": W, "bias": B},
        lambda input, weight, bias: normkit.group_norm(input, 3, weight, bias, activation="silu"),
        lambda input, weight, bias: F.silu(F.group_norm(input, 3, weight, bias)),
    ),
    "rms_norm, residual before": (
        Norm.rms_norm(6, 1e-6).fused("residual", None, None, 0.5, 2.0),
        X,
        {"weight": W, "before": data(4, 6)},
        lambda input, weight, before: normkit.add_rms_norm(
            input, before, 6, weight, 1e-6, input_scale=0.5, residual_scale=2.0
        )[0],
        lambda input, weight, before: F.rms_norm(0.5 * input + 2.0 * before, (6,), weight, 1e-6),
    ),
    "layer_norm, residual after": (
        Norm.layer_norm(6).fused(after="residual"),
        X,
        {"weight": W, "bias": B, "after": data(4, 6)},
        lambda input, weight, bias, after: normkit.layer_norm_add(input, after, 6, weight, bias),
        lambda input, weight, bias, after: after + F.layer_norm(input, (6,), weight, bias),
    ),
    "modulated": (
        Norm.modulated(6),
        X,
        {"weight": data(4, 6), "bias": data(4, 6)},
        lambda input, weight, bias: normkit.modulated_layer_norm(input, weight, bias),
        lambda input, weight, bias: F.layer_norm(input, (6,), eps=1e-6) * (1 + weight) + bias,
    ),
    "gated_rms_norm": (
        Norm.gated_rms_norm(6, 1e-5, 3),
        X,
        {"weight": W, "bias": B, "after": data(4, 6)},
        lambda input, weight, bias, after: normkit.gated_rms_norm(input, after, weight, bias, group_size=3),
        lambda input, weight, bias, after: (grouped(input) * weight + bias) * F.silu(after),
    ),
    "gated_rms_norm, gate first": (
        Norm.gated_rms_norm(6, 1e-5, 3, False),
        X,
        {"weight": W, "before": data(4, 6)},
        lambda input, weight, before: normkit.gated_rms_norm(
            input, before, weight, group_size=3, norm_before_gate=False
        ),
        lambda input, weight, before: grouped(input * F.silu(before)) * weight,
    ),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NORMS)
def test_forward_and_train_give_the_functions_bits(name: str, dtype: np.dtype[Any]) -> None:
    norm, x, parameters, function, _ = NORMS[name]
    x, parameters = x.astype(dtype), {key: value.astype(dtype) for key, value in parameters.items()}
    wanted = bits(function(x, **parameters))
    for convert in (lambda a: a, as_torch):
        arrays = {key: convert(value) for key, value in parameters.items()}
        if name != "batch_norm":
            assert np.array_equal(bits(norm.forward(convert(x), **arrays)), wanted)
        output, statistics = norm.train(convert(x), **arrays)
        assert type(output) is type(convert(x)) and np.array_equal(bits(output), wanted)
        if name == "dyt":
            assert statistics is None
        else:
            assert statistics.shape == (norm.rows(x.shape), 4)
            assert as_numpy(statistics).dtype == (np.float64 if dtype == np.float64 else np.float32)


@pytest.mark.parametrize("name", NORMS)
def test_gradients_are_torchs_in_float64(name: str) -> None:
    norm, x, parameters, _, torchs = NORMS[name]
    grad_output = data(*x.shape)
    output, statistics = norm.train(x, **parameters)
    leaves = {
        key: torch.from_numpy(value).requires_grad_() for key, value in {"input": x, **parameters}.items()
    }
    result = torchs(**leaves)
    np.testing.assert_allclose(output, result.detach().numpy(), rtol=1e-12, atol=1e-12)
    grads = torch.autograd.grad(result, list(leaves.values()), torch.from_numpy(grad_output))
    wanted = dict(zip(leaves, grads, strict=True))
    order = ("input", "weight", "bias", "alpha", "before", "after", "branch_bias", "branch_scale")
    for needs in (255, 63, 1, 2, 4, 8, 16, 32, 6, 0):
        found = norm.backward(grad_output, x, statistics, **parameters, needs=needs)
        assert len(found) == 8
        for bit, (key, gradient) in enumerate(zip(order, found, strict=True)):
            if key not in leaves or not needs & (1 << bit):
                assert gradient is None, f"{key}, needs {needs}"
                continue
            assert type(gradient) is np.ndarray and gradient.shape == leaves[key].shape
            np.testing.assert_allclose(gradient, wanted[key].numpy(), rtol=1e-9, atol=1e-11, err_msg=key)


def test_a_branch_that_is_shifted_and_scaled() -> None:
    norm = Norm.layer_norm(6).fused("residual", None, None, 0.5, 2.0)
    named = {"weight": W, "before": data(4, 6), "branch_bias": data(6), "branch_scale": data(6)}
    leaves = {key: torch.from_numpy(value).requires_grad_() for key, value in {"input": X, **named}.items()}
    branch = leaves["branch_scale"] * (leaves["input"] + leaves["branch_bias"])
    sum_ = 0.5 * branch + 2.0 * leaves["before"]
    result = F.layer_norm(sum_, (6,), leaves["weight"])
    output, hidden, statistics = norm.hidden(X, **named)
    np.testing.assert_allclose(output, result.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(hidden, sum_.detach().numpy(), rtol=1e-12, atol=1e-12)
    given = {key: named[key] for key in ("weight", "branch_bias", "branch_scale")}
    y, h = normkit.add_layer_norm(X, named["before"], 6, **given, input_scale=0.5, residual_scale=2.0)
    assert np.array_equal(y, output) and np.array_equal(h, hidden)
    of_output, of_hidden = data(4, 6), data(4, 6)
    loss = (result * torch.from_numpy(of_output)).sum() + (sum_ * torch.from_numpy(of_hidden)).sum()
    wanted = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
    found = norm.backward(of_output, X, statistics, **named, grad_hidden=of_hidden)
    order = ("input", "weight", "bias", "alpha", "before", "after", "branch_bias", "branch_scale")
    for key, gradient in zip(order, found, strict=True):
        if key not in wanted:
            assert gradient is None
            continue
        np.testing.assert_allclose(gradient, wanted[key].numpy(), rtol=1e-9, atol=1e-11, err_msg=key)
    # The sum alone says all but the scale's gradient.
    alone = {key: value for key, value in named.items() if key != "before"}
    found = norm.backward(of_output, hidden, statistics, **alone, grad_hidden=of_hidden, needs=1 | 64)
    np.testing.assert_allclose(found[6], wanted["branch_bias"].numpy(), rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match="grad_branch_scale"):
        norm.backward(of_output, hidden, statistics, **alone, needs=128)
    with pytest.raises(ValueError, match="branch_bias"):
        Norm.layer_norm(6).hidden(X, branch_bias=W)


def test_a_single_row() -> None:
    for norm, x in (
        (Norm.layer_norm(6), X[:1]),
        (Norm.rms_norm(6), X[0]),
        (Norm.batch_norm(1), IMAGE[:, :1]),
        (Norm.weight_norm(None), X),
    ):
        weight = np.array([2.0]) if norm.rows(x.shape) == 1 and x.shape[-1] != 6 else None
        weight = np.array(2.0) if x is X else weight
        output, statistics = norm.train(x, weight)
        assert statistics.shape == (1, 4)
        gradients = norm.backward(np.ones(x.shape), x, statistics, weight)
        assert gradients[0].shape == output.shape == x.shape and np.isfinite(gradients[0]).all()


def test_an_expanded_gradient_is_read_where_it_lies() -> None:
    norm, x, parameters, *_ = NORMS["layer_norm"]
    _, statistics = norm.train(x, **parameters)
    expanded = np.broadcast_to(np.float64(1.0), x.shape)
    found = norm.backward(expanded, x, statistics, **parameters)
    wanted = norm.backward(np.ones(x.shape), x, statistics, **parameters)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None and other is None) or np.array_equal(one, other)


def test_frozen_statistics() -> None:
    x, mean, var = IMAGE, data(6), 1 + data(6) ** 2
    found = _normkit.batch_norm_frozen(x, mean, var, W, B)
    assert np.array_equal(found, normkit.batch_norm(x, mean, var, W, B))
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, W, B)]
    grad_output = data(*x.shape)
    y = F.batch_norm(leaves[0], torch.from_numpy(mean), torch.from_numpy(var), leaves[1], leaves[2])
    wanted = torch.autograd.grad(y, leaves, torch.from_numpy(grad_output))
    gradients = _normkit.batch_norm_frozen_backward(grad_output, x, mean, var, W, B)
    for one, other in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-9, atol=1e-11)
    assert _normkit.batch_norm_frozen_backward(grad_output, x, mean, var, W, B, needs=2)[0] is None


@pytest.mark.parametrize("function", ["batch_norm", "instance_norm"])
def test_training_with_running_statistics(function: str) -> None:
    ours, plain = [np.zeros(6), np.ones(6)], [np.zeros(6), np.ones(6)]
    output, statistics = getattr(_normkit, f"{function}_train")(IMAGE, *ours, 0.3, W, B)
    options = {"training": True} if function == "batch_norm" else {}
    wanted = getattr(normkit, function)(IMAGE, *plain, W, B, momentum=0.3, **options)
    assert np.array_equal(output, wanted) and np.array_equal(ours, plain) and ours[0].any()
    assert statistics.shape == (6 if function == "batch_norm" else 18, 4)


def test_what_is_wrong_is_refused() -> None:
    norm = Norm.layer_norm(6)
    _, statistics = norm.train(X, W)
    for wrong in (X[:3], X.astype(np.float32)):
        with pytest.raises((ValueError, TypeError), match="grad_output"):
            norm.backward(wrong, X, statistics, W)
    for bad in (None, statistics[:2], statistics.astype(np.float32), X):
        with pytest.raises((ValueError, TypeError), match="statistics"):
            norm.backward(X, X, bad, W)
    for needs in (-1, 2**40):
        with pytest.raises((ValueError, OverflowError)):
            norm.backward(X, X, statistics, W, needs=needs)
    with pytest.raises(ValueError, match="eps"):
        Norm.layer_norm(6, -1.0).forward(X)
    with pytest.raises(ValueError, match="kind"):
        Norm.head_norm("batch")
    with pytest.raises(ValueError, match="cast"):
        Norm.rms_norm(6, cast="half")
    with pytest.raises(ValueError, match=r"num_groups"):
        Norm.group_norm(4, 6).forward(IMAGE)
    with pytest.raises(ValueError, match=r"alpha"):
        Norm.dyt(6).forward(X)
    with pytest.raises(TypeError):
        Norm()
    assert norm.rows((7, 3, 6)) == 21 and norm.rows([6]) == 1 and norm.rows((0, 6)) == 0
    with pytest.raises(ValueError, match=r"input|shape"):
        norm.rows((7, 5))


def test_tensors_that_require_grad_are_looked_at_as_memory() -> None:
    x = torch.from_numpy(X).requires_grad_()
    output = Norm.layer_norm(6).forward(x, torch.from_numpy(W).requires_grad_())
    assert not output.requires_grad and np.array_equal(output.numpy(), normkit.layer_norm(X, 6, W))


def test_the_hidden_value_stands_for_what_it_is_a_sum_of() -> None:
    """Where it is exact, backward gives the same bits of it as of its terms, and both gradients of a sum."""
    norm = Norm.rms_norm(6, 1e-6).fused("residual", None, None, 0.5, 2.0)
    residual, grad_output, grad_hidden = data(4, 6), data(4, 6), data(4, 6)
    output, hidden, statistics = norm.hidden(X, W, before=residual)
    assert norm.hidden(X, W, before=residual, statistics=False)[2] is None
    assert np.array_equal(bits(hidden), bits(0.5 * X + 2.0 * residual))
    grads = {"grad_hidden": grad_hidden}
    of_terms = norm.backward(grad_output, X, statistics, W, before=residual, **grads)
    of_hidden = norm.backward(grad_output, hidden, statistics, W, **grads)
    for one, two in zip(of_terms, of_hidden, strict=True):
        assert (one is None) == (two is None) and (one is None or np.array_equal(bits(one), bits(two)))
    assert of_terms[0] is not None and of_terms[4] is not None
    np.testing.assert_allclose(of_terms[4], 4 * of_terms[0], rtol=1e-14)
    without = norm.backward(grad_output, X, statistics, W, before=residual)
    assert without[0] is not None
    np.testing.assert_allclose(of_terms[0] - without[0], 0.5 * grad_hidden, rtol=1e-9, atol=1e-12)


def test_what_cannot_surround_a_norm_is_refused() -> None:
    for norm in (Norm.normalize(), Norm.dyt(6), Norm.weight_norm(0), Norm.modulated(6)):
        with pytest.raises(ValueError, match="^fused:"):
            norm.fused(activation="silu")
    for wrong in ({"before": "gate"}, {"after": "silu"}, {"activation": "tanh"}):
        with pytest.raises(ValueError, match="|".join(wrong)):
            Norm.layer_norm(6).fused(**wrong)
    with pytest.raises(ValueError, match="^before:"):
        Norm.layer_norm(6).forward(X, before=X)
    with pytest.raises(ValueError, match="^after:"):
        Norm.layer_norm(6).forward(X, after=X)
    with pytest.raises(ValueError, match="^hidden:"):
        Norm.layer_norm(6).hidden(X)
