"""Dynamic programming and CP-SAT against all cuts and choices, on small random problems."""

from __future__ import annotations

import pytest

from placement.problem.stages import StageCut, StageProblem
from solvers.stages.answer import StageAnswer
from solvers.stages.dynamic import cut_by_dynamic_programming
from solvers.stages.excess import least_excess
from solvers.stages.model import cut_by_cpsat
from tests.solvers.stages.problems import best_by_trying, least_excess_by_trying, random_problem, score_cut


def check(problem: StageProblem, found: StageAnswer | None, best: float) -> None:
    assert found is not None
    assert found.optimal
    score = score_cut(problem, found.answer)
    assert score.over_bytes <= 0
    assert score.objective == pytest.approx(best, rel=1e-6)
    assert found.bound <= best * (1 + 1e-5) + 1e-6
    assert sum(found.answer.cut) == len(problem.layers)


@pytest.mark.parametrize("part", range(6))
def test_both_solvers_find_the_best_cut(part: int) -> None:
    fit = 0
    for seed in range(25 * part, 25 * part + 25):
        problem = random_problem(seed)
        best = best_by_trying(problem)
        answers = (cut_by_dynamic_programming(problem), cut_by_cpsat(problem))
        if best is None:
            assert answers == (None, None)
            assert least_excess(problem).over_bytes > 0
            continue
        fit += 1
        for answer in answers:
            check(problem, answer, best[1].objective)
    assert 5 < fit < 25, "some fit and some do not"


@pytest.mark.parametrize("schedule", ["mirrored", "interleaved"])
def test_cpsat_finds_the_best_cut_where_ranks_have_several_pieces(schedule: str) -> None:
    fit = 0
    for seed in range(40):
        problem = random_problem(1000 + seed, schedule)
        best, found = best_by_trying(problem), cut_by_cpsat(problem)
        if best is None:
            assert found is None
        else:
            fit += 1
            check(problem, found, best[1].objective)
    assert fit > 10
    with pytest.raises(ValueError, match="one piece"):
        cut_by_dynamic_programming(problem)


def test_least_excess_is_that_of_all_cuts() -> None:
    for seed in range(30):
        problem = random_problem(seed)
        excess = least_excess(problem)
        assert excess.over_bytes == pytest.approx(least_excess_by_trying(problem))
        assert (excess.over_bytes <= 0) == (best_by_trying(problem) is not None)
    for seed in range(1000, 1020):
        problem = random_problem(seed, "interleaved")
        assert least_excess(problem).over_bytes <= least_excess_by_trying(problem) + 1e-9


def test_larger_problems_agree() -> None:
    for seed in range(30):
        problem = random_problem(seed, layers=24)
        exact, cpsat = cut_by_dynamic_programming(problem), cut_by_cpsat(problem)
        assert (exact is None) == (cpsat is None)
        if exact is not None and cpsat is not None:
            found, best = (score_cut(problem, each.answer).objective for each in (cpsat, exact))
            assert found == pytest.approx(best, rel=1e-6)


def test_score_names_the_fullest_rank() -> None:
    problem = random_problem(3)
    layers = len(problem.layers)
    cut = (layers - problem.pieces + 1, *(1,) * (problem.pieces - 1))
    assert score_cut(problem, StageCut(cut, (0,) * layers)).over_rank == 0
