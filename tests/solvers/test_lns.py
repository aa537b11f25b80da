import time
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value, score_layer
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.cpsat import run_cpsat
from solvers.experts.exact.coefficients import Coefficients, coefficients_of
from solvers.experts.heuristics.in_order import LinearSolver
from solvers.experts.lns.model import NeighbourhoodModel
from solvers.experts.lns.neighbourhoods import neighbourhood
from solvers.experts.lns.solver import LnsSolver, improve_slots
from solvers.experts.merit import merit
from solvers.experts.search.solver import SearchSolver
from solvers.result import Status, Termination
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import brute_force
from tests.solvers.problems import mixed, random_placement, random_problem, running_problem

RULES = ("per_node", "per_rank", "per_expert")
SMALL = {"experts": 6, "gpus": 3, "gpus_per_node": 1, "slots_per_gpu": 2, "k": 2, "tokens": 40}


def best_of_neighbourhood(problem: LayerProblem, slots: np.ndarray, free: np.ndarray) -> np.ndarray:
    """[slots] CP-SAT's optimum, whatever it costs."""
    data = coefficients_of(problem, whole=False)
    extra = np.arange(problem.experts if problem.hardware.usable_slots > problem.experts else 0)
    # The guide, and rows that could only matter to a much better answer, are for speed.
    with patch.multiple("solvers.experts.lns.model", GUIDE=0.0, LEAST_LINK=0.0):
        return solved(problem, data, slots, free, extra)


def solved(
    problem: LayerProblem, data: Coefficients, slots: np.ndarray, free: np.ndarray, extra: np.ndarray
) -> np.ndarray:
    model = NeighbourhoodModel(problem, data, slots, free, extra, objective_value(problem, slots) * (1 + 1e-6))
    run = run_cpsat(model.model.model, Stop(), 0)
    assert run.status is Status.OPTIMAL
    return model.placement(run.value)


@settings(max_examples=20, derandomize=True, deadline=None)
@given(
    seed=st.integers(0, 10_000), rule=st.sampled_from(RULES), two=st.booleans(), kinds=st.booleans(),
    tail=st.sampled_from([0.0, 0.4, 1.0]),
)  # fmt: skip
def test_a_neighbourhood_is_solved_as_brute_force_solves_it(
    seed: int, rule: str, two: bool, kinds: bool, tail: float
) -> None:
    shape = SMALL | ({"gpus": 4, "gpus_per_node": 2, "experts": 8} if seed % 2 else {})
    problem = random_problem(seed, **shape, windows=2, message=rule, tail=tail)
    rates = mixed(problem.hardware.rates) if kinds else problem.hardware.rates
    problem = changed(problem, rates=replace(rates, overlap="two_batch" if two else "none"))
    if seed % 3 == 0 and problem.topology.nodes > 1:
        problem = changed(problem, objective="traffic")
    slots = random_placement(problem, seed)
    free = np.random.default_rng(seed).random(problem.slots) < 0.7
    found = best_of_neighbourhood(problem, slots, free)
    assert check_layer(changed(problem, current=slots, fixed=~free), found) == ()
    best = brute_force(changed(problem, current=slots, fixed=~free))
    assert best is not None
    assert objective_value(problem, found) == pytest.approx(best.objective, rel=1e-5)


@settings(max_examples=15, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), timed=st.booleans())
def test_replicas_by_loads_are_solved_as_brute_force_solves_them(seed: int, timed: bool) -> None:
    problem = random_problem(
        seed, experts=4, gpus=3, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=40, with_sets=False,
        objective="time" if timed else "load",
    )  # fmt: skip
    slots = random_placement(problem, seed)
    free = np.random.default_rng(seed).random(problem.slots) < 0.8
    found = best_of_neighbourhood(problem, slots, free)
    fixed = changed(problem, current=slots, fixed=~free)
    assert check_layer(fixed, found) == ()
    best = brute_force(fixed)
    assert best is not None
    assert objective_value(problem, found) <= best.objective * (1 + 1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", [*RULES, "dense"])
def test_never_worse_valid_and_under_every_rule(seed: int, rule: str) -> None:
    problem = running_problem(
        seed, experts=16, gpus=8, slots_per_gpu=2, k=3, tokens=200, windows=2, message=rule, capacity=None
    )
    problem = changed(problem, max_load=1.3)
    slots = random_placement(problem, seed)
    found = improve_slots(problem, slots, Stop(0.06), seed)
    assert check_layer(problem, found.slots) == ()
    assert merit(problem, score_layer(problem, found.slots)) <= merit(problem, score_layer(problem, slots))
    assert found.rounds > 0


def test_improves_a_plain_start_and_repeats_itself() -> None:
    problem = random_problem(3)
    start = LinearSolver().solve(problem, Stop(), 0).slots
    one, two = (improve_slots(problem, start, Stop(0.3), 5) for _ in range(2))
    assert np.array_equal(one.slots, two.slots)
    assert objective_value(problem, one.slots) < 0.97 * objective_value(problem, start)
    assert one.gains > 0
    assert one.termination is Termination.WORK


def test_moves_fixed_experts_and_groups_are_kept() -> None:
    problem = random_problem(1, experts=16, gpus=4, gpus_per_node=2, k=3)
    current = random_placement(problem, 1)
    fixed = np.random.default_rng(1).random(problem.slots) < 0.3
    held = changed(problem, current=current, fixed=fixed, max_moves=4)
    found = improve_slots(held, current, Stop(0.2), 1)
    assert found.gains > 0
    assert check_layer(held, found.slots) == ()
    grouped = changed(problem, group=np.arange(16) // 4)
    start = np.arange(16)
    found = improve_slots(grouped, start, Stop(0.2), 1)
    assert found.gains > 0
    assert check_layer(grouped, found.slots) == ()


def test_a_deadline_ends_the_search() -> None:
    problem = random_problem(5, experts=64, gpus=16, gpus_per_node=4, k=6, tokens=3000)
    slots = random_placement(problem, 5)
    began = time.monotonic()
    found = improve_slots(problem, slots, Stop.after(0.5, 100.0), 1)
    assert time.monotonic() - began < 3.0
    assert found.termination is Termination.TIME


def test_solver_starts_from_the_search_and_is_never_worse() -> None:
    problem = random_problem(2)
    before = SearchSolver().solve(problem, Stop(0.05), 1)
    after = LnsSolver().solve(problem, Stop(0.05), 1)
    assert objective_value(problem, after.slots) <= objective_value(problem, before.slots) * (1 + 1e-12)
    assert check_layer(problem, after.slots) == ()


def test_replicas_with_token_sets_are_left_to_the_search() -> None:
    problem = random_problem(2, slots_per_gpu=6, dispatch="planned")
    with pytest.raises(UnsupportedError, match="loads alone"):
        improve_slots(problem, LinearSolver().solve(problem, Stop(), 0).slots, Stop(0.1), 1)
    found = LnsSolver().solve(problem, Stop(0.05), 1)
    assert check_layer(problem, found.slots) == ()
    assert found.fractions is not None


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_neighbourhoods_free_only_what_may_move(kind: int) -> None:
    problem = running_problem(9, experts=16, gpus=8, gpus_per_node=2, slots_per_gpu=3, k=3, with_sets=True)
    problem = changed(problem, message="per_expert")
    current = random_placement(problem, 2)
    fixed = np.random.default_rng(3).random(problem.slots) < 0.5
    problem = changed(problem, current=current, fixed=fixed)
    rng = np.random.default_rng(kind)
    for _ in range(20):
        data = coefficients_of(changed(problem, dispatch="even"), whole=False)
        area = neighbourhood(problem, data, current, 8, kind, rng)
        assert not (area.free & fixed & (current != EMPTY)).any()
        assert (current[area.free] != EMPTY).all()
        assert not np.isin(area.extra, current[area.free]).any()
