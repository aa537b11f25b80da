"""The balance floor: a solved layer is as balanced as the load balancers make it, unless one of them shows a reason."""

from __future__ import annotations

from collections.abc import Sequence

from placement.cost.layer.dispatch import policy_of
from placement.cost.layer.score import score_layer
from placement.problem.layer import LayerProblem
from solvers.dispatch import needs_fractions
from solvers.experts.candidates import DISPATCH_GAIN, Candidate, candidate
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.heuristics.greedy import GreedySolver
from solvers.experts.noise import least_floor
from solvers.params import DEFAULTS, SearchParams


def balance_floor(problem: LayerProblem, params: SearchParams = DEFAULTS) -> LayerProblem:
    """The problem with `max_load` set so that a plan is at least as balanced as the load balancers' own.

    Time alone would trade balance for traffic, and lose it where loads drift. Below `least_floor` (noise), and up to
    `most_floor` below what the balancers' placements have in single windows, the floor asks for no more.
    """
    bounded = problem.rules.max_load is not None or problem.rules.max_moves is not None
    if problem.objective.kind == "load" or problem.data.sets is None or bounded:
        return problem
    # Loads are all that counts here, and without token sets they are quick to score.
    dispatch = policy_of(problem).closed_form
    scored = problem.with_data(sets=None).with_rules(dispatch=dispatch).with_objective(kind="load")
    starts = list(EplbSolver().variants(problem))
    if problem.rules.group is None:
        starts.append(GreedySolver().place(problem, 0))
    if not starts:
        return problem
    scores = [score_layer(scored, slots) for slots in starts]
    best = min(score.pooled_imbalance for score in scores)
    drift = min(float(score.window_value.mean()) for score in scores)
    return problem.with_rules(
        max_load=max(best, least_floor(problem, params), min(drift, params.most_floor)) * (1 + 1e-9)
    )


def raised_floor(
    problem: LayerProblem, baselines: Sequence[Candidate], floor: float, objective: float,
    params: SearchParams = DEFAULTS,
) -> float | None:  # fmt: skip
    """The imbalance of the best baseline among those over `floor`; None if none is clearly below `objective`.

    Args:
        problem: without a `max_load`; only less time is a reason, not fewer bytes.
        baselines: see solvers.experts.baselines. floor: the imbalance that was allowed.
        objective: what was reached within it.
    """
    raised, objective = None, objective / (1 + params.near_time)
    if problem.objective.kind == "traffic":
        return raised
    for each in baselines:
        found = each
        if needs_fractions(problem) and found.score.objective < objective * (1 + DISPATCH_GAIN):
            found = candidate(problem, found.slots, thorough=True)
        if found.score.objective < objective and found.score.pooled_imbalance > floor:
            raised, objective = found.score.pooled_imbalance * (1 + 1e-9), found.score.objective
    return raised
