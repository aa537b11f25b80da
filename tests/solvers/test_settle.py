"""Evening out the GPUs of a node: what changes and what must not."""

from itertools import permutations

import numpy as np
import pytest

from placement.check.layer import check_layer
from placement.cost.layer.score import score_layer
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch import near_fractions
from solvers.experts.search.settle import settle
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import random_problem


def _norm(problem: LayerProblem, slot_load: np.ndarray, order: IntArray) -> float:
    """Window mean of the 16-norm of GPU loads over their mean: what is asked for where work follows tokens."""
    by_gpu = slot_load[:, order].reshape(problem.windows, problem.topology.gpus, -1).sum(axis=2)
    by_gpu = by_gpu / by_gpu.mean(axis=1, keepdims=True)
    return float(problem.data.window_weight @ (by_gpu**16).mean(axis=1) ** (1 / 16))


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned", "token_hash", "sglang_static"])
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


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_the_best_of_all_orders_with_drift(seed: int) -> None:
    """GPU loads count with `risk` standard deviations of their drift, in the unit of the mean GPU load."""
    problem = random_problem(
        seed, experts=6, gpus=3, gpus_per_node=3, slots_per_gpu=2, k=2, windows=2, objective="load"
    )
    rng = np.random.default_rng(seed)
    spread = rng.normal(0, 0.3, (4, 6)) * problem.data.mean_load
    problem = changed(problem, drift=spread.T @ spread)
    load = score_layer(problem, np.arange(6)).slot_load
    mean = problem.data.mean_load.sum() / 3

    def value(order: IntArray) -> float:
        sets = order.reshape(3, 2)
        sd = np.array([np.sqrt(problem.data.drift[np.ix_(pair, pair)].sum()) for pair in sets])  # type: ignore[index]
        by_gpu = load[:, order].reshape(2, 3, 2).sum(axis=2)
        by_gpu = by_gpu / by_gpu.mean(axis=1, keepdims=True) + 0.7 * sd / mean
        return float(problem.data.window_weight @ (by_gpu**16).mean(axis=1) ** (1 / 16))

    best = min(value(np.array(order)) for order in permutations(range(6)))
    found = settle(problem, np.arange(6), load, seed, 0.7)
    assert value(found) == pytest.approx(best, rel=1e-9)


def test_experts_of_one_topic_are_parted() -> None:
    """Eight experts as hot as one another, of four topics: only drift tells which two should not share a GPU."""
    problem = random_problem(0, experts=8, gpus=4, gpus_per_node=4, slots_per_gpu=2, k=2)
    problem = changed(problem, load=np.full((1, 8), 0.25), sets=None, objective="load")
    topic = np.arange(8) // 2
    problem = changed(problem, drift=0.01 * (topic[:, None] == topic[None, :]))
    slots = np.arange(8)
    load = score_layer(problem, slots).slot_load
    parted = settle(problem, slots, load, 0, 0.3).reshape(4, 2)
    assert (topic[parted[:, 0]] != topic[parted[:, 1]]).all()
    without = settle(problem, slots, load, 0)
    assert np.array_equal(without, settle(changed(problem, drift=None), slots, load, 0, 0.3))


def test_the_search_evens_out_what_other_routing_finds() -> None:
    """Topics that come and go: on other sequences the GPUs of a node are more even with drift than without it."""
    rng = np.random.default_rng(0)
    experts, topics = 32, 8
    member = rng.permutation(experts) % topics

    def loads(sequences: int) -> np.ndarray:
        heat = rng.dirichlet(np.full(topics, 2.0), sequences)
        return heat[:, member] / np.bincount(member)[member] * 4

    train, test = loads(200), loads(200)
    problem = random_problem(0, experts=experts, gpus=8, gpus_per_node=8, slots_per_gpu=4)
    problem = changed(problem, load=train.mean(axis=0)[None], sets=None, objective="load")
    slots = np.arange(experts)
    worst = {}
    for name, drift in (("with", np.cov(train.T)), ("without", None)):
        posed = changed(problem, drift=drift)
        order = settle(posed, slots, score_layer(posed, slots).slot_load, 0, 0.3)
        worst[name] = float(test[:, order].reshape(200, 8, 4).sum(axis=2).max(axis=1).mean())
    assert worst["with"] < 0.9 * worst["without"]
