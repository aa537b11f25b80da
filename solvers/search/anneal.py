"""Compiled annealing of a placement and its dispatch: swap, replicate / drop, and redirect moves, priced exactly."""

from __future__ import annotations

import numpy as np
from numba import njit

from placement.problem import FloatArray, IntArray
from solvers.search.layout import add_work, choose_targets, load_state, load_traffic, put
from solvers.search.state import LARGER, LINK, PLANNED, Data, State
from solvers.search.traffic import Change, book_change, price_both, price_change

#: Shares of the moves where an expert has several copies; the rest are swaps.
REPLICATE, REDIRECT = 0.35, 0.25
#: Accepted moves after which sums are made anew, so that rounding can't add up.
REFRESH = 20_000
#: Weight of an excess over the cap, as a share of the objective: it grows while a placement is over, and falls again.
LEAST_PRICE, RISE, FALL = 0.3, 1.2, 0.95


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def worst_mean(parts: FloatArray, weight: FloatArray, tail: float) -> float:
    """Mean of parts[0] over the worst `tail` share of the weight (1: the mean, 0: the largest); parts[1] is scratch."""
    windows, total = len(weight), 0.0
    if tail >= 1.0:
        for w in range(windows):
            total += weight[w] * parts[0, w]
        return total
    for w in range(windows):
        parts[1, w] = weight[w]
    left = tail
    while True:
        worst = 0
        for w in range(1, windows):
            if parts[1, w] > 0.0 and (parts[1, worst] <= 0.0 or parts[0, w] > parts[0, worst]):
                worst = w
        if tail <= 1e-12:
            return float(parts[0, worst])
        part = min(left, parts[1, worst])
        total += part * parts[0, worst]
        left -= part
        if part <= 0.0 or left <= 1e-12:
            return float(total / (tail - left))
        parts[1, worst] = 0.0


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _power(x: float) -> float:
    """x ** 16."""
    x *= x
    x *= x
    x *= x
    return x * x


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _root(x: float) -> float:
    """x ** (1 / 16)."""
    return float(np.sqrt(np.sqrt(np.sqrt(np.sqrt(x)))))


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def evaluate(
    d: Data,
    s: State,
    in_sum: FloatArray,
    out_sum: FloatArray,
    total: FloatArray,
    parts: FloatArray,
    share: float,
    price: float,
) -> tuple[float, float, float, float]:
    """(guide, objective without its constants, excess of the largest load over the cap, smooth part).

    The guide adds to the objective, which busiest links and GPUs alone decide, `share` times a smooth part: a little
    of the mean traffic, the 16-norms of links (left out where they are the objective) and of GPU costs. It leads
    there, and keeps the others away from the top, where held-out routing finds them.

    Args:
        in_sum, out_sum, total: traffic. parts: [2, windows] scratch. share: weight of the smooth part.
        price: of an excess over the cap.
    """
    gpu_load, gpu_cost, weight, out_rate = s.gpu_load, s.gpu_cost, d.window_weight, d.out_rate
    gpus, ins, outs = len(gpu_load), in_sum.shape[1], out_sum.shape[1]
    cap, join, one_class = d.cap, d.join, len(d.home) == 1
    over, top_load = 0.0, 0.0
    for g in range(gpus):
        top_load = max(top_load, gpu_load[g])
        over += max(0.0, gpu_load[g] - cap)
    smooth = 0.0
    for w in range(len(weight)):
        top, link, norm, links = 0.0, 0.0, 0.0, 0.0
        for g in range(gpus):
            top = max(top, gpu_cost[w, g])
        scale = 1.0 / top
        for g in range(gpus):
            norm += _power(gpu_cost[w, g] * scale)
        for i in range(ins):
            link = max(link, in_sum[w, i])
        for o in range(outs):
            out = total[w] - out_sum[w, o] if one_class else out_sum[w, o]
            link = max(link, out_rate[o] * out)
        if join == LINK:
            parts[0, w] = link
        else:
            parts[0, w] = max(top, link) if join == LARGER else top + link
        if join != LINK and link > 0.0:
            scale = 1.0 / link
            for i in range(ins):
                links += _power(in_sum[w, i] * scale)
            for o in range(outs):
                out = total[w] - out_sum[w, o] if one_class else out_sum[w, o]
                links += _power(out_rate[o] * out * scale)
        smooth += weight[w] * (d.reach_scale * total[w] + top * _root(norm / gpus) + link * _root(links / (ins + outs)))
    value = worst_mean(parts, weight, d.tail)
    return value * (1.0 + price * over) + share * smooth, value, max(0.0, top_load - cap), smooth


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _save_gpu(s: State, t: Change, g: int, n: int) -> int:
    t.gpus[n] = g
    t.load[n] = s.gpu_load[g]
    for w in range(s.gpu_cost.shape[0]):
        t.cost[n, w] = s.gpu_cost[w, g]
    return n + 1


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _save(d: Data, s: State, t: Change, a: int, b: int, g: int, h: int) -> int:
    """Saves the prices of the GPUs that hold a or b (or will: g, h) and the two experts' targets; how many GPUs."""
    n = _save_gpu(s, t, g, 0)
    if h >= 0:
        n = _save_gpu(s, t, h, n)
    for turn in range(2):
        e = a if turn == 0 else b
        if e < 0:
            continue
        for i in range(s.copies[e]):
            n = _save_gpu(s, t, d.gpu_of_slot[s.where[e, i]], n)
        for c in range(s.target.shape[0]):
            t.target[turn, c] = s.target[c, e]
    return int(n)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _restore(s: State, t: Change, n: int, a: int, b: int) -> None:
    gpus, load, cost = t.gpus, t.load, t.cost
    for i in range(n):
        s.gpu_load[gpus[i]] = load[i]
        for w in range(cost.shape[1]):
            s.gpu_cost[w, gpus[i]] = cost[i, w]
    for c in range(s.target.shape[0]):
        s.target[c, a] = t.target[0, c]
        if b >= 0:
            s.target[c, b] = t.target[1, c]


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _new_moves(d: Data, g: int, old: int, new: int) -> int:
    return int(d.was[g, old]) - int(d.was[g, new])


@njit(cache=True, nogil=True)
def anneal(
    d: Data,
    s: State,
    t: Change,
    targets: bool,
    first_smooth: float,
    last_smooth: float,
    hot: float,
    cold: float,
    most_price: float,
    kept_smooth: float,
    steps: int,
    redirect_only: bool,
    seed: int,
) -> tuple[IntArray, IntArray, float, float]:
    """Anneals a state.

    Args:
        d, s, t: constants, the starting placement, scratch. targets: s.target is part of the start.
        first_smooth, last_smooth: weight of the smooth part in the guide, at the start and at the end.
        hot, cold: first and last temperature as shares of the starting objective.
        most_price: largest weight of an excess over the cap. steps: proposals.
        kept_smooth: weight of the smooth part where the best placement is chosen (0: by the objective alone).
        redirect_only: copies stay where they are, only `planned` targets change.

    Returns:
        (best slots, its targets, its objective without constants, its excess over the cap).
    """
    np.random.seed(seed)
    load_state(d, s, targets)
    parts = np.zeros((2, len(d.window_weight)))
    best, best_target = s.slots.copy(), s.target.copy()
    value, excess = _steps(
        d, s, t, parts, best, best_target, first_smooth, last_smooth, hot, cold, most_price, kept_smooth, steps,
        redirect_only,
    )  # fmt: skip
    return best, best_target, value, excess


@njit(cache=True, nogil=True, _nrt=False)
def _steps(
    d: Data,
    s: State,
    t: Change,
    parts: FloatArray,
    best: IntArray,
    best_target: IntArray,
    first_smooth: float,
    last_smooth: float,
    hot: float,
    cold: float,
    most_price: float,
    kept_smooth: float,
    steps: int,
    redirect_only: bool,
) -> tuple[float, float]:
    """The steps of `anneal`, which fill best and best_target; (objective of the best, its excess over the cap).

    Apart from it, since in a function that makes arrays each access to one through a tuple counts references.
    """
    slots, experts = len(s.slots), len(s.copies)
    guide, value, excess, even = evaluate(d, s, s.in_sum, s.out_sum, s.total, parts, first_smooth, LEAST_PRICE)
    best_figure, best_value, best_excess, start_value = value + kept_smooth * even, value, excess, value
    classes = len(d.home)
    replicas = slots > experts
    planned = d.policy == PLANNED and classes > 1 and replicas
    moved = 0
    for i in range(slots):
        if not d.was[d.gpu_of_slot[i], s.slots[i]]:
            moved += 1
    temperature, accepted, smooth, price = 0.0, 0, first_smooth, LEAST_PRICE
    for step in range(steps):
        if step % 256 == 0:
            temperature = start_value * hot * (cold / hot) ** (step / steps)
            smooth = first_smooth * (last_smooth / first_smooth) ** (step / steps)
            _, _, excess, _ = evaluate(d, s, s.in_sum, s.out_sum, s.total, parts, smooth, price)
            price = min(most_price, price * RISE) if excess > 0.0 else max(LEAST_PRICE, price * FALL)
            guide, _, _, _ = evaluate(d, s, s.in_sum, s.out_sum, s.total, parts, smooth, price)
        draw = np.random.random()
        i = np.random.randint(slots)
        a = s.slots[i]
        g = d.gpu_of_slot[i]
        j, b, h, c, moves = -1, -1, -1, -1, 0
        if planned and (redirect_only or draw < REDIRECT):
            # One home's tokens for an expert go to another of its copies.
            c = np.random.randint(classes)
            node = d.node_of_gpu[g]
            if s.copies[a] < 2 or s.on_node[c, a] > 0 or s.target[c, a] == node:
                continue
        elif replicas and draw < REDIRECT + REPLICATE:
            if s.copies[a] < 2 or d.fixed[i]:
                continue
            b = np.random.randint(experts)
            if s.holds[g, b] or not d.allowed[d.node_of_gpu[g], b]:
                continue
            moves = _new_moves(d, g, a, b)
        else:
            j = np.random.randint(slots)
            b, h = s.slots[j], d.gpu_of_slot[j]
            if g == h or s.holds[g, b] or s.holds[h, a] or d.fixed[i] or d.fixed[j]:
                continue
            if not (d.allowed[d.node_of_gpu[h], a] and d.allowed[d.node_of_gpu[g], b]):
                continue
            moves = _new_moves(d, g, a, b) + _new_moves(d, h, b, a)
        if moves > 0 and moved + moves > d.max_moves:
            continue
        n = _save(d, s, t, a, b, g, h)
        add_work(d, s, a, -1.0)
        if b >= 0:
            add_work(d, s, b, -1.0)
        if c >= 0:
            s.target[c, a] = d.node_of_gpu[g]
        else:
            put(d, s, i, b)
            if j >= 0:
                put(d, s, j, a)
            if planned:
                choose_targets(d, s, a)
                choose_targets(d, s, b)
        add_work(d, s, a, 1.0)
        if b >= 0:
            add_work(d, s, b, 1.0)
        limit = guide - temperature * np.log(1.0 - np.random.random())
        price_change(d, s, t, a, b)
        new_guide, value, excess, even = evaluate(d, s, t.in_sum, t.out_sum, t.total, parts, smooth, price)
        if new_guide <= limit:
            price_both(d, s, t, a, b)
            new_guide, value, excess, even = evaluate(d, s, t.in_sum, t.out_sum, t.total, parts, smooth, price)
        if new_guide <= limit:
            guide = new_guide
            moved += moves
            book_change(d, s, t, a, b)
            accepted += 1
            if accepted % REFRESH == 0:
                load_traffic(d, s)
            figure = value + kept_smooth * even
            if excess < best_excess - 1e-12 or (excess <= best_excess + 1e-12 and figure < best_figure - 1e-15):
                for i in range(slots):
                    best[i] = s.slots[i]
                for c in range(classes):
                    for e in range(experts):
                        best_target[c, e] = s.target[c, e]
                best_figure, best_value, best_excess = figure, value, excess
        else:
            if c < 0:
                put(d, s, i, a)
                if j >= 0:
                    put(d, s, j, b)
            _restore(s, t, n, a, b)
    return best_value, best_excess


@njit(cache=True, nogil=True)
def price_state(d: Data, s: State, targets: bool) -> tuple[float, float]:
    """(objective without constants, excess over the cap) of a state's slots, made anew."""
    load_state(d, s, targets)
    _, value, excess, _ = evaluate(d, s, s.in_sum, s.out_sum, s.total, np.zeros((2, len(d.window_weight))), 0.0, 0.0)
    return value, excess
