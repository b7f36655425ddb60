"""Every kind of array, lying in memory in every way: results have the bits of plain NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from arrays import as_torch, bits
from fused import every_case
from methods import Case
from numpy.typing import NDArray
from reference import BF16, DTYPES

import normkit

Array = np.ndarray[Any, Any]
F32 = np.dtype(np.float32)


def same(found: list[Any], wanted: list[Any], what: str) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(bits(one), bits(other)), what


def reversed_axes(x: Array) -> Array:
    view: Array = np.empty(x.shape, x.dtype)[(..., *[slice(None, None, -1)] * x.ndim)]
    view[...] = x
    return view


def every_second(x: Array) -> Array:
    memory = np.asarray(np.full([2 * size + 3 for size in x.shape], np.nan)).astype(x.dtype)
    view: Array = memory[(..., *[slice(1, 2 * size + 1, 2) for size in x.shape])]
    view[...] = x
    return view


def padded(x: Array) -> Array:
    memory = np.full([size + 3 for size in x.shape], np.nan).astype(x.dtype)
    view: Array = memory[(..., *[slice(2, size + 2) for size in x.shape])]
    view[...] = x
    return view


def channels_last(x: Array) -> Array:
    return x if x.ndim < 3 else np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def read_only(x: Array) -> Array:
    copy = x.copy()
    copy.flags.writeable = False
    return copy


def off_alignment(x: Array) -> Array:
    """Aligned to the element, and to nothing larger."""
    memory = np.empty(x.nbytes + 64 + x.itemsize, np.uint8)
    start = -memory.ctypes.data % 64 + x.itemsize
    view: Array = memory[start : start + x.nbytes].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran order": np.asfortranarray,
    "negative strides": reversed_axes,
    "every second element": every_second,
    "padded": padded,
    "channels last": channels_last,
    "read-only": read_only,
    "off alignment": off_alignment,
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_gives_the_same_bits(layout: str, dtype: np.dtype[Any]) -> None:
    for case in every_case(dtype, 3, 36):
        if layout == "read-only" and case.options.get("training"):
            continue
        found = case.call(normkit, LAYOUTS[layout])
        same(found, case.call(normkit), f"{case.name}, {layout}")
        for result in found:
            assert result.flags.c_contiguous and result.flags.writeable and result.flags.owndata
        if layout != "read-only":
            same(case.call(normkit, lambda x: as_torch(LAYOUTS["padded"](x))), found, f"{case.name}, torch")


def test_inputs_are_not_written() -> None:
    for case in every_case(F32, 3, 36):
        if case.function == "batch_norm" and case.options["training"]:
            continue
        before = {name: array.copy() for name, array in case.arrays.items()}
        case.call(normkit)
        for name, array in case.arrays.items():
            assert np.array_equal(array, before[name]), f"{case.name}: {name}"


def test_broadcast_inputs_and_weights() -> None:
    rng = np.random.default_rng(2)
    row = rng.standard_normal(40, dtype=np.float32)
    x, weight = np.broadcast_to(row, (5, 40)), np.broadcast_to(np.float32(1.5), 40)
    assert x.strides == (0, 4) and weight.strides == (0,)
    found = normkit.layer_norm(x, (40,), weight)
    same([found], [normkit.layer_norm(x.copy(), (40,), weight.copy())], "NumPy")
    expanded = torch.from_numpy(row.copy()).expand(5, 40)
    same([normkit.layer_norm(expanded, (40,), torch.tensor(1.5).expand(40))], [found], "torch")
    column = np.broadcast_to(rng.standard_normal((5, 1), dtype=np.float32), (5, 40))
    assert not normkit.layer_norm(column, (40,)).any()


def test_a_packed_tensor_is_taken_apart_without_copies() -> None:
    """Queries and keys in one tensor, [batch, time, 3, heads, head_dim], and fewer key heads."""
    packed = np.random.default_rng(3).standard_normal((2, 5, 3, 4, 16), dtype=np.float32)
    q, k = packed[:, :, 0], packed[:, :, 1, :2]
    for kind in ("rms", "l2", "layer"):
        found = normkit.qk_norm(q, k, kind=kind)
        assert [r.shape for r in found] == [(2, 5, 4, 16), (2, 5, 2, 16)]
        same(list(found), list(normkit.qk_norm(q.copy(), k.copy(), kind=kind)), kind)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_torch_tensors_in_and_out(dtype: np.dtype[Any]) -> None:
    wanted_dtype = getattr(torch, dtype.name)
    for case in every_case(dtype, 3, 33):
        found = case.call(normkit, as_torch)
        for result in found:
            assert type(result) is torch.Tensor and result.dtype == wanted_dtype
            assert result.device.type == "cpu" and result.is_contiguous() and not result.requires_grad
        same(found, case.call(normkit), case.name)


@pytest.mark.parametrize("dtype", DTYPES[:3], ids=str)
def test_jax_arrays_in_and_out(dtype: np.dtype[Any]) -> None:
    def convert(x: Array) -> jax.Array:
        return jnp.asarray(x)

    for case in every_case(dtype, 3, 33):
        if case.function == "batch_norm" and case.options["training"]:
            continue
        found = case.call(normkit, convert)
        for result in found:
            assert isinstance(result, jax.Array) and result.dtype == dtype, case.name
            assert result.devices() == {jax.devices("cpu")[0]}
        same(found, case.call(normkit), case.name)


def test_bfloat16_results_are_ml_dtypes() -> None:
    x = np.ones((2, 8), ml_dtypes.bfloat16)
    assert normkit.rms_norm(x, (8,)).dtype == BF16
    weight = np.ones(8, ml_dtypes.bfloat16)
    assert normkit.rms_norm(x.astype(np.float32), (8,), weight).dtype == np.float32


def test_weights_of_another_kind_of_array() -> None:
    """The result is of the input's kind."""
    x = np.random.default_rng(4).standard_normal((3, 8), dtype=np.float32)
    w = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    wanted = normkit.layer_norm(x, (8,), w)
    for weight in (torch.from_numpy(w), jnp.asarray(w)):
        assert type(normkit.layer_norm(x, (8,), weight)) is np.ndarray
        same([normkit.layer_norm(x, (8,), weight)], [wanted], str(type(weight)))
    assert type(normkit.layer_norm(torch.from_numpy(x), (8,), w)) is torch.Tensor


def test_normalized_shape_is_an_int_or_a_sequence() -> None:
    x = np.random.default_rng(5).standard_normal((3, 2, 4), dtype=np.float32)
    wanted = [normkit.layer_norm(x, (4,))]
    for shape in (4, [4], np.int64(4), torch.Size([4]), np.array([4]), range(4, 5)):
        same([normkit.layer_norm(x, shape)], wanted, repr(shape))
    same([normkit.layer_norm(x, x.shape[1:]).reshape(3, 8)], [normkit.layer_norm(x.reshape(3, 8), 8)], "two")


def test_alpha_is_a_number_or_an_array_of_one_element() -> None:
    x = np.random.default_rng(6).standard_normal((3, 8), dtype=np.float32)
    wanted = [normkit.dyt(x, 0.75)]
    for alpha in (np.float32(0.75), np.array(0.75, np.float32), np.array([[0.75]], np.float32)):
        same([normkit.dyt(x, alpha)], wanted, repr(alpha))
    same([normkit.dyt(torch.from_numpy(x), torch.tensor([0.75]))], wanted, "torch")
    wide = x.astype(np.float64)
    # A third is no float32: the number keeps its digits.
    np.testing.assert_allclose(normkit.dyt(wide, 1 / 3), np.tanh(wide / 3), rtol=1e-15)


def test_weight_norm_takes_g_of_either_shape() -> None:
    v = np.random.default_rng(7).standard_normal((3, 4, 5), dtype=np.float32)
    g = np.array([1.0, 2.0, 3.0], np.float32)
    same([normkit.weight_norm(v, g.reshape(3, 1, 1))], [normkit.weight_norm(v, g)], "g")
    for whole in (np.float32(2), np.full(1, 2, np.float32), np.full((1, 1, 1), 2, np.float32)):
        g_whole: NDArray[np.float32] = np.asarray(whole)
        same([normkit.weight_norm(v, g_whole, None)], [normkit.weight_norm(v, g_whole, -1)], "whole")


def test_a_vector_of_zeros_has_no_direction() -> None:
    """Where torch divides by zero."""
    v = np.array([[3, 4], [0, 0]], np.float32)
    assert normkit.weight_norm(v, np.array([[10], [1]], np.float32)).tolist() == [[6, 8], [0, 0]]
    assert normkit.normalize(v, eps=0.0).tolist()[1] == [0, 0]


def test_subclasses_give_plain_arrays() -> None:
    class Tagged(np.ndarray[Any, Any]):
        pass

    x = np.random.default_rng(8).standard_normal((3, 8), dtype=np.float32)
    assert type(normkit.layer_norm(x.view(Tagged), 8)) is np.ndarray
    with pytest.raises(TypeError, match=r"input.*mask"):
        normkit.layer_norm(np.ma.masked_array(x, x > 0), 8)


def test_rows_do_not_depend_on_their_company() -> None:
    """The same row gives the same bits alone, in a batch, and on every call."""
    for case in every_case(F32, 70, 257):
        if case.function in ("layer_norm", "rms_norm", "dyt") and case.arrays["input"].ndim == 2:
            first, *_ = case.call(normkit)
            one = Case(case.name, case.function, dict(case.arrays), case.options, case.definition)
            one.arrays["input"] = case.arrays["input"][41:42]
            same([one.call(normkit)[0]], [first[41:42]], case.name)
        same(case.call(normkit), case.call(normkit), case.name)
