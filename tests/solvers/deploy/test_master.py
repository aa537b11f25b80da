"""MILP and brute force agree on the best deployment of 300 small clusters; packing is exact."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from unittest.mock import patch

import pulp
import pytest

from placement.errors import InfeasibleError, NothingFoundError
from solvers.base import UnsupportedError
from solvers.deploy import milp
from solvers.deploy.layout import layout
from solvers.deploy.milp import relaxation, solve_milp
from solvers.deploy.problem import MasterProblem, Pool, patterns
from solvers.deploy.solve import solve_master
from tests.solvers.deploy.problems import (
    best_rate,
    column,
    fewest_gpus,
    packs,
    random_problem,
    wanting,
)


@pytest.mark.parametrize("block", range(10))
def test_the_milp_agrees_with_brute_force(block: int) -> None:
    for seed in range(20 * block, 20 * block + 20):
        problem = random_problem(seed)
        best = best_rate(problem)
        found = solve_milp(problem)
        assert found.requests_per_s == pytest.approx(best, rel=1e-6), seed
        assert packs(problem, found.counts)
        assert found.optimal
        assert relaxation(problem) >= best * (1 - 1e-6)


@pytest.mark.parametrize("block", range(5))
def test_the_fewest_gpus_for_a_rate(block: int) -> None:
    for seed in range(1000 + 20 * block, 1020 + 20 * block):
        problem = random_problem(seed)
        target = 0.6 * best_rate(problem)
        if target == 0:
            continue
        need = fewest_gpus(problem, target)
        found = solve_milp(wanting(problem, target))
        assert found.gpus == need, seed
        assert found.requests_per_s >= target * (1 - 1e-6)


def test_a_rate_out_of_reach_says_what_is_within() -> None:
    problem = random_problem(3)
    best = best_rate(problem)
    with pytest.raises(InfeasibleError, match=f"the most is {best:.6g}"):
        solve_master(wanting(problem, 2 * best))


def test_cbc_is_not_believed_once_its_time_is_up() -> None:
    def claims(self: pulp.LpProblem, solver: object) -> None:
        self.status, self.sol_status = pulp.LpStatusInfeasible, pulp.LpSolutionInfeasible

    problem = random_problem(3)
    with patch.object(pulp.LpProblem, "solve", claims):
        with pytest.raises(NothingFoundError):
            solve_milp(problem, 0.0)
        with pytest.raises(InfeasibleError):
            solve_milp(problem)


def test_of_equal_answers_the_one_with_fewer_gpus() -> None:
    pool = Pool("p", 1, 8, 1e9)
    problem = MasterProblem(
        (pool,), (column(0, "decode", 2, 5.0), column(0, "prefill", 1, 5.0), column(0, "prefill", 5, 6.0)), 0.0
    )
    found = solve_master(problem)
    assert found.requests_per_s == pytest.approx(10.0)
    assert found.gpus == 6
    assert found.counts == (2, 2, 0)


@pytest.mark.parametrize("sizes", [(3,), (2, 3), (5, 3, 2), (4, 1)])
def test_patterns_are_all_maximal_fillings(sizes: tuple[int, ...]) -> None:
    room = 9
    every = [
        counts
        for counts in product(*(range(room // size + 1) for size in sizes))
        if room - min(sizes) < sum(n * size for n, size in zip(counts, sizes, strict=True)) <= room
    ]
    assert sorted(patterns(sizes, room)) == sorted(every)


def test_packing_sees_what_first_fit_misses() -> None:
    # 4 + 3 + 3 twice fill two nodes of ten; the largest first leaves 4 + 4, 3 + 3 + 3 and one of three.
    pool = Pool("p", 2, 10, 1.0)
    sizes = {4: 2, 3: 4}
    problem = MasterProblem((pool,), tuple(column(0, "aggregated", size, 1.0) for size in sizes), 0.0)
    counts = tuple(sizes.values())
    assert packs(problem, counts)
    assert not packs(problem, (3, 3))
    assert layout(problem, counts, exact=False) is None
    assert layout(problem, counts) is not None


def test_many_patterns_fall_back_to_a_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    def few(sizes: Sequence[int], room: int) -> tuple[tuple[int, ...], ...]:
        if len(sizes) > 1:
            raise UnsupportedError("too many ways")
        return patterns(sizes, room)

    monkeypatch.setattr(milp, "patterns", few)
    for seed in range(40):
        problem = random_problem(seed)
        best = best_rate(problem)
        found = solve_milp(problem)
        assert packs(problem, found.counts)
        assert found.requests_per_s <= best * (1 + 1e-6)
        assert found.bound >= best * (1 - 1e-6)
        if found.optimal:
            assert found.requests_per_s == pytest.approx(best, rel=1e-6)
        else:
            assert found.gap > 0
