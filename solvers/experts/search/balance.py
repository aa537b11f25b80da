"""Search for loads alone under `even` dispatch: one window is left to `loads`, several are searched here.

Iterated local search (Lourenco, Martin and Stuetzle 2003) on a high power mean of GPU costs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import copy_into, inlined, kernel, largest, lean
from solvers.experts.loads.layer import PAIR_SHARE
from solvers.experts.loads.local import improve
from solvers.experts.loads.pairs import best_copies, paired, single_copies, trials_of_kick
from solvers.stop import DEFAULT, Stop

_F = NDArray[np.float64]
_I = NDArray[np.int64]

#: Rounds of a descent after a kick.
ROUNDS = 40
#: Elementary steps, at a few nanoseconds each, between two looks at the clock.
SLICE = 30_000_000


@inlined
def _power(x: float) -> float:
    """x to the 64th: near enough to the maximum, and differences still show."""
    x *= x
    x *= x
    x *= x
    x *= x
    x *= x
    return x * x


@lean
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


@lean
def _value(gpu_cost: _F, window_weight: _F) -> float:
    total = 0.0
    for w in range(len(window_weight)):
        total += window_weight[w] * gpu_cost[w, largest(gpu_cost[w])]
    return total


@lean
def _relieve(
    slots: _I, slots_per_gpu: int, cost: _F, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], window_weight: _F,
    scale: _F, w0: int,
) -> bool:  # fmt: skip
    """Makes the best swap between a busiest GPU of window w0 and any other; False if none lowers the power mean."""
    windows, gpus = gpu_cost.shape
    g = largest(gpu_cost[w0])
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
    if bi < 0:
        return False
    h, a, b = bj // slots_per_gpu, slots[bi], slots[bj]
    slots[bi], slots[bj] = b, a
    holds[g, a], holds[g, b] = False, True
    holds[h, b], holds[h, a] = False, True
    for w in range(windows):
        d = cost[copies[b], w, b] - cost[copies[a], w, a]
        gpu_cost[w, g] += d
        gpu_cost[w, h] -= d
    return True


@lean
def _kick(slots: _I, slots_per_gpu: int, copies: _I, gpu_cost: _F, holds: NDArray[np.bool_], most: int) -> None:
    """A random change of slots: a few swaps, or one copy of an expert given to another."""
    total, replicated = len(slots), False
    for e in range(len(copies)):
        replicated |= copies[e] > 1
    if replicated and np.random.random() < 0.4:
        g = largest(gpu_cost[np.random.randint(gpu_cost.shape[0])])
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


@kernel
def _go_on(
    slots: _I, best: _I, current: _I, slots_per_gpu: int, cost: _F, copies: _I, gpu_cost: _F,
    holds: NDArray[np.bool_], window_weight: _F, scale: _F, value: _F, at: _I, target: float, kicks: int, seed: int,
    steps: int, rounds: int,
) -> bool:  # fmt: skip
    """Looks at `steps` more windows for `_balance_windows`; whether it is done.

    Args:
        value: [2] of best and current. at: [4] kicks done (below 0: before the first), rounds left of the descent,
            its window and whether this round improved anything. rounds: of a descent after a kick.
    """
    windows, gpus = gpu_cost.shape
    if at[0] < 0 and value[0] < 0.0:
        np.random.seed(seed)
        _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
        for w in range(windows):
            total = 0.0
            for g in range(gpus):
                total += gpu_cost[w, g]
            scale[w] = max(total / gpus, 1e-300)
        value[:] = _value(gpu_cost, window_weight)
    while True:
        # With one slot a GPU a swap would only rename GPUs.
        while at[1] > 0 and slots_per_gpu > 1:
            if steps <= 0:
                return False
            steps -= 1
            if _relieve(slots, slots_per_gpu, cost, copies, gpu_cost, holds, window_weight, scale, at[2]):
                at[3] = 1
            at[2] += 1
            if at[2] == windows:
                at[1] = at[1] - 1 if at[3] else 0
                at[2] = at[3] = 0
        reached = _value(gpu_cost, window_weight)
        if at[0] < 0 or reached <= value[1] * (1.0 + 1e-4):
            copy_into(slots, current)
            value[1] = reached
            if reached < value[0]:
                copy_into(slots, best)
                value[0] = reached
        else:
            copy_into(current, slots)
            _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
        at[0] += 1
        if at[0] == kicks or value[0] <= target:
            return True
        _kick(slots, slots_per_gpu, copies, gpu_cost, holds, cost.shape[0] - 1)
        _rebuild(slots, slots_per_gpu, cost, copies, gpu_cost, holds)
        at[1] = rounds
        steps -= 1


def _balance_windows(
    start: _I, slots_per_gpu: int, gpus: int, cost: _F, window_weight: _F, target: float, kicks: int, seed: int,
    stop: Stop,
) -> tuple[_I, float, int]:  # fmt: skip
    """See `balance`."""
    _, windows, experts = cost.shape
    slots, best, current = start.copy(), start.copy(), start.copy()
    copies, gpu_cost = np.zeros(experts, np.int64), np.zeros((windows, gpus))
    holds, scale = np.zeros((gpus, experts), np.bool_), np.empty(windows)
    value, at = np.full(2, -1.0), np.array([-1, 4 * len(slots), 0, 0])
    steps = max(1, SLICE // (windows * len(slots) * slots_per_gpu))
    while not _go_on(
        slots, best, current, slots_per_gpu, cost, copies, gpu_cost, holds, window_weight, scale, value, at, target,
        kicks, seed, steps, ROUNDS,
    ) and not stop.expired:  # fmt: skip
        pass
    return best, float(value[0]), max(0, int(at[0]))


def balance(
    slots: _I, slots_per_gpu: int, gpus: int, cost: _F, window_weight: _F, target: float, kicks: int, seed: int,
    stop: Stop = DEFAULT,
) -> tuple[_I, float, int]:  # fmt: skip
    """Improves a placement for loads alone; the interpreter lock is free while it searches.

    Args:
        slots: [slots] start, copies on distinct GPUs. EMPTY slots (-1) stay empty.
        cost: [copies + 1, windows, experts] cost of one copy by its expert's number of copies, not rising in it.
        target: stops when the window mean of the busiest GPU is at most this.
        kicks: restarts from a kicked best; the budget of work. stop: its deadline, too.

    Returns:
        (best slots, never worse than the start; its window mean of the busiest GPU's cost; kicks used).
    """
    start = np.ascontiguousarray(slots, dtype=np.int64)
    if len(window_weight) > 1:
        return _balance_windows(start, slots_per_gpu, gpus, cost, window_weight, target, kicks, seed, stop)
    weight = float(window_weight[0])
    table = np.ascontiguousarray(cost[:, 0, :])
    if slots_per_gpu > 2 or (start < 0).any():
        found, value, used = improve(start, slots_per_gpu, table, target / weight, kicks, seed, stop)
        return found, weight * value, used
    value = _busiest(start, slots_per_gpu, table)
    if weight * value <= target:
        return start, weight * value, 0
    if slots_per_gpu == 1:
        # One copy a GPU: greedy replication is optimal.
        found = np.asarray(single_copies(table, len(start)))
        reached = _busiest(found, 1, table)
        return (found, weight * reached, 0) if reached < value else (start, weight * value, 0)
    copies = np.bincount(start, minlength=cost.shape[2])
    each = trials_of_kick(table.shape[1])
    best, reached, trials = best_copies(table, copies, target / weight, each * kicks, seed)
    found = np.asarray(paired(table, best)) if reached < value else start
    found, value, _ = improve(found, 2, table, target / weight, kicks // PAIR_SHARE, seed, stop)
    return found, weight * value, -(-int(trials) // each)


def _busiest(slots: _I, slots_per_gpu: int, cost: _F) -> float:
    """Largest summed cost of a GPU of one or two slots; cost: [copies + 1, experts]."""
    each = cost[np.bincount(slots, minlength=cost.shape[1])[slots], slots]
    return float(each.reshape(-1, slots_per_gpu).sum(axis=1).max())
