"""Answers of one layer side by side: a placement with its dispatch, scored by placement.cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.cost.layer.score import LayerScore, score_layer
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch import near_fractions, needs_fractions, plan_fractions
from solvers.experts.merit import merit

#: Of placements whose largest load, or whose bytes, are this near the best, the one with the least time is taken.
NEAR = 1.004
#: Solving the dispatch of a placement takes less than this share off its objective: it is done only where that could
#: still win.
DISPATCH_GAIN = 0.1


@dataclass(frozen=True)
class Candidate:
    """A placement [slots], its fractions [nodes, slots] for `planned` dispatch, and their score."""

    slots: IntArray
    fractions: FloatArray | None
    score: LayerScore


def candidate(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None, thorough: bool = False
) -> Candidate:
    """A scored placement.

    Args:
        fractions: a dispatch plan at hand. thorough: for `planned`, solve the dispatch too, and keep the better plan.
    """
    if needs_fractions(problem):
        if thorough:
            fractions = plan_fractions(problem, slots, fractions)
        elif fractions is None:
            fractions = near_fractions(problem, slots)
    else:
        fractions = None
    return Candidate(slots, fractions, score_layer(problem, slots, fractions))


def choose(problem: LayerProblem, found: Sequence[Candidate]) -> Candidate:
    """The best by `merit`; of loads or bytes within NEAR of the best, the placement of the least layer time."""
    ranked = [(merit(problem, each.score), each) for each in found]
    over, least = min(rank for rank, _ in ranked)
    if problem.objective.kind == "time":
        return next(each for rank, each in ranked if rank == (over, least))
    near = [each for (excess, value), each in ranked if excess <= over and value <= least * NEAR]
    return min(near, key=lambda each: each.score.time_s)


def steadiest(problem: LayerProblem, found: Sequence[Candidate], near_time: float) -> Candidate:
    """The best by `merit`, where placements are no more than a choice between heuristics: of layer times within
    `near_time` (a share) of the best the most balanced one. Other routing orders them anew, while balance is kept."""
    best = choose(problem, found)
    if problem.objective.kind != "time":
        return best
    over, least = merit(problem, best.score)
    ranked = [(merit(problem, each.score), each) for each in found]
    near = [each for (excess, value), each in ranked if excess <= over and value <= least * (1 + near_time)]
    return min(near, key=lambda each: each.score.pooled_imbalance)
