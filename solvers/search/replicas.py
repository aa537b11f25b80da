"""Compiled annealing with replicas: swaps and changes of replication, with increments of load and of distinct bins.

`even` dispatch has one home class. `nearest` has one per node; among the copies of a home's node each counts alike
(that a GPU's own copy comes first is left to the scorer).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.int64]
_B = NDArray[np.bool_]


@njit(cache=True, nogil=True)
def _shares(e: int, holds: _B, on_node: _I, copies: _I, node_bins: bool, m: int, q: _F) -> None:
    """Fills q[:, e, :]: the share of expert e's tokens that each home class sends to each bin."""
    classes, bins = q.shape[0], q.shape[2]
    for c in range(classes):
        near = classes > 1 and on_node[c, e] > 0
        for b in range(bins):
            node = b if node_bins else b // m
            here = float(on_node[b, e]) if node_bins else (1.0 if holds[b, e] else 0.0)
            if near:
                q[c, e, b] = here / on_node[c, e] if node == c else 0.0
            else:
                q[c, e, b] = here / copies[e]


@njit(cache=True, nogil=True)
def _slot_share(e: int, node: int, on_node: _I, copies: _I, classes: int) -> float:
    """Share of all of expert e's tokens that its copy on `node` serves."""
    if classes == 1:
        return 1.0 / int(copies[e])
    without = 0
    for c in range(classes):
        if on_node[c, e] == 0:
            without += 1
    return (1.0 / int(on_node[node, e]) + without / int(copies[e])) / classes


@njit(cache=True, nogil=True)
def _add_work(
    e: int, sign: float, holds: _B, on_node: _I, copies: _I, classes: int, m: int, tokens: _F, mean_load: _F,
    weight_s: float, token_s: float, gpu_cost: _F, gpu_load: _F,
) -> None:  # fmt: skip
    for g in range(holds.shape[0]):
        if holds[g, e]:
            share = _slot_share(e, g // m, on_node, copies, classes)
            gpu_load[g] += sign * share * mean_load[e]
            for w in range(gpu_cost.shape[0]):
                x = share * tokens[w, e]
                # The scorer's slot_time; a plain load where token_s is 1 and weight_s 0.
                gpu_cost[w, g] += sign * max((1.0 - np.exp(-x)) * weight_s if weight_s > 0.0 else 0.0, x * token_s)


@njit(cache=True, nogil=True)
def _link(touch: _F, in_group: _I, out_group: _I, in_s: float, out_s: float, node_of_bin: _I, sums: _F) -> float:
    """Seconds of the busiest ingress or egress of [classes, bins] touch chances; sums: [3, bins] scratch."""
    classes, bins = touch.shape
    sums[:] = 0.0
    worst = 0.0
    for c in range(classes):
        total = 0.0
        for b in range(bins):
            if classes == 1:
                sums[2, out_group[b]] += touch[c, b]
                sums[0, in_group[b]] += in_s * touch[c, b]
                total += touch[c, b]
            elif node_of_bin[b] != c:
                sums[0, in_group[b]] += in_s / (classes - 1) * touch[c, b]
                total += touch[c, b]
        if classes > 1:
            worst = max(worst, out_s * total)
        else:
            for b in range(bins):
                worst = max(worst, out_s * (total - sums[2, out_group[b]]))
    for b in range(bins):
        sums[1, in_group[b]] += 1.0
    for b in range(bins):
        worst = max(worst, sums[0, in_group[b]] / sums[1, in_group[b]])
    return worst


@njit(cache=True, nogil=True)
def _miss(s: int, c: int, b: int, ids: _I, q: _F) -> float:
    miss = 1.0
    for j in range(ids.shape[1]):
        miss *= max(0.0, 1.0 - q[c, ids[s, j], b])
    return miss


@njit(cache=True, nogil=True)
def anneal(
    slots: _I, slots_per_gpu: int, gpus: int, gpus_per_node: int, classes: int, node_bins: bool, tokens: _F,
    mean_load: _F, weight_s: float, token_s: float, in_group: _I, out_group: _I, in_s: float, out_s: float,
    set_start: _I, set_index: _I, ids: _I, weight: _F, window_weight: _F,
    overlap: bool, cap: float, smooth: float, hot: float, cold: float, steps: int, seed: int,
) -> tuple[_I, float, float]:  # fmt: skip
    """Anneals `slots` with replicas; returns (best slots, guiding objective's exact part, excess over the cap).

    Args:
        tokens: [windows, experts] tokens per expert in a batch; with weight_s and token_s they price slots.
        mean_load: [experts] load over the mean GPU load, over all windows.
        Others as in solvers.search.single.anneal.
    """
    np.random.seed(seed)
    windows, experts = tokens.shape
    m, nodes, bins, sets = gpus_per_node, gpus // gpus_per_node, len(in_group), len(ids)
    holds = np.zeros((gpus, experts), np.bool_)
    on_node = np.zeros((nodes, experts), np.int64)
    copies = np.zeros(experts, np.int64)
    for s in range(len(slots)):
        g = s // slots_per_gpu
        holds[g, slots[s]] = True
        on_node[g // m, slots[s]] += 1
        copies[slots[s]] += 1
    node_of_bin = np.arange(bins) if node_bins else np.arange(bins) // m
    q = np.zeros((classes, experts, bins))
    gpu_cost, gpu_load = np.zeros((windows, gpus)), np.zeros(gpus)
    touch = np.zeros((windows, classes, bins))
    for e in range(experts):
        _shares(e, holds, on_node, copies, node_bins, m, q)
        _add_work(e, 1.0, holds, on_node, copies, classes, m, tokens, mean_load, weight_s, token_s, gpu_cost, gpu_load)
    miss = np.ones((sets, classes, bins))
    has = np.zeros((experts if sets > 0 else 0, sets), np.bool_)
    for s in range(sets):
        for j in range(ids.shape[1]):
            has[ids[s, j], s] = True
        for c in range(classes):
            for b in range(bins):
                miss[s, c, b] = _miss(s, c, b, ids, q)
                for w in range(windows):
                    touch[w, c, b] += weight[s, w] * (1.0 - miss[s, c, b])
    sums = np.zeros((3, bins))
    scale = 0.5 * (in_s + out_s * max(bins - 1, 1)) / (bins * classes)
    old_cost, old_load, old_touch = gpu_cost.copy(), gpu_load.copy(), touch.copy()
    old_qa, old_qb = np.zeros((classes, bins)), np.zeros((classes, bins))
    changed = np.zeros((classes, bins), np.bool_)
    best, best_value, best_excess = slots.copy(), np.inf, np.inf
    guide, start_value, temperature = 0.0, 0.0, 0.0
    for step in range(-1, steps):
        i, j, a, b = 0, -1, 0, 0
        if step >= 0:
            if step % 64 == 0:
                temperature = start_value * hot * (cold / hot) ** (step / steps)
            i = np.random.randint(len(slots))
            a, g = slots[i], i // slots_per_gpu
            if len(slots) > experts and np.random.random() < 0.4:
                if copies[a] < 2:
                    continue
                b = np.random.randint(experts)
                if holds[g, b]:
                    continue
            else:
                j = np.random.randint(len(slots))
                b = slots[j]
                h = j // slots_per_gpu
                if g == h or holds[g, b] or holds[h, a]:
                    continue
            old_cost[:], old_load[:], old_touch[:] = gpu_cost, gpu_load, touch
            old_qa[:], old_qb[:] = q[:, a, :], q[:, b, :]
            for e in (a, b):
                _add_work(
                    e, -1.0, holds, on_node, copies, classes, m, tokens, mean_load, weight_s, token_s, gpu_cost,
                    gpu_load,
                )  # fmt: skip
            _move(slots, slots_per_gpu, m, holds, on_node, copies, i, j, a, b)
            for e in (a, b):
                _add_work(
                    e, 1.0, holds, on_node, copies, classes, m, tokens, mean_load, weight_s, token_s, gpu_cost,
                    gpu_load,
                )  # fmt: skip
                _shares(e, holds, on_node, copies, node_bins, m, q)
            for c in range(classes):
                for x in range(bins):
                    changed[c, x] = q[c, a, x] != old_qa[c, x] or q[c, b, x] != old_qb[c, x]
        over, top_load = 0.0, 0.0
        for g in range(gpus):
            top_load = max(top_load, gpu_load[g])
            over += max(0.0, gpu_load[g] - cap)
        limit = guide - temperature * np.log(1.0 - np.random.random()) if step >= 0 else np.inf
        work = 0.0
        for w in range(windows):
            top, squares = 0.0, 0.0
            for g in range(gpus):
                top = max(top, gpu_cost[w, g])
                squares += gpu_cost[w, g] ** 2
            work += window_weight[w] * (top * (0.0 if overlap else 1.0) + smooth * np.sqrt(squares / gpus))
        total, value = np.inf, np.inf
        if work + 0.3 * over * work <= limit:
            if step >= 0:
                _update_touch(a, b, changed, classes, bins, set_start, set_index, ids, q, has, weight, miss, touch)
            total, value = 0.0, 0.0
            for w in range(windows):
                top, squares = 0.0, 0.0
                for g in range(gpus):
                    top = max(top, gpu_cost[w, g])
                    squares += gpu_cost[w, g] ** 2
                link = _link(touch[w], in_group, out_group, in_s, out_s, node_of_bin, sums)
                reach = 0.0
                for c in range(classes):
                    for x in range(bins):
                        if classes == 1 or node_of_bin[x] != c:
                            reach += touch[w, c, x]
                part = max(top, link) if overlap else top + link
                value += window_weight[w] * part
                total += window_weight[w] * (
                    part * (1.0 + 0.3 * over) + smooth * (scale * reach + np.sqrt(squares / gpus))
                )
        excess = max(0.0, top_load - cap)
        if step < 0:
            guide, start_value, best_value, best_excess = total, value, value, excess
            continue
        if total <= limit:
            guide = total
            _store_miss(a, b, changed, classes, bins, set_start, set_index, ids, q, has, miss)
            if excess < best_excess - 1e-12 or (excess <= best_excess + 1e-12 and value < best_value - 1e-15):
                best[:] = slots
                best_value, best_excess = value, excess
        else:
            _move(slots, slots_per_gpu, m, holds, on_node, copies, i, j, b, a)
            gpu_cost[:], gpu_load[:], touch[:] = old_cost, old_load, old_touch
            q[:, a, :], q[:, b, :] = old_qa, old_qb
    return best, best_value, best_excess


@njit(cache=True, nogil=True)
def _move(
    slots: _I, slots_per_gpu: int, m: int, holds: _B, on_node: _I, copies: _I, i: int, j: int, a: int, b: int
) -> None:
    """Slot i: a -> b, and slot j (if any): b -> a."""
    g = i // slots_per_gpu
    slots[i] = b
    holds[g, a], holds[g, b] = False, True
    on_node[g // m, a] -= 1
    on_node[g // m, b] += 1
    if j < 0:
        copies[a] -= 1
        copies[b] += 1
        return
    h = j // slots_per_gpu
    slots[j] = a
    holds[h, b], holds[h, a] = False, True
    on_node[h // m, b] -= 1
    on_node[h // m, a] += 1


@njit(cache=True, nogil=True)
def _update_touch(
    a: int, b: int, changed: _B, classes: int, bins: int, set_start: _I, set_index: _I, ids: _I, q: _F,
    has: _B, weight: _F, miss: _F, touch: _F,
) -> None:  # fmt: skip
    if len(ids) == 0:
        return
    for turn in range(2):
        e = a if turn == 0 else b
        for p in range(set_start[e], set_start[e + 1]):
            s = set_index[p]
            if turn == 1 and has[a, s]:
                continue
            for c in range(classes):
                for x in range(bins):
                    if changed[c, x]:
                        d = miss[s, c, x] - _miss(s, c, x, ids, q)
                        for w in range(touch.shape[0]):
                            touch[w, c, x] += weight[s, w] * d


@njit(cache=True, nogil=True)
def _store_miss(
    a: int, b: int, changed: _B, classes: int, bins: int, set_start: _I, set_index: _I, ids: _I, q: _F, has: _B,
    miss: _F,
) -> None:  # fmt: skip
    if len(ids) == 0:
        return
    for turn in range(2):
        e = a if turn == 0 else b
        for p in range(set_start[e], set_start[e + 1]):
            s = set_index[p]
            if turn == 1 and has[a, s]:
                continue
            for c in range(classes):
                for x in range(bins):
                    if changed[c, x]:
                        miss[s, c, x] = _miss(s, c, x, ids, q)
