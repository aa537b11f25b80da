"""MILP and brute force agree on the best deployment of 300 small clusters; packing is exact."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest

from placement.errors import InfeasibleError, NothingFoundError
from solvers.deploy import milp
from solvers.deploy.layout import layout
from solvers.deploy.milp import relaxation, solve_milp
from solvers.deploy.problem import MasterProblem, Pool
from solvers.deploy.solve import solve_master
from tests.solvers.deploy.problems import (
    ROLES,
    best_rate,
    column,
    few_kinds,
    fewest_gpus,
    packs,
    patterns,
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


def test_a_run_that_was_cut_short_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(status: int) -> None:
        monkeypatch.setattr(milp, "milp", lambda *a, **k: SimpleNamespace(status=status, x=None))

    problem = random_problem(3)
    ends(milp.LIMIT)
    with pytest.raises(NothingFoundError):
        solve_milp(problem, 0.0)
    ends(milp.INFEASIBLE)
    with pytest.raises(InfeasibleError):
        solve_milp(problem)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_few_kinds_of_instances_by_brute_force(most: int) -> None:
    bound = 0
    for seed in range(2000, 2200):
        free = random_problem(seed)
        problem = replace(free, max_kinds=most)
        best = best_rate(problem)
        found = solve_master(problem)
        assert found.requests_per_s == pytest.approx(best, rel=1e-6), seed
        assert packs(problem, found.counts)
        assert few_kinds(problem, found.counts)
        assert found.optimal
        bound += solve_master(free).requests_per_s > best * (1 + 1e-6)
    assert bound > 0


def alike(seed: int) -> MasterProblem:
    """Five columns that yield nearly the same per GPU, on pools of many equal nodes: much symmetry, hardly a bound."""
    rng = np.random.default_rng(seed)
    pools = tuple(
        Pool(f"p{i}", int(rng.integers(3, 40)), int(rng.choice([4, 8, 16, 72])), float(rng.uniform(5, 40)))
        for i in range(int(rng.integers(1, 4)))
    )
    columns = []
    for _ in range(5):
        index = int(rng.integers(len(pools)))
        gpus = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 24, 32, 36, 48, 72]))
        while gpus > pools[index].gpus:
            gpus //= 2
        role = ROLES[int(rng.integers(3))]
        rate = gpus * float(rng.choice([1, 1, 1.003, 0.998])) * (1 + float(rng.uniform(-1e-3, 1e-3)))
        columns.append(column(index, role, gpus, rate))
    return MasterProblem(pools, tuple(columns), float(rng.uniform(0.2, 2)) if rng.random() < 0.5 else 0.0)


# CBC over patterns, to a gap of 0, ran for minutes on these.
@pytest.mark.parametrize("seed", [20, 43, 45])
@pytest.mark.parametrize("most", [None, 2])
def test_symmetry_does_not_hold_up_the_master(seed: int, most: int | None) -> None:
    problem = replace(alike(seed), max_kinds=most)
    started = time.monotonic()
    found = solve_master(problem)
    assert time.monotonic() - started < 5.0
    assert found.gap <= milp.GAP
    assert layout(problem, found.counts) is not None


def test_no_columns_serve_nothing() -> None:
    found = solve_master(MasterProblem((Pool("p", 1, 8, 1e9),), (), 0.0))
    assert found.counts == ()
    assert found.requests_per_s == found.bound == 0.0
    assert found.optimal


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
    assert layout(problem, counts) is not None


def test_a_large_node_has_too_many_fillings_to_list() -> None:
    rates = {gpus: gpus + 0.1 * (gpus % 7) for gpus in range(5, 25)}
    pool = Pool("p", 7, 71, 1.0)
    problem = MasterProblem((pool,), tuple(column(0, "aggregated", g, rate) for g, rate in rates.items()), 0.0)
    found = solve_master(problem)
    assert layout(problem, found.counts) is not None
    # Whole requests only: every node is a knapsack of its own.
    node = [0.0] * (pool.gpus_per_node + 1)
    for room in range(1, len(node)):
        node[room] = max([node[room - 1], *(node[room - g] + rate for g, rate in rates.items() if g <= room)])
    assert found.optimal
    assert found.requests_per_s == pytest.approx(pool.nodes * node[-1])
