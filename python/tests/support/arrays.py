"""Conversions between the kinds of arrays that normkit takes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch


def as_torch(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """The same memory as a torch tensor."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def as_numpy(array: Any) -> np.ndarray[Any, Any]:
    """Any kind of array as NumPy's."""
    if isinstance(array, torch.Tensor):
        if array.dtype == torch.bfloat16:
            return array.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
        return array.detach().numpy()
    return np.asarray(array)


def bits(array: Any) -> np.ndarray[Any, Any]:
    """The array's bit patterns, so that NaN equals NaN and 0 does not equal -0."""
    plain = np.ascontiguousarray(as_numpy(array))
    return plain.view(f"u{plain.dtype.itemsize}")
