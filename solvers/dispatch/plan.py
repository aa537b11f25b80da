"""The best dispatch plan of several, by score."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch import dispatch_shares, policy_of
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch.simple import near_fractions, target_fractions
from solvers.experts.merit import merit

#: LPs that refine a plan.
ROUNDS = 1
#: A plan is not refined where the slopes would take more than so many steps (some 30 ms).
MOST_STEPS = 30_000_000


def needs_fractions(problem: LayerProblem) -> bool:
    """Whether a score needs solved fractions: `planned` dispatch with replicas."""
    return policy_of(problem).solved and problem.hardware.usable_slots > problem.experts


def plan_fractions(problem: LayerProblem, slots: IntArray, given: FloatArray | None = None) -> FloatArray:
    """[nodes, slots] shares by home node, the best of several plans by balance cap and score, refined (`refine`).

    Plans: even over the home node's copies, else all; one node for each home and expert, by local search under the
    layer's objective, or `given`; without token sets the LP in copies.

    Args:
        given: [nodes, slots] a plan at hand, such as the search's own.
    """
    near = near_fractions(problem, slots)
    plans = [near]
    # A plan of the search has been through the local search for directions, with more steps.
    if given is not None and not np.array_equal(given, near):
        plans.append(given)
    elif (directed := _directed(problem, slots)) is not None:
        plans.append(directed)
    # Here, as SciPy's LPs take long to import and few plans need one.
    from solvers.dispatch.copies import copy_fractions
    from solvers.dispatch.sequential import refine

    if problem.data.sets is None and (copies := copy_fractions(problem, slots)) is not None:
        plans.append(copies)
    value, first = min((merit(problem, score_layer(problem, slots, each)), i) for i, each in enumerate(plans))
    if _steps(problem) > MOST_STEPS:
        return plans[first]
    return refine(problem, slots, plans[first], ROUNDS, value)[0]


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
