"""Lower bounds on a layer's objective. Each says what it proves; docs/formulation.md has the arguments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.cost.moe_layer import effective_rule, latency_s
from placement.problem import FloatArray, LayerProblem
from solvers.search.terms import Terms, terms_of


@dataclass(frozen=True)
class Bound:
    """A proven lower bound on the objective of a problem, in its unit, and what proves it."""

    value: float
    source: str


def layer_bound(problem: LayerProblem) -> Bound:
    """The best of the closed-form bounds.

    Work: in every window some GPU has at least the mean of the least total work (mean bound), and at least T, where T
    is the smallest value such that splitting every expert into copies of at most T needs no more than the slots (slot
    bound). Messages: a token reaches at least as many nodes or GPUs as its experts need slots, and the busiest link
    carries at least the mean. The parts' bounds add up as the parts do.
    """
    terms = terms_of(problem)
    work, source = work_bound(problem, terms)
    if problem.objective == "load":
        return Bound(work, source)
    link = link_bound(problem)
    rates = problem.rates
    moved = 2 * latency_s(problem) + (rates.dispatch_bytes + rates.combine_bytes) * link
    if rates.overlap == "two_batch":
        return Bound(max(moved, work), f"max({source}, messages)")
    return Bound(moved + work, f"{source} + messages")


def work_bound(problem: LayerProblem, terms: Terms) -> tuple[float, str]:
    """(least window mean of the busiest GPU's cost, what proves it). Valid for every dispatch policy.

    Under `nearest` and `planned` copies may carry unequal shares, so only the total work of the most favourable
    split counts: each expert's cost is at least that of a single copy, as f(n)/n falls with n.
    """
    gpus, spare = problem.topology.gpus, problem.slots - problem.experts
    even = problem.dispatch == "even" or spare == 0
    total, named = 0.0, "mean"
    for w in range(problem.windows):
        cost = np.ascontiguousarray(terms.cost[:, w, :])
        mean = (_least_total(cost, spare) if even else float(cost[1].sum())) / gpus
        slot = _slot_bound(cost, problem.slots) if even else 0.0
        if slot > mean:
            named = "slot"
        total += float(problem.window_weight[w]) * max(mean, slot)
    return total, f"{named} bound"


@njit(cache=True, nogil=True)
def _least_total(cost: NDArray[np.float64], spare: int) -> float:
    """Least sum of copies x cost over replications with `spare` further copies, by dynamic programming."""
    most, experts = cost.shape[0] - 1, cost.shape[1]
    best = np.full(spare + 1, np.inf)
    best[0] = 0.0
    for e in range(experts):
        new = np.full(spare + 1, np.inf)
        for used in range(spare + 1):
            if best[used] == np.inf:
                continue
            for extra in range(min(most - 1, spare - used) + 1):
                value = best[used] + (extra + 1) * cost[extra + 1, e]
                if value < new[used + extra]:
                    new[used + extra] = value
        best = new
    return float(best[spare])


@njit(cache=True, nogil=True)
def _needed(cost: NDArray[np.float64], limit: float, slots: int) -> int:
    """Copies needed so that none costs more than `limit`; slots + 1 if it can't be."""
    most, experts = cost.shape[0] - 1, cost.shape[1]
    total = 0
    for e in range(experts):
        r = 1
        while r <= most and cost[r, e] > limit:
            r += 1
        if r > most:
            return slots + 1
        total += r
        if total > slots:
            return total
    return total


@njit(cache=True, nogil=True)
def _slot_bound(cost: NDArray[np.float64], slots: int) -> float:
    """Smallest cost of one copy that the slots allow every copy to stay within (rounded down by bisection)."""
    low, high = 0.0, cost[1].max()
    for _ in range(60):
        middle = 0.5 * (low + high)
        if _needed(cost, middle, slots) <= slots:
            high = middle
        else:
            low = middle
    return low


def link_bound(problem: LayerProblem) -> float:
    """Least window mean of the busiest link's seconds per byte of a message (scorer's link_s)."""
    topology, rates = problem.topology, problem.rates
    gpus, m, nodes, n = topology.gpus, topology.gpus_per_node, topology.nodes, rates.tokens_per_gpu
    k = problem.load.sum(axis=1)
    per_gpu: FloatArray = k / gpus
    single = problem.dispatch == "even" or problem.slots == problem.experts
    rule = effective_rule(problem)
    if rule != "per_expert" and problem.sets is not None:
        width = problem.sets.ids.shape[1]
        reached = -(-width // problem.slots_per_gpu)
        per_gpu = np.full(problem.windows, reached / gpus)
    if rule == "per_node" and problem.sets is not None:
        reached = -(-problem.sets.ids.shape[1] // min(problem.experts, m * problem.slots_per_gpu))
        if single:
            slow = n * (nodes - 1) * reached / nodes
        else:
            # A home's own copies can serve one node's worth of its experts without a message.
            slow = n * max(0, reached - 1)
        # Only with one home class does the mean over GPUs hold: elsewhere a GPU may serve itself.
        fast = n * nodes * (m - 1) * per_gpu if single else np.zeros(problem.windows)
        links = np.maximum(slow / rates.slow_bytes_per_s, fast / rates.fast_bytes_per_s)
    elif single:
        links = np.maximum(
            n * (gpus - m) * per_gpu / rates.slow_bytes_per_s, n * (m - 1) * per_gpu / rates.fast_bytes_per_s
        )
    else:
        links = np.zeros(problem.windows)
    return float(problem.window_weight @ links)
