"""Solves the master problem: the most requests/s or the fewest GPUs, and of equal answers the one with fewest GPUs."""

from __future__ import annotations

from dataclasses import dataclass, replace

from placement.errors import InfeasibleError, NothingFoundError
from solvers.deploy.cpsat import solve_cpsat
from solvers.deploy.milp import solve_milp
from solvers.deploy.problem import Deployment, MasterProblem

#: Answers within this share of each other count as equal.
EQUAL = 1e-9


@dataclass(frozen=True)
class SecondOpinion:
    """CP-SAT's answer beside the MILP's, and whether the two agree within CP-SAT's rounding."""

    deployment: Deployment
    agrees: bool


def solve_master(problem: MasterProblem, time_limit: float | None = None) -> Deployment:
    """The best deployment with its bound.

    Raises:
        InfeasibleError: the target can't be reached; the message has the most that can. NothingFoundError: none found.
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
    if problem.goal != "rate" or not found.optimal or found.requests_per_s <= 0:
        return found
    leaner = replace(problem, goal="gpus", target=found.requests_per_s * (1 - EQUAL))
    try:
        other = solve_milp(leaner, time_limit)
    except (InfeasibleError, NothingFoundError):
        return found
    if other.requests_per_s < found.requests_per_s * (1 - 10 * EQUAL) or other.gpus >= found.gpus:
        return found
    return replace(found, counts=other.counts, gpus=other.gpus, requests_per_s=other.requests_per_s)


def second_opinion(problem: MasterProblem, first: Deployment, time_limit: float | None, seed: int) -> SecondOpinion:
    """CP-SAT's answer to the same problem; a run cut short agrees if neither answer refutes the other's bound."""
    found = solve_cpsat(problem, time_limit, seed)
    close = 1e-6 * max(1.0, abs(first.bound))
    if problem.goal == "rate":
        agrees = found.requests_per_s <= first.bound + close and first.requests_per_s <= found.bound + close
    else:
        agrees = found.gpus >= first.bound - close and first.gpus >= found.bound - close
    return SecondOpinion(found, agrees)
