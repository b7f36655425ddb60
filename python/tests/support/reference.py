"""The functions as their papers define them, in extended precision, and the error that README allows.

Beside an exact value stands `mag`, the same expression with every term replaced by its absolute value. Where
terms cancel, a result may be tiny while its error is that of the terms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Real = NDArray[np.longdouble]
Axes = tuple[int, ...]

BF16 = np.dtype(ml_dtypes.bfloat16)
DTYPES = [np.dtype(np.float16), BF16, np.dtype(np.float32), np.dtype(np.float64)]

# Bits of the mantissa after the leading one, the exponent of the smallest normal number, and that of the
# first power of two that is out of range.
FORMATS = {
    "float16": (10, -14, 16),
    "bfloat16": (7, -126, 128),
    "float32": (23, -126, 128),
    "float64": (52, -1022, 1024),
}


def compute_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that arithmetic is done in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def real(values: Any) -> Real:
    """The same numbers in extended precision, which holds every dtype's exactly."""
    array = np.asarray(values)
    if array.dtype == BF16:
        array = array.astype(np.float32)
    return array.astype(np.longdouble)


def ulp(dtype: np.dtype[Any], x: Real) -> Real:
    """The distance between neighbours of `x` in `dtype`, as if it had no largest number."""
    mantissa, smallest, _ = FORMATS[dtype.name]
    finite = np.where(np.isfinite(x), np.abs(x), 0)
    exponent = np.where(finite == 0, smallest, np.frexp(finite)[1] - 1)
    return np.ldexp(np.longdouble(1), np.maximum(exponent, smallest) - mantissa)


def rounded(dtype: np.dtype[Any], x: Real) -> Real:
    """The nearest numbers of `dtype`, ties to even, in extended precision."""
    unit = ulp(dtype, x)
    nearest = np.rint(x / unit) * unit
    out_of_range = np.abs(nearest) >= np.ldexp(np.longdouble(1), FORMATS[dtype.name][2])
    return np.where(out_of_range, np.copysign(np.longdouble(np.inf), x), np.where(np.isfinite(x), nearest, x))


@dataclass
class Expected:
    """What a result should be."""

    value: Real
    """The exact result."""
    scale: Real
    """The largest `mag` of the element's row, which the bound is measured by; broadcasts to `value`."""
    allowed: int = 4
    """Ulps of `scale` in the arithmetic's dtype; 0 asks for the exact value."""
    slack: Real | float = 0.0
    """What more is allowed where a rounding inside the definition is a toss."""

    def bound(self, dtype: np.dtype[Any]) -> Real:
        """The largest error that a result of `dtype` may have."""
        bound = self.allowed * ulp(compute_dtype(dtype), self.scale) + self.slack
        if dtype != compute_dtype(dtype) and self.allowed > 0:
            bound = bound + ulp(dtype, self.value)
        return np.broadcast_to(bound, self.value.shape)

    def distance(self, actual: Any) -> Real:
        """How far `actual` is off; infinity where a NaN or an infinity is not met by its like."""
        dtype, found = np.asarray(actual).dtype, real(actual)
        assert found.shape == self.value.shape, f"shape {found.shape}, expected {self.value.shape}"
        expected, inf = self.value, np.longdouble(np.inf)
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(found - expected)
            # Just below the end of the range, infinity is judged as the first power of two out of it.
            end = np.ldexp(np.longdouble(1), FORMATS[dtype.name][2])
            over = np.isinf(found) & np.isfinite(expected) & (np.sign(found) == np.sign(expected))
            error = np.where(over, np.maximum(end - np.abs(expected), 0), error)
            met = (np.isnan(found) & np.isnan(expected)) | (found == expected)
            return np.where(met, 0, np.where(np.isnan(error), inf, error))

    def shares(self, actual: Any) -> Real:
        """Each element's error as a share of its bound."""
        array = np.asarray(actual)
        error, bound = self.distance(array), self.bound(array.dtype)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(error == 0, 0, error / bound)

    def worst(self, actual: Any) -> float:
        """The largest share."""
        return float(np.max(self.shares(actual), initial=0))


def assert_within(actual: Any, expected: Expected, what: str) -> None:
    """Fails where an element is farther off than the bound allows."""
    array = np.asarray(actual)
    share = expected.shares(array)
    worst = float(np.max(share, initial=0))
    if worst <= 1.0:
        return
    at = np.unravel_index(int(np.argmax(share)), share.shape)
    where = tuple(int(i) for i in at)
    raise AssertionError(
        f"{what}: {worst:.3g} times the bound at {where}: {real(array)[at]!r} for {expected.value[at]!r}, "
        f"{int(np.sum(share > 1))} of {share.size} elements are off"
    )


def sum_over(x: Real, axes: Axes) -> Real:
    return np.asarray(np.sum(x, axis=axes, keepdims=True))


def first_of(x: Real, axes: Axes) -> Real:
    return x[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))]


def count_over(x: Real, axes: Axes) -> int:
    return math.prod(x.shape[axis] for axis in axes)


@dataclass
class Normalized:
    """Rows divided by their statistic, not yet scaled; `axes` are those that a row's elements differ in."""

    x_hat: Real
    mag: Real
    axes: Axes

    def affine(
        self,
        weight: Real | None = None,
        bias: Real | None = None,
        offset: float = 0.0,
        round_to: np.dtype[Any] | None = None,
    ) -> Expected:
        """`x_hat * (weight + offset) + bias`, with `x_hat` rounded first where `round_to` says to what."""
        x_hat, slack = self.x_hat, np.longdouble(0)
        if round_to is not None and round_to != compute_dtype(round_to):
            unit = ulp(round_to, x_hat)
            from_middle = np.abs(np.abs(np.abs(x_hat) / unit % 1) - 0.5) * unit
            slack = np.where(from_middle <= 4 * ulp(np.dtype(np.float32), x_hat), unit, 0)
            x_hat = rounded(round_to, x_hat)
        w = np.longdouble(1) if weight is None else weight + np.longdouble(offset)
        b = np.longdouble(0) if bias is None else bias
        value = np.asarray(x_hat * w + b)
        mag = np.broadcast_to(self.mag * np.abs(w) + np.abs(b), value.shape)
        finite = np.where(np.isfinite(mag), mag, 0)
        scale = np.max(finite, axis=self.axes, keepdims=True, initial=0) if self.axes else finite
        allowed = 5 if count_over(value, self.axes) < 4 else 4
        return Expected(value, scale, allowed, slack * np.abs(w))


def moments(x: Real, axes: Axes, eps: float, terms: Real | None = None) -> Normalized:
    """`(x - mean) / sqrt(var + eps)` with the biased variance.

    `terms` is the magnitude of the terms that x is a sum of, if it is one.
    """
    # Counted from its first element a constant row is exactly zero.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        first, n = first_of(x, axes), count_over(x, axes)
        mean = sum_over(x - first, axes) / n
        centred = (x - first) - mean
        rstd = 1 / np.sqrt(sum_over(centred * centred, axes) / n + np.longdouble(eps))
        size = np.abs(x) + np.abs(first + mean) if terms is None else terms + sum_over(terms, axes) / n
        return Normalized(centred * rstd, size * rstd, axes)


def given_moments(x: Real, axes: Axes, mean: Real, var: Real, eps: float) -> Normalized:
    """The same with a mean and a variance that are given."""
    rstd = 1 / np.sqrt(var + np.longdouble(eps))
    return Normalized((x - mean) * rstd, (np.abs(x) + np.abs(mean)) * rstd, axes)


def mean_square(
    x: Real, axes: Axes, eps: float, partial: float = 1.0, terms: Real | None = None
) -> Normalized:
    """`x / sqrt(mean(x²) + eps)`; a partial mean square is that of the row's first elements.

    `terms` is as in `moments`.
    """
    seen = x if partial == 1.0 else x[..., : math.floor(x.shape[-1] * partial)]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = sum_over(seen * seen, axes) / count_over(seen, axes)
        rms = np.sqrt(mean + np.longdouble(eps))
        x_hat = x / rms
        return Normalized(x_hat, np.abs(x_hat) if terms is None else terms / rms, axes)


def p_norm(x: Real, axes: Axes, p: float, eps: float) -> Normalized:
    """`x / max(norm, eps)`, and zeros where that is 0 / 0."""
    size = np.abs(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        most = np.max(size, axis=axes, keepdims=True, initial=0)
        if math.isinf(p):
            norm = most
        else:
            # Powers of what is divided by the largest do not overflow.
            share = np.where(most == 0, 0, size / np.where(np.isfinite(most) & (most > 0), most, 1))
            power = np.longdouble(p)
            norm = np.where(np.isfinite(most), most * sum_over(share**power, axes) ** (1 / power), most)
        divisor = np.where(np.isnan(norm), norm, np.maximum(norm, np.longdouble(eps)))
        x_hat = np.where(divisor == 0, 0, x / divisor)
    return Normalized(x_hat, np.abs(x_hat), axes)


def tanh(x: Real, alpha: Real) -> Normalized:
    """`tanh(alpha * x)`; every element is a row of its own."""
    value = np.tanh(alpha * x)
    return Normalized(value, np.abs(value), ())


def pointwise(normalized: Normalized, weight: Real | None, bias: Real | None) -> Expected:
    """Scale and shift of what has no rows: four ulp always."""
    expected = normalized.affine(weight, bias)
    product = normalized.x_hat if weight is None else normalized.x_hat * weight
    expected.scale = np.abs(product) + (0 if bias is None else np.abs(bias))
    expected.allowed = 4
    return expected


def running_update(
    x: Real, mean: Real, var: Real, momentum: float, dtype: np.dtype[Any]
) -> tuple[Expected, Expected]:
    """The running mean and variance of the channels on axis 1 after a batch; `dtype` is the arithmetic's."""
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    n, first = count_over(x, axes), first_of(x, axes)
    new = real(np.asarray(momentum, dtype=dtype))
    old = real(np.asarray(1 - real(new)))
    shift = sum_over(x - first, axes) / n
    centred = x - first - shift
    batch_mean = (first + shift).reshape(-1)
    batch_var = (sum_over(centred * centred, axes) / (n - 1)).reshape(-1)
    of_terms = (sum_over(np.abs(x), axes) / n).reshape(-1)
    mean_scale = old * np.abs(mean) + new * of_terms
    var_value = old * var + new * batch_var
    return Expected(old * mean + new * batch_mean, mean_scale), Expected(var_value, var_value)
