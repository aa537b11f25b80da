"""Engines' rules of dispatch on small layers: what is solved and bounded, against all placements."""

import pytest

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.bounds import layer_bound
from solvers.registry import get_solver
from solvers.result import Status
from solvers.stop import Stop
from specs.engine import Dispatch, MessageRule
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import random_problem, running_problem

RULES: tuple[tuple[Dispatch, MessageRule], ...] = (
    ("sglang_static", "per_node"), ("sglang_dynamic", "per_rank"), ("token_hash", "per_node"), ("token_hash", "dense"),
)  # fmt: skip
#: Experts, GPUs, GPUs of a node and of an OS node, slots of a GPU.
SHAPES = ((4, 3, 1, 1, 2), (5, 3, 1, 1, 2), (3, 4, 2, 1, 1), (3, 4, 2, 2, 1), (3, 2, 2, 1, 2), (3, 3, 3, 3, 2))


def _layer(seed: int, dispatch: Dispatch, message: MessageRule) -> LayerProblem:
    experts, gpus, m, os_gpus, slots = SHAPES[seed % len(SHAPES)]
    make = random_problem if seed // len(SHAPES) % 2 else running_problem
    return make(
        seed, experts=experts, gpus=gpus, gpus_per_node=m, slots_per_gpu=slots, k=2, tokens=6, windows=1 + seed % 2,
        dispatch=dispatch, message=message, topology=Topology(gpus, m, os_gpus=os_gpus),
    )  # fmt: skip


def _held_against_all(seeds: range, dispatch: Dispatch, message: MessageRule) -> int:
    """How many layers the search by itself missed; what `auto` misses, or a bound above the optimum, fails."""
    missed = 0
    for seed in seeds:
        problem = _layer(seed, dispatch, message)
        least = min(objective_value(problem, slots) for slots in placements(problem))
        assert layer_bound(problem).value <= least * (1 + 1e-9), seed
        answer, found = (get_solver(name).solve(problem, Stop(0.3), seed) for name in ("auto", "search"))
        auto, search = answer.slots, found.slots
        assert auto is not None
        assert search is not None
        assert not check_layer(problem, auto)
        if message == "dense":
            # Balance is sought, where no placement changes the messages.
            loads = changed(problem, objective="load")
            most = min(objective_value(loads, slots) for slots in placements(problem))
            assert objective_value(loads, auto) <= most * 1.004 * (1 + 1e-9), seed
        else:
            assert objective_value(problem, auto) == pytest.approx(least, rel=1e-9), seed
            assert answer.status is Status.OPTIMAL, seed
            assert answer.bound == pytest.approx(least, rel=1e-9), seed
        missed += objective_value(problem, search) > least * (1 + 1e-6)
    return missed


@pytest.mark.parametrize(("dispatch", "message"), RULES)
def test_small_layers_are_solved_and_bounded(dispatch: Dispatch, message: MessageRule) -> None:
    assert _held_against_all(range(12), dispatch, message) <= 2


@pytest.mark.parametrize("dispatch", ["sglang_static", "token_hash"])
def test_thousands_of_placements_are_all_tried(dispatch: Dispatch) -> None:
    """As under `nearest`: what such a rule costs to price has nothing to do with it."""
    problem = random_problem(1, experts=6, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=60, dispatch=dispatch)
    answer = get_solver("auto").solve(problem, Stop(), 1)
    assert (answer.status, answer.iterations) == (Status.OPTIMAL, 8460)


@pytest.mark.slow
@pytest.mark.parametrize(("dispatch", "message"), RULES)
def test_300_small_layers_are_solved_and_bounded(dispatch: Dispatch, message: MessageRule) -> None:
    assert _held_against_all(range(300), dispatch, message) <= 24


@pytest.mark.slow
@pytest.mark.parametrize(("dispatch", "message"), [("nearest", "per_node"), ("even", "per_rank")])
def test_100_small_layers_under_rules_of_no_engine_are_solved_and_bounded(
    dispatch: Dispatch, message: MessageRule
) -> None:
    assert _held_against_all(range(100), dispatch, message) <= 12
