"""The busiest links are those of the whole message matrix, whichever way they are found."""

from dataclasses import replace

import numpy as np
import pytest

from bench.alltoall.concrete import matrix_loads
from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.links import link_loads
from placement.cost.layer.node_traffic import node_traffic
from placement.cost.layer.score import score_layer
from placement.cost.layer.touch import touch
from tests.cost.matrices import byte_matrix, message_matrix
from tests.layers import changed
from tests.solvers.problems import random_placement, running_problem

RULES = ("per_node", "per_rank", "per_expert", "dense")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
@pytest.mark.parametrize(("gpus_per_node", "tray"), [(1, 1), (2, 1), (4, 2), (8, 1), (8, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_link_loads_are_those_of_the_matrix(rule: str, dispatch: str, gpus_per_node: int, tray: int, seed: int) -> None:
    problem = running_problem(
        seed, experts=9, gpus=8, gpus_per_node=gpus_per_node, slots_per_gpu=2, k=3, tokens=15, windows=1 + seed % 2,
        message=rule, dispatch=dispatch, with_sets=seed != 3,
    )  # fmt: skip
    problem = changed(problem, topology=replace(problem.topology, gpus_per_tray=tray))
    if seed == 2:
        # Two of a node, one of another.
        problem = changed(problem, capacity=[0, 2, 0, 2, 2, 2, 2, 0], home=None)
    slots, nodes = random_placement(problem, seed), problem.topology.nodes
    weight = np.random.default_rng(seed).random((nodes, problem.slots)) + 0.01
    sums = np.zeros((nodes, problem.experts))
    used = slots >= 0
    for node in range(nodes):
        np.add.at(sums[node], slots[used], weight[node, used])
    fractions = weight / sums[:, np.maximum(slots, 0)]
    shares = dispatch_shares(problem, slots, fractions)
    reach = touch(problem, shares)
    fast, whole = link_loads(problem, reach, shares), matrix_loads(problem, message_matrix(problem, reach, shares))
    for name in ("fast", "slow", "across"):
        np.testing.assert_allclose(getattr(fast, name), getattr(whole, name), rtol=1e-12, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", ["even", "nearest"])
@pytest.mark.parametrize("seed", range(4))
def test_node_traffic_is_that_of_the_matrix(rule: str, dispatch: str, seed: int) -> None:
    problem = running_problem(
        seed, experts=9, gpus=8, gpus_per_node=2, slots_per_gpu=2, k=3, tokens=15, windows=1 + seed % 2, message=rule,
        dispatch=dispatch, with_sets=seed != 3,
    )  # fmt: skip
    if seed == 2:
        # Two of a node, one of another.
        problem = changed(problem, capacity=[0, 2, 0, 0, 2, 2, 2, 2], home=None)
    slots = random_placement(problem, seed)
    sent, returned = byte_matrix(problem, slots)
    expected = (sent + returned).reshape(4, 2, 4, 2).sum(axis=(1, 3))
    np.fill_diagonal(expected, 0.0)
    made = node_traffic(problem, slots)
    np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-9)
    score = score_layer(problem, slots)
    tokens = problem.hardware.home_tokens.sum()
    assert made.sum() / tokens == pytest.approx(score.cross_node_bytes_per_token)
    assert weighted_sum(problem.data.window_weight, score.window_balancedness) == pytest.approx(score.balancedness)
