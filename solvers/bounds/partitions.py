"""Tokens as points of the partition polytope: what a token reaches, as a function of which of its experts share a bin.

docs/formulation.md, "Messages, by co-location". Features of a partition say which pairs share a bin; where homes
dispatch apart, which pairs share one away from the home, which share the home's, and which experts are at home.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.kernels import inlined, lean, lean_kernel
from placement.problem.arrays import plain
from placement.records.witness import UNIT, ZERO

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Most experts of a set: with a home and so many experts the features of a partition fill a word of 64 bits.
MOST_IN_SET = 8
#: Most partitions that one token's point is a mixture of.
MIXED = 40
#: Steps among the partitions of a mixture after each that may take one in.
SETTLE = 3
#: A point this near the best, in bins, is near enough.
NEAR = 1e-3


class Tokens(NamedTuple):
    """Sets of experts, their points in the hull and the prices of their features.

    Attributes:
        variable: [sets, features] shared variable of each feature. weight: [sets] share of the tokens; sums to 1.
        experts: of a set. home: whether a bin is the home's, which is not counted. most: experts that a bin holds.
        point, price: [sets, features] point in the hull, scaled price (over the penalty).
        held: [sets, MIXED] features of the partitions mixed, as bits. bins, share: their bins and shares.
        mixed: [sets] how many.
        whole, cut, slope, value: scratch for one set; see `cheapest`.
    """

    variable: Ints
    weight: Floats
    experts: int
    home: bool
    most: int
    point: Floats
    price: Floats
    held: NDArray[np.uint64]
    bins: Floats
    share: Floats
    mixed: Ints
    whole: Floats
    cut: Ints
    slope: Floats
    value: Floats


def cut_sets(ids: Ints, weight: Floats, load: Floats) -> tuple[Ints, Floats]:
    """([sets, k], [sets]) sets cut to their MOST_IN_SET most loaded experts, which reach no more bins; their weight."""
    if ids.shape[1] <= MOST_IN_SET:
        return ids, weight
    order = np.argsort(-load[ids], axis=1, kind="stable")[:, :MOST_IN_SET]
    kept, inverse = np.unique(np.sort(np.take_along_axis(ids, order, axis=1), axis=1), axis=0, return_inverse=True)
    return kept, np.asarray(np.bincount(inverse.ravel(), weights=weight, minlength=len(kept)), dtype=np.float64)


def new_tokens(variable: Ints, weight: Floats, experts: int, home: bool, most: int) -> Tokens:
    """Tokens at prices of 0, each a single partition: every expert in a bin of its own.

    Args:
        variable: [sets, features]: pairs (i, j), j < i, by i, then j; with a home pairs elsewhere, pairs at home and
            experts at home.
    """
    shape, subsets = variable.shape, 1 << experts
    bins, share = np.zeros((len(variable), MIXED)), np.zeros((len(variable), MIXED))
    bins[:, 0], share[:, 0] = experts, 1.0
    return Tokens(
        variable, plain(weight), experts, home, most, np.zeros(shape), np.zeros(shape),
        np.zeros((len(variable), MIXED), dtype=np.uint64), bins, share, np.ones(len(variable), dtype=np.int64),
        np.empty((4, subsets)), np.empty(subsets, dtype=np.int64), np.empty(shape[1]), np.empty(MIXED),
    )  # fmt: skip


@lean
def _wholes(price: Floats, start: float, experts: int, most: int, inner: Floats, whole: Floats) -> None:
    """whole[S] = start + prices of the pairs in S; infinite for more than `most` experts."""
    whole[0] = start
    q = 0
    for i in range(experts):
        size = 1 << i
        inner[0] = 0.0
        for j in range(i):
            for s in range(1 << j):
                inner[s + (1 << j)] = inner[s] + price[q]
            q += 1
        for s in range(size):
            whole[s + size] = whole[s] + inner[s]
    if most < experts:
        for s in range(1 << experts):
            bits, count = s, 0
            while bits:
                bits &= bits - 1
                count += 1
            if count > most:
                whole[s] = np.inf


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
def cheapest(
    price: Floats, experts: int, home: bool, most: int, scratch: Floats, cut: Ints
) -> tuple[float, np.uint64, float]:
    """min over partitions of bins + <price, features>; the features of the best one, as bits; its bins.

    Args:
        price: [features]. scratch: [4, 2 ** experts]. cut: [2 ** experts].
    """
    full = (1 << experts) - 1
    pairs = experts * (experts - 1) // 2
    inner, whole, best, at_home = scratch[0], scratch[1], scratch[2], scratch[3]
    _wholes(price[:pairs], 1.0, experts, most, inner, whole)
    best[0] = 0.0
    # best[S]: S in bins of its own; the bin of its lowest expert is chosen first. Without a home only sets without
    # expert 0, and the whole, are asked for.
    for s in range(1, full + 1):
        low = s & -s
        if low == 1 and not home and s != full:
            continue
        rest = s ^ low
        part, least, arg = rest, np.inf, 0
        while True:
            v = whole[part | low] + best[rest ^ part]
            if v < least:
                least, arg = v, part
            if part == 0:
                break
            part = (part - 1) & rest
        best[s], cut[s] = least, arg | low
    left, value, held, bins = full, best[full], np.uint64(0), 0.0
    if home:
        _wholes(price[pairs : 2 * pairs], 0.0, experts, most, inner, at_home)
        for i in range(experts):
            for s in range(1 << i):
                # Sets whose highest expert is i: those below have had their own experts' prices added.
                inner[s + (1 << i)] = price[2 * pairs + i] + (inner[s] if s else 0.0)
        for s in range(1, full + 1):
            v = at_home[s] + inner[s] + best[full ^ s]
            if v < value:
                value, left = v, full ^ s
        chosen = full ^ left
        held = _pairs_of(chosen, experts) << np.uint64(pairs)
        for i in range(experts):
            if (chosen >> i) & 1:
                held |= np.uint64(1) << np.uint64(2 * pairs + i)
    while left:
        held |= _pairs_of(cut[left], experts)
        left ^= cut[left]
        bins += 1.0
    return value, held, bins


@inlined
def _ones(word: np.uint64) -> np.int64:
    """Bits that are set."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inlined
def _along(held: np.uint64, price: Floats) -> float:
    """<price, features>."""
    total = 0.0
    while held:
        rest = held & (held - np.uint64(1))
        total += price[_ones((held ^ rest) - np.uint64(1))]
        held = rest
    return total


@inlined
def _shift(point: Floats, held: np.uint64, by: float) -> None:
    """Adds `by` to each feature held."""
    while held:
        rest = held & (held - np.uint64(1))
        point[_ones((held ^ rest) - np.uint64(1))] += by
        held = rest


@lean_kernel
def approach(t: Tokens, first: int, stride: int, shared: Floats, penalty: float, rounds: int, pull: Floats) -> None:
    """Moves points nearer to their shared variables, prices the rest, and says what tokens ask of the variables.

    Args:
        first, stride: the sets first, first + stride, and so on. shared: [variables].
        penalty: of half a squared distance, in bins.
        rounds: partitions that a point may take in. pull: [variables] point + scaled price, summed over all sets by
            weight; kept up to date.
    """
    features = t.variable.shape[1]
    experts, home, most = t.experts, t.home, t.most
    whole, cut, slope, value = t.whole, t.cut, t.slope, t.value
    for s in range(first, len(t.weight), stride):
        variable, point, price, weight = t.variable[s], t.point[s], t.price[s], t.weight[s]
        held, bins, share, mixed = t.held[s], t.bins[s], t.share[s], t.mixed[s]
        for q in range(features):
            pull[variable[q]] -= weight * (point[q] + price[q])
            slope[q] = penalty * (point[q] - shared[variable[q]] + price[q])
        for a in range(mixed):
            value[a] = bins[a] + _along(held[a], slope)
        for r in range(rounds * (1 + SETTLE)):
            worst, known = 0, 0
            for a in range(1, mixed):
                if value[a] > value[worst]:
                    worst = a
                if value[a] < value[known]:
                    known = a
            gain = value[worst] - value[known]
            if r % (1 + SETTLE) == 0:
                least, best, best_bins = cheapest(slope, experts, home, most, whole, cut)
                if value[worst] - least < NEAR:
                    break
                if least < value[known] - NEAR and mixed < MIXED:
                    gain = value[worst] - least
                    known = mixed
                    held[known], bins[known], share[known], value[known] = best, best_bins, 0.0, least
                    mixed += 1
            if gain < NEAR:
                continue
            up, down = held[known], held[worst]
            step = min(share[worst], gain / (penalty * _ones(up ^ down)))
            by = penalty * step
            for a in range(mixed):
                value[a] += by * (_ones(held[a] & up) - _ones(held[a] & down))
            _shift(slope, down, -by)
            _shift(slope, up, by)
            share[known] += step
            share[worst] -= step
            if share[worst] <= 1e-12:
                mixed -= 1
                held[worst], bins[worst] = held[mixed], bins[mixed]
                share[worst], value[worst] = share[mixed], value[mixed]
        t.mixed[s] = mixed
        for q in range(features):
            point[q] = slope[q] / penalty + shared[variable[q]] - price[q]
            price[q] = slope[q] / penalty
            pull[variable[q]] += weight * (point[q] + price[q])


def rounded_prices(t: Tokens, penalty: float) -> NDArray[np.uint8]:
    """[sets, features] prices of the tokens as a witness has them."""
    return np.asarray(np.clip(np.rint(t.price * (penalty * UNIT)) + ZERO, 0, 255).astype(np.uint8))


@lean_kernel
def proven(t: Tokens, prices: NDArray[np.uint8], slope: Floats, first: int, last: int, total: float) -> float:
    """A number and a slope with: mean bins >= number - <slope, mean features>, whatever the features.

    Args:
        prices: [sets, features] as a witness has them. slope: [variables] what the sets `first` to `last` have in it is
            added. total: the number of the sets before.
    """
    price = t.slope
    for s in range(first, last):
        for q in range(len(price)):
            price[q] = (float(prices[s, q]) - ZERO) / UNIT
            slope[t.variable[s, q]] += t.weight[s] * price[q]
        total += t.weight[s] * cheapest(price, t.experts, t.home, t.most, t.whole, t.cut)[0]
    return total
