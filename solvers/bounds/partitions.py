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
from solvers.bounds.subsets import LANES, Floats, Ints, Lanes, cheapest, new_lanes

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
        lanes, active, slope, value: scratch for LANES sets: their prices, those that still move, and of each
            [features] slope and [MIXED] values of its partitions.
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
    lanes: Lanes
    active: Ints
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
    shape = variable.shape
    bins, share = np.zeros((len(variable), MIXED)), np.zeros((len(variable), MIXED))
    bins[:, 0], share[:, 0] = experts, 1.0
    return Tokens(
        variable, plain(weight), experts, home, most, np.zeros(shape), np.zeros(shape),
        np.zeros((len(variable), MIXED), dtype=np.uint64), bins, share, np.ones(len(variable), dtype=np.int64),
        new_lanes(experts, shape[1]), np.empty(LANES, dtype=np.int64), np.empty((LANES, shape[1])),
        np.empty((LANES, MIXED)),
    )  # fmt: skip


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
    features, sets = t.variable.shape[1], len(t.weight)
    for begin in range(first, sets, stride * LANES):
        moving = min(LANES, (sets - begin + stride - 1) // stride)
        for lane in range(moving):
            s = begin + lane * stride
            variable, slope, value = t.variable[s], t.slope[lane], t.value[lane]
            for q in range(features):
                slope[q] = penalty * (t.point[s, q] - shared[variable[q]] + t.price[s, q])
            for a in range(t.mixed[s]):
                value[a] = t.bins[s, a] + _along(t.held[s, a], slope)
            t.active[lane] = lane
        for _ in range(rounds):
            for i in range(moving):
                for q in range(features):
                    t.lanes.price[q, i] = t.slope[t.active[i], q]
            cheapest(t.lanes, moving, t.experts, t.home, t.most)
            still = 0
            for i in range(moving):
                lane = t.active[i]
                s = begin + lane * stride
                if _settle(t, s, lane, i, penalty):
                    t.active[still] = lane
                    still += 1
            moving = still
        for s in range(begin, min(sets, begin + stride * LANES), stride):
            variable, point, price, weight = t.variable[s], t.point[s], t.price[s], t.weight[s]
            slope = t.slope[(s - begin) // stride]
            for q in range(features):
                pull[variable[q]] -= weight * (point[q] + price[q])
                point[q] = slope[q] / penalty + shared[variable[q]] - price[q]
                price[q] = slope[q] / penalty
                pull[variable[q]] += weight * (point[q] + price[q])


@lean
def _settle(t: Tokens, s: int, lane: int, i: int, penalty: float) -> bool:
    """Moves set s, which has the slope and values of `lane`, towards its cheapest partition, that of lane i of `lanes`,
    and among those that it mixes; whether the point was not near enough yet."""
    held, bins, share, slope, value, mixed = t.held[s], t.bins[s], t.share[s], t.slope[lane], t.value[lane], t.mixed[s]
    for r in range(1 + SETTLE):
        worst, known = 0, 0
        for a in range(1, mixed):
            if value[a] > value[worst]:
                worst = a
            if value[a] < value[known]:
                known = a
        gain = value[worst] - value[known]
        if r == 0:
            least = t.lanes.least[i]
            if value[worst] - least < NEAR:
                return False
            if least < value[known] - NEAR and mixed < MIXED:
                gain = value[worst] - least
                known = mixed
                held[known], bins[known], share[known], value[known] = t.lanes.held[i], t.lanes.bins[i], 0.0, least
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
    return True


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
    price = t.lanes.price
    for begin in range(first, last, LANES):
        count = min(LANES, last - begin)
        for lane in range(count):
            s = begin + lane
            for q in range(len(price)):
                price[q, lane] = (float(prices[s, q]) - ZERO) / UNIT
                slope[t.variable[s, q]] += t.weight[s] * price[q, lane]
        cheapest(t.lanes, count, t.experts, t.home, t.most)
        for lane in range(count):
            total += t.weight[begin + lane] * t.lanes.least[lane]
    return total
