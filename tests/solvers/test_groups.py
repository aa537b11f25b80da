from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value, score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.search.groups import _Prices, _Pricing, best_ways, group_starts
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, random_problem


def grouped(seed: int, groups: int = 8, nodes: int = 4, **changes: object) -> LayerProblem:
    """Tokens that use experts of a few groups; three copies' room for two experts."""
    problem = random_problem(seed, experts=32, gpus=2 * nodes, gpus_per_node=2, slots_per_gpu=48 // (2 * nodes), k=4)
    group = np.random.default_rng(seed).permutation(np.arange(32) % groups)
    return changed(problem, group=group, **changes)  # type: ignore[arg-type]


def prices(problem: LayerProblem) -> _Prices:
    return _Prices.of(problem, [np.flatnonzero(problem.rules.group == g) for g in np.unique(problem.rules.group)])


def planted(heat: np.ndarray) -> LayerProblem:
    """8 groups of 2 experts; a token uses the four experts of two groups g and g + 4."""
    pairs = np.array([[g, g + 4] for g in range(4)])
    ids = np.sort(np.concatenate([2 * pairs, 2 * pairs + 1], axis=1), axis=1)
    weight = heat / heat.sum()
    load = np.zeros(16)
    for row, share in zip(ids, weight, strict=True):
        load[row] += share
    return layer_problem(
        load, Topology(8, 2), 2, RATES, sets=TokenSets(ids, weight[None, :]), group=np.arange(16) // 2
    )  # fmt: skip


def test_groups_used_together_share_a_node() -> None:
    problem = planted(np.array([1.0, 1.1, 0.9, 1.05]))
    found = group_starts(problem)
    assert score_layer(problem, found[0]).nodes_per_token == pytest.approx(1.0)
    by_load = min(score_layer(problem, slots).nodes_per_token for slots in EplbSolver().variants(problem))
    assert by_load > 1.5


def test_a_balance_cap_counts_more_than_traffic() -> None:
    problem = planted(np.array([1.4, 1.0, 1.0, 1.0]))
    free, capped = group_starts(problem)[0], group_starts(changed(problem, max_load=1.15))[0]
    assert score_layer(problem, free).nodes_per_token < score_layer(problem, capped).nodes_per_token
    assert score_layer(problem, capped).pooled_imbalance <= 1.15 < score_layer(problem, free).pooled_imbalance


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), nodes=st.sampled_from([2, 4]), rule=st.sampled_from(["per_node", "per_rank"]))
def test_starts_are_valid_and_the_first_way_is_the_best_of_all(seed: int, nodes: int, rule: str) -> None:
    problem = grouped(seed, nodes=nodes, message=rule)
    found = group_starts(problem)
    assert found
    for slots in found:
        assert check_layer(problem, slots) == ()
    # Brute force over orders of six groups: every share-out of them appears.
    small = grouped(seed, groups=8, nodes=4)
    data = prices(small)
    price = _Pricing(data)
    every = {
        tuple(sorted(tuple(sorted(order[2 * j : 2 * j + 2])) for j in range(4))) for order in permutations(range(8))
    }
    assert len(every) == 105
    best = best_ways(data, 4)[0]
    assert price(best) == min(price(way) for way in every)


@pytest.mark.parametrize("seed", range(5))
def test_swaps_come_near_the_best_of_all_ways(seed: int) -> None:
    data = prices(grouped(seed))
    price = _Pricing(data)
    assert price(best_ways(data, 4, most_ways=0)[0])[1] <= price(best_ways(data, 4)[0])[1] * 1.01


def test_the_estimate_is_the_layers_time_where_work_is_even() -> None:
    """With one expert a group on each GPU and weight reads left out, the estimate is the scorer's time."""
    rates = replace(RATES, weight_s=0.0, fast_bytes_per_s=1e15)
    ids = np.array([[0, 1, 2, 3], [0, 1, 4, 5], [4, 5, 6, 7]])
    weight = np.array([0.5, 0.2, 0.3])
    load = np.zeros(8)
    for row, share in zip(ids, weight, strict=True):
        load[row] += share
    problem = layer_problem(
        load, Topology(4, 2), 2, rates, sets=TokenSets(ids, weight[None, :]), group=np.arange(8) // 2
    )  # fmt: skip
    data = prices(problem)
    way = ((0, 2), (1, 3))
    # GPUs of a node hold one expert of either group, so that they work alike.
    slots = np.array([0, 4, 1, 5, 2, 6, 3, 7])
    found = _Pricing(data)(way)[1] + tariff_of(problem).wait_s
    assert found == pytest.approx(objective_value(problem, slots), rel=1e-12)


def test_what_has_no_groups_to_share_out_has_no_starts() -> None:
    problem = grouped(0)
    assert group_starts(changed(problem, group=None)) == []
    assert group_starts(changed(problem, speed=np.linspace(1, 2, 8))) == []
    assert group_starts(changed(problem, group=np.arange(32) // 11)) == []
    assert group_starts(changed(problem, topology=Topology(8, 8))) == []
