"""Compiled local search for loads alone: swaps and changes of replication that lower the busiest GPUs.

Iterated local search (Lourenco, Martin and Stuetzle 2003): descend on a high power mean of GPU costs, kick, descend,
keep what is better. Under `even` dispatch.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
        copies[slots[s]] += 1
    for s in range(len(slots)):
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
    for used in range(rounds):
        improved = False
        for w0 in range(windows):
            g = int(gpu_cost[w0].argmax())
            best, bi, bj = -1e-12, -1, -1
            old_g = np.empty(windows)
            for w in range(windows):
                old_g[w] = _power(gpu_cost[w, g] / scale[w])
            for h in range(gpus):
                if h == g:
                    continue
                for i in range(g * slots_per_gpu, (g + 1) * slots_per_gpu):
                    a = slots[i]
                    if holds[h, a]:
                        continue
                    ra = copies[a]
                    for j in range(h * slots_per_gpu, (h + 1) * slots_per_gpu):
                        b = slots[j]
                        if holds[g, b]:
                            continue
                        if windows == 1 and cost[copies[b], 0, b] >= cost[ra, 0, a]:
                            continue
                        change = 0.0
                        for w in range(windows):
                            d = cost[copies[b], w, b] - cost[ra, w, a]
                            change += window_weight[w] * (
                                _power((gpu_cost[w, g] + d) / scale[w])
                                + _power((gpu_cost[w, h] - d) / scale[w])
                                - old_g[w]
                                - _power(gpu_cost[w, h] / scale[w])
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
def _kick(slots: _I, slots_per_gpu: int, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], most: int) -> bool:
    """A random change of slots: a few swaps, or one copy of an expert given to another. True if copies changed."""
    total = len(slots)
    if total > holds.shape[1] and np.random.random() < 0.4:
        g = int(gpu_cost[np.random.randint(gpu_cost.shape[0])].argmax())
        for _ in range(20):
            j = np.random.randint(total)
            if copies[slots[j]] < 2:
                continue
            # An expert of a busiest GPU, or any, gets the slot.
            source = np.random.randint(slots_per_gpu) + g * slots_per_gpu
            b = slots[source] if np.random.random() < 0.6 else np.random.randint(holds.shape[1])
            h = j // slots_per_gpu
            if holds[h, b] or copies[b] >= most:
                continue
            holds[h, slots[j]], holds[h, b] = False, True
            copies[slots[j]] -= 1
            copies[b] += 1
            slots[j] = b
            return True
    for _ in range(2 + np.random.randint(3)):
        i, j = np.random.randint(total), np.random.randint(total)
        g, h = i // slots_per_gpu, j // slots_per_gpu
        if g == h or holds[g, slots[j]] or holds[h, slots[i]]:
            continue
        holds[g, slots[i]], holds[g, slots[j]] = False, True
        holds[h, slots[j]], holds[h, slots[i]] = False, True
        slots[i], slots[j] = slots[j], slots[i]
    return False


@njit(cache=True, nogil=True)
def balance(
    slots: _I, slots_per_gpu: int, gpus: int, cost: _F, window_weight: _F, target: float, kicks: int, seed: int
) -> tuple[_I, float, int]:
    """Improves a placement for loads alone.

    Args:
        slots: [slots] start. cost: [copies + 1, windows, experts] cost of one copy by its expert's number of copies.
        target: stops when the window mean of the busiest GPU is at most this.
        kicks: restarts from a kicked best; the budget of work.

    Returns:
        (best slots, its window mean of the busiest GPU's cost, kicks used).
    """
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
    _descend(slots, slots_per_gpu, cost, copies, gpu_cost, holds, window_weight, scale, 4 * len(slots))
    best, best_value = slots.copy(), _value(gpu_cost, window_weight)
    current, current_value = slots.copy(), best_value
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
            copies[:] = 0
            _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
    return best, best_value, kicks
