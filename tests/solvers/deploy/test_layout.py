"""Packings are made explicit, and checked by code of their own."""

from __future__ import annotations

from placement.check.deployment import HeldGpus, Kind, deployment_faults
from placement.problem.split import make_split
from solvers.deploy.layout import layout
from solvers.deploy.problem import MasterProblem, Pool
from tests.cost import scenarios as s
from tests.solvers.deploy.problems import all_counts, column, packs, random_problem


def test_every_packing_that_exists_is_found() -> None:
    for seed in range(60):
        problem = random_problem(seed)
        for counts in list(all_counts(problem))[:200]:
            found = layout(problem, counts)
            assert found is not None
            for index, pool in enumerate(problem.pools):
                mine = [group for group in found if group.pool == index]
                assert sum(group.nodes for group in mine) <= pool.nodes
                assert all(sum(gpus for _, gpus, _ in group.held) <= pool.gpus_per_node for group in mine)
            for i, count in enumerate(counts):
                lies = sum(g.nodes * gpus for g in found for column_, gpus, _ in g.held if column_ == i)
                assert lies == count * problem.columns[i].gpus


def test_what_does_not_fit_is_none_and_what_first_fit_misses_is_found() -> None:
    pool = Pool("p", 2, 10, 1.0)
    problem = MasterProblem((pool,), tuple(column(0, "aggregated", size, 1.0) for size in (6, 5, 4, 3, 2)), 0.0)
    assert layout(problem, (2, 2, 0, 0, 0)) is None
    # The largest first puts 5 beside 4 and leaves 3 + 3 + 2 + 2 + ... no room; 5 + 3 + 2 twice fills both nodes.
    tight = (0, 2, 0, 2, 2)
    assert packs(problem, tight)
    assert layout(problem, tight) is not None


def test_faults_are_named() -> None:
    case = s.scenario(workload=s.serving(isl=512, osl=64, ttft_ms=100.0, tpot_ms=5.0))
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=4, instances=1)
    good = Kind(0, "aggregated", split, 2, 0.05, 0.004)
    assert deployment_faults([case], [good], [HeldGpus(0, 2, {0: 4})]) == ()
    for kind, held, word in (
        (good, [HeldGpus(0, 3, {0: 4})], "nodes"),
        (good, [HeldGpus(0, 1, {0: 8})], "holds 8"),
        (good, [HeldGpus(0, 1, {0: 4})], "need 8 GPUs and lie on 4"),
        (Kind(0, "aggregated", split, 2, 0.2, 0.004), [HeldGpus(0, 2, {0: 4})], "TTFT"),
        (Kind(0, "aggregated", split, 2, 0.05, 0.006), [HeldGpus(0, 2, {0: 4})], "TPOT"),
    ):
        assert any(word in fault for fault in deployment_faults([case], [kind], held))
