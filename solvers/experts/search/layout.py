"""Where copies lie and which of them serves whom: loads, work and chances of one expert, compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from placement.arithmetic import exp
from placement.problem.arrays import FloatArray
from solvers.experts.search.state import (
    COVERED,
    EVEN,
    NEAREST,
    Data,
    State,
)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def copy_share(d: Data, s: State, e: int, node: int) -> float:
    """Share of all of expert e's tokens that each of its copies on `node` serves."""
    if d.policy == EVEN:
        return 1.0 / int(s.copies[e])
    home, on_node = d.home, s.on_node
    here = on_node[node, e]
    if d.policy == NEAREST:
        away = 0.0
        for c in range(len(home)):
            if on_node[c, e] == 0:
                away += home[c]
        return float(home[node] / here + away / s.copies[e])
    served, target = 0.0, s.target
    for c in range(len(home)):
        if target[c, e] == node:
            served += home[c]
    return float(served / here)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def add_work(d: Data, s: State, e: int, sign: float) -> None:
    """Adds (sign 1) or takes away (-1) expert e's part of gpu_cost and gpu_load."""
    # Arrays as locals here and below: each access through a tuple counts references, which costs more than the sums.
    gpu_of_slot, node_of_gpu, where, tokens = d.gpu_of_slot, d.node_of_gpu, s.where, d.tokens
    gpu_load, gpu_cost, work_share, load_share = s.gpu_load, s.gpu_cost, d.work_share, d.load_share
    weight_s, token_s, load = d.weight_s, d.token_s, d.mean_load[e]
    last_node, share = -1, 0.0
    for i in range(s.copies[e]):
        g = gpu_of_slot[where[e, i]]
        node = node_of_gpu[g]
        if node != last_node:
            share = copy_share(d, s, e, node)
            last_node = node
        scale = sign * work_share[g]
        gpu_load[g] += sign * load_share[g] * share * load
        for w in range(len(tokens)):
            x = share * tokens[w, e]
            cost = x * token_s[w]
            if weight_s[w] > cost:
                # The scorer's slot_times: weights are read once if any token comes.
                cost = max(cost, weight_s[w] if x > 40.0 else (1.0 - exp(-x)) * weight_s[w])
            gpu_cost[w, g] += scale * cost


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def keep_row(d: Data, s: State, e: int, row: FloatArray) -> None:
    """Fills row [cells] with 1 - share of a class's tokens of expert e that go to a bin (COVERED for 0)."""
    gpu_of_slot, node_of_gpu, bin_of_gpu, where = d.gpu_of_slot, d.node_of_gpu, d.bin_of_gpu, s.where
    on_node, target, policy = s.on_node, s.target, d.policy
    bins, classes, copies = len(d.node_of_bin), len(d.home), s.copies[e]
    for x in range(len(row)):
        row[x] = 1.0
    for i in range(copies):
        g = gpu_of_slot[where[e, i]]
        node, b = node_of_gpu[g], bin_of_gpu[g]
        for c in range(classes):
            if policy == EVEN:
                row[c * bins + b] -= 1.0 / copies
            elif policy == NEAREST:
                if on_node[c, e] == 0:
                    row[c * bins + b] -= 1.0 / copies
                elif node == c:
                    row[c * bins + b] -= 1.0 / on_node[c, e]
            elif target[c, e] == node:
                row[c * bins + b] -= 1.0 / on_node[node, e]
    if not d.linear:
        for x in range(len(row)):
            if row[x] < 1e-9:
                row[x] = COVERED


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def choose_targets(d: Data, s: State, e: int) -> None:
    """Gives every home of expert e a node that holds it (`planned`): its own, else the one it has, else the one whose
    tokens reach it anyway."""
    bins, on_node, target, where, copies = len(d.node_of_bin), s.on_node, s.target, s.where, s.copies[e]
    marginal, weight, gpu_of_slot = s.marginal, d.window_weight, d.gpu_of_slot
    for c in range(len(d.home)):
        if on_node[c, e] > 0:
            target[c, e] = c
            continue
        if on_node[target[c, e], e] > 0:
            continue
        best, least = -1, np.inf
        for i in range(copies):
            g = gpu_of_slot[where[e, i]]
            cell = c * bins + d.bin_of_gpu[g]
            price = 0.0
            for w in range(len(weight)):
                price += weight[w] * marginal[w, e, cell]
            price /= s.keep[e, cell]
            if price < least:
                best, least = d.node_of_gpu[g], price
        target[c, e] = best


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def put(d: Data, s: State, slot: int, new: int) -> None:
    """Slot `slot` takes expert `new` in place of its own; only the layout changes."""
    old = s.slots[slot]
    g = d.gpu_of_slot[slot]
    node = d.node_of_gpu[g]
    last = s.copies[old] - 1
    for i in range(last):
        if s.where[old, i] == slot:
            s.where[old, i] = s.where[old, last]
            break
    s.copies[old] = last
    s.holds[g, old] = False
    s.on_node[node, old] -= 1
    s.where[new, s.copies[new]] = slot
    s.copies[new] += 1
    s.holds[g, new] = True
    s.on_node[node, new] += 1
    s.slots[slot] = new


@njit(cache=True, nogil=True)
def load_state(d: Data, s: State, targets: bool) -> None:
    """Fills a state from its slots; `targets`: whether s.target holds the nodes that serve each home already."""
    experts = len(s.copies)
    s.copies[:] = 0
    s.holds[:] = False
    s.on_node[:] = 0
    for i in range(len(s.slots)):
        e, g = s.slots[i], d.gpu_of_slot[i]
        s.where[e, s.copies[e]] = i
        s.copies[e] += 1
        s.holds[g, e] = True
        s.on_node[d.node_of_gpu[g], e] += 1
    if not targets:
        # Copies in turn, so that homes without one spread over them.
        for e in range(experts):
            turn = e
            for c in range(len(d.home)):
                if len(d.home) > 1 and s.on_node[c, e] == 0:
                    g = d.gpu_of_slot[s.where[e, turn % s.copies[e]]]
                    s.target[c, e] = d.node_of_gpu[g]
                    turn += 1
                else:
                    s.target[c, e] = c
    s.gpu_cost[:] = 0.0
    s.gpu_load[:] = 0.0
    for e in range(experts):
        add_work(d, s, e, 1.0)
        keep_row(d, s, e, s.keep[e])
    load_traffic(d, s)


@njit(cache=True, nogil=True, _nrt=False)
def load_traffic(d: Data, s: State) -> None:
    """Fills miss, marginal and the sums of touches from keep."""
    cells = s.keep.shape[1]
    s.in_sum[:] = 0.0
    s.out_sum[:] = 0.0
    s.total[:] = 0.0
    s.marginal[:] = 0.0
    k = d.ids.shape[1]
    touch = s.touch
    touch[:] = 0.0
    if d.linear:
        for e in range(len(s.copies)):
            for w in range(len(d.window_weight)):
                for x in range(cells):
                    touch[w, x] += d.share_load[w, e] * (1.0 - s.keep[e, x])
    else:
        for i in range(len(d.ids)):
            for x in range(cells):
                part = 1.0
                for j in range(k):
                    part *= s.keep[d.ids[i, j], x]
                s.miss[i, x] = part
                for p in range(d.weight_start[i], d.weight_start[i + 1]):
                    w = d.weight_window[p]
                    touch[w, x] += d.weight_value[p] * (1.0 - part)
                    for j in range(k):
                        s.marginal[w, d.ids[i, j], x] += d.weight_value[p] * part
    for w in range(len(d.window_weight)):
        for x in range(cells):
            if d.in_rate[x] != 0.0:
                add_touch(d, x, touch[w, x], w, s.in_sum, s.out_sum, s.total)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def add_touch(
    d: Data, cell: int, change: float, w: int, in_sum: FloatArray, out_sum: FloatArray, total: FloatArray
) -> None:
    """Books a change of a cell's touches, where they need messages, in the sums of its links."""
    in_sum[w, d.in_of_cell[cell]] += d.in_rate[cell] * change
    out_sum[w, d.out_of_cell[cell]] += change
    total[w] += change
