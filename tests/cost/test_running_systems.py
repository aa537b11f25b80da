"""Unlike and failed GPUs, uneven homes and the worst windows: the scorer against enumeration, and its symmetries."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.score import LayerScore, score_layer
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from tests.cost.matrices import byte_matrix
from tests.layers import changed
from tests.solvers.problems import random_placement, random_problem, running_problem
from tests.solvers.reference import candidates, home_shares, messages, reference_objective

RULES = ("per_node", "per_rank", "per_expert")


def small(seed: int, make=running_problem, **changes: object) -> LayerProblem:
    arguments: dict[str, object] = {
        "experts": 5, "gpus": 4, "gpus_per_node": (1, 2, 4)[seed % 3], "slots_per_gpu": 2 + seed % 2, "k": 2,
        "tokens": 8, "windows": 1 + seed % 3, "message": RULES[seed // 2 % 3],
        "dispatch": ("even", "nearest")[seed % 2], "objective": "load" if seed % 5 == 0 else "time",
        "with_sets": seed % 7 != 0,
    }  # fmt: skip
    if seed % 5 == 1 and arguments["gpus_per_node"] != arguments["gpus"]:
        arguments["objective"] = "traffic"
    return make(seed, **(arguments | changes))


@pytest.mark.parametrize("seed", range(60))
def test_objective_equals_enumeration(seed: int) -> None:
    problem = small(seed)
    if seed % 4 == 1:
        problem = changed(problem, rates=replace(problem.hardware.rates, overlap="two_batch"))
    slots = random_placement(problem, seed)
    assert score_layer(problem, slots).objective == pytest.approx(
        reference_objective(problem, slots.tolist()), rel=1e-9
    )


@pytest.mark.parametrize("seed", range(40))
def test_dense_equals_enumeration(seed: int) -> None:
    problem = small(seed, message="dense")
    slots = random_placement(problem, seed)
    expected = reference_objective(problem, slots.tolist())
    assert score_layer(problem, slots).objective == pytest.approx(expected, rel=1e-9)


def failed(seed: int, **changes: object) -> LayerProblem:
    """Two nodes of three or four GPUs, of which one to three have failed, on either node or on both."""
    m = 3 + seed % 2
    capacity = np.random.default_rng([seed, 8]).permutation(2 * m) >= 1 + seed % 3
    capacity = 3 * capacity.astype(np.int64)
    return random_problem(
        seed, **({"experts": 6, "gpus": 2 * m, "gpus_per_node": m, "slots_per_gpu": 3, "k": 2, "tokens": 8,
                  "capacity": capacity, "dispatch": ("even", "nearest")[seed // 2 % 2]} | changes),
    )  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("seed", range(24))
@pytest.mark.parametrize("fast", [400e9, 1e9])
@pytest.mark.parametrize("rule", ["per_node", "dense"])
def test_survivors_share_what_entered_at_failed_gpus(rule: str, seed: int, fast: float) -> None:
    """Where slow links decide, and where the fast ones do."""
    problem = failed(seed, message=rule)
    topology = replace(problem.topology, gpus_per_tray=2 if seed % 4 == 3 else 1)
    problem = changed(problem, topology=topology, rates=replace(problem.hardware.rates, fast_bytes_per_s=fast))
    slots = random_placement(problem, seed)
    assert score_layer(problem, slots).objective == pytest.approx(
        reference_objective(problem, slots.tolist()), rel=1e-9
    )
    gpus = problem.topology.gpus
    sent, expected = byte_matrix(problem, slots)[0] / problem.hardware.rates.dispatch_bytes, np.zeros((gpus, gpus))
    for (source, destination), count in messages(problem, slots.tolist(), 0).items():
        expected[source, destination] += count
    np.fill_diagonal(sent, 0.0)
    np.testing.assert_allclose(sent, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dispatch", ["even", "nearest"])
def test_which_ranks_have_failed_does_not_matter(dispatch: str) -> None:
    """A placement costs the same where local ranks change places with all that they hold."""
    problem = random_problem(
        1, experts=12, gpus=12, gpus_per_node=6, slots_per_gpu=2, k=3, dispatch=dispatch,
        capacity=[2, 2, 2, 0, 0, 2, *[2] * 6],
    )  # fmt: skip
    for seed in range(6):
        slots = random_placement(problem, seed)
        before, ranks = score_layer(problem, slots), np.random.default_rng(seed).permutation(6)
        gpus = np.append(ranks, 6 + ranks)
        moved = changed(problem, capacity=problem.hardware.capacities[gpus])
        after = score_layer(moved, slots.reshape(12, -1)[gpus].reshape(-1))
        for field in fields(LayerScore):
            if field.name not in ("gpu_load", "slot_load"):
                np.testing.assert_allclose(getattr(after, field.name), getattr(before, field.name), rtol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_bytes_and_nodes_equal_enumeration(seed: int) -> None:
    problem = small(seed, windows=1, with_sets=True, gpus_per_node=2)
    slots = random_placement(problem, seed)
    expected = np.zeros((4, 4))
    for (source, destination), count in messages(problem, slots.tolist(), 0).items():
        expected[source, destination] += count
    sent = byte_matrix(problem, slots)[0] / problem.hardware.rates.dispatch_bytes
    np.fill_diagonal(sent, 0.0)
    np.testing.assert_allclose(sent, expected, rtol=1e-9, atol=1e-9)
    score = score_layer(problem, slots)
    node = np.arange(4) // 2
    across = expected[node[:, None] != node[None, :]].sum() / (4 * problem.hardware.rates.tokens_per_gpu)
    assert score.cross_node_bytes_per_token == pytest.approx(8192 * across, abs=1e-9)
    reached = remote = 0.0
    for home, share in enumerate(home_shares(problem)):
        for ids, weight in zip(problem.data.sets.ids.tolist(), problem.data.sets.weight[0].tolist(), strict=True):
            for j in range(2):
                miss = 1.0
                for e in ids:
                    held = candidates(problem, slots.tolist(), home, e)
                    miss *= sum(g // 2 != j for g in held) / len(held)
                reached += share * weight * (1 - miss)
                remote += share * weight * (1 - miss) * (j != home // 2)
    assert score.nodes_per_token == pytest.approx(reached, rel=1e-9)
    assert score.remote_nodes_per_token == pytest.approx(remote, rel=1e-9, abs=1e-12)


def same(a: LayerScore, b: LayerScore) -> bool:
    """Whether every figure is the same, bit by bit."""
    return all(
        np.array_equal(getattr(a, field.name), getattr(b, field.name), equal_nan=True) for field in fields(LayerScore)
    )


NEUTRAL = {
    "tail": lambda p: 1.0,
    "capacity": lambda p: np.full(p.topology.gpus, p.hardware.slots_per_gpu),
    "speed": lambda p: np.ones(p.topology.gpus),
    "home": lambda p: np.full(p.topology.gpus, 1.0 / p.topology.gpus),
    "fixed": lambda p: np.zeros(p.slots, dtype=bool),
}


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), name=st.sampled_from([*NEUTRAL, "all"]))
def test_neutral_values_change_no_bit(seed: int, name: str) -> None:
    plain = small(seed, random_problem, gpus=6, gpus_per_node=(1, 2, 3)[seed % 3], experts=8)
    slots = random_placement(plain, seed)
    plain = changed(plain, current=slots)
    names = list(NEUTRAL) if name == "all" else [name]
    neutral = changed(plain, **{n: NEUTRAL[n](plain) for n in names})
    assert same(score_layer(plain, slots), score_layer(neutral, slots))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_speed_scales_work_and_no_balance(seed: int, factor: float) -> None:
    problem = small(seed, capacity=None, home=None)
    slots = random_placement(problem, seed)
    faster = changed(problem, speed=problem.hardware.speeds * factor)
    before, after = score_layer(problem, slots), score_layer(faster, slots)
    assert after.experts_s == pytest.approx(before.experts_s / factor)
    assert after.dispatch_s == before.dispatch_s
    for name in ("balancedness", "pooled_imbalance"):
        assert getattr(after, name) == pytest.approx(getattr(before, name))
    assert after.balancedness <= 1 + 1e-12
    equal = changed(problem, speed=np.full(4, factor))
    assert score_layer(equal, slots).balancedness == score_layer(changed(problem, speed=None), slots).balancedness


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_renaming_nodes_with_all_that_they_have_changes_nothing(seed: int) -> None:
    problem = small(seed, gpus=6, gpus_per_node=2, experts=8)
    slots, order = random_placement(problem, seed), np.random.default_rng(seed).permutation(3)
    gpus = (order[:, None] * 2 + np.arange(2)).reshape(-1)
    moved = changed(
        problem,
        capacity=problem.hardware.capacities[gpus],
        speed=problem.hardware.speeds[gpus],
        home=problem.hardware.homes[gpus],
    )
    a = score_layer(problem, slots)
    b = score_layer(moved, slots.reshape(6, -1)[gpus].reshape(-1))
    for field in fields(LayerScore):
        if field.name not in ("gpu_load", "slot_load"):
            np.testing.assert_allclose(getattr(b, field.name), getattr(a, field.name), rtol=1e-9, equal_nan=True)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_objective_is_the_tail_of_its_windows(seed: int) -> None:
    problem = small(seed, windows=3)
    slots = random_placement(problem, seed)
    values = [score_layer(changed(problem, tail=t), slots) for t in (1.0, 0.5, 0.0)]
    assert values[0].objective <= values[1].objective * (1 + 1e-12) <= values[2].objective * (1 + 2e-12)
    assert values[2].objective == values[0].window_value.max()
    first = values[0]
    load = first.gpu_load / problem.hardware.relative_speed
    mean = first.gpu_load.sum(axis=1) / problem.hardware.alive.sum()
    imbalance = float(problem.data.window_weight @ (load.max(axis=1) / mean))
    means = {"load": imbalance, "time": first.time_s, "traffic": first.cross_node_bytes_per_token}
    assert first.objective == pytest.approx(means[problem.objective.kind], rel=1e-15)
    assert {v.time_s for v in values} == {values[0].time_s}


def test_a_failed_gpu_has_no_work_and_sends_nothing() -> None:
    problem = random_problem(3, experts=6, gpus=4, gpus_per_node=2, slots_per_gpu=3, k=2, capacity=[3, 3, 0, 2])
    slots = np.array([0, 1, 2, 3, 4, 5, EMPTY, EMPTY, EMPTY, 0, 3, EMPTY])
    score = score_layer(problem, slots)
    assert score.gpu_load[0, 2] == 0
    assert score.gpu_load.sum() == pytest.approx(problem.data.load.sum())
    assert score.pooled_imbalance == pytest.approx(score.gpu_load.max() * 3 / problem.data.load.sum())
    assert problem.hardware.home_tokens.tolist() == pytest.approx([512 * 4 / 3] * 2 + [0, 512 * 4 / 3])
    sent, returned = byte_matrix(problem, slots)
    for matrix in (sent, returned):
        assert matrix[2].sum() == 0
        assert matrix[:, 2].sum() == 0
    # Tokens of GPU 0 enter the other node at GPU 3, as GPU 2 has failed.
    assert problem.hardware.entry_share.tolist() == [[[1, 0], [0, 1]], [[0, 1], [0, 1]]]
    assert sent[0, 3] > 0
