"""Sums and elementary functions that give the same bits on every machine, so that the same input gives the same plan.

BLAS kernels, numpy's vector functions and the C library round by what the CPU has (fused products, AVX-512). Here are
only operations that IEEE 754 rounds exactly, in an order of their own. What decides a plan, or is written into it, goes
through these; `numpy.sum`, `sqrt` and whatever a compiled loop does with + - * / are safe as they are, `numpy.argsort`
is with kind="stable".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numba.extending import overload
from numpy.typing import NDArray

from placement.problem.arrays import plain

FloatArray = NDArray[np.float64]

#: log(2) in two parts, of which the first has so many zeros that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
#: Bits of the root of 1/2: mantissas lie between it and the root of 2.
ROOT_HALF = 0x3FE6A09E667F3BCD


def weighted_sum(weight: FloatArray, values: Any) -> Any:
    """`weight @ values` of a vector and an array of any shape [len(weight), ...]."""
    values = np.asarray(values)
    return (weight.reshape(weight.shape + (1,) * (values.ndim - 1)) * values).sum(axis=0)


def matrix_product(left: FloatArray, right: FloatArray) -> FloatArray:
    """`left @ right` of two matrices."""
    return np.asarray(_product(plain(left), plain(right)))


@njit(cache=True, nogil=True)
def _product(left: FloatArray, right: FloatArray) -> FloatArray:
    out = np.zeros((left.shape[0], right.shape[1]))
    for i in range(left.shape[0]):
        row = out[i]
        for k in range(left.shape[1]):
            factor, other = left[i, k], right[k]
            for j in range(right.shape[1]):
                row[j] += factor * other[j]
    return out


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _reduced(x: float) -> tuple[float, float]:
    """(k, exp(r) - 1) for x = k log(2) + r, |r| at most log(2) / 2; by the exponential series, in Estrin's order."""
    k = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    r2 = r * r
    low = (1 / 2 + r * (1 / 6)) + r2 * (1 / 24 + r * (1 / 120))
    middle = (1 / 720 + r * (1 / 5040)) + r2 * (1 / 40320 + r * (1 / 362880))
    high = (1 / 3628800 + r * (1 / 39916800)) + r2 * (1 / 479001600 + r * (1 / 6227020800))
    return k, r + r2 * (low + r2 * r2 * (middle + r2 * r2 * high))


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _two_to(k: float) -> float:
    """2 ** k for a whole k from -1022 to 1023."""
    return np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _exp(x: float) -> float:
    if not x < 709.0:
        return x if np.isnan(x) else np.inf
    if x < -708.0:
        return 0.0
    k, part = _reduced(x)
    return float((1.0 + part) * _two_to(k))


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _expm1(x: float) -> float:
    if not x < 709.0:
        return x if np.isnan(x) else np.inf
    if x < -40.0:
        return -1.0
    k, part = _reduced(x)
    scale = _two_to(k)
    return float(scale * part + (scale - 1.0))


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _log(x: float) -> float:
    bits = np.float64(x).view(np.int64)
    e = (bits - ROOT_HALF) >> 52
    m = np.int64(bits - (e << 52)).view(np.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    z2 = z * z
    # 2 artanh(s), as s + s z (1/3 + z/5 + ...).
    low = (1 / 3 + z * (1 / 5)) + z2 * (1 / 7 + z * (1 / 9))
    high = (1 / 11 + z * (1 / 13)) + z2 * ((1 / 15 + z * (1 / 17)) + z2 * (1 / 19 + z * (1 / 21)))
    return float(e * LN2_HIGH + (e * LN2_LOW + 2.0 * (s + s * z * (low + z2 * z2 * high))))


@njit(cache=True, nogil=True, _nrt=False)
def _exp_each(values: FloatArray) -> None:
    for i in range(len(values)):
        values[i] = _exp(values[i])


@njit(cache=True, nogil=True, _nrt=False)
def _expm1_each(values: FloatArray) -> None:
    for i in range(len(values)):
        values[i] = _expm1(values[i])


@njit(cache=True, nogil=True, _nrt=False)
def _log_each(values: FloatArray) -> None:
    for i in range(len(values)):
        values[i] = _log(values[i])


def _of_each(each: Callable[[FloatArray], None], x: Any) -> Any:
    """A number, or an array, with each element replaced. (A ufunc of numba takes 45 ms to load, a loop 2 ms.)"""
    values = plain(x)
    each(values.reshape(-1))
    return values[()]


def exp(x: Any) -> Any:
    """e ** x of a number or an array, to an error of about one unit in the last place; 0 below -708.

    Compiled code may call it, `expm1` and `log`, too, with a number.
    """
    return _of_each(_exp_each, x)


def expm1(x: Any) -> Any:
    """e ** x - 1, exact also where x is small."""
    return _of_each(_expm1_each, x)


def log(x: Any) -> Any:
    """Natural logarithm of normal positive numbers."""
    return _of_each(_log_each, x)


# What compiled code calls.
overload(exp)(lambda x: lambda x: _exp(x))
overload(expm1)(lambda x: lambda x: _expm1(x))
overload(log)(lambda x: lambda x: _log(x))


def log1p(x: float) -> float:
    """log(1 + x), exact also where x is small."""
    whole = 1.0 + x
    return float(log(whole) + (x - (whole - 1.0)) / whole)


def power(base: Any, exponent: float) -> Any:
    """base ** exponent of positive numbers."""
    return exp(exponent * log(1.0 * base))
