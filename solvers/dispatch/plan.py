"""The best dispatch plan of several, by score."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch import dispatch_shares, policy_of
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch.copies import copy_fractions
from solvers.dispatch.sequential import refine
from solvers.dispatch.simple import near_fractions, target_fractions
from solvers.experts.merit import merit

#: LPs that refine a plan: by default, and where a better plan is worth more time.
ROUNDS, THOROUGH_ROUNDS = 1, 12
#: By default a plan is not refined where the slopes would take more than so many steps (some 30 ms).
MOST_STEPS = 30_000_000


def needs_fractions(problem: LayerProblem) -> bool:
    """Whether a score needs solved fractions: `planned` dispatch with replicas."""
    return policy_of(problem).solved and problem.hardware.usable_slots > problem.experts


def plan_fractions(
    problem: LayerProblem, slots: IntArray, given: FloatArray | None = None, thorough: bool = False
) -> FloatArray:
    """[nodes, slots] shares by home node, the best of several plans, refined.

    One splits each expert evenly over the copies on the home's node, else over all. One sends a home's tokens of an
    expert to one node, chosen by local search under the layer's own objective, so that experts used together are served
    together. One is the LP in copies (`copy_fractions`), where no token sets are known. The best by balance cap and
    score is refined by LPs that price messages and windows as the scorer does (`refine`).

    Args:
        given: [nodes, slots] one more plan, such as the search's own.
        thorough: refine every plan, not the best alone, until nothing is gained, within THOROUGH_ROUNDS; some 10 times
            the time.
    """
    near = near_fractions(problem, slots)
    plans = [near]
    # A plan of the search has been through the local search for directions, with more steps.
    searched = given is not None and not np.array_equal(given, near)
    if given is not None and searched:
        plans.append(given)
    directed = None if searched and not thorough else _directed(problem, slots)
    if directed is not None:
        plans.append(directed)
    if problem.data.sets is None or thorough:
        # With token sets the LP in copies seldom wins.
        copies = copy_fractions(problem, slots)
        plans += [copies] if copies is not None else []
    found = sorted(((merit(problem, score_layer(problem, slots, each)), i) for i, each in enumerate(plans)))
    if not thorough:
        (value, first), steps = found[0], _steps(problem)
        return plans[first] if steps > MOST_STEPS else refine(problem, slots, plans[first], ROUNDS, value)[0]
    refined = [refine(problem, slots, plans[i], THOROUGH_ROUNDS, value) for value, i in found]
    return min(refined, key=lambda each: each[1])[0]


def _steps(problem: LayerProblem) -> int:
    """Steps of the compiled loop over homes, token sets and bins that finds the slopes once."""
    tariff = tariff_of(problem)
    if problem.data.sets is None or tariff.constant_links is not None:
        return 0
    return problem.data.sets.ids.size * problem.topology.nodes * tariff.bins.count


def _directed(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """The local search's plan for copies that stay where they are; None without token sets."""
    if problem.data.sets is None or problem.objective.kind == "load":
        return None
    from solvers.experts.search.run import redirect

    return target_fractions(problem, slots, redirect(problem, slots))


def fractions_for(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """The fractions that scoring `slots` needs: solved for `planned` dispatch with replicas, else None."""
    if not needs_fractions(problem):
        return None
    fractions = plan_fractions(problem, slots)
    dispatch_shares(problem, slots, fractions)
    return fractions
