"""The modules beside torch's: constructors, state_dicts, training, copies, casts, errors."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit.torch as nk

# name, arguments of both constructors, shape of an input
TWINS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("LayerNorm", (8,), {}, (3, 5, 8)),
    ("LayerNorm", ([5, 8],), {"eps": 1e-3, "bias": False}, (3, 5, 8)),
    ("LayerNorm", (8,), {"elementwise_affine": False}, (3, 8)),
    ("RMSNorm", (8,), {}, (3, 5, 8)),
    ("RMSNorm", ((5, 8), 1e-5), {"elementwise_affine": False}, (3, 5, 8)),
    ("BatchNorm1d", (4,), {}, (6, 4)),
    ("BatchNorm1d", (4,), {"momentum": None}, (6, 4, 5)),
    ("BatchNorm2d", (4,), {"affine": False, "momentum": 0.3}, (3, 4, 5, 2)),
    ("BatchNorm2d", (4,), {"track_running_stats": False}, (3, 4, 5, 2)),
    ("BatchNorm3d", (4, 1e-3), {}, (3, 4, 2, 3, 2)),
    ("GroupNorm", (2, 4), {}, (3, 4, 5)),
    ("GroupNorm", (4, 4), {"affine": False, "eps": 1e-3}, (3, 4)),
    ("InstanceNorm1d", (4,), {}, (3, 4, 5)),
    ("InstanceNorm1d", (4,), {"affine": True}, (4, 5)),
    ("InstanceNorm2d", (4,), {"affine": True, "track_running_stats": True}, (3, 4, 5, 2)),
    ("InstanceNorm2d", (4,), {"track_running_stats": True, "momentum": 0.5}, (4, 5, 2)),
    ("InstanceNorm3d", (4,), {}, (3, 4, 2, 3, 2)),
]
twins = pytest.mark.parametrize(
    ("name", "args", "kwargs", "shape"), TWINS, ids=[f"{i}-{twin[0]}" for i, twin in enumerate(TWINS)]
)


def both(name: str, args: Any, kwargs: Any) -> tuple[nn.Module, nn.Module]:
    ours, theirs = getattr(nk, name)(*args, **kwargs), getattr(nn, name)(*args, **kwargs)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.uniform_(0.5, 1.5)
    return ours, theirs


def step(module: nn.Module, x: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    output = module(leaf)
    output.pow(3).sum().backward()
    assert leaf.grad is not None
    return [output, leaf.grad]


@twins
def test_training_and_evaluation_as_torchs(name: str, args: Any, kwargs: Any, shape: Any) -> None:
    ours, theirs = both(name, args, kwargs)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert ours.load_state_dict(theirs.state_dict()) == theirs.load_state_dict(ours.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for training in (True, True, False):
        ours.train(training)
        theirs.train(training)
        x = torch.randn(shape) * 2 + 1
        for mine, right in zip(step(ours, x), step(theirs, x), strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-4)
        for mine, right in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, right.grad, rtol=1e-4, atol=1e-4)
        for mine, right in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            torch.testing.assert_close(mine, right)


@twins
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "state_dict"])
def test_copies(name: str, args: Any, kwargs: Any, shape: Any, how: str) -> None:
    module, _ = both(name, args, kwargs)
    module(torch.randn(shape))
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(module))
    else:
        other = type(module)(*args, **kwargs)
        other.load_state_dict(module.state_dict())
    x = torch.randn(shape)
    assert type(other) is type(module)
    assert torch.equal(module.eval()(x), other.eval()(x))


@twins
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_casts(name: str, args: Any, kwargs: Any, shape: Any, dtype: torch.dtype) -> None:
    module = getattr(nk, name)(*args, **kwargs).to(dtype)
    made = getattr(nk, name)(*args, **kwargs, dtype=dtype) if name[:8] != "Instance" or kwargs else module
    x = torch.randn(shape).to(dtype)
    output = module(x)
    assert output.dtype == dtype
    assert torch.equal(made(x), output)
    exact = getattr(nn, name)(*args, **kwargs).double()
    if name == "RMSNorm" and exact.eps is None:
        exact.eps = torch.finfo(dtype).eps
    torch.testing.assert_close(output.double(), exact(x.double()), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize(
    "name", ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d", "InstanceNorm2d"]
)
def test_dimensions_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        getattr(nk, name)(4)(torch.randn(3, 4, 5, 2, 2, 2))


def test_tracking_can_be_turned_off_later() -> None:
    ours, theirs = nk.BatchNorm1d(4), nn.BatchNorm1d(4)
    x = torch.randn(6, 4) * 3
    for module in (ours, theirs):
        module.track_running_stats = False
    torch.testing.assert_close(ours(x), theirs(x))
    assert ours.running_mean.eq(0).all()
    assert int(ours.num_batches_tracked) == 0
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_one_value_per_channel_cannot_train() -> None:
    with pytest.raises(ValueError, match="input"):
        nk.BatchNorm1d(4)(torch.randn(1, 4))


def test_instance_norm_of_other_channels_warns_as_torch() -> None:
    with pytest.warns(UserWarning, match="does not match num_features"):
        nk.InstanceNorm1d(3)(torch.randn(2, 4, 5))
    with pytest.raises(ValueError, match="num_features"):
        nk.InstanceNorm1d(3, affine=True)(torch.randn(2, 4, 5))


def test_synchronized_conversion_is_torchs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nk.BatchNorm1d(4)))
    assert type(converted[0]) is nn.SyncBatchNorm


def test_rms_norm_options() -> None:
    x = torch.randn(3, 8).bfloat16()
    assert nk.RMSNorm(8, cast="gemma").weight.eq(0).all()
    assert nk.RMSNorm(8, offset=1.0).weight.eq(0).all()
    assert nk.RMSNorm(8).weight.eq(1).all()
    assert "cast=llama" in repr(nk.RMSNorm(8, 1e-6, cast="llama"))
    assert "partial=0.5" in repr(nk.RMSNorm(8, partial=0.5))
    gemma = nk.RMSNorm(8, 1e-6, cast="gemma").bfloat16()
    torch.testing.assert_close(gemma(x), nk.rms_norm(x, (8,), eps=1e-6))
    other = pickle.loads(pickle.dumps(nk.RMSNorm(8, 1e-6, cast="llama", partial=0.5)))
    assert (other.cast, other.partial) == ("llama", 0.5)


def test_dyt() -> None:
    module = nk.DyT(8)
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "alpha": (1,),
        "weight": (8,),
        "bias": (8,),
    }
    assert module.alpha.item() == 0.5
    x = torch.randn(3, 8)
    torch.testing.assert_close(module(x), torch.tanh(0.5 * x))
    module(x).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.ne(0).any() for p in module.parameters())
    assert set(nk.DyT(8, 0.8, bias=False).state_dict()) == {"alpha", "weight"}
    assert set(nk.DyT((5, 8), elementwise_affine=False).state_dict()) == {"alpha"}
    assert "alpha_init=0.8" in repr(nk.DyT(8, 0.8))
    again = nk.DyT(8)
    again.load_state_dict(module.state_dict())
    assert torch.equal(again(x), module(x))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(twin(x), module(x))
    assert module.half()(x.half()).dtype == torch.float16


@pytest.mark.parametrize("kind", ["rms", "l2", "layer"])
def test_qk_norm(kind: str) -> None:
    module = nk.QKNorm(8, kind=kind, scale_init=3.0)
    q, k = torch.randn(2, 6, 4, 8), torch.randn(2, 6, 2, 8)
    one, two = module(q, k)
    assert one.shape == q.shape
    assert two.shape == k.shape
    length = 3.0 if kind == "l2" else 8**0.5
    torch.testing.assert_close(one.norm(dim=-1), torch.full((2, 6, 4), length), rtol=1e-4, atol=1e-4)
    assert set(module.state_dict()) == ({"q_weight"} if kind == "l2" else {"q_weight", "k_weight"})
    (one.sum() + two.pow(3).sum()).backward()
    assert all(p.grad is not None for p in module.parameters())
    assert kind in repr(module)
    assert not list(nk.QKNorm(8, kind=kind, elementwise_affine=False).parameters())
    twin = pickle.loads(pickle.dumps(module))
    assert torch.equal(twin(q, k)[0], one)
    with pytest.raises(ValueError, match="head_dim"):
        module(q[..., :4], k)


def test_qk_norm_knows_its_kinds() -> None:
    with pytest.raises(ValueError, match="kind"):
        nk.QKNorm(8, kind="max")


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm_parametrization(dim: int | None) -> None:
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(5, 4), dim=dim)
    ours = nk.parametrizations.weight_norm(nn.Linear(5, 4), dim=dim)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5)
    for module in (ours, theirs):
        module(x).pow(2).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    for mine, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert mine.grad is not None
        torch.testing.assert_close(mine.grad, right.grad)
    torch.testing.assert_close(copy.deepcopy(ours).weight, ours.weight)


def test_weight_norm_keeps_the_weight_and_can_be_undone() -> None:
    layer = nn.Conv1d(3, 4, 2)
    weight = layer.weight.detach().clone()
    nk.parametrizations.weight_norm(layer)
    torch.testing.assert_close(layer.weight, weight)
    assert layer.parametrizations.weight.original0.shape == (4, 1, 1)
    layer.weight = torch.ones_like(weight)
    torch.testing.assert_close(layer.weight, torch.ones_like(weight))
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Conv1d
    torch.testing.assert_close(layer.weight, torch.ones_like(weight))


def test_weight_norm_is_ours_and_loads_old_state_dicts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(5, 4))
    ours = nk.parametrizations.weight_norm(nn.Linear(5, 4))
    ours.load_state_dict(old.state_dict())
    torch.testing.assert_close(ours.weight, torch._weight_norm(old.weight_v, old.weight_g, 0))
    parametrized: Any = ours.parametrizations
    assert type(parametrized.weight[0]).__module__ == "normkit.torch.parametrizations"


def test_weight_norm_of_a_zero_row() -> None:
    """torch gives NaN there."""
    layer = nn.Linear(5, 2)
    with torch.no_grad():
        layer.weight[0] = 0
    nk.parametrizations.weight_norm(layer)
    layer(torch.randn(3, 5)).sum().backward()
    assert layer.weight[0].eq(0).all()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
