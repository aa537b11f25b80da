"""Compiled annealing of a placement and its dispatch: swap, replicate / drop, and redirect moves, priced exactly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.arithmetic import exp, log
from placement.kernels import inlined, lean, lean_kernel, once, seed_draws
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.search.guide import ROUNDING, Slopes, empty_slopes, evaluate, least_guide, set_slopes
from solvers.experts.search.layout import add_work, choose_targets, load_state, load_traffic, put
from solvers.experts.search.state import PLANNED, Busy, Data, Layout, Places, Rules, State
from solvers.experts.search.traffic import Saved, Scratch, book_change, copy_sums, price_both, price_change
from solvers.stop import Stop

#: Shares of the moves where an expert has several copies; the rest are swaps.
REPLICATE, REDIRECT = 0.35, 0.25
#: Accepted moves after which sums are made anew, so that rounding can't add up.
REFRESH = 20_000
#: Weight of an excess over the cap, as a share of the objective: it grows while a placement is over, and falls again.
LEAST_PRICE, RISE, FALL = 0.3, 1.2, 0.95


class Plan(NamedTuple):
    """How an anneal goes.

    Attributes:
        first_smooth, last_smooth: weight of the smooth part in the guide, at the start and at the end.
        hot, cold: first and last temperature as shares of the starting objective.
        most_price: largest weight of an excess over the cap.
        kept_smooth: weight of the smooth part where the best placement is chosen (0: by the objective alone).
        steps: proposals. redirect_only: copies stay where they are, only `planned` targets change.
    """

    first_smooth: float
    last_smooth: float
    hot: float
    cold: float
    most_price: float
    kept_smooth: float
    steps: int
    redirect_only: bool


class Walk(NamedTuple):
    """Where an anneal is: what it goes by, and the figures of the best placement so far.

    Attributes:
        guide: of the placement it is at. moved: its moves. accepted: proposals so far.
        start_value: objective of the first placement. temperature, smooth, price: as they are now.
        figure, value, excess: of the best placement: what it was chosen by, its objective without constants, and its
            excess over the cap.
    """

    guide: float
    moved: int
    accepted: int
    start_value: float
    temperature: float
    smooth: float
    price: float
    figure: float
    value: float
    excess: float


class Annealing(NamedTuple):
    """The best placement of an anneal: its slots, targets, objective without constants, excess over the cap; and the
    steps that were taken."""

    slots: IntArray
    target: IntArray
    value: float
    excess: float
    steps: int


def anneal(d: Data, s: State, t: Scratch, targets: bool, plan: Plan, seed: int, stop: Stop) -> Annealing:
    """Anneals a state, until a deadline at the latest.

    Args:
        d, s, t: constants, the starting placement, scratch. targets: s holds targets that are part of the start.
    """
    seed_draws(seed)
    load_state(d, s, targets)
    slopes, parts = empty_slopes(s), np.zeros((2, len(d.goal.window_weight)))
    best, target = s.layout.slots.copy(), s.layout.target.copy()
    moved = int((~d.rules.was[d.places.gpu_of_slot, best]).sum())
    smooth = plan.first_smooth
    guide, value, excess, even = evaluate(d.goal, s.busy, s.sums, parts, smooth, LEAST_PRICE)
    figure = value + plan.kept_smooth * even
    walk, done = Walk(guide, moved, 0, value, 0.0, smooth, LEAST_PRICE, figure, value, excess), 0
    for first, last in stop.slices(plan.steps):
        walk = Walk(*_steps(d, s, t, slopes, parts, best, target, plan, walk, first, last))
        done = last
    return Annealing(best, target, walk.value, walk.excess, done)


@lean
def _save_gpu(busy: Busy, t: Saved, g: int, n: int) -> int:
    t.gpus[n] = g
    t.load[n] = busy.load[g]
    for w in range(busy.cost.shape[0]):
        t.cost[n, w] = busy.cost[w, g]
    return n + 1


@once
def _save(p: Places, lay: Layout, busy: Busy, t: Saved, a: int, b: int, g: int, h: int) -> int:
    """Saves the prices of the GPUs that hold a or b (or will: g, h) and the two experts' targets; how many GPUs."""
    n = 0
    for turn in range(2):
        e, gpu = (a, g) if turn == 0 else (b, h)
        if gpu >= 0:
            n = _save_gpu(busy, t, gpu, n)
        if e < 0:
            continue
        for i in range(lay.copies[e]):
            n = _save_gpu(busy, t, p.gpu_of_slot[lay.where[e, i]], n)
        for c in range(lay.target.shape[0]):
            t.target[turn, c] = lay.target[c, e]
    return int(n)


@once
def _restore(lay: Layout, busy: Busy, t: Saved, n: int, a: int, b: int) -> None:
    gpus, load, cost = t.gpus, t.load, t.cost
    for i in range(n):
        busy.load[gpus[i]] = load[i]
        for w in range(cost.shape[1]):
            busy.cost[w, gpus[i]] = cost[i, w]
    for c in range(lay.target.shape[0]):
        lay.target[c, a] = t.target[0, c]
        if b >= 0:
            lay.target[c, b] = t.target[1, c]


@inlined
def _new_moves(r: Rules, g: int, old: int, new: int) -> int:
    return int(r.was[g, old]) - int(r.was[g, new])


@lean_kernel
def _steps(
    d: Data, s: State, t: Scratch, slopes: Slopes, parts: FloatArray, best: IntArray, best_target: IntArray, plan: Plan,
    walk: Walk, first: int, last: int,
) -> Walk:  # fmt: skip
    """The steps `first` to `last` of an anneal, which fill best and best_target; where they lead from `walk`. It makes
    no arrays: in a function that does, each access to one through a tuple counts references."""
    places, work, links, sets, goal, rules = d
    lay, chances, busy, sums = s
    change, new_sums, saved = t
    slots, experts, classes = len(lay.slots), len(lay.copies), len(places.home)
    guide, moved, accepted, start_value, temperature, smooth, price, best_figure, best_value, best_excess = walk
    replicas = slots > experts
    planned = places.policy == PLANNED and classes > 1 and replicas
    # Most proposals fail by the guide's tangent already, at a fraction of its price.
    bounded = goal.tail >= 1.0
    for step in range(first, last):
        if step % 256 == 0:
            temperature = start_value * plan.hot * exp(log(plan.cold / plan.hot) * (step / plan.steps))
            smooth = plan.first_smooth * exp(log(plan.last_smooth / plan.first_smooth) * (step / plan.steps))
            _, _, excess, _ = evaluate(goal, busy, sums, parts, smooth, price)
            price = min(plan.most_price, price * RISE) if excess > 0.0 else max(LEAST_PRICE, price * FALL)
            guide, _, _, _ = evaluate(goal, busy, sums, parts, smooth, price)
            if bounded:
                set_slopes(goal, busy.cost, sums, slopes, smooth)
        draw = np.random.random()
        i = np.random.randint(slots)
        a = lay.slots[i]
        g = places.gpu_of_slot[i]
        j, b, h, c, moves = -1, -1, -1, -1, 0
        if planned and (plan.redirect_only or draw < REDIRECT):
            # One home's tokens for an expert go to another of its copies.
            c = np.random.randint(classes)
            node = places.node_of_gpu[g]
            if lay.copies[a] < 2 or lay.on_node[c, a] > 0 or lay.target[c, a] == node:
                continue
        elif replicas and draw < REDIRECT + REPLICATE:
            if lay.copies[a] <= rules.least_copies[a] or rules.fixed[i]:
                continue
            b = np.random.randint(experts)
            if lay.holds[g, b] or not rules.allowed[places.node_of_gpu[g], b]:
                continue
            moves = _new_moves(rules, g, a, b)
        else:
            j = np.random.randint(slots)
            b, h = lay.slots[j], places.gpu_of_slot[j]
            if g == h or lay.holds[g, b] or lay.holds[h, a] or rules.fixed[i] or rules.fixed[j]:
                continue
            if not (rules.allowed[places.node_of_gpu[h], a] and rules.allowed[places.node_of_gpu[g], b]):
                continue
            moves = _new_moves(rules, g, a, b) + _new_moves(rules, h, b, a)
        if moves > 0 and moved + moves > rules.max_moves:
            continue
        n = _save(places, lay, busy, saved, a, b, g, h)
        for turn in range(2):
            sign = -1.0 if turn == 0 else 1.0
            for e in (a, b):
                if e >= 0:
                    add_work(places, work, lay, busy, e, sign)
            if turn == 1:
                break
            if c >= 0:
                lay.target[c, a] = places.node_of_gpu[g]
                continue
            put(places, lay, i, b)
            if j >= 0:
                put(places, lay, j, a)
            if planned:
                choose_targets(places, lay, chances, goal.window_weight, a)
                choose_targets(places, lay, chances, goal.window_weight, b)
        limit = guide - temperature * log(1.0 - np.random.random())
        copy_sums(sums, new_sums)
        price_change(places, links, lay, chances, change, new_sums, a, b)
        value, excess, even = 0.0, 0.0, 0.0
        new_guide = np.inf
        if not bounded or least_guide(busy.cost, new_sums, slopes) <= limit * (1.0 + ROUNDING):
            new_guide, value, excess, even = evaluate(goal, busy, new_sums, parts, smooth, price)
        if new_guide <= limit:
            if b >= 0 and not links.linear and change.changed[0] > 0 and change.changed[1] > 0:
                pair = min(a, b) * experts + max(a, b)
                price_both(links, sets, chances.miss, change, new_sums, pair)
            new_guide, value, excess, even = evaluate(goal, busy, new_sums, parts, smooth, price)
        if new_guide <= limit:
            guide = new_guide
            moved += moves
            copy_sums(new_sums, sums)
            book_change(links, sets, chances, change, a, b)
            accepted += 1
            if accepted % REFRESH == 0:
                load_traffic(links, sets, chances, sums)
            if bounded:
                set_slopes(goal, busy.cost, sums, slopes, smooth)
            figure = value + plan.kept_smooth * even
            if excess < best_excess - 1e-12 or (excess <= best_excess + 1e-12 and figure < best_figure - 1e-15):
                for k in range(slots):
                    best[k] = lay.slots[k]
                for k in range(classes):
                    for e in range(experts):
                        best_target[k, e] = lay.target[k, e]
                best_figure, best_value, best_excess = figure, value, excess
        else:
            if c < 0:
                put(places, lay, i, a)
                if j >= 0:
                    put(places, lay, j, b)
            _restore(lay, busy, saved, n, a, b)
    return Walk(guide, moved, accepted, start_value, temperature, smooth, price, best_figure, best_value, best_excess)
