"""What convert replaces, what it leaves, and that a converted model is the same model."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit.torch as nk

HERE = __name__.partition(".")[0]


class Llama(nn.Module):
    """An RMSNorm as models write it, by another name."""

    def __init__(self, size: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.variance_epsilon = eps

    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x.to(hidden.dtype)


class PlainRMSNorm(Llama):
    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return (self.weight * x).to(hidden.dtype)


class GemmaNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (wide * (1.0 + self.weight.float())).type_as(x)


class EpsOutsideNorm(Llama):
    def forward(self, hidden: Tensor) -> Tensor:
        x = hidden.float()
        return (self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.variance_epsilon)).to(
            hidden.dtype
        )


class ScaleNorm(Llama):
    def forward(self, hidden: Tensor) -> Tensor:
        return self.weight * hidden / hidden.norm(dim=-1, keepdim=True).clamp(min=self.variance_epsilon)


class OwnForward(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + 1


class OwnInit(nn.LayerNorm):
    """Only its constructor differs."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-3)


class OwnMethod(nn.BatchNorm1d):
    def freeze(self) -> None:
        self.eval()


def every_norm() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(8, 8),
        nn.LayerNorm(8),
        nn.RMSNorm(8),
        nn.Sequential(nn.GroupNorm(2, 8), nn.BatchNorm1d(8)),
        Llama(8),
        PlainRMSNorm(8),
        GemmaNorm(8),
        OwnInit(8),
        nn.Unflatten(1, (4, 2)),
        nn.InstanceNorm1d(4, affine=True),
    )


def tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def test_every_norm_becomes_ours_and_keeps_its_tensors() -> None:
    model = every_norm().train()
    reference = copy.deepcopy(model)
    before = dict(tensors(model))
    report = nk.convert(model)
    assert [(item.name, item.was, item.now) for item in report.replaced] == [
        ("1", "torch.LayerNorm", "normkit.LayerNorm"),
        ("2", "torch.RMSNorm", "normkit.RMSNorm"),
        ("3.0", "torch.GroupNorm", "normkit.GroupNorm"),
        ("3.1", "torch.BatchNorm1d", "normkit.BatchNorm1d"),
        ("4", f"{HERE}.Llama", "normkit.RMSNorm(cast=llama)"),
        ("5", f"{HERE}.PlainRMSNorm", "normkit.RMSNorm"),
        ("6", f"{HERE}.GemmaNorm", "normkit.RMSNorm(cast=gemma)"),
        ("7", f"{HERE}.OwnInit", "normkit.LayerNorm"),
        ("9", "torch.InstanceNorm1d", "normkit.InstanceNorm1d"),
    ]
    assert report.left == []
    after = dict(tensors(model))
    assert list(after) == list(before)
    assert all(after[name] is before[name] for name in before)
    assert list(model.state_dict()) == list(reference.state_dict())
    for training in (True, False):
        model.train(training)
        reference.train(training)
        x = torch.randn(16, 8)
        torch.testing.assert_close(model(x), reference(x), rtol=1e-4, atol=1e-5)
    assert model[7].eps == 1e-3
    model.load_state_dict(reference.state_dict())
    assert nk.convert(model).replaced == []
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))


def test_the_report_prints_well() -> None:
    model = nn.Sequential(nn.LayerNorm(8), nn.LayerNorm(8), OwnForward(8))
    assert str(nk.convert(model)).splitlines() == [
        "replaced 2",
        "     2 torch.LayerNorm -> normkit.LayerNorm",
        "left 1",
        f"  2: {HERE}.OwnForward: has a forward of its own",
    ]


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (OwnForward(8), "has a forward of its own"),
        (OwnMethod(8), "defines freeze"),
        (EpsOutsideNorm(8), "does not compute RMSNorm"),
        (ScaleNorm(8), "does not compute RMSNorm"),
        (nn.SyncBatchNorm(8), "all processes"),
        (nn.LazyBatchNorm1d(), "not initialized"),
        (nn.LocalResponseNorm(2), "more or less than a weight and an eps"),
        (nn.utils.parametrizations.weight_norm(nn.LayerNorm(8)), "defines"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_another_function_stays(norm: nn.Module, reason: str) -> None:
    kind = type(norm)
    report = nk.convert(nn.ModuleList([norm]))
    assert report.replaced == []
    assert len(report.left) == 1
    assert reason in report.left[0].reason
    assert type(norm) is kind


def test_a_forward_put_on_the_module_itself_stays() -> None:
    for norm in (nn.LayerNorm(8), PlainRMSNorm(8)):
        norm.forward = lambda x: x + 1
        assert nk.convert(norm).replaced == []
        assert torch.equal(norm(torch.ones(2, 8)), torch.full((2, 8), 2.0))


@pytest.mark.parametrize(("norm", "cast"), [(Llama, "llama"), (PlainRMSNorm, "fp32"), (GemmaNorm, "gemma")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_cast_habit_is_kept(norm: Any, cast: str, dtype: torch.dtype) -> None:
    """In half precision nearly all elements are bit-equal; sums in another order round a few otherwise."""
    module = norm(64)
    with torch.no_grad():
        module.weight.add_(torch.randn(64) * 0.3)
    module = module.to(dtype)
    x = torch.randn(500, 64).to(dtype)
    right = module(x)
    nk.convert(module)
    assert module.cast == cast
    ours = module(x)
    assert ours.dtype == right.dtype
    if dtype == torch.float32:
        torch.testing.assert_close(ours, right)
    else:
        assert (ours == right).double().mean() > 0.999
        torch.testing.assert_close(ours, right, rtol=1e-2, atol=1e-2)


def test_other_weights_and_random_numbers_are_left_alone() -> None:
    module = Llama(8)
    state = torch.get_rng_state()
    calls: list[int] = []
    module.register_forward_hook(lambda *_: calls.append(1))
    nk.convert(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.weight.eq(1).all()
    assert calls == []
    module(torch.randn(2, 8))
    assert calls == [1]


def test_hooks_flags_and_sharing_stay() -> None:
    shared = nn.LayerNorm(8)
    model = nn.ModuleDict({"one": shared, "two": nn.Sequential(shared, nn.BatchNorm1d(8))})
    outside = [shared]
    model["two"][1].eval()
    shared.weight.requires_grad_(False)
    seen: list[str] = []
    shared.register_forward_pre_hook(lambda *_: seen.append("pre"))
    shared.register_full_backward_hook(lambda *_: seen.append("back"))
    report = nk.convert(model)
    assert [item.name for item in report.replaced] == ["one", "two.1"]
    assert model["one"] is model["two"][0] is outside[0]
    assert not model["two"][1].training
    assert model["two"].training
    assert not shared.weight.requires_grad
    model["one"](torch.randn(2, 8, requires_grad=True)).sum().backward()
    assert seen == ["pre", "back"]


def test_a_norm_alone_can_be_converted() -> None:
    norm = nn.LayerNorm(8)
    assert len(nk.convert(norm).replaced) == 1
    assert type(norm) is nk.LayerNorm


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(ValueError, match="to"):
        nk.convert(nn.LayerNorm(8), to="elu")


def test_to_dyt() -> None:
    gemma = GemmaNorm(8)
    nn.init.constant_(gemma.weight, 0.25)
    model = nn.Sequential(
        nn.LayerNorm(8),
        nk.RMSNorm(8),
        Llama(8),
        gemma,
        nn.LayerNorm(8, elementwise_affine=False),
        nn.BatchNorm1d(8),
    )
    weight = model[0].weight
    report = nk.convert(model, to="dyt", alpha_init=0.8)
    assert [type(module) for module in model] == [nk.DyT] * 5 + [nn.BatchNorm1d]
    assert len(report.replaced) == 5
    assert model[0].weight is weight
    assert model[3].weight.eq(1.25).all()
    assert set(model[0].state_dict()) == {"alpha", "weight", "bias"}
    assert set(model[2].state_dict()) == {"alpha", "weight"}
    assert set(model[4].state_dict()) == {"alpha"}
    x = torch.randn(4, 8)
    torch.testing.assert_close(model[0](x), torch.tanh(0.8 * x))
    torch.testing.assert_close(model[3](x), 1.25 * torch.tanh(0.8 * x))
    model(x).sum().backward()
    assert all(module.alpha.grad is not None for module in model[:5])
    assert "alpha_init=0.8" in repr(model)
    assert torch.equal(copy.deepcopy(model).eval()(x), model.eval()(x))
    assert nk.convert(model, to="dyt").replaced == []


def test_converting_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.LayerNorm(8), Llama(8))
        assert len(nk.convert(model).replaced) == 2
    model.to_empty(device="cpu")
    for module in model:
        nn.init.ones_(module.weight)
    nn.init.zeros_(model[0].bias)
    torch.testing.assert_close(model(torch.randn(4, 8)).pow(2).mean(-1), torch.ones(4), rtol=1e-3, atol=1e-3)
