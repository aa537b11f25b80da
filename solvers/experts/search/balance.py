"""Search for loads alone: swaps and changes of replication that lower the busiest GPUs. Under `even` dispatch.

One window is left to `loads`. Over several windows: iterated local search (Lourenco, Martin and Stuetzle 2003),
descend on a high power mean of GPU costs, kick, descend, keep what is better.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from solvers.experts.loads.layer import PAIR_SHARE
from solvers.experts.loads.local import improve
from solvers.experts.loads.pairs import best_copies, paired, single_copies, trials_of_kick

_F = NDArray[np.float64]
_I = NDArray[np.int64]


@njit(cache=True, nogil=True, inline="always")
def _power(x: float) -> float:
    """x to the 64th: near enough to the maximum, and differences still show."""
    x *= x
    x *= x
    x *= x
    x *= x
    x *= x
    return x * x


@njit(cache=True, nogil=True)
def _rebuild(slots: _I, slots_per_gpu: int, cost: _F, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_]) -> None:
    windows = gpu_cost.shape[0]
    copies[:] = 0
    gpu_cost[:] = 0.0
    holds[:] = False
    for s in range(len(slots)):
        if slots[s] >= 0:
            copies[slots[s]] += 1
    for s in range(len(slots)):
        if slots[s] < 0:
            continue
        g = s // slots_per_gpu
        holds[g, slots[s]] = True
        for w in range(windows):
            gpu_cost[w, g] += cost[copies[slots[s]], w, slots[s]]


@njit(cache=True, nogil=True)
def _value(gpu_cost: _F, window_weight: _F) -> float:
    total = 0.0
    for w in range(len(window_weight)):
        total += window_weight[w] * gpu_cost[w].max()
    return total


@njit(cache=True, nogil=True)
def _descend(
    slots: _I, slots_per_gpu: int, cost: _F, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], window_weight: _F,
    scale: _F, rounds: int,
) -> int:  # fmt: skip
    """Best swaps between a busiest GPU and any other until none lowers the power mean; returns the rounds used."""
    windows, gpus = gpu_cost.shape
    if slots_per_gpu == 1:
        # A swap would only rename GPUs.
        return 0
    for used in range(rounds):
        improved = False
        for w0 in range(windows):
            g = int(gpu_cost[w0].argmax())
            best, bi, bj = -1e-12, -1, -1
            for h in range(gpus):
                # Only a swap that lowers g in the window where it is the busiest is looked at.
                if h == g or gpu_cost[w0, h] >= gpu_cost[w0, g]:
                    continue
                before = 0.0
                for w in range(windows):
                    before += window_weight[w] * (_power(gpu_cost[w, g] / scale[w]) + _power(gpu_cost[w, h] / scale[w]))
                for i in range(g * slots_per_gpu, (g + 1) * slots_per_gpu):
                    a = slots[i]
                    if a < 0 or holds[h, a]:
                        continue
                    ra = copies[a]
                    for j in range(h * slots_per_gpu, (h + 1) * slots_per_gpu):
                        b = slots[j]
                        if b < 0 or holds[g, b] or cost[copies[b], w0, b] >= cost[ra, w0, a]:
                            continue
                        change = -before
                        for w in range(windows):
                            d = cost[copies[b], w, b] - cost[ra, w, a]
                            change += window_weight[w] * (
                                _power((gpu_cost[w, g] + d) / scale[w]) + _power((gpu_cost[w, h] - d) / scale[w])
                            )
                        if change < best:
                            best, bi, bj = change, i, j
            if bi >= 0:
                _swap(slots, slots_per_gpu, cost, copies, gpu_cost, holds, bi, bj)
                improved = True
        if not improved:
            return used
    return rounds


@njit(cache=True, nogil=True)
def _swap(
    slots: _I, slots_per_gpu: int, cost: _F, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], i: int, j: int
) -> None:
    g, h, a, b = i // slots_per_gpu, j // slots_per_gpu, slots[i], slots[j]
    slots[i], slots[j] = b, a
    holds[g, a], holds[g, b] = False, True
    holds[h, b], holds[h, a] = False, True
    for w in range(gpu_cost.shape[0]):
        d = cost[copies[b], w, b] - cost[copies[a], w, a]
        gpu_cost[w, g] += d
        gpu_cost[w, h] -= d


@njit(cache=True, nogil=True)
def _kick(slots: _I, slots_per_gpu: int, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], most: int) -> None:
    """A random change of slots: a few swaps, or one copy of an expert given to another."""
    total = len(slots)
    if copies.max() > 1 and np.random.random() < 0.4:
        g = int(gpu_cost[np.random.randint(gpu_cost.shape[0])].argmax())
        for _ in range(20):
            j = np.random.randint(total)
            # An expert of a busiest GPU, or any, gets the slot.
            source = np.random.randint(slots_per_gpu) + g * slots_per_gpu
            b = slots[source] if np.random.random() < 0.6 else np.random.randint(holds.shape[1])
            h = j // slots_per_gpu
            if slots[j] < 0 or b < 0 or copies[slots[j]] < 2 or holds[h, b] or copies[b] >= most:
                continue
            holds[h, slots[j]], holds[h, b] = False, True
            copies[slots[j]] -= 1
            copies[b] += 1
            slots[j] = b
            return
    for _ in range(2 + np.random.randint(3)):
        i, j = np.random.randint(total), np.random.randint(total)
        g, h = i // slots_per_gpu, j // slots_per_gpu
        if g == h or slots[i] < 0 or slots[j] < 0 or holds[g, slots[j]] or holds[h, slots[i]]:
            continue
        holds[g, slots[i]], holds[g, slots[j]] = False, True
        holds[h, slots[j]], holds[h, slots[i]] = False, True
        slots[i], slots[j] = slots[j], slots[i]


@njit(cache=True, nogil=True)
def _balance_windows(
    slots: _I, slots_per_gpu: int, gpus: int, cost: _F, window_weight: _F, target: float, kicks: int, seed: int
) -> tuple[_I, float, int]:
    """See `balance`."""
    np.random.seed(seed)
    most, windows, experts = cost.shape[0] - 1, cost.shape[1], cost.shape[2]
    slots = slots.copy()
    copies = np.zeros(experts, np.int64)
    gpu_cost = np.zeros((windows, gpus))
    holds = np.zeros((gpus, experts), np.bool_)
    _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
    scale = np.empty(windows)
    for w in range(windows):
        scale[w] = max(gpu_cost[w].sum() / gpus, 1e-300)
    best, best_value = slots.copy(), _value(gpu_cost, window_weight)
    _descend(slots, slots_per_gpu, cost, copies, gpu_cost, holds, window_weight, scale, 4 * len(slots))
    current, current_value = slots.copy(), _value(gpu_cost, window_weight)
    if current_value < best_value:
        best[:] = slots
        best_value = current_value
    for kick in range(kicks):
        if best_value <= target:
            return best, best_value, kick
        _kick(slots, slots_per_gpu, copies, gpu_cost, holds, most)
        _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
        _descend(slots, slots_per_gpu, cost, copies, gpu_cost, holds, window_weight, scale, 40)
        value = _value(gpu_cost, window_weight)
        if value <= current_value * (1.0 + 1e-4):
            current[:] = slots
            current_value = value
            if value < best_value:
                best[:] = slots
                best_value = value
        else:
            slots[:] = current
            _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
    return best, best_value, kicks


def balance(
    slots: _I, slots_per_gpu: int, gpus: int, cost: _F, window_weight: _F, target: float, kicks: int, seed: int
) -> tuple[_I, float, int]:
    """Improves a placement for loads alone; the interpreter lock is free while it searches.

    Args:
        slots: [slots] start, copies on distinct GPUs. EMPTY slots (-1) stay empty.
        cost: [copies + 1, windows, experts] cost of one copy by its expert's number of copies, not rising in it.
        target: stops when the window mean of the busiest GPU is at most this.
        kicks: restarts from a kicked best; the budget of work.

    Returns:
        (best slots, never worse than the start; its window mean of the busiest GPU's cost; kicks used).
    """
    start = np.ascontiguousarray(slots, dtype=np.int64)
    if len(window_weight) > 1:
        found, value, used = _balance_windows(start, slots_per_gpu, gpus, cost, window_weight, target, kicks, seed)
        return np.asarray(found), float(value), int(used)
    weight = float(window_weight[0])
    table = np.ascontiguousarray(cost[:, 0, :])
    if slots_per_gpu > 2 or (start < 0).any():
        found, value, used = improve(start, slots_per_gpu, table, target / weight, kicks, seed)
        return np.asarray(found), weight * float(value), int(used)
    value = float(_busiest(start, slots_per_gpu, table))
    if weight * value <= target:
        return start, weight * value, 0
    if slots_per_gpu == 1:
        # One copy a GPU: greedy replication is optimal.
        found = np.asarray(single_copies(table, len(start)))
        reached = float(_busiest(found, 1, table))
        return (found, weight * reached, 0) if reached < value else (start, weight * value, 0)
    copies = np.bincount(start, minlength=cost.shape[2])
    each = trials_of_kick(table.shape[1])
    best, reached, trials = best_copies(table, copies, target / weight, each * kicks, seed)
    found = np.asarray(paired(table, best)) if reached < value else start
    found, value, _ = improve(found, 2, table, target / weight, kicks // PAIR_SHARE, seed)
    return np.asarray(found), weight * float(value), -(-int(trials) // each)


@njit(cache=True, nogil=True)
def _busiest(slots: _I, slots_per_gpu: int, cost: _F) -> float:
    """Largest summed cost of a GPU; cost: [copies + 1, experts]."""
    copies = np.zeros(cost.shape[1], np.int64)
    for e in slots:
        copies[e] += 1
    largest = 0.0
    for g in range(len(slots) // slots_per_gpu):
        total = 0.0
        for e in slots[g * slots_per_gpu : (g + 1) * slots_per_gpu]:
            total += cost[copies[e], e]
        largest = max(largest, total)
    return largest
