"""Kernels: when GPUs of few slots cannot hold every expert's copies within a limit, by the dual of the packing LP.

docs/formulation.md, "Packing bound", has the argument and what is relaxed. phi, the value of a copy by its cost, is a
mixture of steps [cost >= t] that solvers.bounds.game finds: a poor one proves less, not wrongly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import kernel, lean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Copies of an expert that are told apart, from the fewest that keep to the limit; further ones count as free ones.
OPTIONS = 16
#: Relative allowance for the rounding of a GPU's summed cost: configurations that exceed the limit by less still count.
ROUNDING = 1e-12


@kernel
def options(cost: Floats, slots: int, limit: float) -> tuple[Ints, int]:
    """([experts] fewest copies that keep each copy within `limit`, slots left over); -1 left where there are none."""
    most, experts = cost.shape[0] - 1, cost.shape[1]
    first = np.empty(experts, np.int64)
    left = slots
    for e in range(experts):
        r = 1
        while r <= most and cost[r, e] > limit:
            r += 1
        first[e] = r
        left -= r
        if r > most or left < 0:
            return first, -1
    return first, left


@kernel
def _cheapest(cost: Floats, first: Ints, left: int) -> float:
    """Least cost that any copy can have: of the expert that takes all slots left over."""
    least = np.inf
    for e in range(cost.shape[1]):
        least = min(least, cost[min(cost.shape[0] - 1, first[e] + left), e])
    return least


@kernel
def admitted(cost: Floats, gpus: int, width: int, limit: float) -> tuple[Ints, int]:
    """As `options`, for copies that fit on a GPU beside width - 1 of the cheapest."""
    first, left = options(cost, gpus * width, limit)
    while left >= 0:
        again, least = options(cost, gpus * width, limit - (width - 1) * _cheapest(cost, first, left))
        if least == left:
            break
        first, left = again, least
    return first, left


def _costs(cost: Floats, first: Ints, left: int) -> tuple[Floats, NDArray[np.bool_]]:
    """([experts, OPTIONS] cost of a copy, whether there is that option)."""
    copies = first[:, None] + np.arange(OPTIONS)
    there = (copies < len(cost)) & (np.arange(OPTIONS) <= left)
    return cost[np.minimum(copies, len(cost) - 1), np.arange(len(first))[:, None]], there


def levels(cost: Floats, first: Ints, left: int, width: int, limit: float, grain: float) -> Floats:
    """Ascending costs that steps stand at. Two slots: those above half the limit; else all, merged downwards within
    `grain`."""
    value, there = _costs(cost, first, left)
    if width == 2:
        return np.unique(value[there & (2 * value > limit)])
    found = value[there]
    if left >= OPTIONS:
        found = np.append(found, _cheapest(cost, first, left))
    ordered, kept, at = np.unique(found), [], 0
    while at < len(ordered):
        kept.append(ordered[at])
        at = int(np.searchsorted(ordered, ordered[at] + grain, side="right"))
    return np.array(kept)


def codes(cost: Floats, first: Ints, left: int, width: int, limit: float, stands: Floats) -> tuple[Ints, Ints]:
    """([experts, OPTIONS] steps at or below the copy's cost, -1 beyond the options; its sign).

    With two slots phi is odd around half the limit: a small copy of cost c counts -(steps up to limit - c). The last
    option stands for all that have more copies, at the least value of all.
    """
    value, there = _costs(cost, first, left)
    small = (2 * value <= limit) & (width == 2)
    code = np.searchsorted(stands, np.where(small, limit - value, value), side="right")
    if left >= OPTIONS:
        further = first + OPTIONS - 1 < len(cost) - 1
        code[further, -1] = len(stands) if width == 2 else 1
        small[further, -1] = width == 2
    return np.where(there, code, -1), np.where(small, -1, 1)


@lean
def best_copies(
    phi: Floats,
    lowest: float,
    code: Ints,
    sign: Ints,
    first: Ints,
    least_option: Ints,
    most_option: Ints,
    best: Floats,
    new: Floats,
    choice: NDArray[np.int8],
) -> tuple[float, int]:
    """(Least sum of phi over replications that fill all slots, by dynamic programming; the slots left over that it
    uses).

    Expert e takes option least_option[e] to most_option[e]; slots that no option takes hold copies worth `lowest`. The
    sum is infinite where options cannot fill the slots.
    """
    experts, width = code.shape
    left = len(best) - 1
    best[:] = np.inf
    best[0] = 0.0
    reach = 0
    for e in range(experts):
        new[:] = np.inf
        for i in range(least_option[e], most_option[e] + 1):
            value = (first[e] + i) * sign[e, i] * phi[code[e, i]]
            for j in range(min(reach, left - i) + 1):
                x = best[j] + value
                if x < new[j + i]:
                    new[j + i] = x
                    choice[e, j + i] = i
        reach = min(left, reach + most_option[e])
        for j in range(left + 1):
            best[j] = new[j]
    least, used = np.inf, 0
    for j in range(0 if left >= width else left, left + 1):
        x = best[j] + (left - j) * lowest
        if x < least:
            least, used = x, j
    return least, used


def configurations(stands: Floats, width: int, limit: float) -> tuple[Ints, Ints, Ints, Ints]:
    """What a GPU of three or four slots can hold, for `best_gpu`: pairs (a, b) of levels, a >= b, by ascending cost,
    and for each the largest partner that fits, a level (three slots) or a position in the pairs (four); -1 where none
    does."""
    high, low = np.tril_indices(len(stands) if width > 2 else 0)
    total = stands[high] + stands[low]
    order = np.argsort(total, kind="stable")
    order = order[: np.searchsorted(total[order], limit, side="right")]
    total = total[order]
    partner = np.searchsorted(stands if width == 3 else total, limit - total, side="right") - 1
    return high[order], low[order], partner, np.empty(len(order), np.int64)


@lean
def best_gpu(phi: Floats, width: int, high: Ints, low: Ints, partner: Ints, top: Ints, held: Ints) -> float:
    """Largest sum of phi over one GPU's configurations; `held` [width] takes its levels."""
    n = len(high)
    best, at = -np.inf, -1
    if width == 4:
        peak, where = -np.inf, -1
        for i in range(n):
            value = phi[high[i] + 1] + phi[low[i] + 1]
            if value > peak:
                peak, where = value, i
            top[i] = where
    for i in range(n):
        if partner[i] < 0:
            break
        value = phi[high[i] + 1] + phi[low[i] + 1]
        if width == 3:
            value += phi[partner[i] + 1]
        else:
            j = top[partner[i]]
            value += phi[high[j] + 1] + phi[low[j] + 1]
        if value > best:
            best, at = value, i
    if at < 0:
        return best
    held[0], held[1] = high[at], low[at]
    if width == 3:
        held[2] = partner[at]
    else:
        j = top[partner[at]]
        held[2], held[3] = high[j], low[j]
    return best
