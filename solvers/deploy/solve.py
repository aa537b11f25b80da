"""Solves the master problem: the most requests/s or the fewest GPUs, and of equal answers the one with fewest GPUs."""

from __future__ import annotations

from dataclasses import replace

from placement.errors import InfeasibleError, NothingFoundError
from solvers.deploy.milp import solve_milp
from solvers.deploy.problem import Deployment, MasterProblem

#: Answers within this share of each other count as equal.
EQUAL = 1e-9


def solve_master(problem: MasterProblem, time_limit: float | None = None) -> Deployment:
    """The best deployment with its bound.

    Raises:
        InfeasibleError: the target can't be reached (the message has the most that can), or no request can be served.
        NothingFoundError: none found.
    """
    try:
        found = solve_milp(problem, time_limit)
    except InfeasibleError:
        most = solve_milp(replace(problem, goal="rate"), time_limit)
        missing = problem.target - most.requests_per_s
        raise InfeasibleError(
            f"no deployment serves {problem.target:.6g} requests/s; the most is {most.requests_per_s:.6g}, "
            f"{missing / problem.target:.2%} less; lower `target_rate`, or add GPUs"
        ) from None
    if problem.goal == "rate" and found.optimal and found.requests_per_s <= 0:
        raise InfeasibleError(
            "no set of instances serves a whole request: one that prefills and one that decodes do not fit beside each "
            "other; add GPUs, or take `mode` aggregated"
        )
    if problem.goal != "rate" or not found.optimal:
        return found
    leaner = replace(problem, goal="gpus", target=found.requests_per_s * (1 - EQUAL))
    try:
        other = solve_milp(leaner, time_limit)
    except (InfeasibleError, NothingFoundError):
        return found
    if other.requests_per_s < found.requests_per_s * (1 - 10 * EQUAL) or other.gpus >= found.gpus:
        return found
    return replace(found, counts=other.counts, gpus=other.gpus, requests_per_s=other.requests_per_s)
