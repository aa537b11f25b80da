"""Kernels: local search that lowers the busiest GPU, for one window of loads and copies that share alike.

Iterated local search (Lourenco, Martin and Stuetzle 2003); docs/formulation.md, "Loads alone". What made things worse
is undone from a log, so that a kick costs what it changes and not the layer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import copy_into, kernel, largest, lean, once
from solvers.stop import DEFAULT, Stop

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: A worse answer within this is still the start of the next kick.
SLACK = 1e-4
#: A change must lower a GPU by more than this share of it: less is rounding.
LEAST = 1e-12
#: Kicks after which sums are made anew, so that rounding can't add up; steps of one descent after a kick.
REFRESH, STEPS = 64, 60
#: Elementary steps, at a few nanoseconds each, between two looks at the clock.
SLICE = 30_000_000


@lean
def fill(slots: Ints, width: int, cost: Floats, copies: Ints, share: Floats, total: Floats, holds: Bools) -> None:
    """Fills copies [experts], share [experts] (cost of a copy now), total [gpus] and holds [gpus, experts]."""
    copies[:] = 0
    total[:] = 0.0
    holds[:] = False
    for e in slots:
        if e >= 0:
            copies[e] += 1
    for e in range(len(copies)):
        share[e] = cost[copies[e], e]
    for s in range(len(slots)):
        if slots[s] >= 0:
            total[s // width] += share[slots[s]]
            holds[s // width, slots[s]] = True


@lean
def _swap(slots: Ints, width: int, share: Floats, total: Floats, holds: Bools, i: int, j: int) -> None:
    g, h, a, b = i // width, j // width, slots[i], slots[j]
    slots[i], slots[j] = b, a
    holds[g, a], holds[g, b] = False, True
    holds[h, b], holds[h, a] = False, True
    change = share[b] - share[a]
    total[g] += change
    total[h] -= change


@lean
def _assign(
    slots: Ints, width: int, cost: Floats, copies: Ints, share: Floats, total: Floats, holds: Bools, j: int, new: int
) -> None:
    """Slot j takes a copy of `new` in place of its own; shares of both change on every GPU that holds them."""
    old, h = slots[j], j // width
    total[h] -= share[old]
    holds[h, old] = False
    copies[old] -= 1
    copies[new] += 1
    less, more = cost[copies[new], new] - share[new], cost[copies[old], old] - share[old]
    for g in range(len(total)):
        if holds[g, old]:
            total[g] += more
        if holds[g, new]:
            total[g] += less
    share[old] += more
    share[new] += less
    holds[h, new] = True
    total[h] += share[new]
    slots[j] = new


@lean
def _best_swap(slots: Ints, width: int, share: Floats, total: Floats, holds: Bools, g: int) -> tuple[int, int]:
    """The swap that leaves the larger of g and the other GPU lowest; (-1, -1) if none lowers it."""
    here = total[g]
    best, bi, bj = here * (1 - LEAST), -1, -1
    for h in range(len(total)):
        there = total[h]
        # At best both meet in the middle.
        if 0.5 * (here + there) >= best or h == g:
            continue
        for i in range(g * width, (g + 1) * width):
            a = slots[i]
            if a < 0 or holds[h, a]:
                continue
            x = share[a]
            for j in range(h * width, (h + 1) * width):
                if slots[j] < 0:
                    continue
                d = x - share[slots[j]]
                larger = max(here - d, there + d)
                if larger < best and not holds[g, slots[j]]:
                    best, bi, bj = larger, i, j
    return bi, bj


@lean
def _best_copy(
    slots: Ints, width: int, cost: Floats, copies: Ints, share: Floats, total: Floats, holds: Bools, g: int
) -> tuple[int, int]:
    """(slot, expert): the slot of a replicated expert that best takes another one, to lower g; -1 if there is none."""
    most = len(cost) - 1
    here = total[g]
    best, bj, be = here * (1 - LEAST), -1, -1
    for j in range(len(slots)):
        b, h = slots[j], j // width
        if b < 0 or copies[b] < 2:
            continue
        rise = cost[copies[b] - 1, b] - share[b]
        checked, around = False, 0.0
        # On g itself any other expert may take the slot, elsewhere one of g's.
        for i in range(len(copies) if h == g else width):
            a = i if h == g else slots[g * width + i]
            if a < 0 or a == b or holds[h, a] or copies[a] >= most:
                continue
            after = cost[copies[a] + 1, a]
            larger = here - share[b] + after
            if h != g:
                larger = max(here - share[a] + after + (rise if holds[g, b] else 0.0), total[h] - share[b] + after)
            if larger >= best:
                continue
            if not checked:
                checked = True
                for k in range(len(total)):
                    if holds[k, b] and k != h and k != g:
                        around = max(around, total[k] + rise)
            larger = max(larger, around)
            if larger < best:
                best, bj, be = larger, j, a
    return bj, be


@once
def _descend(
    slots: Ints, width: int, cost: Floats, copies: Ints, share: Floats, total: Floats, holds: Bools, spare: bool,
    steps: int, target: float, log: Ints, logged: int,
) -> int:  # fmt: skip
    """Takes improving changes until there is none, all GPUs are within `target`, `steps` are done or the log is full;
    the entries logged. `spare`: some expert has several copies."""
    for _ in range(steps):
        if logged >= len(log):
            break
        g = largest(total)
        if total[g] <= target:
            break
        i, j = _best_swap(slots, width, share, total, holds, g)
        if i >= 0:
            _swap(slots, width, share, total, holds, i, j)
            log[logged, 0], log[logged, 1] = i, j
            logged += 1
            continue
        if not spare:
            break
        j, e = _best_copy(slots, width, cost, copies, share, total, holds, g)
        if j < 0:
            break
        log[logged, 0], log[logged, 1] = j, -1 - slots[j]
        logged += 1
        _assign(slots, width, cost, copies, share, total, holds, j, e)
    return logged


@once
def _kick(
    slots: Ints, width: int, cost: Floats, copies: Ints, share: Floats, total: Floats, holds: Bools, spare: bool,
    log: Ints,
) -> int:  # fmt: skip
    """A random change near a busiest GPU: one to four slots to other experts, or two to four swaps; entries logged."""
    n, experts = len(slots), len(copies)
    g, logged = largest(total), 0
    if spare and np.random.random() < 0.4:
        # Several now and then: where GPUs hold nearly all experts, no swap is left and one copy leads back at once.
        wanted = 2 + np.random.randint(3) if np.random.random() < 0.25 else 1
        for _ in range(20):
            j = np.random.randint(n)
            b = slots[j]
            e = slots[g * width + np.random.randint(width)] if np.random.random() < 0.6 else np.random.randint(experts)
            if b < 0 or e < 0 or copies[b] < 2 or holds[j // width, e] or copies[e] >= len(cost) - 1:
                continue
            log[logged, 0], log[logged, 1] = j, -1 - b
            logged += 1
            _assign(slots, width, cost, copies, share, total, holds, j, e)
            if logged == wanted:
                break
        if logged > 0:
            return logged
    for turn in range(2 + np.random.randint(3)):
        i = g * width + np.random.randint(width) if turn == 0 else np.random.randint(n)
        j = np.random.randint(n)
        g1, g2 = i // width, j // width
        if g1 == g2 or slots[i] < 0 or slots[j] < 0 or holds[g1, slots[j]] or holds[g2, slots[i]]:
            continue
        log[logged, 0], log[logged, 1] = i, j
        logged += 1
        _swap(slots, width, share, total, holds, i, j)
    return logged


@kernel
def _go_on(
    best: Ints, width: int, cost: Floats, target: Floats, kicks: int, seed: Ints, value: Floats, at: Ints, slots: Ints,
    copies: Ints, share: Floats, total: Floats, holds: Bools, log: Ints, steps: int,
) -> bool:  # fmt: skip
    """Some `steps` more of `improve_rows`, row by row; whether all are done.

    Args:
        value: [rows, 2] busiest GPU's cost of the best placement and of the one at hand.
        at: [rows, 4] stage (0: nothing is done yet, 1: first descent, 2: kicks, 3: all is done), steps left of the
            first descent, kicks done, whether some expert has several copies.
        slots, copies, share, total, holds, log: of the row at hand; the others need none.
    """
    for row in range(len(best)):
        table, reach, state = cost[row], value[row], at[row]
        if state[0] == 0:
            np.random.seed(seed[row])
            copy_into(best[row], slots)
            fill(slots, width, table, copies, share, total, holds)
            state[0], state[1], state[2], state[3] = 1, 4 * len(slots), 0, 0
            for e in range(len(copies)):
                state[3] |= copies[e] > 1
        spare = state[3] > 0
        while state[0] < 3:
            if steps <= 0:
                return False
            first, logged, wanted = state[0] == 1, 0, min(steps, state[1])
            if not first:
                if state[2] == 0 or state[2] % REFRESH == REFRESH - 1:
                    fill(slots, width, table, copies, share, total, holds)
                if state[2] == 0:
                    reach[:] = total[largest(total)]
                if state[2] == kicks or reach[0] <= target[row]:
                    state[0] = 3
                    break
                logged = _kick(slots, width, table, copies, share, total, holds, spare, log)
                wanted = STEPS
            before = logged
            logged = _descend(slots, width, table, copies, share, total, holds, spare, wanted, target[row], log, logged)
            steps -= wanted
            reached = total[largest(total)]
            if first:
                state[1] = state[1] - wanted if logged - before == wanted else 0
                state[0] = 1 if state[1] > 0 else 2
                copy_into(slots, best[row])
                reach[:] = reached
                continue
            state[2] += 1
            if reached <= reach[1] * (1.0 + SLACK):
                reach[1] = reached
                if reached < reach[0] * (1 - LEAST):
                    copy_into(slots, best[row])
                    reach[0] = reached
                continue
            for k in range(logged - 1, -1, -1):
                j, other = log[k, 0], log[k, 1]
                if other >= 0:
                    _swap(slots, width, share, total, holds, j, other)
                else:
                    _assign(slots, width, table, copies, share, total, holds, j, -1 - other)
    return True


def improve_rows(
    start: Ints, width: int, cost: Floats, target: Floats, kicks: int, seed: Ints, stop: Stop = DEFAULT
) -> tuple[Ints, Floats, Ints]:
    """`improve` of several placements alike in size, one after the other.

    Args:
        start: [rows, slots]. cost: [rows, most copies + 1, experts]. target, seed: [rows].
        width, kicks, stop: of every row, as in `improve`.

    Returns:
        ([rows, slots] best placements; [rows] their busiest GPUs' costs, infinite for rows that no time was left for;
        [rows] kicks used).
    """
    (rows, n), (_, _, experts) = start.shape, cost.shape
    gpus = n // width
    best, value, at = start.copy(), np.full((rows, 2), np.inf), np.zeros((rows, 4), np.int64)
    slots, copies, share, total = np.empty(n, np.int64), np.empty(experts, np.int64), np.empty(experts), np.empty(gpus)
    holds, log = np.empty((gpus, experts), np.bool_), np.empty((max(4 * n, STEPS + 8), 2), np.int64)
    steps = max(1, SLICE // (n * width))
    while not _go_on(
        best, width, cost, target, kicks, seed, value, at, slots, copies, share, total, holds, log, steps
    ) and not stop.expired:  # fmt: skip
        pass
    return best, value[:, 0], at[:, 2]


def improve(
    start: Ints, width: int, cost: Floats, target: float, kicks: int, seed: int, stop: Stop = DEFAULT
) -> tuple[Ints, float, int]:
    """Lowers the busiest GPU of a placement.

    Args:
        start: [slots] experts, copies on distinct GPUs; EMPTY slots (-1) stay empty. width: slots per GPU.
        cost: [most copies + 1, experts] cost of one copy by the number of copies, not rising in it.
        target: stops when the busiest GPU is at most this. kicks: budget of work. stop: its deadline, too.

    Returns:
        ([slots] best placement, never worse than the start; its busiest GPU's cost; kicks used).
    """
    best, value, used = improve_rows(
        start[None], width, cost[None], np.array([target], np.float64), kicks, np.array([seed]), stop
    )
    return best[0], float(value[0]), int(used[0])
