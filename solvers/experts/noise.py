"""How much of what is estimated from a trace is chance: thresholds are multiples of its standard error."""

from __future__ import annotations

import math

from placement.problem.layer import LayerProblem
from solvers.params import SearchParams

#: Gains and imbalances that count where the number of tokens is unknown: those of some 2,000 tokens.
UNKNOWN = 0.03


def share_error(problem: LayerProblem, places: int) -> float | None:
    """Relative standard error of the share of a layer's copies that goes to one of `places`; None: tokens unknown.

    n = kT draws give a place the share p = 1 / places, with the variance n p (1 - p): sqrt((places - 1) / n) of the
    mean. Distinct experts make it smaller; experts that fire together, and tokens of one sequence, make it larger.
    """
    if problem.data.tokens is None:
        return None
    drawn = problem.data.tokens * float(problem.data.mean_load.sum())
    return math.sqrt((places - 1) / drawn)


def least_gain(problem: LayerProblem, params: SearchParams) -> float:
    """Share of the layer's time from which on a gain over another placement counts.

    The time is that of the busiest place: of a node's links, or of a GPU where all are on one node. The errors of two
    placements on the same tokens cancel in part: `significance` stands for what is left.
    """
    if params.least_gain is not None:
        return params.least_gain
    topology = problem.topology
    error = share_error(problem, topology.nodes if topology.nodes > 1 else topology.gpus)
    return UNKNOWN if error is None else min(1.0, params.significance * error)


def least_floor(problem: LayerProblem, params: SearchParams) -> float:
    """The imbalance of GPU loads that can't be told from 1."""
    if params.least_floor is not None:
        return params.least_floor
    error = share_error(problem, problem.topology.gpus)
    return 1.0 + (UNKNOWN if error is None else params.significance * error)
