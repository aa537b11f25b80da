"""The exact stage cut by dynamic programming, for ranks with one piece each. docs/formulation.md, "Stage cut"."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np

from placement.arithmetic import weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.stages import StageCut, StageProblem
from solvers.stages.answer import StageAnswer, spread_options
from solvers.stages.fronts import Choice, Fronts

#: Relative slack of comparisons between sums of the same seconds in another order.
SLACK = 1e-12


def cut_by_dynamic_programming(problem: StageProblem) -> StageAnswer | None:
    """The best cut; None where no cut fits (see least_excess).

    Raises:
        ValueError: a rank has several pieces.
    """
    if not problem.single:
        raise ValueError("dynamic programming needs one piece a rank")
    prices = Prices(problem)
    best: tuple[float, list[int]] | None = None
    least_total = prices.cheapest(math.inf)
    if least_total is None:
        return None
    for limit in prices.limits():
        # Larger limits only raise the first term; the second is never below that without a limit.
        floor = problem.slowest_weight * limit + problem.total_weight * least_total[0]
        if best is not None and floor >= best[0] * (1 - SLACK):
            break
        found = prices.cheapest(limit)
        if found is None:
            continue
        total, bounds = found
        value = problem.slowest_weight * prices.slowest(bounds) + problem.total_weight * total
        if best is None or value < best[0]:
            best = (value, bounds)
    if best is None:
        raise RuntimeError("a cut fits without a limit on its slowest stage, and none with the largest")
    return StageAnswer(prices.answer(best[1]), best[0], True, "dynamic programming")


class Prices:
    """Seconds of every stage that could be: [stages, layers + 1, layers + 1] by first layer and end; infinite where it
    can't be within memory."""

    def __init__(self, problem: StageProblem) -> None:
        self.problem, self.fronts = problem, Fronts(problem)
        self._choices: dict[tuple[int, tuple[int, ...]], tuple[float, Choice] | None] = {}
        n, pieces = len(problem.layers), problem.pieces
        kinds = range(len(problem.kinds))
        self.counts: IntArray = np.array(
            [list(accumulate((int(layer == kind) for layer in problem.layers), initial=0)) for kind in kinds]
        ).T
        self.seconds: FloatArray = np.full((pieces, n + 1, n + 1), math.inf)
        relief = np.array([kind.relief_s for kind in problem.kinds])
        for stage in range(pieces):
            for first, end in self._spans(stage):
                found = self._choice(stage, self._span_counts(first, end))
                if found is not None:
                    self.seconds[stage, first, end] = found[0] + problem.end_s[stage]
        #: The same less what filling and draining does not wait for.
        before = weighted_sum(relief, self.counts.T)
        ends = np.array(problem.end_relief_s)
        self.filling: FloatArray = self.seconds - (before[None, :] - before[:, None]) - ends[:, None, None]

    def limits(self) -> Iterator[float]:
        """Values that the slowest stage may have, ascending, from the least that allows a cut."""
        values = np.unique(self.seconds[np.isfinite(self.seconds)])
        low, high = 0, len(values) - 1
        while low < high:
            middle = (low + high) // 2
            if self.cheapest(float(values[middle])) is None:
                low = middle + 1
            else:
                high = middle
        for value in values[low:]:
            yield float(value)

    def cheapest(self, limit: float) -> tuple[float, list[int]] | None:
        """(Least sum, [stages + 1] first layers and the end) over cuts whose every stage is within `limit` seconds."""
        n, pieces = len(self.problem.layers), self.problem.pieces
        reach: FloatArray = np.full(n + 1, math.inf)
        reach[0] = 0.0
        back: list[IntArray] = []
        for stage in range(pieces):
            allowed = np.where(self.seconds[stage] <= limit, self.filling[stage], math.inf)
            through = reach[:, None] + allowed
            back.append(through.argmin(axis=0))
            reach = through.min(axis=0)
        if not math.isfinite(reach[n]):
            return None
        bounds = [n]
        for stage in reversed(range(pieces)):
            bounds.append(int(back[stage][bounds[-1]]))
        return float(reach[n]), bounds[::-1]

    def slowest(self, bounds: list[int]) -> float:
        """Seconds of the slowest stage of a cut."""
        return max(float(self.seconds[stage, bounds[stage], bounds[stage + 1]]) for stage in range(self.problem.pieces))

    def answer(self, bounds: list[int]) -> StageCut:
        """The cut with the recompute choice of every stage."""
        choices = []
        for stage in range(self.problem.pieces):
            found = self._choice(stage, self._span_counts(bounds[stage], bounds[stage + 1]))
            if found is None:
                raise RuntimeError(f"stage {stage} of a cut that fits does not fit")
            choices.append(found[1])
        cut = tuple(end - first for first, end in pairwise(bounds))
        return spread_options(self.problem, cut, choices)

    def _spans(self, stage: int) -> Iterator[tuple[int, int]]:
        """(First layer, end) of the stages that leave every other stage a layer."""
        n, last = len(self.problem.layers), self.problem.pieces - 1
        for first in range(stage, n - last + stage) if stage else (0,):
            ends = range(first + 1, n - last + stage + 1) if stage < last else (n,)
            for end in ends:
                yield first, end

    def _span_counts(self, first: int, end: int) -> tuple[int, ...]:
        return tuple(int(count) for count in self.counts[end] - self.counts[first])

    def _choice(self, stage: int, counts: tuple[int, ...]) -> tuple[float, Choice] | None:
        """(Seconds, choice) of the fastest way to run so many layers of each kind within the stage's memory."""
        if (stage, counts) not in self._choices:
            problem = self.problem
            fixed = sum(n * kind.fixed_bytes for n, kind in zip(counts, problem.kinds, strict=True))
            room = problem.budget_bytes[stage] - problem.end_bytes[stage] - fixed
            flight = problem.in_flight[stage]
            each = math.inf if flight == 0 and room >= 0 else room / max(flight, 1)
            self._choices[stage, counts] = self.fronts.best(counts, each)
        return self._choices[stage, counts]
