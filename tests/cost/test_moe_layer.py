"""The scorer against an enumeration of every home, token and draw of copies, message by message."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from placement.cost.layer.score import score_layer
from placement.cost.layer.work import slot_slopes, slot_times
from placement.errors import InputError
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from tests.cost.matrices import byte_matrix
from tests.layers import changed, layer_problem
from tests.solvers.problems import mixed, random_problem


def _slot_time(tokens: np.ndarray, rates: LayerRates) -> np.ndarray:
    """Seconds of slots over all kinds of passes."""
    return slot_times(tokens, rates).sum(axis=0)


def draws(problem: LayerProblem, slots: np.ndarray, home: int, expert: int) -> list[int]:
    """GPUs among which the copy that serves `expert` for tokens of `home` is drawn fairly."""
    gpus = [s // problem.hardware.slots_per_gpu for s in range(problem.slots) if slots[s] == expert]
    if problem.rules.dispatch == "nearest":
        node = home // problem.topology.gpus_per_node
        if home in gpus:
            return [home]
        near = [g for g in gpus if g // problem.topology.gpus_per_node == node]
        return near or gpus
    return gpus


def enumerated_messages(problem: LayerProblem, slots: np.ndarray) -> np.ndarray:
    """[gpus, gpus] expected messages of one dispatch in the first window, by brute force."""
    m, gpus = problem.topology.gpus_per_node, problem.topology.gpus
    out = np.zeros((gpus, gpus))
    for home in range(gpus):
        for ids, weight in zip(problem.data.sets.ids, problem.data.sets.weight[0], strict=True):
            choices = [draws(problem, slots, home, int(e)) for e in ids]
            chance = weight * problem.hardware.rates.tokens_per_gpu / np.prod([len(c) for c in choices])
            for chosen in product(*choices):
                if problem.rules.message == "per_expert":
                    for g in chosen:
                        out[home, g] += chance
                    continue
                reached = set(range(gpus)) if problem.rules.message == "dense" else set(chosen)
                if problem.rules.message == "per_rank":
                    for g in reached:
                        out[home, g] += chance
                    continue
                for node in {g // m for g in reached}:
                    here = {g for g in reached if g // m == node}
                    if node == home // m:
                        for g in here:
                            out[home, g] += chance
                        continue
                    entry = node * m + home % m
                    out[home, entry] += chance
                    for g in here - {entry}:
                        out[entry, g] += chance
    return out


@pytest.mark.parametrize("rule", ["per_expert", "per_rank", "per_node", "dense"])
@pytest.mark.parametrize("dispatch", ["even", "nearest"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_byte_matrix_equals_enumeration(rule: str, dispatch: str, seed: int) -> None:
    problem = random_problem(
        seed, experts=8, gpus=6, gpus_per_node=2 + seed % 2, slots_per_gpu=3, k=3, tokens=12, message=rule,
        dispatch=dispatch,
    )  # fmt: skip
    slots = _random_valid(problem, seed)
    sent, returned = byte_matrix(problem, slots)
    expected = enumerated_messages(problem, slots)
    np.testing.assert_allclose(sent, expected * problem.hardware.rates.dispatch_bytes, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(returned, expected.T * problem.hardware.rates.combine_bytes, rtol=1e-9, atol=1e-9)


def _random_valid(problem: LayerProblem, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    while True:
        rest = rng.integers(0, problem.experts, problem.slots - problem.experts)
        slots = rng.permutation(np.concatenate([np.arange(problem.experts), rest]))
        if all(len(set(g)) == len(g) for g in slots.reshape(-1, problem.hardware.slots_per_gpu).tolist()):
            return slots


@pytest.mark.parametrize("seed", [3, 4])
def test_time_is_the_sum_of_its_slowest_parts(seed: int) -> None:
    problem = random_problem(seed, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=3, k=2, tokens=20)
    slots = _random_valid(problem, seed)
    rates, m = problem.hardware.rates, problem.topology.gpus_per_node
    messages = enumerated_messages(problem, slots)
    node = np.arange(4) // m
    slow = np.where(node[:, None] == node[None, :], 0, messages)
    fast = np.where((node[:, None] == node[None, :]) & ~np.eye(4, dtype=bool), messages, 0)
    link = max(
        max(slow.sum(0).max(), slow.sum(1).max()) / rates.slow_bytes_per_s,
        max(fast.sum(0).max(), fast.sum(1).max()) / rates.fast_bytes_per_s,
    )
    copies = np.bincount(slots, minlength=8)
    per_slot = _slot_time(4 * rates.tokens_per_gpu * problem.data.load[0] / copies, rates)
    experts = max(per_slot[slots[g * 3 : g * 3 + 3]].sum() for g in range(4))
    latency = 3e-6 + 8e-6
    score = score_layer(problem, slots)
    assert score.experts_s == pytest.approx(experts, rel=1e-12)
    assert score.dispatch_s == pytest.approx(latency + rates.dispatch_bytes * link, rel=1e-12)
    assert score.time_s == pytest.approx(
        2 * latency + (rates.dispatch_bytes + rates.combine_bytes) * link + experts, rel=1e-12
    )
    hidden = score_layer(changed(problem, rates=replace(rates, overlap="two_batch")), slots)
    assert hidden.time_s == pytest.approx(max(experts, score.dispatch_s + score.combine_s), rel=1e-12)


@pytest.mark.parametrize("overlap", ["none", "two_batch"])
@pytest.mark.parametrize("seed", range(6))
def test_passes_of_several_kinds_take_the_mean_of_their_times(seed: int, overlap: str) -> None:
    problem = random_problem(seed, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=3, k=2, tokens=20, windows=2)
    # Where few tokens come a GPU's time is that of its weights, where many come that of its tokens.
    rates = replace(mixed(problem.hardware.rates), overlap=overlap, token_s=1e-7)
    problem, slots = changed(problem, rates=rates), _random_valid(problem, seed)
    whole = score_layer(problem, slots)
    each = [score_layer(changed(problem, rates=rates.of_kind(kind)), slots) for kind in rates.kinds]
    for name in ("time_s", "objective", "dispatch_s", "experts_s", "combine_s"):
        mean = sum(kind.share * getattr(one, name) for kind, one in zip(rates.kinds, each, strict=True))
        assert getattr(whole, name) == pytest.approx(mean, rel=1e-12)
    for name in ("balancedness", "remote_nodes_per_token", "cross_node_bytes_per_token"):
        assert all(getattr(one, name) == pytest.approx(getattr(whole, name), rel=1e-12) for one in each)


def test_every_kind_of_pass_waits_for_its_own_busiest_gpu() -> None:
    """One GPU that holds a hot expert beside idle ones, one with many that few tokens touch."""
    rates = replace(mixed(random_problem(0).hardware.rates), token_s=1e-7)
    load = np.array([1.4, 1e-6, 1e-6, 0.2, 0.2, 0.2])
    problem = layer_problem(load, Topology(2, 2), 3, rates)
    score = score_layer(problem, np.arange(6))
    by_kind = slot_times(score.slot_load[0] * rates.tokens_per_gpu * 2, rates).reshape(2, 2, 3).sum(axis=2)
    assert by_kind.argmax(axis=1).tolist() == [1, 0]
    assert score.experts_s == pytest.approx(by_kind.max(axis=1).sum(), rel=1e-12)
    assert score.experts_s > by_kind.sum(axis=0).max() * 1.001


def test_slopes_of_slots_are_their_derivatives() -> None:
    rates = mixed(random_problem(0).hardware.rates)
    tokens = np.array([0.3, 3.0, 40.0, 900.0, 5000.0])
    for step in (1e-6, -1e-6):
        change = (slot_times(tokens * (1 + step), rates) - slot_times(tokens, rates)) / (tokens * step)
        np.testing.assert_allclose(slot_slopes(tokens, rates), change, rtol=1e-4, atol=1e-15)


def test_nodes_per_token_counts_distinct_nodes() -> None:
    problem = random_problem(1, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=2, k=3, tokens=30)
    slots = np.random.default_rng(2).permutation(8)
    node_of = {int(e): s // 4 for s, e in enumerate(slots)}
    per_set = [len({node_of[int(e)] for e in ids}) for ids in problem.data.sets.ids]
    score = score_layer(problem, slots)
    nodes = float(problem.data.sets.weight[0] @ per_set)
    assert score.nodes_per_token == pytest.approx(nodes)
    assert score.remote_nodes_per_token == pytest.approx(nodes * (1 - 1 / 2))
    both = problem.hardware.rates.dispatch_bytes + problem.hardware.rates.combine_bytes
    assert score.cross_node_bytes_per_token == pytest.approx(nodes * 0.5 * both)


def test_a_slot_reads_its_weights_once_or_multiplies() -> None:
    rates = random_problem(0).hardware.rates
    assert _slot_time(np.array([0.0]), rates)[0] == 0
    assert _slot_time(np.array([30.0]), rates)[0] == pytest.approx(rates.weight_s)
    assert _slot_time(np.array([1e5]), rates)[0] == pytest.approx(1e5 * rates.token_s)
    assert _slot_time(np.array([1.0]), rates)[0] == pytest.approx((1 - np.exp(-1)) * rates.weight_s)


def test_planned_dispatch_checks_its_fractions() -> None:
    problem = random_problem(0, slots_per_gpu=6, dispatch="planned")
    slots = _random_valid(problem, 0)
    with pytest.raises(InputError, match="needs its fractions"):
        score_layer(problem, slots)
    with pytest.raises(InputError, match="sums to"):
        score_layer(problem, slots, np.full((4, problem.slots), 0.9))
    copies = np.bincount(slots, minlength=32)
    even = np.tile(1.0 / copies[slots], (4, 1))
    as_even = score_layer(changed(problem, dispatch="even"), slots)
    assert score_layer(problem, slots, even).time_s == pytest.approx(as_even.time_s, rel=1e-12)


def test_trays_share_their_nics() -> None:
    """A tray's two NICs carry the mean of its GPUs, so sharing never costs more."""
    problem = random_problem(5, message="per_rank", gpus_per_node=4)
    slots = np.random.default_rng(0).permutation(32)
    shared = changed(problem, topology=replace(problem.topology, gpus_per_tray=2))
    assert score_layer(shared, slots).dispatch_s <= score_layer(problem, slots).dispatch_s
