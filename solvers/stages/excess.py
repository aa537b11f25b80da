"""How far the best cut is from fitting: the least number of bytes that its fullest stage exceeds HBM by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from placement.problem.stages import StageProblem
from solvers.stages.fronts import least_kept


@dataclass(frozen=True)
class Excess:
    """Attributes: over_bytes: what each GPU lacks at least (0 or less: a cut fits); stage: which one lacks it then."""

    over_bytes: float
    stage: int


def least_excess(problem: StageProblem) -> Excess:
    """The least excess over all cuts, every layer keeping as little as it can, by dynamic programming.

    Exact with one piece a rank; else pieces are held against their ranks' budgets one by one, a lower bound.
    """
    n = len(problem.layers)
    kinds = [problem.kinds[layer] for layer in problem.layers]
    fixed = np.cumsum([0.0, *(kind.fixed_bytes for kind in kinds)])
    kept = np.cumsum([0.0, *(least_kept(kind) for kind in kinds)])
    rank_of = {piece: rank for rank, pieces in enumerate(problem.ranks) for piece in pieces}
    empty = np.tril_indices(n + 1)
    # reach[end]: least excess of the pieces so far if they hold the layers before `end`; worst[end]: which has it.
    reach, worst = np.full(n + 1, math.inf), np.zeros(n + 1, dtype=np.int64)
    reach[0] = -math.inf
    for piece in range(problem.pieces):
        each = fixed + problem.in_flight[piece] * kept
        over = each[None, :] - each[:, None] + problem.end_bytes[piece] - problem.budget_bytes[rank_of[piece]]
        over[empty] = math.inf
        both = np.maximum(reach[:, None], over)
        back, ends = both.argmin(axis=0), np.arange(n + 1)
        worst = np.where(over[back, ends] >= reach[back], piece, worst[back])
        reach = both[back, ends]
    if not math.isfinite(reach[n]):
        raise ValueError(f"{n} layers can't be cut into {problem.pieces} pieces")
    return Excess(float(reach[n]), int(worst[n]))
