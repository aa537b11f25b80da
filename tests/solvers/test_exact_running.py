"""CP-SAT, MILP and brute force agree on 90 small layers of running systems: unlike GPUs, fixed experts, tails."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pulp
import pytest

from placement.check.layer import check_layer
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.score import objective_value, score_layer
from placement.cost.layer.tariff import tariff_of
from placement.cost.layer.touch import touch
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from solvers.bounds import layer_bound
from solvers.experts.cpsat.backend import CpSatBackend
from solvers.experts.cpsat.solver import CpSatSolver
from solvers.experts.exact.coefficients import coefficients_of
from solvers.experts.exact.model import LayerModel
from solvers.experts.milp.solver import MilpSolver
from solvers.result import Status, Termination
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import brute_force
from tests.solvers.problems import RATES, random_placement, random_problem, running_problem

RULES = ("per_node", "per_rank", "per_expert")


def loads_only(seed: int) -> LayerProblem:
    return running_problem(
        seed, experts=4, gpus=3, gpus_per_node=(1, 3)[seed % 2], slots_per_gpu=2, k=2, tokens=20, with_sets=False,
        windows=1 + seed % 3, objective="load" if seed % 2 else "time",
    )  # fmt: skip


def with_traffic(seed: int) -> LayerProblem:
    """One copy each on GPUs that would hold more."""
    capacity = np.random.default_rng(seed).permutation([2, 1, 1, 0] if seed % 2 else [2, 2, 1, 1])
    return running_problem(
        seed, experts=int(capacity.sum()), gpus=4, gpus_per_node=(1, 2)[seed // 2 % 2], slots_per_gpu=2, k=2, tokens=8,
        message=RULES[seed % 3], capacity=capacity, windows=1 + seed % 2,
        home=None if seed % 2 else [0.4, 0.1, 0.2, 0.3],
    )  # fmt: skip


def with_replicas(seed: int) -> LayerProblem:
    return running_problem(
        seed, experts=3, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=4, message=RULES[seed % 3],
        capacity=([2, 1, 0, 2], [1, 2, 1, 1])[seed % 2],
    )  # fmt: skip


def with_past(seed: int) -> LayerProblem:
    """A GPU has failed since `current` was placed; some experts stay, and few others may move."""
    rng = np.random.default_rng(seed)
    plain = random_problem(
        seed, experts=4, gpus=3, gpus_per_node=1, slots_per_gpu=3, k=2, tokens=6, windows=1 + seed % 2,
        message=RULES[seed % 3], with_sets=seed % 4 > 0,
    )  # fmt: skip
    current = random_placement(changed(plain, capacity=[3, 2, 2]), seed)
    capacity = np.array([0, 2, 2]) if seed % 2 else np.array([2, 2, 1])
    fixed = (rng.random(plain.slots) < 0.3) & (plain.hardware.gpu_of_slot == 1)
    return changed(
        plain,
        capacity=capacity,
        speed=[1.0, 0.5, 1.0] if seed % 3 else None,
        current=current,
        fixed=fixed,
        max_moves=int(rng.integers(1, 5)),
        tail=float(rng.choice([0.0, 0.5, 1.0])),
    )


def with_tail(seed: int) -> LayerProblem:
    weight = np.random.default_rng(seed).permutation([0.5, 0.25, 0.25, 0.0]) if seed % 2 else np.full(4, 0.25)
    problem = random_problem(
        seed, experts=4, gpus=2, gpus_per_node=1, slots_per_gpu=3 - seed % 2, k=2, tokens=5, windows=4,
        message=RULES[seed % 3], tail=(0.0, 0.25, 0.4, 0.75)[seed % 4], window_weight=weight,
    )  # fmt: skip
    return changed(problem, rates=replace(problem.hardware.rates, overlap="two_batch")) if seed % 3 else problem


FAMILIES = {loads_only: 30, with_traffic: 20, with_replicas: 8, with_past: 20, with_tail: 12}
CASES = [(family, seed) for family, count in FAMILIES.items() for seed in range(count)]


def test_there_are_90_cases() -> None:
    assert len(CASES) == 90
    problems = [family(seed) for family, seed in CASES]
    assert sum(p.hardware.capacity is not None and p.hardware.usable_slots < p.slots for p in problems) >= 40
    assert sum(not p.hardware.alive.all() for p in problems) >= 20
    assert sum(p.hardware.speed is not None for p in problems) >= 30
    assert sum(p.objective.tail < 1 and p.windows > 1 for p in problems) >= 25


@pytest.mark.parametrize(("family", "seed"), CASES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_exact_solvers_agree_with_brute_force(family, seed: int) -> None:
    problem = family(seed)
    best = brute_force(problem)
    for solver in (CpSatSolver(), MilpSolver()):
        found = solver.solve(problem, Stop(10.0), 1)
        if best is None:
            assert found.status is Status.INFEASIBLE, solver.name
            continue
        assert found.status is Status.OPTIMAL, solver.name
        assert check_layer(problem, found.slots) == ()
        assert objective_value(problem, found.slots) == pytest.approx(best.objective, rel=1e-6), solver.name
        assert best.objective * (1 - 1e-4) <= found.bound <= best.objective * (1 + 1e-9), solver.name


@pytest.mark.parametrize("rule", ["per_node", "dense"])
@pytest.mark.parametrize("seed", range(4))
def test_exact_solvers_and_bounds_agree_with_brute_force_around_failed_gpus(seed: int, rule: str) -> None:
    """Two nodes of three GPUs, of which two have failed: survivors share what enters a node."""
    capacity = np.array([(1, 0, 1, 1, 1, 0), (1, 0, 0, 1, 1, 1), (0, 1, 1, 1, 1, 0), (1, 1, 1, 0, 1, 0)][seed])
    problem = random_problem(
        seed, experts=4, gpus=6, gpus_per_node=3, slots_per_gpu=1, k=2, tokens=8, message=rule, capacity=capacity,
        rates=replace(RATES, fast_bytes_per_s=(400e9, 5e9)[seed % 2]),
    )  # fmt: skip
    best = brute_force(problem)
    assert best is not None
    for solver in (CpSatSolver(), MilpSolver()):
        found = solver.solve(problem, Stop(10.0), 1)
        assert found.status is Status.OPTIMAL, solver.name
        assert objective_value(problem, found.slots) == pytest.approx(best.objective, rel=1e-6), solver.name
        assert best.objective * (1 - 1e-4) <= found.bound <= best.objective * (1 + 1e-9), solver.name
    assert layer_bound(problem).value <= best.objective * (1 + 1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(8))
def test_link_rows_price_a_placement_as_the_scorer_does(rule: str, seed: int) -> None:
    """Of single copies, whose touch chances are 0 or 1: the dearest row is the scorer's busiest link."""
    problem = running_problem(
        seed, experts=6, gpus=8, gpus_per_node=4, slots_per_gpu=1, k=3, tokens=10, message=rule, speed=None, tail=1.0,
        capacity=np.random.default_rng(seed).permutation([1, 1, 1, 1, 1, 1, 0, 0]),
    )  # fmt: skip
    problem = changed(problem, topology=replace(problem.topology, gpus_per_tray=2))
    slots = random_placement(problem, seed)
    gpu = {int(e): g for g, e in enumerate(slots) if e != EMPTY}
    reached = {"gpu": np.zeros(8), "node": np.zeros(2)}
    for ids, weight in zip(problem.data.sets.ids.tolist(), problem.data.sets.weight[0].tolist(), strict=True):
        reached["gpu"][[gpu[e] for e in ids]] += weight
        reached["node"][list({gpu[e] // 4 for e in ids})] += weight
    dearest = max(float(row.price @ reached[row.level]) for row in tariff_of(problem).links)
    score = score_layer(problem, slots)
    assert score.dispatch_s + score.combine_s - 22e-6 == pytest.approx(dearest, rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_link_rows_of_homes_price_a_placement_as_the_scorer_does(rule: str, seed: int) -> None:
    """Of copies that serve homes near them: the dearest row is the scorer's busiest link, the one row its bytes."""
    problem = running_problem(
        seed, experts=5, gpus=8, gpus_per_node=4, slots_per_gpu=2, k=3, tokens=10, message=rule, speed=None, tail=1.0,
        dispatch=("nearest", "sglang_static")[seed % 2], capacity=np.array([2, 1, 0, 2, 1, 1, 2, 1]),
    )  # fmt: skip
    problem = changed(problem, topology=replace(problem.topology, gpus_per_tray=2, os_gpus=2))
    reach = touch(problem, dispatch_shares(problem, slots := random_placement(problem, seed)))
    reached = {"gpu": reach.load if rule == "per_expert" else reach.gpu, "node": reach.node}
    score, crossing = score_layer(problem, slots), changed(problem, objective="traffic")
    moved_s = score.dispatch_s + score.combine_s - 22e-6
    for one, price in ((problem, moved_s), (crossing, objective_value(crossing, slots))):
        rows = [float((row.price * reached[row.level][:, 0]).sum()) for row in tariff_of(one).home_links]
        assert max(rows) == pytest.approx(price, rel=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("changes", "alike"), [
    ({}, 3), ({"home": [0.2, 0.2, 0.1, 0.5]}, 0), ({"home": [0.2, 0.3, 0.2, 0.3]}, 1),
    ({"speed": [1.0, 1.0, 2.0, 1.0]}, 1), ({"capacity": [1, 2, 1, 2]}, 1), ({"capacity": [2, 2, 0, 2]}, 0),
    ({"speed": [1.0, 2.0, 1.0, 2.0], "capacity": [2, 1, 2, 1]}, 1),
])  # fmt: skip
def test_what_symmetry_breaking_orders_can_change_places(rule: str, changes: dict[str, object], alike: int) -> None:
    """Slow fast links, so that what enters at which GPU of a node decides."""
    problem = random_problem(0, experts=4, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=10, message=rule)
    problem = changed(problem, rates=replace(problem.hardware.rates, fast_bytes_per_s=5e9), **changes)
    data = coefficients_of(problem)
    pairs = [([g - 1], [g]) for g in np.flatnonzero(data.gpu_alike)]
    pairs += [([2 * j - 2, 2 * j - 1], [2 * j, 2 * j + 1]) for j in np.flatnonzero(data.node_alike)]
    assert len(pairs) == alike
    for seed in range(6):
        slots = random_placement(problem, seed)
        for one, other in pairs:
            swapped = slots.reshape(4, -1).copy()
            swapped[one + other] = swapped[other + one]
            assert check_layer(problem, swapped.reshape(-1)) == ()
            values = [objective_value(problem, s) for s in (slots, swapped.reshape(-1))]
            assert values[1] == pytest.approx(values[0], rel=1e-12)


@pytest.mark.parametrize("solver", [CpSatSolver(), MilpSolver()], ids=lambda s: s.name)
def test_a_run_cut_by_the_clock_says_so(solver: CpSatSolver | MilpSolver) -> None:
    problem = random_problem(1, experts=12, gpus=4, gpus_per_node=2, slots_per_gpu=4, k=3, tokens=60)
    cut = solver.solve(problem, Stop.after(0.3, work=1e6), 0)
    assert cut.status in (Status.FEASIBLE, Status.UNKNOWN)
    assert cut.termination is Termination.TIME


@pytest.mark.parametrize("seconds", [0.0, None])
def test_cbc_is_not_believed_once_its_time_is_up(seconds: float | None) -> None:
    """Stopped inside its cut generators, it calls a model infeasible."""

    def claims(self: MilpSolver, program: pulp.LpProblem, stop: Stop, seed: int) -> str:
        program.status, program.sol_status = pulp.LpStatusInfeasible, pulp.LpSolutionInfeasible
        return "Pre-processing says infeasible or unbounded"

    problem = random_problem(1, experts=4, gpus=2, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=10)
    with patch.object(MilpSolver, "_run", claims):
        found = MilpSolver().solve(problem, Stop.after(seconds), 0)
    expected = (Status.UNKNOWN, Termination.TIME) if seconds == 0.0 else (Status.INFEASIBLE, Termination.FINISHED)
    assert (found.status, found.termination) == expected


@pytest.mark.parametrize("solver", [CpSatSolver(), MilpSolver()], ids=lambda s: s.name)
def test_a_run_cut_by_its_work_says_so_though_it_has_a_deadline(solver: CpSatSolver | MilpSolver) -> None:
    problem = random_problem(1, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=40)
    cut = solver.solve(problem, Stop.after(60.0, work=1e-4), 0)
    assert cut.status is not Status.OPTIMAL
    assert cut.termination is Termination.WORK


def test_uneven_shares_of_the_tail_keep_the_bound_valid() -> None:
    """Weights over `tail` that no small whole numbers stand for are rounded down."""
    weight = np.array([np.pi, np.e, np.sqrt(2)]) / (np.pi + np.e + np.sqrt(2))
    for seed in range(4):
        problem = random_problem(seed, experts=4, gpus=2, gpus_per_node=1, slots_per_gpu=3, k=2, tokens=6, windows=3,
                                 window_weight=weight, tail=0.61)  # fmt: skip
        assert not LayerModel(problem, CpSatBackend()).units.exact
        best = brute_force(problem).objective
        found = CpSatSolver().solve(problem, Stop(), 0)
        assert best * (1 - 5e-3) <= found.bound <= best * (1 + 1e-9)
        value = objective_value(problem, found.slots)
        assert best * (1 - 1e-9) <= value <= best * (1 + 5e-3)
        assert found.status is (Status.OPTIMAL if value <= found.bound * (1 + 1e-6) else Status.FEASIBLE)


def test_a_start_with_empty_slots_is_kept() -> None:
    problem = running_problem(3, experts=6, gpus=4, gpus_per_node=2, slots_per_gpu=3, k=2, tokens=10, with_sets=False)
    start = random_placement(problem, 0)
    assert (start == EMPTY).any()
    found = CpSatSolver().solve_from(problem, start, Stop(), 0)
    assert objective_value(problem, found.slots) <= objective_value(problem, start) * (1 + 1e-9)


def test_a_budget_of_moves_is_used_to_leave_a_failed_gpu() -> None:
    problem = random_problem(0, experts=4, gpus=3, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=8, with_sets=False,
                             current=[0, 1, 2, 3, 0, 2], capacity=[0, 2, 2], max_moves=1)  # fmt: skip
    found = CpSatSolver().solve(problem, Stop(), 0)
    assert found.status is Status.OPTIMAL
    assert moves_between(problem.rules.current, found.slots, 2) == 1
    assert CpSatSolver().solve(changed(problem, max_moves=0), Stop(), 0).status is Status.INFEASIBLE
