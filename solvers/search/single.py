"""Compiled annealing of one copy per expert: swaps of two experts, with exact increments of load and distinct bins."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

_F = NDArray[np.float64]
_I = NDArray[np.int64]


@njit(cache=True, nogil=True)
def largest_link(
    touch: _F, in_group: _I, out_group: _I, in_s: float, out_s: float, in_sum: _F, in_size: _F, out_sum: _F
) -> float:
    """Seconds of the busiest ingress or egress for [bins] touch chances; the last three are scratch."""
    in_sum[:] = 0.0
    in_size[:] = 0.0
    out_sum[:] = 0.0
    total = 0.0
    for b in range(len(touch)):
        in_sum[in_group[b]] += touch[b]
        in_size[in_group[b]] += 1.0
        out_sum[out_group[b]] += touch[b]
        total += touch[b]
    worst = 0.0
    for b in range(len(touch)):
        worst = max(worst, in_s * in_sum[in_group[b]] / in_size[in_group[b]], out_s * (total - out_sum[out_group[b]]))
    return worst


@njit(cache=True, nogil=True)
def _over(gpu_load: _F, cap: float) -> tuple[float, float]:
    over, top = 0.0, 0.0
    for g in range(len(gpu_load)):
        top = max(top, gpu_load[g])
        over += max(0.0, gpu_load[g] - cap)
    return over, top


@njit(cache=True, nogil=True)
def anneal(
    slots: _I,
    slots_per_gpu: int,
    gpus: int,
    cost: _F,
    load: _F,
    of_gpu: _I,
    in_group: _I,
    out_group: _I,
    in_s: float,
    out_s: float,
    set_start: _I,
    set_index: _I,
    ids: _I,
    weight: _F,
    window_weight: _F,
    overlap: bool,
    cap: float,
    smooth: float,
    hot: float,
    cold: float,
    steps: int,
    seed: int,
) -> tuple[_I, float, float]:
    """Anneals `slots` (one copy per expert).

    Args:
        cost, load: [windows, experts]. The others as in terms.Terms and terms.Bins.
        cap: largest allowed window-mean of the largest GPU load over the mean (inf: none).
        smooth: share of the mean traffic and of squared GPU loads in the guiding objective.
        hot, cold: first and last temperature as shares of the starting objective.

    Returns:
        (best slots, its objective, its excess over the cap).
    """
    np.random.seed(seed)
    windows, experts = load.shape
    bins = len(in_group)
    sets, k = ids.shape
    where = np.empty(experts, np.int64)
    for s in range(len(slots)):
        where[slots[s]] = s
    gpu_cost = np.zeros((windows, gpus))
    gpu_load = np.zeros(gpus)
    mean_load = np.zeros(experts)
    for w in range(windows):
        for e in range(experts):
            mean_load[e] += window_weight[w] * load[w, e]
    touch = np.zeros((windows, bins))
    count = np.zeros((sets, bins), np.int16)
    has = np.zeros((experts if sets > 0 else 0, sets), np.bool_)
    reach_of = np.zeros((windows, experts))
    for s in range(len(slots)):
        g, e = s // slots_per_gpu, slots[s]
        gpu_load[g] += mean_load[e]
        for w in range(windows):
            gpu_cost[w, g] += cost[w, e]
    for s in range(sets):
        for j in range(k):
            has[ids[s, j], s] = True
            count[s, of_gpu[where[ids[s, j]] // slots_per_gpu]] += 1
            for w in range(windows):
                reach_of[w, ids[s, j]] += weight[s, w]
        for b in range(bins):
            if count[s, b] > 0:
                for w in range(windows):
                    touch[w, b] += weight[s, w]
    in_sum, in_size, out_sum = np.zeros(bins), np.zeros(bins), np.zeros(bins)
    new_touch = touch.copy()
    change = np.zeros((windows, 2))

    traffic_scale = 0.5 * (in_s + out_s * max(bins - 1, 1)) / bins
    best = slots.copy()
    best_value, best_excess, guide = np.inf, np.inf, 0.0
    start_value, temperature = 0.0, 0.0
    links, new_links = np.zeros(windows), np.zeros(windows)
    reaches, new_reaches = np.zeros(windows), np.zeros(windows)
    tops, spreads = np.zeros(windows), np.zeros(windows)
    new_over, new_top_load = 0.0, 0.0
    for step in range(-1, steps):
        i, j = 0, 0
        hopeless = False
        limit = 0.0
        if step >= 0:
            if step % 64 == 0:
                temperature = start_value * hot * (cold / hot) ** (step / steps)
            i = np.random.randint(len(slots))
            j = np.random.randint(len(slots))
            if i // slots_per_gpu == j // slots_per_gpu:
                continue
        gi, gj = i // slots_per_gpu, j // slots_per_gpu
        a, b = slots[i], slots[j]
        x, y = of_gpu[gi], of_gpu[gj]
        for w in range(windows):
            new_touch[w, x], new_touch[w, y] = touch[w, x], touch[w, y]
        if step >= 0:
            for w in range(windows):
                d = cost[w, b] - cost[w, a]
                gpu_cost[w, gi] += d
                gpu_cost[w, gj] -= d
            gpu_load[gi] += mean_load[b] - mean_load[a]
            gpu_load[gj] -= mean_load[b] - mean_load[a]
            new_over, new_top_load = _over(gpu_load, cap)
            # What work alone costs now, and at best with the traffic that the two experts can save.
            limit = guide - temperature * np.log(1.0 - np.random.random())
            floor = 0.0
            for w in range(windows):
                top_cost, squares = 0.0, 0.0
                for g in range(gpus):
                    top_cost = max(top_cost, gpu_cost[w, g])
                    squares += gpu_cost[w, g] * gpu_cost[w, g]
                tops[w], spreads[w] = top_cost, np.sqrt(squares / gpus)
                saved = 0.0 if x == y else reach_of[w, a] + reach_of[w, b]
                link = max(0.0, links[w] - saved * max(in_s, out_s))
                part = max(top_cost, link) if overlap else top_cost + link
                reach = max(0.0, reaches[w] - saved)
                floor += window_weight[w] * (
                    part * (1.0 + 0.3 * new_over) + smooth * (traffic_scale * reach + spreads[w])
                )
            hopeless = floor > limit
            if x != y and sets > 0 and not hopeless:
                change[:] = 0.0
                for p in range(set_start[a], set_start[a + 1]):
                    s = set_index[p]
                    if has[b, s]:  # holds both: its counts stay
                        continue
                    if count[s, x] == 1:
                        for w in range(windows):
                            change[w, 0] -= weight[s, w]
                    if count[s, y] == 0:
                        for w in range(windows):
                            change[w, 1] += weight[s, w]
                for p in range(set_start[b], set_start[b + 1]):
                    s = set_index[p]
                    if has[a, s]:
                        continue
                    if count[s, y] == 1:
                        for w in range(windows):
                            change[w, 1] -= weight[s, w]
                    if count[s, x] == 0:
                        for w in range(windows):
                            change[w, 0] += weight[s, w]
                for w in range(windows):
                    new_touch[w, x] += change[w, 0]
                    new_touch[w, y] += change[w, 1]
        if step < 0:
            for w in range(windows):
                squares = 0.0
                for g in range(gpus):
                    tops[w] = max(tops[w], gpu_cost[w, g])
                    squares += gpu_cost[w, g] * gpu_cost[w, g]
                spreads[w] = np.sqrt(squares / gpus)
            new_over, new_top_load = _over(gpu_load, cap)
        value, excess, total = 0.0, 0.0, np.inf
        if not hopeless:
            total = 0.0
            for w in range(windows):
                reach = 0.0
                for c in range(bins):
                    reach += new_touch[w, c]
                new_reaches[w] = reach
                new_links[w] = largest_link(new_touch[w], in_group, out_group, in_s, out_s, in_sum, in_size, out_sum)
                part = max(tops[w], new_links[w]) if overlap else tops[w] + new_links[w]
                value += window_weight[w] * part
                total += window_weight[w] * (
                    part * (1.0 + 0.3 * new_over) + smooth * (traffic_scale * reach + spreads[w])
                )
        excess = max(0.0, new_top_load - cap)
        if step < 0:
            guide, start_value = total, value
            best_value, best_excess = value, excess
            links[:] = new_links
            reaches[:] = new_reaches
            continue
        if total <= limit:
            links[:] = new_links
            reaches[:] = new_reaches
            guide = total
            slots[i], slots[j] = b, a
            for w in range(windows):
                touch[w, x], touch[w, y] = new_touch[w, x], new_touch[w, y]
            if x != y and sets > 0:
                for p in range(set_start[a], set_start[a + 1]):
                    count[set_index[p], x] -= 1
                    count[set_index[p], y] += 1
                for p in range(set_start[b], set_start[b + 1]):
                    count[set_index[p], y] -= 1
                    count[set_index[p], x] += 1
            if excess < best_excess - 1e-12 or (excess <= best_excess + 1e-12 and value < best_value - 1e-15):
                best[:] = slots
                best_value, best_excess = value, excess
        else:
            for w in range(windows):
                d = cost[w, b] - cost[w, a]
                gpu_cost[w, gi] -= d
                gpu_cost[w, gj] += d
                new_touch[w, x], new_touch[w, y] = touch[w, x], touch[w, y]
            gpu_load[gi] -= mean_load[b] - mean_load[a]
            gpu_load[gj] += mean_load[b] - mean_load[a]
    return best, best_value, best_excess
