"""The cheapest partitions of many sets at once, by dynamic programming over subsets.

A set takes a lane: inner loops run over lanes, so that vector code takes several sets at the price of one and rounds as
it does for one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.kernels import lean, lean_kernel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Sets that are taken at once: of eight experts their tables fill two thirds of a megabyte.
LANES = 64


class Lanes(NamedTuple):
    """What is asked of LANES sets, the answers, and scratch.

    Attributes:
        price: [features, LANES] prices of a partition's features, as solvers.bounds.partitions has them.
        least, bins: [LANES] bins and prices of the cheapest partition, and its bins. held: [LANES] its features, as
            bits.
        table, cut, arg: scratch.
    """

    price: Floats
    least: Floats
    bins: Floats
    held: NDArray[np.uint64]
    table: Floats
    cut: Ints
    arg: Ints


def new_lanes(experts: int, features: int) -> Lanes:
    """For sets of so many experts, whose partitions have so many features."""
    subsets = 1 << experts
    return Lanes(
        np.empty((features, LANES)), np.empty(LANES), np.empty(LANES), np.empty(LANES, np.uint64),
        np.empty((4, subsets, LANES)), np.empty((subsets, LANES), np.int64), np.empty(LANES, np.int64),
    )  # fmt: skip


@lean
def _add(left: Floats, right: Floats, out: Floats, count: int) -> None:
    """out = left + right, in `count` lanes."""
    for i in range(count):
        out[i] = left[i] + right[i]


@lean
def _wholes(price: Floats, start: float, experts: int, most: int, inner: Floats, whole: Floats, count: int) -> None:
    """whole[S] = start + prices of the pairs in S; infinite for more than `most` experts."""
    for lane in range(count):
        whole[0, lane], inner[0, lane] = start, 0.0
    q = 0
    for i in range(experts):
        size = 1 << i
        for j in range(i):
            for s in range(1 << j):
                _add(inner[s], price[q], inner[s + (1 << j)], count)
            q += 1
        for s in range(size):
            _add(whole[s], inner[s], whole[s + size], count)
    if most < experts:
        for s in range(1 << experts):
            bits, held = s, 0
            while bits:
                bits &= bits - 1
                held += 1
            if held > most:
                for lane in range(count):
                    whole[s, lane] = np.inf


@lean
def _lower(left: Floats, right: Floats, name: int, least: Floats, arg: Ints, count: int) -> None:
    """Where left + right is below `least`, it is the least, of that name."""
    for i in range(count):
        value = left[i] + right[i]
        below = value < least[i]
        least[i] = value if below else least[i]
        arg[i] = name if below else arg[i]


@lean
def _pairs_of(subset: int, experts: int) -> np.uint64:
    """The pairs in a subset, as bits."""
    out, q = np.uint64(0), 0
    for i in range(experts):
        for j in range(i):
            if (subset >> i) & (subset >> j) & 1:
                out |= np.uint64(1) << np.uint64(q)
            q += 1
    return out


@lean_kernel
def cheapest(lanes: Lanes, count: int, experts: int, home: bool, most: int) -> None:
    """min over partitions of bins + <price, features> for the prices in the first `count` lanes."""
    full = (1 << experts) - 1
    pairs = experts * (experts - 1) // 2
    price, least, arg, cut = lanes.price, lanes.least, lanes.arg, lanes.cut
    inner, whole, best, at_home = lanes.table[0], lanes.table[1], lanes.table[2], lanes.table[3]
    _wholes(price[:pairs], 1.0, experts, most, inner, whole, count)
    for lane in range(count):
        best[0, lane] = 0.0
    # best[S]: S in bins of its own; the bin of its lowest expert is chosen first. Without a home only sets without
    # expert 0, and the whole, are asked for.
    for s in range(1, full + 1):
        low = s & -s
        if low == 1 and not home and s != full:
            continue
        rest = s ^ low
        part = rest
        for lane in range(count):
            least[lane], arg[lane] = np.inf, low
        while True:
            _lower(whole[part | low], best[rest ^ part], part | low, least, arg, count)
            if part == 0:
                break
            part = (part - 1) & rest
        for lane in range(count):
            best[s, lane], cut[s, lane] = least[lane], arg[lane]
    for lane in range(count):
        least[lane], arg[lane] = best[full, lane], full
    if home:
        _wholes(price[pairs : 2 * pairs], 0.0, experts, most, inner, at_home, count)
        for lane in range(count):
            inner[0, lane] = 0.0
        for i in range(experts):
            for s in range(1 << i):
                _add(inner[s], price[2 * pairs + i], inner[s + (1 << i)], count)
        for s in range(1, full + 1):
            _add(at_home[s], inner[s], at_home[s], count)
            _lower(at_home[s], best[full ^ s], full ^ s, least, arg, count)
    for lane in range(count):
        left, held, bins = arg[lane], np.uint64(0), 0.0
        if home:
            chosen = full ^ left
            held = _pairs_of(chosen, experts) << np.uint64(pairs)
            for i in range(experts):
                if (chosen >> i) & 1:
                    held |= np.uint64(1) << np.uint64(2 * pairs + i)
        while left:
            held |= _pairs_of(cut[left, lane], experts)
            left ^= cut[left, lane]
            bins += 1.0
        lanes.held[lane], lanes.bins[lane] = held, bins
