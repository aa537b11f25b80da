import numpy as np
import pytest

from placement.verify import check_layer
from solvers.base import UnsupportedError
from solvers.heuristics.eplb import EplbSolver, eplb_layer
from solvers.registry import BASELINES, get_solver
from solvers.stop import Stop
from tests.solvers.problems import random_problem

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
