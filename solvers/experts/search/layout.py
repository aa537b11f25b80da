"""Where copies lie and which of them serves whom: loads, work and chances of one expert, compiled."""

from __future__ import annotations

import numpy as np

from placement.arithmetic import exp
from placement.kernels import inlined, lean, lean_kernel
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.search.arrays import SetRows
from solvers.experts.search.state import (
    COVERED,
    EVEN,
    NEAREST,
    OS_NODE,
    PLANNED,
    TOGETHER,
    Busy,
    Chances,
    Data,
    Layout,
    Links,
    Places,
    State,
    Sums,
    Work,
)


@inlined
def copy_share(p: Places, lay: Layout, e: int, node: int) -> float:
    """Share of all of expert e's tokens that each of its copies on `node` serves."""
    if p.policy == EVEN or p.policy == TOGETHER:
        return 1.0 / int(lay.copies[e])
    home, on_node = p.home, lay.on_node
    here = on_node[node, e]
    if p.policy == NEAREST:
        away = 0.0
        for c in range(len(home)):
            if on_node[c, e] == 0:
                away += home[c]
        return float(home[node] / here + away / lay.copies[e])
    served, target = 0.0, lay.target
    for c in range(len(home)):
        if target[c, e] == node:
            served += home[c]
    return float(served / here)


@lean
def share_of_home(p: Places, lay: Layout, e: int, i: int, c: int) -> float:
    """Share of node c's tokens, for expert e, that its i-th copy serves (see NearestOnOsNode)."""
    gpu_of_slot, where, copies, of_os_node = p.gpu_of_slot, lay.where, lay.copies[e], p.of_os_node
    g = gpu_of_slot[where[e, i]]
    own = g // p.os_gpus
    # Of the OS nodes without a copy; and what is left of its own one by those GPUs that hold a copy.
    far, left, here, first = 1.0, of_os_node[own], 0, True
    for j in range(copies):
        h = gpu_of_slot[where[e, j]]
        if h // p.os_gpus == own:
            here += 1
            left -= p.of_gpu[h]
            first &= where[e, j] >= where[e, i]
        if p.node_of_gpu[h] != c:
            continue
        new = True
        for k in range(j):
            new &= gpu_of_slot[where[e, k]] // p.os_gpus != h // p.os_gpus
        if new:
            far -= of_os_node[h // p.os_gpus]
    share = far / copies
    if p.node_of_gpu[g] == c:
        share += p.of_gpu[g]
        if here == copies:
            share += left / copies
        elif first:
            share += left
    return float(share)


@lean
def os_node_share(p: Places, lay: Layout, e: int, i: int) -> float:
    """Share of all tokens, for expert e, that its i-th copy serves."""
    share = 0.0
    for c in range(len(p.home)):
        share += p.home[c] * share_of_home(p, lay, e, i, c)
    return share


@inlined
def add_work(p: Places, work: Work, lay: Layout, busy: Busy, e: int, sign: float) -> None:
    """Adds (sign 1) or takes away (-1) expert e's part of the GPUs' cost and load."""
    # Arrays as locals here and below: each access through a tuple counts references, which costs more than the sums.
    gpu_of_slot, node_of_gpu, where, tokens = p.gpu_of_slot, p.node_of_gpu, lay.where, work.tokens
    gpu_load, gpu_cost, work_share, load_share = busy.load, busy.cost, work.work_share, work.load_share
    weight_s, token_s, load = work.weight_s, work.token_s, work.mean_load[e]
    last_node, share = -1, 0.0
    for i in range(lay.copies[e]):
        g = gpu_of_slot[where[e, i]]
        node = node_of_gpu[g]
        if p.policy == OS_NODE:
            share = os_node_share(p, lay, e, i)
        elif node != last_node:
            share = copy_share(p, lay, e, node)
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


@lean
def take_residues(row: FloatArray, bins: int, b: int, i: int, where: IntArray, copies: int, classes: int) -> None:
    """Takes from row [cells] what copy `i` of `where` in bin b serves of tokens by their number modulo `classes`.

    Of r copies the n-th by slot serves the numbers that are n modulo r. A class knows its own modulo the common divisor
    of both: it shares out alike over the copies that these allow.
    """
    place = 0
    for j in range(copies):
        place += where[j] < where[i]
    common, rest = copies, classes
    while rest:
        common, rest = rest, common % rest
    for c in range(place % common, classes, common):
        row[c * bins + b] -= common / copies


@inlined
def keep_row(p: Places, lay: Layout, linear: bool, e: int, row: FloatArray) -> None:
    """Fills row [cells] with 1 - share of a class's tokens of expert e that go to a bin (COVERED for 0)."""
    gpu_of_slot, node_of_gpu, bin_of_gpu, where = p.gpu_of_slot, p.node_of_gpu, p.bin_of_gpu, lay.where
    on_node, target, policy = lay.on_node, lay.target, p.policy
    bins, classes, copies = len(p.node_of_bin), len(p.home), lay.copies[e]
    for x in range(len(row)):
        row[x] = 1.0
    for i in range(copies):
        g = gpu_of_slot[where[e, i]]
        node, b = node_of_gpu[g], bin_of_gpu[g]
        if policy == OS_NODE:
            for c in range(classes):
                row[c * bins + b] -= share_of_home(p, lay, e, i, c)
            continue
        if policy == TOGETHER:
            take_residues(row, bins, b, i, where[e], copies, classes)
            continue
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
    if not linear:
        for x in range(len(row)):
            if row[x] < 1e-9:
                row[x] = COVERED


@lean
def choose_targets(p: Places, lay: Layout, chances: Chances, weight: FloatArray, e: int) -> None:
    """Gives every home of expert e a node that holds it (`planned`): its own, else the one it has, else the one whose
    tokens reach it anyway. weight: [windows]."""
    bins, on_node, target, where, copies = len(p.node_of_bin), lay.on_node, lay.target, lay.where, lay.copies[e]
    marginal, keep, gpu_of_slot = chances.marginal, chances.keep, p.gpu_of_slot
    for c in range(len(p.home)):
        if on_node[c, e] > 0:
            target[c, e] = c
            continue
        if on_node[target[c, e], e] > 0:
            continue
        best, least = -1, np.inf
        for i in range(copies):
            g = gpu_of_slot[where[e, i]]
            cell = c * bins + p.bin_of_gpu[g]
            price = 0.0
            for w in range(len(weight)):
                price += weight[w] * marginal[w, e, cell]
            price /= keep[e, cell]
            if price < least:
                best, least = p.node_of_gpu[g], price
        target[c, e] = best


@lean
def put(p: Places, lay: Layout, slot: int, new: int) -> None:
    """Slot `slot` takes expert `new` in place of its own; only the layout changes."""
    slots, where, copies, holds, on_node = lay.slots, lay.where, lay.copies, lay.holds, lay.on_node
    old = slots[slot]
    g = p.gpu_of_slot[slot]
    node = p.node_of_gpu[g]
    last = copies[old] - 1
    for i in range(last):
        if where[old, i] == slot:
            where[old, i] = where[old, last]
            break
    copies[old] = last
    holds[g, old] = False
    on_node[node, old] -= 1
    where[new, copies[new]] = slot
    copies[new] += 1
    holds[g, new] = True
    on_node[node, new] += 1
    slots[slot] = new


@lean_kernel
def load_layout(p: Places, lay: Layout, targets: bool) -> None:
    """Fills a layout from its slots; `targets`: whether lay.target holds the nodes that serve each home already."""
    experts, classes = len(lay.copies), len(p.home)
    slots, copies, where, on_node, target = lay.slots, lay.copies, lay.where, lay.on_node, lay.target
    copies[:] = 0
    lay.holds[:] = False
    on_node[:] = 0
    for i in range(len(slots)):
        e, g = slots[i], p.gpu_of_slot[i]
        where[e, copies[e]] = i
        copies[e] += 1
        lay.holds[g, e] = True
        on_node[p.node_of_gpu[g], e] += 1
    if targets:
        return
    # Copies in turn, so that homes without one spread over them.
    for e in range(experts):
        turn = e
        for c in range(classes):
            if p.policy == PLANNED and classes > 1 and on_node[c, e] == 0:
                target[c, e] = p.node_of_gpu[p.gpu_of_slot[where[e, turn % copies[e]]]]
                turn += 1
            else:
                target[c, e] = c


@lean_kernel
def load_prices(p: Places, work: Work, linear: bool, lay: Layout, busy: Busy, keep: FloatArray) -> None:
    """Fills the GPUs' cost and load, and keep, from a layout."""
    busy.cost[:] = 0.0
    busy.load[:] = 0.0
    for e in range(len(lay.copies)):
        add_work(p, work, lay, busy, e, 1.0)
        keep_row(p, lay, linear, e, keep[e])


def load_state(d: Data, s: State, targets: bool) -> None:
    """Fills a state from its slots; `targets`: whether its target holds the nodes that serve each home already."""
    load_layout(d.places, s.layout, targets)
    load_prices(d.places, d.work, d.links.linear, s.layout, s.busy, s.chances.keep)
    load_traffic(d.links, d.sets, s.chances, s.sums)


@lean_kernel
def load_traffic(links: Links, sets: SetRows, chances: Chances, sums: Sums) -> None:
    """Fills miss, marginal and the sums of touches from keep."""
    keep, miss, marginal, touch = chances
    share_load = links.share_load
    experts, cells = keep.shape
    windows, k, ids = len(sums.total), sets.ids.shape[1], sets.ids
    start, window, value = sets.weight_start, sets.weight_window, sets.weight_value
    sums.ins[:] = 0.0
    sums.outs[:] = 0.0
    sums.total[:] = 0.0
    marginal[:] = 0.0
    touch[:] = 0.0
    if links.linear:
        for e in range(experts):
            for w in range(windows):
                for x in range(cells):
                    touch[w, x] += share_load[w, e] * (1.0 - keep[e, x])
    else:
        for i in range(len(ids)):
            for x in range(cells):
                part = 1.0
                for j in range(k):
                    part *= keep[ids[i, j], x]
                miss[i, x] = part
                for p in range(start[i], start[i + 1]):
                    w = window[p]
                    touch[w, x] += value[p] * (1.0 - part)
                    for j in range(k):
                        marginal[w, ids[i, j], x] += value[p] * part
    for w in range(windows):
        for x in range(cells):
            if links.in_rate[x] != 0.0:
                add_touch(links, x, touch[w, x], w, sums)


@inlined
def add_touch(links: Links, cell: int, change: float, w: int, sums: Sums) -> None:
    """Books a change of a cell's touches, where they need messages, in the sums of its links."""
    sums.ins[w, links.in_of_cell[cell]] += links.in_rate[cell] * change
    sums.outs[w, links.out_of_cell[cell]] += change
    sums.total[w] += change
