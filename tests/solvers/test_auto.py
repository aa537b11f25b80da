"""`auto`: which of several dispatch plans it keeps."""

import numpy as np
import pytest

from placement.problem.layer import Objective
from solvers.experts.auto import _dispatched
from solvers.experts.candidates import candidate
from solvers.experts.heuristics.greedy import GreedySolver
from solvers.experts.search.solver import SearchSolver
from solvers.params import DEFAULTS
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import random_problem


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("objective", ["time", "traffic"])
def test_a_searched_dispatch_stays_unless_an_lp_gains_more(seed: int, objective: Objective) -> None:
    problem = random_problem(seed, experts=32, gpus=8, slots_per_gpu=6, dispatch="planned", objective=objective)
    found = SearchSolver().solve(problem, Stop(0.3), seed)
    assert found.slots is not None
    searched = candidate(problem, found.slots, found.fractions)
    solved = candidate(problem, found.slots, found.fractions, True)
    kept = _dispatched(problem, searched)
    gain = 1 - solved.score.objective / searched.score.objective
    if objective == "time" and gain < DEFAULTS.dispatch_gain:
        assert kept is searched
    else:
        assert kept.score.objective == solved.score.objective
        np.testing.assert_array_equal(kept.fractions, solved.fractions)


def test_a_poor_dispatch_is_solved_anew() -> None:
    problem = random_problem(1, experts=32, gpus=8, slots_per_gpu=6, dispatch="planned")
    slots = GreedySolver().place(changed(problem, dispatch="even"), 0)
    # Every home's tokens go evenly to all copies, wherever they lie.
    even = np.tile(1.0 / np.bincount(slots, minlength=32)[slots], (4, 1))
    poor = candidate(problem, slots, even)
    kept = _dispatched(problem, poor)
    assert kept.score.objective < poor.score.objective * (1 - DEFAULTS.dispatch_gain)
    over = changed(problem, max_load=1.0)
    assert _dispatched(over, candidate(over, slots, even)).score.pooled_imbalance < poor.score.pooled_imbalance + 1e-9
