"""How far the best cut is from fitting: the least number of bytes that its fullest stage exceeds HBM by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from placement.stages import StageProblem
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
    fixed = list(accumulate((kind.fixed_bytes for kind in kinds), initial=0.0))
    kept = list(accumulate((least_kept(kind) for kind in kinds), initial=0.0))
    rank_of = {piece: rank for rank, pieces in enumerate(problem.ranks) for piece in pieces}
    reach: list[Excess | None] = [None] * (n + 1)
    reach[0] = Excess(-math.inf, 0)
    for piece in range(problem.pieces):
        budget = problem.budget_bytes[rank_of[piece]] - problem.end_bytes[piece]
        after: list[Excess | None] = [None] * (n + 1)
        for first, so_far in enumerate(reach):
            if so_far is None:
                continue
            for end in range(first + 1, n + 1):
                over = fixed[end] - fixed[first] + problem.in_flight[piece] * (kept[end] - kept[first]) - budget
                here = Excess(over, piece) if over > so_far.over_bytes else so_far
                known = after[end]
                if known is None or here.over_bytes < known.over_bytes:
                    after[end] = here
        reach = after
    found = reach[n]
    if found is None:
        raise ValueError(f"{n} layers can't be cut into {problem.pieces} pieces")
    return found
