"""Compiled annealing of a placement and its dispatch: swap, replicate / drop, and redirect moves, priced exactly."""

from __future__ import annotations

import numpy as np
from numba import njit

from placement.arithmetic import exp, log
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.search.guide import (
    ROUNDING,
    Slopes,
    empty_slopes,
    evaluate,
    least_guide,
    set_slopes,
)
from solvers.experts.search.layout import (
    add_work,
    choose_targets,
    load_state,
    load_traffic,
    put,
)
from solvers.experts.search.state import PLANNED, Data, State
from solvers.experts.search.traffic import Change, book_change, price_both, price_change

#: Shares of the moves where an expert has several copies; the rest are swaps.
REPLICATE, REDIRECT = 0.35, 0.25
#: Accepted moves after which sums are made anew, so that rounding can't add up.
REFRESH = 20_000
#: Weight of an excess over the cap, as a share of the objective: it grows while a placement is over, and falls again.
LEAST_PRICE, RISE, FALL = 0.3, 1.2, 0.95


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
    slopes = empty_slopes(s)
    best, best_target = s.slots.copy(), s.target.copy()
    value, excess = _steps(
        d, s, t, slopes, parts, best, best_target, first_smooth, last_smooth, hot, cold, most_price, kept_smooth, steps,
        redirect_only,
    )  # fmt: skip
    return best, best_target, value, excess


@njit(cache=True, nogil=True, _nrt=False)
def _steps(
    d: Data,
    s: State,
    t: Change,
    slopes: Slopes,
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
    # Most proposals fail by the guide's tangent already, at a fraction of its price.
    bounded = d.tail >= 1.0
    for step in range(steps):
        if step % 256 == 0:
            temperature = start_value * hot * exp(log(cold / hot) * (step / steps))
            smooth = first_smooth * exp(log(last_smooth / first_smooth) * (step / steps))
            _, _, excess, _ = evaluate(d, s, s.in_sum, s.out_sum, s.total, parts, smooth, price)
            price = min(most_price, price * RISE) if excess > 0.0 else max(LEAST_PRICE, price * FALL)
            guide, _, _, _ = evaluate(d, s, s.in_sum, s.out_sum, s.total, parts, smooth, price)
            if bounded:
                set_slopes(d, s, slopes, smooth)
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
            if s.copies[a] <= d.least_copies[a] or d.fixed[i]:
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
        limit = guide - temperature * log(1.0 - np.random.random())
        price_change(d, s, t, a, b)
        new_guide = np.inf
        if not bounded or least_guide(s, slopes, t.in_sum, t.out_sum, t.total) <= limit * (1.0 + ROUNDING):
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
            if bounded:
                set_slopes(d, s, slopes, smooth)
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
