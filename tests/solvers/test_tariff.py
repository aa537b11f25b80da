"""The tariff's rows, bins and tables price a placement as the scorer does."""

from __future__ import annotations

import pickle
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from placement.cost.layer.risk import tail_mean
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from specs.engine import MessageRule
from tests.layers import changed
from tests.solvers.problems import RATES, mixed, random_placement, random_problem, running_problem

#: Messages of unlike sizes each way, and work that is worth something beside them.
UNLIKE = replace(RATES, combine_bytes=11_000.0, token_s=2e-7)


def reached(problem: LayerProblem, slots: np.ndarray, level: str) -> np.ndarray:
    """[windows, bins] messages of a token to GPUs or nodes, set by set, where every expert has one copy."""
    width = 1 if level == "gpu" else problem.topology.gpus_per_node
    bin_of = {int(e): s // problem.hardware.slots_per_gpu // width for s, e in enumerate(slots) if e != EMPTY}
    out = np.zeros((problem.windows, problem.topology.gpus // width))
    assert problem.data.sets is not None
    for w in range(problem.windows):
        for ids, weight in zip(problem.data.sets.ids.tolist(), problem.data.sets.weight[w].tolist(), strict=True):
            for b in [bin_of[e] for e in ids] if problem.rules.message == "per_expert" else {bin_of[e] for e in ids}:
                out[w, b] += weight
    return out


@pytest.mark.parametrize("rule", get_args(MessageRule))
@pytest.mark.parametrize("objective", ["time", "load", "traffic"])
@pytest.mark.parametrize("seed", range(10))
def test_links_and_copies_price_single_copies(rule: str, objective: str, seed: int) -> None:
    m = (2, 4, 8)[seed % 3]
    if m == 8 and objective == "traffic":
        m = 4
    capacity = np.random.default_rng(seed).permutation([1, 1, 2, 1, 1, 0, 1, 1])
    problem = running_problem(
        seed, experts=8, gpus=8, gpus_per_node=m, slots_per_gpu=2, k=3, tokens=12, message=rule, objective=objective,
        windows=1 + seed % 3, capacity=capacity,
    )  # fmt: skip
    rates = replace(mixed(UNLIKE) if seed % 2 else UNLIKE, overlap="two_batch" if seed % 4 > 1 else "none")
    if seed % 5 == 0:
        rates = replace(rates, fast_bytes_per_s=2e9)
    problem = changed(problem, rates=rates, topology=replace(problem.topology, gpus_per_tray=2 if seed % 3 else 1))
    slots, tariff = random_placement(problem, seed), tariff_of(problem)
    holds = np.zeros((8, 8))
    holds[problem.hardware.gpu_of_slot[slots != EMPTY], slots[slots != EMPTY]] = 1.0
    values = np.full(problem.windows, tariff.least_link)
    for row in tariff.links:
        values = np.maximum(values, reached(problem, slots, row.level) @ row.price)
    if objective == "time":
        work = (holds @ tariff.copy_times[:, 1].transpose(0, 2, 1)) / tariff.speeds[:, None]
        values = tariff.layer_seconds(values + tariff.wait_s, work.max(axis=1))
    elif objective == "load":
        values = (holds @ tariff.copy_costs[1].T / tariff.speeds[:, None]).max(axis=0)
    found = tail_mean(values, problem.data.window_weight, problem.objective.tail)
    assert found == pytest.approx(score_layer(problem, slots).objective, rel=1e-9)


@pytest.mark.parametrize("rule", get_args(MessageRule))
@pytest.mark.parametrize(("gpus_per_node", "tray"), [(8, 1), (4, 1), (4, 2), (2, 2), (1, 1)])
def test_bins_price_messages(rule: str, gpus_per_node: int, tray: int) -> None:
    """By home node and with homes alike, where the links that bins stand for decide."""
    rates = replace(UNLIKE, fast_bytes_per_s=UNLIKE.fast_bytes_per_s * (1 if gpus_per_node == 8 else 1e9))
    problem = random_problem(
        3, experts=16, gpus=8, gpus_per_node=gpus_per_node, slots_per_gpu=2, message=rule, rates=rates
    )
    problem = changed(problem, topology=replace(problem.topology, gpus_per_tray=tray))
    slots, tariff = random_placement(problem, 1), tariff_of(problem)
    bins, score = tariff.bins, score_layer(problem, slots)
    p = reached(problem, slots, "node" if len(np.unique(bins.of_gpu)) < 8 else "gpu")[0]
    into = np.bincount(bins.in_group, (bins.into * p).sum(axis=0))
    alike = bins.in_s * np.bincount(bins.in_group, p) / np.bincount(bins.in_group)
    np.testing.assert_allclose(into, alike, rtol=1e-12)
    out = bins.out_s * (p.sum() - np.bincount(bins.out_group, p))
    moved = score.dispatch_s + score.combine_s - tariff.wait_s - tariff.least_link
    assert max(into.max(), out.max()) == pytest.approx(moved, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("rule", ["per_node", "per_rank", "per_expert"])
def test_bins_of_one_node_have_the_tokens_of_a_failed_gpu(rule: str) -> None:
    capacity = np.array([2, 2, 0, 2])
    problem = random_problem(5, experts=6, gpus=4, gpus_per_node=4, slots_per_gpu=2, message=rule, capacity=capacity)
    slots, tariff = random_placement(problem, 2), tariff_of(problem)
    bins, score, p = tariff.bins, score_layer(problem, slots), reached(problem, slots, "gpu")[0]
    busiest = np.maximum(bins.in_s * p, bins.out_s * (p.sum() - p))[capacity > 0].max()
    assert busiest == pytest.approx(score.dispatch_s + score.combine_s - tariff.wait_s, rel=1e-9)


@pytest.mark.parametrize("kind", ["time", "load"])
def test_copies_share_alike(kind: str) -> None:
    problem = random_problem(
        0, experts=6, gpus=4, gpus_per_node=2, slots_per_gpu=2, capacity=[2, 2, 2, 2], objective=kind
    )
    tariff = tariff_of(problem)
    assert tariff.most_copies == 3
    np.testing.assert_array_equal(tariff.copy_costs[0], tariff.copy_costs[1])
    one, three = tariff.copy_loads[1], tariff.copy_loads[3]
    np.testing.assert_allclose(one, 3 * three)
    assert one.sum() == pytest.approx(4.0)
    failed = tariff_of(changed(problem, capacity=[2, 2, 2, 0]))
    assert failed.most_copies == 1
    assert failed.copy_loads[1].sum() == pytest.approx(3.0)


def test_prices_are_made_once_and_stay_behind() -> None:
    problem = random_problem(0)
    assert tariff_of(problem) is tariff_of(problem)
    assert tariff_of(changed(problem, dispatch="nearest")) is not tariff_of(problem)
    size = len(pickle.dumps(random_problem(0)))
    _ = tariff_of(problem).copy_times, tariff_of(problem).links
    assert len(pickle.dumps(problem)) == size
