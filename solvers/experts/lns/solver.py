"""Large neighbourhood search as a layer solver (Shaw 1998), each neighbourhood solved by CP-SAT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from placement.check.layer import check_layer
from placement.cost.layer.score import score_layer
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.base import Features, UnsupportedError
from solvers.cpsat import run_cpsat
from solvers.experts.candidates import Candidate
from solvers.experts.exact.coefficients import coefficients_of
from solvers.experts.lns.model import NeighbourhoodModel
from solvers.experts.lns.neighbourhoods import neighbourhood
from solvers.experts.merit import merit
from solvers.experts.search.solver import SearchSolver
from solvers.result import Result, Termination
from solvers.stop import Stop

#: Deterministic seconds of the default budget, and of one neighbourhood.
DETERMINISTIC_SECONDS, EACH = 1.0, 0.1
#: What building a model counts as, in deterministic seconds.
OVERHEAD = 0.01
#: Free slots at first, at least and at most; a neighbourhood that is solved to its end without gain is too small.
FIRST, LEAST, MOST = 10, 4, 40
#: Rounds of one size in turn without gain before it grows.
PATIENCE = 6
#: An answer counts as better from this relative gain on.
GAIN = 1e-6
#: An answer this much worse, which is rounding, is walked on from: its guide is better.
LEVEL = 1e-6


@dataclass(frozen=True)
class Improved:
    """A placement [slots], how many neighbourhoods were solved and how many were better, and how it ended."""

    slots: IntArray
    rounds: int
    gains: int
    termination: Termination


class LnsSolver:
    """The compiled search's answer, improved by CP-SAT in neighbourhoods of a few slots."""

    name = "lns"
    features = Features(
        traffic=True, dispatch=("even", "nearest", "planned"), groups=True, moves=True, fixed=True,
        uneven=True, windows=True, tails=True,
        note="neighbourhoods with replicas for loads alone; else the search's answer as it is",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.improve(problem, [], stop, seed)

    def improve(self, problem: LayerProblem, known: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """The best of the given answers, the search's, and what neighbourhoods make of it."""
        found = SearchSolver().improve(problem, known, stop, seed)
        if found.slots is None:
            return found
        try:
            better = improve_slots(problem, found.slots, stop, seed)
        except UnsupportedError as error:
            return replace(found, notes=(*found.notes, str(error)))
        return replace(
            found, slots=better.slots, termination=better.termination, iterations=found.iterations + better.rounds
        )


def improve_slots(problem: LayerProblem, slots: IntArray, stop: Stop, seed: int) -> Improved:
    """A placement at least as good as `slots` by `solvers.experts.candidates.merit`.

    Deterministic in the seed but for a deadline: the budget, DETERMINISTIC_SECONDS * stop.work, counts in OR-Tools'
    machine-independent measure, with one worker.

    Args:
        slots: [slots] a valid placement.

    Raises:
        UnsupportedError: see solvers.experts.exact.coefficients.coefficients_of.
    """
    data = coefficients_of(problem, whole=False)
    rng = np.random.default_rng([seed, 7])
    best = at = slots
    value = merit(problem, score_layer(problem, best))
    left = DETERMINISTIC_SECONDS * stop.work
    size, since, rounds, gains = FIRST, 0, 0, 0
    while left > 0:
        if stop.expired:
            return Improved(best, rounds, gains, Termination.TIME)
        area = neighbourhood(problem, data, at, size, int(rng.integers(3)), rng)
        if int(area.free.sum()) < 2:
            return Improved(best, rounds, gains, Termination.FINISHED)
        model = NeighbourhoodModel(problem, data, at, area.free, area.extra, value[1] * (1 + LEVEL))
        run = run_cpsat(
            model.model.model, stop, int(rng.integers(2**31 - 1)), min(EACH, max(left, OVERHEAD)),
            linearization_level=0,
        )  # fmt: skip
        rounds += 1
        left -= OVERHEAD + run.work
        since += 1
        if run.found:
            slots = model.placement(run.value)
            found = merit(problem, score_layer(problem, slots))
            if found[0] <= value[0] and found[1] <= value[1] * (1 + LEVEL) and not check_layer(problem, slots):
                at = slots
            if (found[0], found[1] * (1 + GAIN)) < value and at is slots:
                best, value, since, gains = slots, found, 0, gains + 1
        if run.termination is not Termination.FINISHED:
            size = max(LEAST, size - 1)
        elif since >= PATIENCE:
            size, since = min(MOST, size + 2), 0
    return Improved(best, rounds, gains, Termination.WORK)
