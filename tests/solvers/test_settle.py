"""Evening out the GPUs of a node: what changes and what must not."""

from itertools import permutations

import numpy as np
import pytest

from placement.cost.moe_layer import score_layer
from placement.problem import IntArray, LayerProblem
from placement.verify import check_layer
from solvers.dispatch import near_fractions
from solvers.registry import get_solver
from solvers.search.settle import settle
from solvers.stop import Stop
from tests.solvers.problems import random_problem


def _norm(problem: LayerProblem, slot_load: np.ndarray, order: IntArray) -> float:
    """Window mean of the 16-norm of GPU loads over their mean: what is asked for where work follows tokens."""
    by_gpu = slot_load[:, order].reshape(problem.windows, problem.topology.gpus, -1).sum(axis=2)
    by_gpu = by_gpu / by_gpu.mean(axis=1, keepdims=True)
    return float(problem.window_weight @ (by_gpu**16).mean(axis=1) ** (1 / 16))


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
def test_nodes_keep_their_copies_and_messages(dispatch: str) -> None:
    for seed in range(4):
        problem = random_problem(
            seed, experts=32, gpus=16, gpus_per_node=4, slots_per_gpu=3, dispatch=dispatch, windows=2, objective="load"
        )
        slots = get_solver("linear").solve(problem, Stop(), seed).slots
        fractions = near_fractions(problem, slots) if dispatch == "planned" else None
        before = score_layer(problem, slots, fractions)
        order = settle(problem, slots, before.slot_load, seed)
        assert np.array_equal(np.sort(order), np.arange(48))
        assert np.array_equal(order // 12, np.arange(48) // 12)
        assert check_layer(problem, slots[order]) == ()
        after = score_layer(problem, slots[order], None if fractions is None else fractions[:, order])
        assert after.remote_nodes_per_token == pytest.approx(before.remote_nodes_per_token, rel=1e-9)
        np.testing.assert_allclose(after.slot_load, before.slot_load[:, order], rtol=1e-9)
        assert _norm(problem, before.slot_load, order) < _norm(problem, before.slot_load, np.arange(48))


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_best_of_all_orders_of_a_node(seed: int) -> None:
    problem = random_problem(
        seed, experts=6, gpus=3, gpus_per_node=3, slots_per_gpu=2, k=2, windows=2, objective="load"
    )
    slots = np.arange(6)
    load = score_layer(problem, slots).slot_load
    best = min(_norm(problem, load, np.array(order)) for order in permutations(range(6)))
    assert _norm(problem, load, settle(problem, slots, load, seed)) == pytest.approx(best, rel=1e-9)
