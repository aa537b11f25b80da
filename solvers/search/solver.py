"""The compiled local search as a layer solver: picks the kernel that fits the problem."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.cost.moe_layer import LayerScore, score_layer
from placement.problem import FloatArray, IntArray, LayerProblem
from placement.result import Result, Status, Termination
from solvers.base import Features, UnsupportedError
from solvers.bounds import layer_bound
from solvers.heuristics.eplb import EplbSolver, scorable
from solvers.heuristics.greedy import GreedySolver
from solvers.search import replicas, single
from solvers.search.balance import balance
from solvers.search.terms import Terms, terms_of
from solvers.stop import Stop

#: Annealing steps for each expert, and their limits; kicks of the load search. The default budget of work.
STEPS_PER_EXPERT = 5000
LEAST_STEPS, MOST_STEPS = 50_000, 400_000
REPLICA_SHARE, REPLICA_BINS = 0.25, 16
KICKS = 200
#: First and last temperature as shares of the objective, and weight of the smooth part (docs/performance.md).
HOT, COLD, SMOOTH = 0.005, 0.0002, 0.3
PROBE_STEPS = 1000
#: A load search ends when its largest load is this near the bound.
NEAR_BOUND = 1.0005
#: Of placements whose largest load is this near the best, the one with the least time is taken.
LOAD_TOLERANCE = 1.004


class SearchSolver:
    """Local search over swap, replicate and drop moves with incremental deltas."""

    name = "search"
    features = Features(traffic=True, dispatch=("even", "nearest", "planned"), note="keeps neither groups nor moves")

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        started = time.perf_counter()
        if problem.group is not None or problem.max_moves is not None:
            raise UnsupportedError("search keeps neither groups nor a budget of moves")
        scored = scorable(problem)
        starts = [*EplbSolver().variants(problem), GreedySolver().place(problem, seed)]
        terms = terms_of(scored)
        termination = Termination.WORK
        steps = 0
        found: list[IntArray] = list(starts)
        target = layer_bound(problem).value * NEAR_BOUND if problem.objective == "load" else 0.0
        for cost, weight, share in _load_costs(problem, terms):
            kicks = max(1, int(KICKS * share * stop.work))
            slots, used = _balance(starts[-1], problem, cost, weight, target, kicks, stop, seed)
            found.append(slots)
            steps += used
        if not terms.bins.linear:
            slots, more, termination = _anneal(found, scored, terms, stop, seed)
            found.append(slots)
            steps += more
        best = choose(scored, found)
        return Result(
            best, Status.FEASIBLE, termination, seconds=time.perf_counter() - started, iterations=steps
        )  # fmt: skip


def merit(problem: LayerProblem, score: LayerScore) -> tuple[float, float]:
    """What answers are ordered by: excess over the balance cap first, then the objective. Less is better."""
    cap = np.inf if problem.max_load is None else problem.max_load
    return max(0.0, round(score.pooled_imbalance - cap, 9)), score.objective


def choose(problem: LayerProblem, candidates: Sequence[IntArray]) -> IntArray:
    """The best candidate by `merit`; loads within LOAD_TOLERANCE of the best are told apart by the layer's time."""
    scored = [(slots, score_layer(problem, slots)) for slots in candidates]
    least = min(merit(problem, score) for _, score in scored)
    if problem.objective == "time":
        return next(slots for slots, score in scored if merit(problem, score) == least)
    near = [(score.time_s, i) for i, (_, score) in enumerate(scored) if score.objective <= least[1] * LOAD_TOLERANCE]
    return scored[min(near)[1]][0]


def _load_costs(problem: LayerProblem, terms: Terms) -> list[tuple[FloatArray, FloatArray, float]]:
    """(cost per copy, weight of each of its windows, share of the kicks) whose busiest GPUs stand for the objective.

    Messages follow loads here, so they are a part of a GPU's cost. For objective "load" the second variant asks for
    a low time beside, as further windows: copies of cold experts cost weight reads that loads don't show.
    """
    weight = terms.window_weight
    if problem.objective == "load":
        timed = terms_of(replace(problem, objective="time")).cost
        mean = timed[1].sum(axis=1, keepdims=True) / problem.topology.gpus
        both = np.concatenate([terms.cost, timed / mean], axis=1)
        return [(terms.cost, weight, 1.0), (both, np.concatenate([weight, 0.5 * weight]), 0.02)]
    if problem.topology.gpus == 1:
        return [(terms.cost, weight, 1.0)]
    copies = np.maximum(np.arange(len(terms.cost)), 1)[:, None, None]
    messages = terms.bins.in_s * problem.load[None] / copies
    return [(terms.cost + messages, weight, 1.0), (terms.load[None] / copies, weight, 0.5)]


def _balance(
    start: IntArray, problem: LayerProblem, cost: FloatArray, weight: FloatArray, target: float, kicks: int,
    stop: Stop, seed: int,
) -> tuple[IntArray, int]:  # fmt: skip
    """Rounds of the load search, so that a deadline is seen in between."""
    best, value, used, done = start, np.inf, 0, 0
    while done < kicks:
        part = min(50, kicks - done)
        slots, reached, spent = balance(
            best, problem.slots_per_gpu, problem.topology.gpus, np.ascontiguousarray(cost), weight, target, part,
            seed + done,
        )  # fmt: skip
        if reached < value:
            best, value = np.asarray(slots), reached
        used += spent
        done += part
        if value <= target or stop.expired:
            break
    return best, used


def _anneal(
    starts: list[IntArray], problem: LayerProblem, terms: Terms, stop: Stop, seed: int
) -> tuple[IntArray, int, Termination]:
    start = min(starts, key=lambda s: merit(problem, score_layer(problem, s)))
    steps = int(np.clip(STEPS_PER_EXPERT * problem.experts, LEAST_STEPS, MOST_STEPS) * stop.work)
    run = _single if problem.slots == problem.experts else _replicas
    if run is _replicas:
        # A step's work grows with the bins; what is left to gain shrinks, as few messages can be saved.
        steps = int(steps * REPLICA_SHARE * min(1.0, REPLICA_BINS / terms.bins.count))
    termination = Termination.WORK
    left = stop.seconds_left()
    if left is not None:
        began = time.perf_counter()
        run(start, problem, terms, PROBE_STEPS, seed)
        rate = PROBE_STEPS / max(time.perf_counter() - began, 1e-6)
        affordable = int(0.8 * rate * max(0.0, left - (time.perf_counter() - began)))
        if affordable < steps:
            steps, termination = affordable, Termination.TIME
    if steps < PROBE_STEPS:
        return start, 0, Termination.TIME
    return run(start, problem, terms, steps, seed), steps, termination


def _single(start: IntArray, problem: LayerProblem, terms: Terms, steps: int, seed: int) -> IntArray:
    bins = terms.bins
    cap = np.inf if problem.max_load is None else problem.max_load
    slots, _, _ = single.anneal(
        start.copy(), problem.slots_per_gpu, problem.topology.gpus, np.ascontiguousarray(terms.cost[1]), terms.load,
        bins.of_gpu, bins.in_group, bins.out_group, bins.in_s, bins.out_s, terms.set_start,
        terms.set_index, terms.ids, terms.weight, terms.window_weight, problem.rates.overlap == "two_batch", cap,
        SMOOTH, HOT, COLD, steps, seed,
    )  # fmt: skip
    return np.asarray(slots)


def _replicas(start: IntArray, problem: LayerProblem, terms: Terms, steps: int, seed: int) -> IntArray:
    bins, topology, rates = terms.bins, problem.topology, problem.rates
    cap = np.inf if problem.max_load is None else problem.max_load
    classes = 1 if problem.dispatch == "even" or topology.nodes == 1 else topology.nodes
    tokens = rates.tokens_per_gpu * topology.gpus * problem.load
    weight_s, token_s = rates.weight_s, rates.token_s
    if problem.objective == "load":
        tokens, weight_s, token_s = terms.load, 0.0, 1.0
    slots, _, _ = replicas.anneal(
        start.copy(), problem.slots_per_gpu, topology.gpus, topology.gpus_per_node, classes,
        bins.count == topology.nodes and topology.nodes > 1, np.ascontiguousarray(tokens),
        np.ascontiguousarray(terms.window_weight @ terms.load), weight_s, token_s, bins.in_group, bins.out_group,
        bins.in_s, bins.out_s, terms.set_start, terms.set_index,
        terms.ids, terms.weight, terms.window_weight, rates.overlap == "two_batch", cap, SMOOTH, HOT, COLD, steps,
        seed,
    )  # fmt: skip
    return np.asarray(slots)
