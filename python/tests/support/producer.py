"""A home-made library of arrays: memory of NumPy's behind DLPack capsules that are built byte by byte.

Nothing checks what it says, so that it can say anything; every call of a deleter is counted.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

FLOAT, BFLOAT, INT, BOOL = 2, 4, 0, 6
CPU, CUDA, METAL = 1, 2, 8
READ_ONLY = 1


class Device(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class DataType(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", Device),
        ("ndim", ctypes.c_int32),
        ("dtype", DataType),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


DELETER = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


class Legacy(ctypes.Structure):
    _fields_ = (("tensor", Tensor), ("manager", ctypes.c_void_p), ("deleter", DELETER))


class Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager", ctypes.c_void_p),
        ("deleter", DELETER),
        ("flags", ctypes.c_uint64),
        ("tensor", Tensor),
    )


# The interpreter keeps a capsule's name as a pointer.
NAMES = {False: b"dltensor", True: b"dltensor_versioned"}
api = ctypes.pythonapi
api.PyCapsule_New.restype = ctypes.py_object
api.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
api.PyCapsule_IsValid.argtypes = (ctypes.py_object, ctypes.c_char_p)
api.PyCapsule_GetPointer.restype = ctypes.c_void_p
api.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
api.PyCapsule_SetName.argtypes = (ctypes.py_object, ctypes.c_char_p)


@dataclass
class Producer:
    """Says that it is a tensor of `shape` and `strides` (in elements; None: NULL) in `memory`."""

    memory: np.ndarray[Any, Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None
    dtype: tuple[int, int, int] = (FLOAT, 32, 1)
    byte_offset: int = 0
    device: tuple[int, int] = (CPU, 0)
    versioned: bool = True
    version: tuple[int, int] = (1, 0)
    flags: int = 0
    null_data: bool = False
    null_deleter: bool = False
    ndim: int | None = None
    one_capsule: bool = False
    capsules: int = 0
    deleted: int = 0
    asked: list[dict[str, Any]] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    def _delete(self, _: int | None) -> None:
        self.deleted += 1

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __array_namespace__(self) -> ModuleType:
        return np

    def __dlpack__(self, **options: Any) -> Any:
        self.asked.append(options)
        if not self.versioned and "max_version" in options:
            raise TypeError("__dlpack__() got an unexpected keyword argument 'max_version'")
        if self.one_capsule and self.capsules:
            return self.kept[-1]
        made = self._capsule()
        self.capsules += 1
        self.kept.append(made)
        return made

    def _capsule(self) -> Any:
        numbers = ctypes.c_int64 * max(len(self.shape), 1)
        shape = numbers(*self.shape)
        strides = None if self.strides is None else numbers(*self.strides)
        pointer = ctypes.POINTER(ctypes.c_int64)
        data = None if self.null_data else self.memory.ctypes.data
        tensor = Tensor(
            data,
            Device(*self.device),
            len(self.shape) if self.ndim is None else self.ndim,
            DataType(*self.dtype),
            ctypes.cast(shape, pointer),
            pointer() if strides is None else ctypes.cast(strides, pointer),
            self.byte_offset,
        )
        deleter = DELETER() if self.null_deleter else DELETER(self._delete)
        managed: Any
        if self.versioned:
            managed = Versioned(*self.version, None, deleter, self.flags, tensor)
        else:
            managed = Legacy(tensor, None, deleter)
        self.kept += [shape, strides, deleter, managed]
        return api.PyCapsule_New(ctypes.addressof(managed), NAMES[self.versioned], None)

    def is_taken(self) -> bool:
        """Whether the last capsule has been marked as used."""
        return not api.PyCapsule_IsValid(self.kept[-1], NAMES[self.versioned])


def of_array(array: np.ndarray[Any, Any], **options: Any) -> Producer:
    """A producer of the same elements."""
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return Producer(array, array.shape, strides, (FLOAT, 8 * array.itemsize, 1), **options)
