"""What answers of one layer, and dispatch plans of one placement, are ordered by."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.score import LayerScore
from placement.problem.layer import LayerProblem


def merit(problem: LayerProblem, score: LayerScore) -> tuple[float, float]:
    """(excess of the imbalance over `max_load`, objective). Less is better."""
    cap = np.inf if problem.rules.max_load is None else problem.rules.max_load
    return max(0.0, round(score.pooled_imbalance - cap, 9)), score.objective
