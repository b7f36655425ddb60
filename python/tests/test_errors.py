"""Bad input: an error of Python's usual kinds that names the argument; no panic, no wrong answer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import normkit

X = np.random.default_rng(1).standard_normal((4, 6), dtype=np.float32)
IMAGE = np.random.default_rng(2).standard_normal((2, 6, 5), dtype=np.float32)
SIX, ONES = np.linspace(0.5, 1.5, 6, dtype=np.float32), np.ones(6, np.float32)
ANGLES = np.linspace(-1, 1, 4, dtype=np.float32).reshape(2, 2)

DROPOUT: dict[str, Any] = {"dropout_p": 0.25, "dropout_seed": 3, "dropout_offset": 0}
BRANCH: dict[str, Any] = {"branch_bias": SIX, "branch_scale": SIX}
CODED: dict[str, Any] = {"dtype": "int8", "scale": None, "block_size": None, "upper_bound": None}

# A valid call of each function, by the names of its arguments.
CALLS: dict[str, dict[str, Any]] = {
    "layer_norm": {
        "input": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX, "eps": 1e-5,
        "activation": None,
    },
    "rms_norm": {
        "input": X, "normalized_shape": (6,), "weight": SIX, "eps": 1e-5,
        "offset": 0.0, "cast": "fp32", "partial": 1.0, "activation": None,
    },
    "add_layer_norm": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX, "eps": 1e-5,
        "input_scale": 1.0, "residual_scale": 1.0, **BRANCH, **DROPOUT,
    },
    "add_rms_norm": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "eps": 1e-5,
        "offset": 0.0, "cast": "fp32", "input_scale": 1.0, "residual_scale": 1.0, **BRANCH, **DROPOUT,
    },
    "layer_norm_add": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX, "eps": 1e-5,
    },
    "rms_norm_add": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "eps": 1e-5,
        "offset": 0.0, "cast": "fp32",
    },
    "layer_norm_add_layer_norm": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX,
        "next_weight": SIX, "next_bias": SIX, "eps": 1e-5,
    },
    "rms_norm_add_rms_norm": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "next_weight": SIX, "eps": 1e-5,
        "offset": 0.0, "cast": "fp32",
    },
    "hypersphere_step": {"input": X, "branch": X, "alpha": SIX, "eps": 1e-12, "alpha_scale": 1.0},
    "rms_norm_quant": {
        "input": X, "normalized_shape": (6,), "weight": SIX, "eps": 1e-5, **CODED, "offset": 0.0, "cast": "fp32",
    },
    "layer_norm_quant": {
        "input": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX, "eps": 1e-5, **CODED,
    },
    "add_rms_norm_quant": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "eps": 1e-5, **CODED,
        "offset": 0.0, "cast": "fp32", "input_scale": 1.0, "residual_scale": 1.0,
    },
    "add_layer_norm_quant": {
        "input": X, "residual": X, "normalized_shape": (6,), "weight": SIX, "bias": SIX, "eps": 1e-5, **CODED,
        "input_scale": 1.0, "residual_scale": 1.0,
    },
    "modulated_layer_norm": {"input": X, "scale": SIX, "shift": SIX, "eps": 1e-6},
    "modulated_rms_norm": {"input": X, "scale": SIX, "shift": SIX, "eps": 1e-6},
    "gated_rms_norm": {
        "input": X, "gate": X, "weight": SIX, "bias": SIX, "eps": 1e-5,
        "group_size": 3, "norm_before_gate": True,
    },
    "batch_norm": {
        "input": IMAGE, "running_mean": ONES, "running_var": ONES, "weight": SIX, "bias": SIX,
        "training": False, "momentum": 0.1, "eps": 1e-5,
    },
    "group_norm": {
        "input": IMAGE, "num_groups": 3, "weight": SIX, "bias": SIX, "eps": 1e-5, "activation": None,
    },
    "instance_norm": {
        "input": IMAGE, "running_mean": None, "running_var": None, "weight": SIX, "bias": SIX,
        "use_input_stats": True, "momentum": 0.1, "eps": 1e-5,
    },
    "normalize": {"input": X, "p": 2.0, "dim": 1, "eps": 1e-12},
    "dyt": {"input": X, "alpha": 0.5, "weight": SIX, "bias": SIX},
    "qk_norm": {"q": IMAGE, "k": IMAGE, "q_weight": None, "k_weight": None, "eps": 1e-6, "kind": "rms"},
    "qk_norm_rope": {
        "q": IMAGE, "k": IMAGE, "cos": ANGLES, "sin": ANGLES, "positions": None, "q_weight": None, "k_weight": None,
        "eps": 1e-6, "kind": "rms", "interleaved": False,
    },
    "weight_norm": {"v": X, "g": np.ones((4, 1), np.float32), "dim": 0},
}  # fmt: skip
OPTIONAL = {"weight", "bias", "running_mean", "running_var", "q_weight", "k_weight"}
ARRAYS = {"input", "residual", "branch", "gate", "scale", "shift", "q", "k", "v", "g", "cos", "sin", *OPTIONAL}
# A quantized result's scale is a number.
EVERY_ARRAY = [
    (function, name)
    for function, call in CALLS.items()
    for name in call
    if name in ARRAYS and not (name == "scale" and function.endswith("quant"))
]


def like(function: str, name: str) -> tuple[int, ...]:
    """The shape that an array has, or would have."""
    array = CALLS[function][name]
    return array.shape if array is not None else (5,) if function.startswith("qk_norm") else (6,)


def refused(
    function: str, changes: dict[str, Any], *kinds: type[Exception], names: set[str] | None = None
) -> str:
    """The message of the error of one of `kinds`, which names what was changed."""
    arguments = CALLS[function] | changes
    with pytest.raises(kinds or (ValueError, TypeError)) as caught:
        getattr(normkit, function)(**arguments)
    message = str(caught.value)
    wanted = names or set(changes)
    assert any(name in message for name in wanted), f"{function}: {wanted} are not named in {message!r}"
    return message


def test_the_calls_are_valid() -> None:
    assert set(CALLS) == {
        name
        for name in normkit.__all__
        if name.endswith(("norm", "norm_add", "norm_rope", "norm_quant", "normalize", "dyt", "hypersphere_step"))
    }
    for function, arguments in CALLS.items():
        getattr(normkit, function)(**arguments)
        assert list(arguments) == [
            name for name in inspect.signature(getattr(normkit, function)).parameters if name != "backend"
        ]


DTYPES: list[Any] = [
    ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4, np.int32, np.int64, np.uint8, np.bool_,
    np.complex64, np.complex128, np.longdouble, object, "U4", "S4", "M8[s]", "V4",
    [("re", "f4"), ("im", "f4")],
]  # fmt: skip


@pytest.mark.parametrize(("function", "name"), EVERY_ARRAY)
def test_dtypes(function: str, name: str) -> None:
    shape = like(function, name)
    for dtype in DTYPES:
        message = refused(function, {name: np.zeros(shape, dtype)}, TypeError)
        assert "dtype" in message, message
    swapped = np.ones(shape, np.dtype(np.float32).newbyteorder())
    assert "dtype" in refused(function, {name: swapped}, TypeError)
    for kind in (torch.float8_e4m3fn, torch.int64, torch.bool, torch.complex64):
        refused(function, {name: torch.zeros(shape).to(kind)}, TypeError, names=ARRAYS)


@pytest.mark.parametrize(("function", "name"), EVERY_ARRAY)
def test_objects_that_are_no_arrays(function: str, name: str) -> None:
    for other in ([[1.0] * 6] * 4, (1.0, 2.0), "array", b"array", {}, object(), 1j, np.float32, range(6)):
        refused(function, {name: other}, TypeError)
    if name not in OPTIONAL and (function, name) != ("modulated_rms_norm", "shift"):
        refused(function, {name: None}, TypeError)
        for number in (1, 1.0, True):
            refused(function, {name: number}, TypeError)
    refused(function, {name: np.ma.masked_array(np.ones(6, np.float32))}, TypeError)
    with pytest.raises((TypeError, ValueError)):
        getattr(normkit, function)(**(CALLS[function] | {name: torch.ones(6).to_sparse()}))


@pytest.mark.parametrize(("function", "name"), EVERY_ARRAY)
def test_zero_axes_and_wrong_shapes(function: str, name: str) -> None:
    shapes: list[tuple[int, ...]] = [(), (7,), (0,), (6, 1, 1, 7)]
    if (function, name) == ("weight_norm", "g"):
        shapes = [(), (3,), (0,), (1, 4), (4, 2)]
    if name in ("q_weight", "k_weight"):
        # A single number scales every head.
        shapes = shapes[1:]
    for shape in shapes:
        if function == "weight_norm" and name == "v" and len(shape) == 4:
            continue
        if function == "normalize" and len(shape) == 4:
            continue
        refused(function, {name: np.ones(shape, np.float32)}, ValueError, names=ARRAYS | {"dim"})


@pytest.mark.parametrize(("function", "name"), EVERY_ARRAY)
def test_tensors_that_require_grad(function: str, name: str) -> None:
    tensors = {key: torch.from_numpy(a) for key, a in CALLS[function].items() if isinstance(a, np.ndarray)}
    if "running" in name:
        tensors |= {"running_mean": torch.zeros(6), "running_var": torch.ones(6)}
    tensors |= {name: torch.ones(like(function, name), requires_grad=True)}
    message = refused(function, tensors, RuntimeError, names={name})
    assert "requires grad" in message and "normkit.torch" in message
    getattr(normkit, function)(**(CALLS[function] | tensors | {name: tensors[name].detach()}))


def test_meta_tensors_and_other_devices() -> None:
    for function, call in CALLS.items():
        first = next(iter(call))
        meta = torch.empty(call[first].shape, device="meta")
        with pytest.raises((ValueError, TypeError, RuntimeError)):
            getattr(normkit, function)(**(call | {first: meta}))


NUMBERS = [
    (f, name)
    for f, call in CALLS.items()
    for name in ("eps", "momentum", "offset", "partial", "p", "input_scale", "residual_scale", "alpha_scale")
    if name in call
]


@pytest.mark.parametrize(("function", "name"), NUMBERS)
def test_numbers(function: str, name: str) -> None:
    changes: dict[str, Any] = {}
    if name == "momentum":
        changes = {"running_mean": ONES.copy(), "running_var": ONES.copy()}
        changes |= {"training": True} if function == "batch_norm" else {}
    for bad in (-1.0, math.nan, math.inf, -math.inf, 10**400):
        if (name, bad) in {
            ("p", math.inf),
            ("momentum", -1.0),
            ("offset", -1.0),
            ("input_scale", -1.0),
            ("residual_scale", -1.0),
            ("alpha_scale", -1.0),
        }:
            continue
        refused(function, {**changes, name: bad}, ValueError, names={name})
    for other in ("1", [1.0], object(), 1j, np.ones(2)):
        refused(function, {**changes, name: other}, TypeError, names={name})
    if not (name == "eps" and "rms" in function):
        refused(function, {**changes, name: None}, TypeError, names={name})


def test_other_options() -> None:
    for bad in (0.5, 0.99, 101.0, 1e30):
        refused("normalize", {"p": bad}, ValueError)
    refused("rms_norm", {"partial": 0.1}, ValueError)
    refused("rms_norm", {"cast": "half"}, ValueError)
    refused("rms_norm", {"cast": 3}, TypeError, ValueError)
    refused("rms_norm", {"cast": "gemma", "offset": 0.5}, ValueError, names={"offset"})
    refused("qk_norm", {"kind": "batch"}, ValueError)
    refused("qk_norm", {"k": X}, ValueError)
    refused("qk_norm", {"k": IMAGE[:, :4]}, ValueError)
    refused("qk_norm", {"k": IMAGE.astype(np.float64)}, ValueError, TypeError)
    refused("add_rms_norm", {"residual": X[:3]}, ValueError)
    refused("add_rms_norm", {"residual": X.astype(np.float64)}, ValueError, TypeError)
    for dim in (2, -3, 2**31, 2**63, -(2**63) - 1):
        refused("normalize", {"dim": dim}, ValueError)
    for dim in (2, -2, 2**63):
        refused("weight_norm", {"dim": dim}, ValueError)
    for dim in (0.5, "0", [0]):
        refused("normalize", {"dim": dim}, TypeError)
        refused("weight_norm", {"dim": dim}, TypeError)
    for groups in (0, 4, 7, -1, 2**40, 2**64):
        refused("group_norm", {"num_groups": groups}, ValueError)
    for groups in (2.0, "2", None, [2]):
        refused("group_norm", {"num_groups": groups}, TypeError)
    for size in (0, 4, 7, -1, 2**40, 2**64):
        refused("gated_rms_norm", {"group_size": size}, ValueError)
    for size in (2.0, "2", [2]):
        refused("gated_rms_norm", {"group_size": size}, TypeError)
    refused("gated_rms_norm", {"norm_before_gate": 1}, TypeError)
    for function in ("layer_norm", "rms_norm", "group_norm"):
        refused(function, {"activation": "erf"}, ValueError)
        refused(function, {"activation": 1}, TypeError)
    operands = (
        ("layer_norm_add", "residual"),
        ("rms_norm_add_rms_norm", "residual"),
        ("layer_norm_add_layer_norm", "residual"),
        ("gated_rms_norm", "gate"),
        ("hypersphere_step", "branch"),
    )
    for function, operand in operands:
        refused(function, {operand: X[:3]}, ValueError)
        refused(function, {operand: X.astype(np.float64)}, TypeError)
    for shape in ((4,), (1,), (3, 6), (1, 4, 6), (4, 1)):
        both = {name: np.ones(shape, np.float32) for name in ("scale", "shift")}
        refused("modulated_layer_norm", both, ValueError)
    refused("modulated_layer_norm", {"scale": X}, ValueError, names={"scale", "shift"})
    for alpha in (np.ones(2, np.float32), np.zeros(0, np.float32), torch.ones(1, 2)):
        refused("dyt", {"alpha": alpha}, ValueError)
    for shape in ((7,), (0,), (), (1,), (4, 6)):
        refused("hypersphere_step", {"alpha": np.ones(shape, np.float32)}, ValueError)
    refused("hypersphere_step", {"alpha": SIX.astype(np.float64)}, TypeError)
    for other in ("0.5", None, [0.5], 1j, 0.5):
        refused("hypersphere_step", {"alpha": other}, TypeError)
    for other in ("0.5", None, [0.5], 1j):
        refused("dyt", {"alpha": other}, TypeError)


@pytest.mark.parametrize("function", [name for name, call in CALLS.items() if "normalized_shape" in call])
def test_normalized_shape(function: str) -> None:
    names = {"normalized_shape", "input"}
    for bad in (
        (),
        (5,),
        (4, 5),
        (0,),
        (-6,),
        (2, 4, 6),
        5,
        0,
        -1,
        2**62,
        2**64,
        (2**40, 2**40),
        [2**63] * 3,
    ):
        refused(function, {"normalized_shape": bad}, ValueError, names=names)
    for other in (None, "6", b"6", 6.0, (6.0,), ("6",), (None,), [[6]], {"a": 6}, object(), slice(6), (6, X)):
        refused(function, {"normalized_shape": other}, TypeError, ValueError, names=names)


def test_backend() -> None:
    for function, call in CALLS.items():
        for bad in ("gpu", "CPU", "", "cpu\0", "\ud800", "x" * 10_000):
            with pytest.raises((ValueError, TypeError), match=r"backend|surrogates"):
                getattr(normkit, function)(**call, backend=bad)
        for other in (1, True, ["cpu"], b"cpu", torch.device("cpu")):
            with pytest.raises(TypeError, match="backend"):
                getattr(normkit, function)(**call, backend=other)
        getattr(normkit, function)(**call, backend="cpu")


def test_arguments_that_are_missing_or_too_many() -> None:
    for function, call in CALLS.items():
        callable_: Callable[..., Any] = getattr(normkit, function)
        for arguments in ((), (X,) * 12):
            with pytest.raises(TypeError, match=function):
                callable_(*arguments)
        with pytest.raises(TypeError, match="weights"):
            callable_(**call, weights=1)
        with pytest.raises(TypeError, match=next(iter(call))):
            callable_(X, **call)


def test_huge_sizes() -> None:
    """Sizes that no memory holds are refused before anything is allocated."""
    zero = np.zeros((), np.float32)
    for shape in ((2**40, 2**20), (2**62,), (2**31, 2**31)):
        try:
            huge = np.broadcast_to(zero, shape)
        except ValueError:
            continue
        with pytest.raises((ValueError, MemoryError)):
            normkit.layer_norm(huge, shape[-1:])
        with pytest.raises((ValueError, MemoryError, RuntimeError)):
            normkit.layer_norm(torch.zeros(()).expand(shape), shape[-1:])
    empty = np.zeros((0, 2**40), np.float32)
    assert normkit.layer_norm(empty, (2**40,)).shape == (0, 2**40)


def test_weights_wider_than_the_arithmetic() -> None:
    wide = SIX.astype(np.float64)
    refused("layer_norm", {"weight": wide}, TypeError, ValueError)
    refused(
        "rms_norm", {"input": X.astype(np.float16), "weight": wide}, TypeError, ValueError, names={"weight"}
    )
    refused("batch_norm", {"running_mean": wide}, TypeError, ValueError)


SHAPES = st.lists(st.integers(0, 7), min_size=0, max_size=4).map(tuple)
KINDS = st.sampled_from([np.float16, np.float32, np.float64, np.dtype(ml_dtypes.bfloat16)])


@st.composite
def any_array(draw: st.DrawFn) -> Any:
    """Of any small shape, lying in memory in any way."""
    array = np.ones(draw(SHAPES), draw(KINDS))
    way = draw(st.sampled_from(["plain", "transposed", "reversed", "expanded", "torch"]))
    if way == "transposed":
        return array.T
    if way == "reversed":
        return array[tuple([slice(None, None, -1)] * array.ndim)]
    if way == "expanded":
        return np.broadcast_to(np.ones((), array.dtype), draw(SHAPES))
    return torch.ones(array.shape) if way == "torch" else array


ANYTHING = st.one_of(
    any_array(),
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.binary(max_size=4),
    st.lists(st.one_of(st.integers(-3, 9), st.integers(), st.none(), st.floats()), max_size=4),
    st.sampled_from([object(), np.float32, np.int32(3), np.array(["a"]), np.array([None])]),
    st.just(torch.zeros(3).char()),
)  # fmt: skip


@pytest.mark.parametrize("function", CALLS)
@settings(
    max_examples=250, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_any_arguments(function: str, data: st.DataObject) -> None:
    """One to three arguments of a valid call become anything. It works, or says which argument is wrong."""
    call = CALLS[function]
    chosen = data.draw(st.lists(st.sampled_from(sorted(call)), min_size=1, max_size=3, unique=True))
    changes = {name: data.draw(ANYTHING, label=name) for name in chosen}
    try:
        result = getattr(normkit, function)(**(call | changes))
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        assert any(name in str(error) for name in call), f"no argument is named in {error!r}"
        return
    first = (call | changes)[next(iter(call))]
    outputs = result if isinstance(result, tuple) else (result,)
    assert tuple(outputs[0].shape) == tuple(first.shape)
    assert function.endswith("quant") or outputs[0].dtype == first.dtype


def test_negated_views_are_refused() -> None:
    """PyTorch negates such tensors when it reads them; their memory has the other sign, which DLPack cannot say."""
    x = torch.randn(3, 8, dtype=torch.complex64).conj().imag
    assert x.is_neg()
    with pytest.raises(ValueError, match="input: .*resolve_neg"):
        normkit.layer_norm(x, 8)
    assert torch.equal(normkit.layer_norm(x.resolve_neg(), 8), normkit.layer_norm(x.clone(), 8))


def test_the_wrong_weight_of_queries_and_keys_is_named() -> None:
    q, k, good, wrong = np.ones((2, 4, 8), "f4"), np.ones((2, 2, 8), "f4"), np.ones(8, "f4"), np.ones(7, "f4")
    with pytest.raises(ValueError, match="^q_weight: "):
        normkit.qk_norm(q, k, wrong, good)
    with pytest.raises(ValueError, match="^k_weight: "):
        normkit.qk_norm(q, k, good, wrong)
    with pytest.raises(ValueError, match="^k_weight: "):
        normkit.qk_norm(q, k, None, wrong)
