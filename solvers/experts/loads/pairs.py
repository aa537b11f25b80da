"""Kernels: one or two slots per GPU. With two, the best pairing is known given the copies of every expert.

The largest pair is smallest when the heaviest copy shares with the lightest, and so on (an exchange argument). Copies
are annealed for a falling limit; docs/formulation.md, "Loads alone".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import exp, log
from placement.kernels import ascending, copy_into, kernel, lean, seed_draws

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The limit lies this far from the best answer towards the target.
FALL = 0.15
#: First and last temperature, in excess over the limit (relative to it). Both are higher where more is to be gained.
HOT, COLD = 1e-2, 2e-4
#: Most trials of one cooling, in all and for each expert.
ROUND, ROUND_PER_EXPERT = 12_500, 100
#: Trials that take the place of one kick of the local search, up to this many experts; with more, as much work.
TRIALS, EXPERTS = 250, 256


def trials_of_kick(experts: int) -> int:
    """Trials of the search over copies whose work is that of one kick."""
    return max(1, TRIALS * min(EXPERTS, experts) // experts)


@lean
def _pair_up(order: Ints, copies: Ints, high: Ints, low: Ints, count: Ints) -> tuple[int, int, int]:
    """Heaviest with lightest: run i is count[i] pairs of experts high[i] and low[i]; order: by ascending cost of a
    copy. (Runs, expert whose last copies would share GPUs with each other or -1, how many such GPUs)."""
    lo, hi, runs = 0, len(order) - 1, 0
    left_lo, left_hi = copies[order[lo]], copies[order[hi]]
    while lo < hi:
        n = min(left_lo, left_hi)
        high[runs], low[runs], count[runs] = order[hi], order[lo], n
        runs += 1
        left_lo -= n
        left_hi -= n
        if left_lo == 0 and left_hi == 0:
            lo, hi = lo + 1, hi - 1
            if lo <= hi:
                left_lo, left_hi = copies[order[lo]], copies[order[hi]]
        elif left_lo == 0:
            lo += 1
            left_lo = left_hi if lo == hi else copies[order[lo]]
        else:
            hi -= 1
            left_hi = left_lo if lo == hi else copies[order[hi]]
    if lo > hi or left_lo == 0:
        return runs, -1, 0
    return runs, order[lo], left_lo // 2


@lean
def _separate(high: Ints, low: Ints, count: Ints, runs: int, own: int, twice: int) -> int:
    """Breaks up `twice` pairs of `own` with itself, each with another pair near it in cost, in place; runs, or -1 if it
    can't be."""
    first = runs
    for i in range(first - 1, -1, -1):
        if twice == 0:
            break
        if high[i] == own or low[i] == own:
            continue
        n = min(twice, count[i])
        count[i] -= n
        twice -= n
        a, b = high[i], low[i]
        high[runs], low[runs], count[runs] = a, own, n
        high[runs + 1], low[runs + 1], count[runs + 1] = own, b, n
        runs += 2
    return -1 if twice > 0 else runs


@lean
def _price(
    order: Ints, copies: Ints, size: Floats, limit: float, high: Ints, low: Ints, count: Ints
) -> tuple[float, float, int]:
    """(sum of what pairs exceed `limit` by, over it; largest pair; runs) of the best pairing; -1 runs without one."""
    runs, own, twice = _pair_up(order, copies, high, low, count)
    if twice > 0:
        runs = _separate(high, low, count, runs, own, twice)
        if runs < 0:
            return np.inf, np.inf, -1
    over, largest = 0.0, 0.0
    for i in range(runs):
        pair = size[high[i]] + size[low[i]]
        if pair > limit and count[i] > 0:
            over += count[i] * (pair - limit)
        if pair > largest and count[i] > 0:
            largest = pair
    return over / limit, largest, runs


@lean
def _energy(
    order: Ints, copies: Ints, size: Floats, limit: float, most: float, high: Ints, low: Ints, count: Ints
) -> tuple[float, float]:
    """(energy, largest pair) as `_price`, without a record of the pairs; ends early with an energy above `most`."""
    lo, hi = 0, len(order) - 1
    left_lo, left_hi = copies[order[lo]], copies[order[hi]]
    x_lo, x_hi = size[order[lo]], size[order[hi]]
    over, largest, ceiling = 0.0, 0.0, most * limit
    while lo < hi:
        n = min(left_lo, left_hi)
        pair = x_lo + x_hi
        if pair > limit:
            over += n * (pair - limit)
            if over > ceiling:
                return over / limit, np.inf
        largest = max(largest, pair)
        left_lo -= n
        left_hi -= n
        if left_lo == 0:
            lo += 1
            left_lo, x_lo = copies[order[lo]], size[order[lo]]
        if left_hi == 0:
            hi -= 1
            left_hi, x_hi = copies[order[hi]], size[order[hi]]
    if lo == hi and min(left_lo, left_hi) > 0:
        # The last expert's own copies would share GPUs: what it takes to part them needs the record.
        energy, largest, _ = _price(order, copies, size, limit, high, low, count)
        return energy, largest
    return over / limit, largest


@lean
def _place(order: Ints, size: Floats, e: int, was: int) -> int:
    """Restores the ascending order after expert e at position `was` changed its size; its new position."""
    at, x = was, size[e]
    while at > 0 and size[order[at - 1]] > x:
        order[at] = order[at - 1]
        at -= 1
    while at + 1 < len(order) and size[order[at + 1]] < x:
        order[at] = order[at + 1]
        at += 1
    order[at] = e
    return at


@lean
def _find(order: Ints, size: Floats, e: int) -> int:
    """Position of expert e in the ascending order."""
    x, lo, hi = size[e], 0, len(order)
    while lo < hi:
        middle = (lo + hi) // 2
        if size[order[middle]] < x:
            lo = middle + 1
        else:
            hi = middle
    while order[lo] != e:
        lo += 1
    return lo


@lean
def _give(order: Ints, copies: Ints, size: Floats, cost: Floats, e: int, by: int) -> None:
    """Expert e gets `by` more copies; the order is kept."""
    at = _find(order, size, e)
    copies[e] += by
    size[e] = cost[copies[e], e]
    _place(order, size, e, at)


@kernel
def best_copies(cost: Floats, start: Ints, target: float, trials: int, seed: int) -> tuple[Ints, float, int]:
    """Copies of every expert that make the largest pair small.

    Args:
        cost: [most copies + 1, experts] cost of one copy by the number of copies, not rising in it.
        start: [experts] copies, an even number in all.
        target: stops when the largest pair is at most this. trials: budget of work.

    Returns:
        ([experts] copies, largest pair, trials used). The largest is infinite if no pairing on distinct GPUs was found.
    """
    seed_draws(seed)
    most, experts = cost.shape[0] - 1, cost.shape[1]
    copies, kept, size = start.copy(), start.copy(), np.empty(experts)
    order, high, low, count = _arrays(cost, copies, size)
    _, best, _ = _price(order, copies, size, 1.0, high, low, count)
    # No largest pair is below the mean, of these copies; nothing is gained by asking for more.
    held, in_all, dearest = 0.0, 0, 0.0
    for e in range(experts):
        held += copies[e] * size[e]
        in_all += copies[e]
        dearest = max(dearest, cost[1, e])
    floor = max(target, 2.0 * held / in_all)
    # Experts with several copies: only they can give one away.
    rich, place, n = np.empty(experts, np.int64), np.empty(experts, np.int64), 0
    limit, energy, heat, hot = 0.0, 0.0, HOT, HOT
    length = max(1, min(trials, ROUND, ROUND_PER_EXPERT * experts))
    for trial in range(trials):
        if best <= target:
            return kept, best, trial
        if trial % length == 0:
            copy_into(kept, copies)
            order, high, low, count = _arrays(cost, copies, size)
            n = 0
            for e in range(experts):
                place[e] = -1
                if copies[e] > 1:
                    rich[n], place[e] = e, n
                    n += 1
            if n == 0 or most < 2:
                return kept, best, trial
            limit = best - FALL * max(best - floor, 0.0) if best < np.inf else dearest
            energy, _, _ = _price(order, copies, size, limit, high, low, count)
            hot = max(HOT, (best - floor) / limit) if best < np.inf else HOT
        if trial % 64 == 0:
            heat = hot * exp(log(COLD / HOT) * ((trial % length) / length))
        up, down = np.random.randint(experts), rich[np.random.randint(n)]
        if up == down or copies[up] >= most:
            continue
        _give(order, copies, size, cost, up, 1)
        _give(order, copies, size, cost, down, -1)
        # Metropolis' rule, drawn first: a trial ends as soon as its energy is too high.
        limit_energy = energy - heat * log(1.0 - np.random.random())
        new, largest = _energy(order, copies, size, limit, limit_energy, high, low, count)
        if new <= limit_energy:
            energy = new
            if place[up] < 0:
                rich[n], place[up] = up, n
                n += 1
            if copies[down] == 1:
                n -= 1
                rich[place[down]] = rich[n]
                place[rich[n]] = place[down]
                place[down] = -1
            if largest < best:
                best = largest
                copy_into(copies, kept)
                limit = best - FALL * max(best - floor, 0.0)
                energy, _, _ = _price(order, copies, size, limit, high, low, count)
            continue
        _give(order, copies, size, cost, down, 1)
        _give(order, copies, size, cost, up, -1)
    return kept, best, trials


@kernel
def _arrays(cost: Floats, copies: Ints, size: Floats) -> tuple[Ints, Ints, Ints, Ints]:
    """Fills size [experts], cost of a copy; ([experts] ascending order, and room for the runs of `_price`)."""
    experts = len(copies)
    for e in range(experts):
        size[e] = cost[copies[e], e]
    runs = 6 * experts + 6
    return ascending(size), np.empty(runs, np.int64), np.empty(runs, np.int64), np.empty(runs, np.int64)


@kernel
def paired(cost: Floats, copies: Ints) -> Ints:
    """[slots] the best pairing of these copies, two slots a GPU; empty if there is none on distinct GPUs."""
    size = np.empty(len(copies))
    order, high, low, count = _arrays(cost, copies, size)
    _, _, used = _price(order, copies, size, 1.0, high, low, count)
    n = 0
    for i in range(used):
        n += 2 * count[i]
    slots = np.empty(n, np.int64)
    n = 0
    for i in range(used):
        for _ in range(count[i]):
            slots[n], slots[n + 1] = high[i], low[i]
            n += 2
    return slots


@kernel
def single_copies(cost: Floats, slots: int) -> Ints:
    """[slots] one slot per GPU: greedy replication, which makes the dearest copy as cheap as can be."""
    most, experts = cost.shape[0] - 1, cost.shape[1]
    copies = np.empty(experts, np.int64)
    copies[:] = 1
    for _ in range(slots - experts):
        best = -1
        for e in range(experts):
            if copies[e] < most and (best < 0 or cost[copies[e], e] > cost[copies[best], best]):
                best = e
        copies[best] += 1
    out = np.empty(slots, np.int64)
    n = 0
    for e in range(experts):
        out[n : n + copies[e]] = e
        n += copies[e]
    return out
