"""How functions are compiled here, and small steps in a form that compiles soon.

A compiled function takes the longer to compile the more arrays it is given, and each is compiled again for every type
of its arguments and every constant that it is called with. numba's argsort, its assignment of one array to another and
its indexing by arrays each take one to three seconds to compile where they are first used, its reductions half of one.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_KERNEL = {"cache": True, "nogil": True, "no_cfunc_wrapper": True}
_LEAN = {**_KERNEL, "_nrt": False}
_STEP = {**_LEAN, "no_cpython_wrapper": True}
#: Functions that Python calls; lean ones make no arrays, else each access to one of a tuple would count references.
kernel, lean_kernel = njit(**_KERNEL), njit(**_LEAN)
#: Functions that only compiled ones call, and that make no arrays.
lean = njit(**_STEP)
#: The same with one call, which compile sooner as a part of what calls them; and those that are inlined as machine
#: code, where a call would take as long as the work.
once, inlined = njit(**_STEP, inline="always"), njit(**_STEP, forceinline=True)


@kernel
def seed_draws(seed: int) -> None:
    """Seeds the generator that compiled functions draw from; each thread has its own."""
    np.random.seed(seed)  # noqa: NPY002


@lean
def copy_into(source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
    """Copies a vector into another of its length."""
    for i in range(len(source)):
        target[i] = source[i]


@lean
def largest(values: NDArray[np.float64]) -> int:
    """Position of the first of the largest values."""
    at = 0
    for i in range(len(values)):
        if values[i] > values[at]:
            at = i
    return at


@kernel
def descending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the values from the largest to the smallest; of equal ones the lower first (a merge sort)."""
    n, width = len(values), 1
    order, spare = np.empty(n, np.int64), np.empty(n, np.int64)
    for i in range(n):
        order[i] = i
    while width < n:
        for first in range(0, n, 2 * width):
            middle, last = min(first + width, n), min(first + 2 * width, n)
            i, j = first, middle
            for at in range(first, last):
                if j == last or (i < middle and values[order[i]] >= values[order[j]]):
                    spare[at] = order[i]
                    i += 1
                else:
                    spare[at] = order[j]
                    j += 1
        order, spare = spare, order
        width *= 2
    return order


@kernel
def ascending(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of the values from the smallest to the largest; of equal ones the lower first."""
    negative = np.empty(len(values))
    for i in range(len(values)):
        negative[i] = -values[i]
    order: NDArray[np.int64] = descending(negative)
    return order
