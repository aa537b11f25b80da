"""The heuristics: published examples, valid on every kind of GPUs, and no worse for knowing that GPUs differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value, score_layer
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.baselines import baseline_placements
from solvers.experts.candidates import candidate
from solvers.experts.heuristics.eplb import EplbSolver, eplb_layer
from solvers.experts.layers import plan_layers
from solvers.registry import BASELINES, get_solver
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import random_problem, running_problem

PUBLISHED = [
    ("90 132 40 61 104 165 39 4 73 56 183 86", "5 6 5 7 8 4 3 4 10 9 10 2 0 1 11 1"),
    ("20 107 104 64 19 197 187 157 172 86 16 27", "7 10 6 8 6 11 8 9 2 4 5 1 5 0 3 1"),
]


@pytest.mark.parametrize(("loads", "expected"), PUBLISHED)
def test_eplb_reproduces_the_published_example(loads: str, expected: str) -> None:
    slots = eplb_layer(np.array(loads.split(), dtype=float), slots=16, groups=4, nodes=2, gpus=8)
    assert slots.tolist() == [int(x) for x in expected.split()]


def test_eplb_global_reaches_the_published_largest_load() -> None:
    """design: DeepSeek's balancer reaches 232 on the rival's instance."""
    load = np.array([600, 560, 120, 120, 20, 10, 10, 10], dtype=float)
    slots = eplb_layer(load, slots=16, groups=1, nodes=1, gpus=8)
    share = load / np.bincount(slots, minlength=8)
    assert share[slots].reshape(8, 2).sum(axis=1).max() == pytest.approx(232)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize(
    ("experts", "gpus", "slots_per_gpu"), [(32, 8, 4), (32, 8, 6), (12, 8, 4), (16, 16, 2), (8, 8, 8)]
)
def test_baselines_are_valid_and_deterministic(name: str, experts: int, gpus: int, slots_per_gpu: int) -> None:
    problem = random_problem(1, experts=experts, gpus=gpus, slots_per_gpu=slots_per_gpu)
    first = get_solver(name).solve(problem, Stop(), 0)
    assert check_layer(problem, first.slots) == ()
    assert np.array_equal(first.slots, get_solver(name).solve(problem, Stop(), 0).slots)


def test_linear_and_round_robin_are_what_engines_do() -> None:
    problem = random_problem(0, experts=8, gpus=4, slots_per_gpu=2, k=2)
    assert get_solver("linear").solve(problem, Stop(), 0).slots.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert get_solver("round_robin").solve(problem, Stop(), 0).slots.tolist() == [0, 4, 1, 5, 2, 6, 3, 7]


def test_eplb_keeps_groups_on_a_node() -> None:
    group = np.repeat(np.arange(8), 4)
    problem = random_problem(3, experts=32, gpus=8, gpus_per_node=2, slots_per_gpu=6, group=group)
    assert check_layer(problem, EplbSolver().solve(problem, Stop(), 0).slots) == ()


def test_a_heuristic_refuses_what_it_would_ignore() -> None:
    problem = random_problem(3, group=np.repeat(np.arange(8), 4))
    with pytest.raises(UnsupportedError):
        get_solver("greedy").solve(problem, Stop(), 0)


@st.composite
def running(draw: st.DrawFn) -> LayerProblem:
    """Layers on GPUs of unlike capacity and speed, of every size from tiny."""
    gpus, slots_per_gpu = draw(st.sampled_from([2, 4, 6, 8])), draw(st.integers(1, 4))
    experts = draw(st.integers(slots_per_gpu, min(gpus * slots_per_gpu, 20)))
    shape = {"gpus": gpus, "gpus_per_node": draw(st.sampled_from([1, 2])), "slots_per_gpu": slots_per_gpu, "k": 1}
    return running_problem(draw(st.integers(0, 10_000)), experts=experts, tokens=20, with_sets=False, **shape)


@pytest.mark.parametrize("name", BASELINES)
@settings(max_examples=60, deadline=None)
@given(problem=running())
def test_baselines_exist_on_every_problem(name: str, problem: LayerProblem) -> None:
    found = get_solver(name).solve(problem, Stop(), 0)
    assert check_layer(problem, found.slots) == ()


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("slots_per_gpu", [4, 6])
def test_gpus_that_are_alike_are_placed_as_ever(name: str, slots_per_gpu: int) -> None:
    plain = random_problem(2, slots_per_gpu=slots_per_gpu)
    alike = changed(plain, capacity=np.full(8, slots_per_gpu), speed=np.full(8, 0.7), home=np.full(8, 0.125))
    expected = get_solver(name).solve(plain, Stop(), 0).slots
    assert np.array_equal(get_solver(name).solve(alike, Stop(), 0).slots, expected)


@pytest.mark.parametrize("name", ["greedy", "eplb"])
@pytest.mark.parametrize("seed", range(5))
def test_balancers_mind_speeds(name: str, seed: int) -> None:
    speed = np.random.default_rng(seed).choice([0.5, 1.0], 8)
    problem = random_problem(seed, slots_per_gpu=6, objective="load", with_sets=False, speed=speed)
    blind = get_solver(name).solve(changed(problem, speed=None), Stop(), 0).slots
    minded = get_solver(name).solve(problem, Stop(), 0).slots
    assert score_layer(problem, minded).objective < score_layer(problem, blind).objective * 0.95


def test_greedy_on_unlike_gpus_by_hand() -> None:
    """Loads 8, 4, 3, 1 in this order end at 8/4 on GPU 1, 4/2 on GPU 2 (now full), 11/4 on GPU 1, and GPU 0 is left."""
    load = np.array([[8.0, 4.0, 3.0, 1.0]])
    problem = random_problem(0, experts=4, gpus=3, gpus_per_node=1, slots_per_gpu=2, k=1, with_sets=False,
                             load=load / 16, capacity=[1, 2, 1], speed=[1.0, 4.0, 2.0])  # fmt: skip
    assert get_solver("greedy").solve(problem, Stop(), 0).slots.tolist() == [3, -1, 0, 2, 1, -1]


@pytest.mark.parametrize("seed", range(6))
def test_eplb_keeps_groups_on_nodes_of_unlike_room(seed: int) -> None:
    rng = np.random.default_rng(seed)
    capacity = np.concatenate([rng.integers(4, 7, 6), [6, 0]])
    problem = random_problem(
        seed, experts=24, gpus=8, gpus_per_node=2, slots_per_gpu=6, k=2, with_sets=False,
        group=np.arange(24) % 8 * 10, capacity=capacity,
    )  # fmt: skip
    assert check_layer(problem, EplbSolver().solve(problem, Stop(), 0).slots) == ()
    with pytest.raises(UnsupportedError, match="no way to share"):
        EplbSolver().solve(changed(problem, group=np.zeros(24)), Stop(), 0)


def test_eplb_chooses_its_variant_with_the_dispatch_it_runs_with() -> None:
    """Seed 7: with `nearest` dispatch the other variant is the better one."""
    problem = random_problem(7, experts=16, gpus=8, gpus_per_node=2, slots_per_gpu=3, k=3, dispatch="planned")
    variants = EplbSolver().variants(problem)
    solved = [candidate(problem, slots, thorough=True) for slots in variants]
    best = min(solved, key=lambda each: each.score.objective)
    near = min(variants, key=lambda slots: objective_value(changed(problem, dispatch="nearest"), slots))
    assert not np.array_equal(best.slots, near)
    found = EplbSolver().solve(problem, Stop(), 0)
    assert np.array_equal(found.slots, best.slots)
    assert np.array_equal(found.fractions, best.fractions)
    assert plan_layers([problem], "eplb", Stop(), 0)[0].score.objective == best.score.objective


@pytest.mark.parametrize("dispatch", ["nearest", "planned"])
def test_all_variants_of_eplb_are_among_the_baselines(dispatch: str) -> None:
    problem = random_problem(7, experts=16, gpus=8, gpus_per_node=2, slots_per_gpu=3, k=3, dispatch=dispatch)
    held = {slots.tobytes() for slots in baseline_placements(problem)}
    assert {slots.tobytes() for slots in EplbSolver().variants(problem)} <= held
    for name in BASELINES:
        assert get_solver(name).solve(problem, Stop(), 0).slots.tobytes() in held
    running = changed(problem, current=np.arange(24) % 16, max_moves=2)
    assert baseline_placements(running) == []


def test_heuristics_refuse_what_is_fixed() -> None:
    problem = random_problem(0, current=np.arange(32)[::-1], fixed=np.ones(32, dtype=bool))
    for name in BASELINES:
        with pytest.raises(UnsupportedError, match="fixed experts"):
            get_solver(name).solve(problem, Stop(), 0)
    assert baseline_placements(problem) == []
