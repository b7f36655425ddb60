"""DLPack as its other side sees it: a home-made producer, and consumers of the results."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import producer as dlpack
import pytest
import torch
from producer import BFLOAT, BOOL, CPU, CUDA, FLOAT, INT, METAL, READ_ONLY, Producer, of_array

import normkit

# A capsule keeps a pointer to its name.
USED = b"used"
RNG = np.random.default_rng(1)
X = RNG.standard_normal((4, 6), dtype=np.float32)
WANTED = normkit.layer_norm(X, 6)


def check(producer: Producer, wanted: Any = WANTED) -> None:
    """The call gives the right numbers, and what was handed over is given back exactly once."""
    found = normkit.layer_norm(producer, 6)
    assert type(found) is np.ndarray and np.array_equal(found, wanted)
    assert producer.is_taken()
    assert producer.deleted == producer.capsules > 0


@pytest.mark.parametrize("versioned", [True, False])
def test_capsules_are_taken_and_given_back_once(versioned: bool) -> None:
    producer = of_array(X, versioned=versioned)
    check(producer)
    # Versions are asked for first.
    assert "max_version" in producer.asked[0] and ("max_version" not in producer.asked[-1]) == (not versioned)
    assert "copy" not in producer.asked[0] or producer.asked[0]["copy"] in (None, False)
    check(of_array(X.copy(order="F"), versioned=versioned))
    check(of_array(X[::-1, ::-1], versioned=versioned), normkit.layer_norm(X[::-1, ::-1].copy(), 6))
    check(of_array(np.broadcast_to(X[:1], (4, 6)), versioned=versioned), np.repeat(WANTED[:1], 4, 0))


@pytest.mark.parametrize("versioned", [True, False])
def test_null_strides_are_row_major(versioned: bool) -> None:
    check(Producer(X, (4, 6), None, versioned=versioned))


@pytest.mark.parametrize("versioned", [True, False])
def test_byte_offset_is_added(versioned: bool) -> None:
    memory = np.concatenate([np.full(5, np.nan, np.float32), X.reshape(-1)])
    check(Producer(memory, (4, 6), (6, 1), byte_offset=20, versioned=versioned))


def test_a_null_deleter_is_not_called() -> None:
    assert np.array_equal(normkit.layer_norm(of_array(X, null_deleter=True), 6), WANTED)


def test_read_only_and_copied_inputs_are_read() -> None:
    for flags in (READ_ONLY, 2, 3):
        check(of_array(X, flags=flags))
    check(of_array(X, version=(1, 7)))


def test_every_argument_is_given_back() -> None:
    """Of all arguments, also where an argument after them is wrong."""
    weight, bias = of_array(np.ones(6, np.float32)), of_array(np.zeros(6, np.float32), versioned=False)
    producer = of_array(X)
    normkit.layer_norm(producer, 6, weight, bias)
    with pytest.raises(ValueError, match="bias"):
        normkit.layer_norm(producer, 6, weight, of_array(np.zeros(5, np.float32)))
    with pytest.raises(ValueError, match="eps"):
        normkit.layer_norm(producer, 6, weight, bias, eps=-1.0)
    for one in (producer, weight, bias):
        assert one.deleted == one.capsules > 0


@pytest.mark.parametrize("versioned", [True, False])
def test_a_capsule_is_not_taken_twice(versioned: bool) -> None:
    producer = of_array(X, versioned=versioned, one_capsule=True)
    check(producer)
    with pytest.raises((ValueError, TypeError, RuntimeError), match="input"):
        normkit.layer_norm(producer, 6)
    heads = of_array(X, versioned=versioned, one_capsule=True)
    with pytest.raises((ValueError, TypeError, RuntimeError), match="k"):
        normkit.qk_norm(heads, heads)
    assert producer.deleted == 1 and heads.deleted == 1


BAD: dict[str, tuple[type[Exception], dict[str, Any]]] = {
    "int": (TypeError, {"dtype": (INT, 32, 1)}),
    "bool": (TypeError, {"dtype": (BOOL, 8, 1)}),
    "two lanes": (TypeError, {"dtype": (FLOAT, 32, 2)}),
    "8 bits": (TypeError, {"dtype": (FLOAT, 8, 1)}),
    "128 bits": (TypeError, {"dtype": (FLOAT, 128, 1)}),
    "bfloat of 32 bits": (TypeError, {"dtype": (BFLOAT, 32, 1)}),
    "a future dtype": (TypeError, {"dtype": (99, 32, 1)}),
    "a future version": (TypeError, {"version": (2, 0)}),
    "another device": (ValueError, {"device": (METAL, 0)}),
    "misaligned": (ValueError, {"byte_offset": 1}),
    "negative size": (ValueError, {"shape": (-4, 6), "strides": (6, 1)}),
    "negative rank": (ValueError, {"ndim": -1}),
    "no memory": (TypeError, {"null_data": True}),
    "huge shape": (ValueError, {"shape": (2**62, 6), "strides": (6, 1)}),
    "huge strides": (ValueError, {"strides": (2**62, 1)}),
    "huge both": (ValueError, {"shape": (2**40, 6), "strides": (2**40, 1)}),
    "smallest strides": (ValueError, {"strides": (-(2**63), 1)}),
}


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_refused_and_given_back(name: str, versioned: bool) -> None:
    error, options = BAD[name]
    if name == "a future version" and not versioned:
        return
    producer = Producer(X, **({"shape": (4, 6), "strides": (6, 1), "versioned": versioned} | options))
    with pytest.raises(error, match="input"):
        normkit.layer_norm(producer, 6)
    # A capsule that was not taken still belongs to its maker.
    assert producer.deleted == (1 if producer.is_taken() else 0)


def test_a_device_that_is_not_here() -> None:
    """An array on a GPU where there is no driver; the pointer must not be followed."""
    with pytest.raises((RuntimeError, ValueError)):
        normkit.layer_norm(of_array(X, device=(CUDA, 0)), 6)
    with pytest.raises((RuntimeError, ValueError), match="weight"):
        normkit.layer_norm(X, 6, of_array(np.ones(6, np.float32), device=(CUDA, 0)))


def test_a_legacy_capsule_is_not_written() -> None:
    """It cannot say that it may be."""
    x = np.ones((3, 2), np.float32)
    for options in ({"versioned": False}, {"flags": READ_ONLY}):
        running = of_array(np.zeros(2, np.float32), **options)
        with pytest.raises(ValueError, match="running_mean"):
            normkit.batch_norm(x, running, of_array(np.ones(2, np.float32)), training=True)
        assert running.deleted == running.capsules
    mean, var = np.zeros(2, np.float32), np.ones(2, np.float32)
    normkit.batch_norm(x, of_array(mean), of_array(var), training=True)
    assert mean == pytest.approx([0.1, 0.1]) and var == pytest.approx([0.9, 0.9])


def test_objects_that_misbehave() -> None:
    class Raises:
        def __dlpack__(self, **options: Any) -> Any:
            raise KeyError("no")

        def __dlpack_device__(self) -> tuple[int, int]:
            return (CPU, 0)

    class Gives(Raises):
        def __init__(self, gives: Any) -> None:
            self.gives = gives

        def __dlpack__(self, **options: Any) -> Any:
            return self.gives

    class NoDevice:
        def __dlpack__(self, **options: Any) -> Any:
            return of_array(X).__dlpack__(**options)

    with pytest.raises((TypeError, ValueError, RuntimeError), match="input"):
        normkit.layer_norm(Raises(), 6)
    for gives in (None, 7, "dltensor", X, np.float32, type("Capsule", (), {})()):
        with pytest.raises((TypeError, ValueError), match="input"):
            normkit.layer_norm(Gives(gives), 6)
    with pytest.raises((TypeError, ValueError, RuntimeError)):
        normkit.layer_norm(NoDevice(), 6)


def test_the_memory_is_borrowed_for_the_call_only() -> None:
    tensor, array = torch.ones(64, 64), np.ones((8, 8), np.float32)
    before = sys.getrefcount(tensor), sys.getrefcount(array)
    result = normkit.layer_norm(tensor, 64)
    normkit.layer_norm(array, 8)
    assert (sys.getrefcount(tensor), sys.getrefcount(array)) == before
    assert result.data_ptr() != tensor.data_ptr()
    # A view that is still exported would forbid it.
    array.resize((16, 16), refcheck=True)


@pytest.mark.parametrize("versioned", [False, True])
def test_results_may_be_freed_where_python_is_not_locked(versioned: bool) -> None:
    """As PyTorch and XLA do: a library frees an earlier result while a call runs, its lock on Python released."""
    held: list[tuple[Any, int]] = []
    freed: list[int] = []

    def free() -> None:
        managed, address = held.pop()
        freed.append(managed.tensor.ndim)
        managed.deleter(address)  # ctypes unlocks Python for calls of such a pointer

    class Library:
        @staticmethod
        def from_dlpack(result: Any) -> str:
            if held:
                free()
            name = dlpack.NAMES[versioned]
            capsule = result.__dlpack__(**({"max_version": (1, 0)} if versioned else {}))
            address = dlpack.api.PyCapsule_GetPointer(capsule, name)
            dlpack.api.PyCapsule_SetName(capsule, USED)
            held.append(((dlpack.Versioned if versioned else dlpack.Legacy).from_address(address), address))
            return "taken"

    class Tensor(Producer):
        def __array_namespace__(self) -> Any:
            return Library

    x = np.arange(6, dtype=np.float32)
    for _ in range(100):
        assert normkit.layer_norm(Tensor(x, (2, 3)), 3) == "taken"
    free()
    assert freed == [2] * 100
