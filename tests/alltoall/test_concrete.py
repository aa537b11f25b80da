"""Exact messages of concrete tokens: against plain enumeration, and in expectation against the scorer's matrix."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.alltoall.concrete import (
    ConcreteMessages,
    concrete_bytes,
    concrete_messages,
    concrete_seconds,
    draw_slots,
)
from placement.cost.layer.dispatch import dispatch_shares, policy_of
from placement.cost.layer.score import score_layer
from placement.errors import InputError
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from tests.cost.matrices import byte_matrix
from tests.layers import changed
from tests.solvers.problems import random_placement, random_problem

RULES = ("per_expert", "per_rank", "per_node", "dense")
DISPATCH = ("even", "nearest", "planned", "sglang_static", "sglang_dynamic")


def enumerated(problem: LayerProblem, home: np.ndarray, served: np.ndarray) -> np.ndarray:
    """[gpus, gpus] messages, token by token, as the rules are told in words."""
    m = problem.topology.gpus_per_node
    out = np.zeros((problem.topology.gpus,) * 2, dtype=np.int64)
    for h, row in zip(home.tolist(), served.tolist(), strict=True):
        gpus = [slot // problem.hardware.slots_per_gpu for slot in row]
        if problem.rules.message == "dense":
            gpus = list(range(problem.topology.gpus))
        if problem.rules.message == "per_expert":
            for g in gpus:
                out[h, g] += 1
        elif problem.rules.message == "per_rank":
            for g in set(gpus):
                out[h, g] += 1
        else:
            for g in {g for g in gpus if g // m == h // m}:
                out[h, g] += 1
            for node in {g // m for g in gpus} - {h // m}:
                entry = node * m + h % m
                out[h, entry] += 1
                for g in {g for g in gpus if g // m == node} - {entry}:
                    out[entry, g] += 1
    return out


def fractions_of(problem: LayerProblem, slots: np.ndarray, seed: int) -> np.ndarray | None:
    """[nodes, slots] random shares, some of them 0, of `planned`; other policies have their own."""
    if problem.rules.dispatch != "planned":
        return None
    rng = np.random.default_rng([seed, 7])
    weight = rng.random((problem.topology.nodes, problem.slots)) * (rng.random(problem.slots) < 0.7) + 1e-9
    weight[weight < 1e-6] = 0.0
    for row in weight:
        sums = np.bincount(slots, row, minlength=problem.experts)
        row[sums[slots] == 0] = 1.0
        row /= np.bincount(slots, row, minlength=problem.experts)[slots]
    return weight


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000), shape=st.sampled_from([(1, 1), (2, 1), (2, 2), (4, 2), (8, 2), (8, 4), (6, 3)]),
    rule=st.sampled_from(RULES), dispatch=st.sampled_from(DISPATCH), k=st.integers(1, 4), tokens=st.integers(0, 40),
)  # fmt: skip
def test_messages_are_those_of_enumeration(
    seed: int, shape: tuple[int, int], rule: str, dispatch: str, k: int, tokens: int
) -> None:
    gpus, m = shape
    per_gpu = -(-12 // gpus) + (seed % 3 if gpus > 1 else 0)
    problem = random_problem(
        seed, experts=12, gpus=gpus, gpus_per_node=m, slots_per_gpu=per_gpu, k=k, tokens=30, message=rule,
        dispatch=dispatch,
    )  # fmt: skip
    slots = random_placement(problem, seed)
    rng = np.random.default_rng(seed)
    ids = np.argsort(rng.random((tokens, 12)), axis=1)[:, :k]
    home = rng.integers(0, gpus, tokens)
    served = draw_slots(problem, slots, fractions_of(problem, slots, seed), ids, home, seed)
    assert (slots[served] == ids).all()
    found = concrete_messages(problem, home, served)
    expected = enumerated(problem, home, served)
    np.testing.assert_array_equal(found.matrix, expected)
    same = problem.topology.node_of_gpu[:, None] == problem.topology.node_of_gpu[None, :]
    assert not found.across[same].any()
    assert not found.within[~same].any()
    dispatched, combined = concrete_bytes(problem, found)
    np.testing.assert_array_equal(dispatched, expected * 4096)
    np.testing.assert_array_equal(combined, expected.T * 4096)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", DISPATCH)
@pytest.mark.parametrize("extra", [0, 1])
def test_the_expectation_is_the_scorers_matrix(rule: str, dispatch: str, extra: int) -> None:
    """Every set, home and choice of copies, each by its chance."""
    problem = random_problem(
        3, experts=6, gpus=4, gpus_per_node=2, slots_per_gpu=2 + extra, k=2, tokens=6, message=rule, dispatch=dispatch
    )
    slots = random_placement(problem, 3)
    fractions = fractions_of(problem, slots, 3)
    shares = dispatch_shares(problem, slots, fractions)
    total = np.zeros((4, 4))
    assert isinstance(problem.data.sets, TokenSets)
    for ids, weight in zip(problem.data.sets.ids, problem.data.sets.weight[0], strict=True):
        for home in range(4):
            rows = [shares.class_of_gpu[home] * 6 + e for e in ids]
            copies = [range(shares.start[row], shares.start[row + 1]) for row in rows]
            for chosen in itertools.product(*copies):
                served = shares.slot[list(chosen)][None]
                chance = weight * float(np.prod(shares.fraction[list(chosen)]))
                total += chance * concrete_messages(problem, np.array([home]), served).matrix
    dispatched, combined = byte_matrix(problem, slots, fractions)
    scale = problem.hardware.rates.tokens_per_gpu * problem.hardware.rates.dispatch_bytes
    np.testing.assert_allclose(dispatched, total * scale, rtol=1e-9)
    np.testing.assert_allclose(combined, total.T * scale, rtol=1e-9)


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_the_expectation_is_the_scorers_matrix_around_failed_gpus(dispatch: str) -> None:
    """As above; a home has as many tokens of each kind as the least common number of survivors, dealt out in turn."""
    capacity = np.array([2, 0, 0, 2, 2, 2, 2, 0])
    problem = random_problem(
        3, experts=5, gpus=8, gpus_per_node=4, slots_per_gpu=2, k=2, tokens=3, dispatch=dispatch, capacity=capacity
    )
    slots = random_placement(problem, 3)
    used, planned = slots >= 0, np.zeros((2, 16))
    for node, row in enumerate(planned):
        row[used] = np.random.default_rng(node).random(used.sum())
        row[used] /= np.bincount(slots[used], row[used], minlength=5)[slots[used]]
    fractions = planned if dispatch == "planned" else None
    shares = dispatch_shares(problem, slots, fractions)
    total, each = np.zeros((8, 8)), 6
    assert problem.data.sets is not None
    for ids, weight in zip(problem.data.sets.ids, problem.data.sets.weight[0], strict=True):
        for home in np.flatnonzero(capacity):
            rows = [shares.class_of_gpu[home] * 5 + e for e in ids]
            copies = [range(shares.start[row], shares.start[row + 1]) for row in rows]
            for chosen in itertools.product(*copies):
                served = np.tile(shares.slot[list(chosen)], (each, 1))
                chance = weight * float(np.prod(shares.fraction[list(chosen)])) / each
                total += chance * concrete_messages(problem, np.full(each, home), served).matrix
    dispatched, _ = byte_matrix(problem, slots, fractions)
    scale = problem.hardware.rates.tokens_per_gpu * 8 / 5 * problem.hardware.rates.dispatch_bytes
    np.testing.assert_allclose(dispatched, total * scale, rtol=1e-9)
    assert not dispatched[capacity == 0].any()
    assert not dispatched[:, capacity == 0].any()


@pytest.mark.parametrize("dispatch", DISPATCH)
def test_draws_follow_the_policy(dispatch: str) -> None:
    problem = random_problem(5, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=4, k=2, tokens=50, dispatch=dispatch)
    slots = random_placement(problem, 5)
    fractions = fractions_of(problem, slots, 5)
    shares = dispatch_shares(problem, slots, fractions)
    tokens = 40_000
    rng = np.random.default_rng(0)
    ids, home = rng.integers(0, 8, (tokens, 1)), rng.integers(0, 4, tokens)
    found = np.zeros(len(shares.slot))
    once = policy_of(problem).drawn_once
    seeds = range(400) if once else range(1)
    for seed in seeds:
        part = slice(seed * 100, (seed + 1) * 100) if once else slice(None)
        served = draw_slots(problem, slots, fractions, ids[part], home[part], seed)
        if once:
            pairs = home[part] * 8 + ids[part, 0]
            for pair in np.unique(pairs):
                assert len(np.unique(served[pairs == pair])) == 1
        row = shares.class_of_gpu[home[part]] * 8 + ids[part, 0]
        for r, slot in zip(row, served[:, 0], strict=True):
            entries = np.arange(shares.start[r], shares.start[r + 1])
            found[entries[shares.slot[entries] == slot]] += 1
    rows = np.repeat(np.arange(len(shares.start) - 1), np.diff(shares.start))
    share = found / np.bincount(rows, found)[rows]
    assert np.abs(share - shares.fraction).max() < (0.12 if once else 0.04)
    assert not found[shares.fraction == 0].any()


def test_seconds_are_the_scorers_formulas() -> None:
    problem = random_problem(1, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=64, message="per_rank")
    matrix = np.array([[5, 1, 2, 0], [1, 9, 9, 9], [3, 3, 1, 4], [0, 0, 2, 1]])
    same = problem.topology.node_of_gpu[:, None] == problem.topology.node_of_gpu[None, :]
    messages = ConcreteMessages(np.where(same, 0, matrix), np.where(same, matrix, 0))
    rates = problem.hardware.rates
    # GPU 1 sends 18 messages off its node; the fast links carry at most 4.
    expected = rates.fast_latency_s + rates.slow_latency_s + 18 * 4096 / rates.slow_bytes_per_s
    assert concrete_seconds(problem, messages) == pytest.approx((expected, expected))
    many = changed(problem, rates=replace(rates, tokens_per_gpu=200_000.0))
    slots = random_placement(many, 1)
    rng = np.random.default_rng(2)
    assert many.data.sets is not None
    ids = many.data.sets.ids[rng.choice(len(many.data.sets.ids), 800_000, p=many.data.sets.weight[0])]
    home = np.arange(800_000) % 4
    found = concrete_messages(many, home, draw_slots(many, slots, None, ids, home, 0))
    assert concrete_seconds(many, found)[0] == pytest.approx(score_layer(many, slots).dispatch_s, rel=0.01)


def test_homes_and_slots_that_do_not_exist_are_refused() -> None:
    problem = random_problem(1, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=8)
    slots = random_placement(problem, 1)
    ids = np.array([[0, 1]])
    for home in (np.array([4]), np.array([-1]), np.array([0, 1])):
        with pytest.raises(InputError, match="home"):
            draw_slots(problem, slots, None, ids, home, 0)
    with pytest.raises(InputError, match="served"):
        concrete_messages(problem, np.array([0]), np.array([[0, 8]]))
