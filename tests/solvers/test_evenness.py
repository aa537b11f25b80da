"""Bounds under `nearest` that weigh messages against the work of nodes: each step of the proof against placements."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.bounds import least_objective
from placement.check.nodes import NodeWork as Checked
from placement.check.nodes import node_work as checked_node_work
from placement.check.reach import WitnessError, witnessed
from placement.check.work import least_work
from placement.cost.layer.score import score_layer
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from placement.records.witness import Tables
from placement.routing.reader import example_trace, read_trace
from placement.routing.statistics import layer_statistics
from solvers.bounds.evenness import NodeWork, own_work
from solvers.bounds.homes import remote_bins
from solvers.bounds.layer import layer_bound
from solvers.bounds.links import counted_reach
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import RATES, random_problem
from tests.solvers.test_bounds import sampled

#: Messages that take some time beside work, and work that takes none beside messages.
LINKS = (2e9, 45e9, 4e11)
#: (experts, nodes, GPUs per node, slots per GPU): all have replicas; copies of an expert may share a node.
SHAPES = (
    (5, 2, 2, 2), (4, 3, 1, 2), (6, 3, 2, 2), (8, 4, 2, 3), (6, 4, 1, 2), (9, 5, 3, 2), (3, 2, 1, 2), (8, 4, 4, 2),
)  # fmt: skip


class Chances(NamedTuple):
    """Of a placement: l, L and R of the bound, and [nodes, experts] the share of an expert's work at a node, times the
    nodes."""

    at_home: np.ndarray
    both: np.ndarray
    away: np.ndarray
    work: np.ndarray


def chances(slots: np.ndarray, experts: int, nodes: int) -> Chances:
    """By the rule's own words: at home where a copy is, else a copy drawn of all."""
    copies = np.zeros((nodes, experts))
    for node, held in enumerate(slots.reshape(nodes, -1)):
        np.add.at(copies[node], held, 1)
    holds, drawn = copies > 0, copies / copies.sum(axis=0)
    both, away, work = np.zeros((experts, experts)), np.zeros((experts, experts)), holds / nodes
    for home in range(nodes):
        both += np.outer(holds[home], holds[home]) / nodes
        for node in range(nodes):
            served = drawn[node] * ~holds[home]
            together = np.outer(served, served)
            np.fill_diagonal(together, served)
            away += together / nodes
            work[node] = work[node] + served / nodes
    return Chances(holds.mean(axis=0), both, away, work * nodes)


@pytest.mark.parametrize("dispatch", ["nearest", "sglang_static", "sglang_dynamic"])
def test_chances_give_the_work_that_the_scorer_finds(dispatch: str) -> None:
    problem = random_problem(3, 6, 6, 2, 2, k=3, tokens=50, dispatch=dispatch)
    rng = np.random.default_rng(0)
    for slots in sampled(problem, rng, 5):
        of_nodes = chances(slots, 6, 3).work @ problem.data.load[0] / 3
        scored = score_layer(problem, slots).gpu_load.reshape(-1, 3, 2).sum(axis=2).mean(axis=0)
        assert of_nodes / of_nodes.sum() == pytest.approx(scored / scored.sum())


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), shape=st.sampled_from(SHAPES), heat=st.sampled_from([0.0, 1.0, 3.0]))
def test_what_an_expert_is_served_with_weighs_no_more_than_the_busiest_node(
    seed: int, shape: tuple[int, int, int, int], heat: float
) -> None:
    """The inequality of each expert's row, on random placements: copies of an expert share nodes, or are everywhere."""
    experts, nodes, gpus, slots_per_gpu = shape
    rng = np.random.default_rng(seed)
    problem = random_problem(seed % 50, experts, nodes * gpus, gpus, slots_per_gpu, k=2, tokens=20, dispatch="nearest")
    share = np.exp(rng.normal(0, heat, experts))
    share /= share.sum()
    own, falls = own_work(share, nodes)
    most = gpus * slots_per_gpu
    for slots in sampled(problem, rng, 4):
        held, _, away, work = chances(slots, experts, nodes)
        beside = nodes * (away * ~np.eye(experts, dtype=bool)) @ share + own - falls * held
        doubled = (nodes - 2) ** 2 / nodes * share.max() * (most - held.sum())
        assert (beside <= (work @ share).max() * (1 - held) + doubled + 1e-12).all()


def test_copies_that_share_a_node_need_what_empty_slots_allow() -> None:
    """Six experts fill node 0 with four copies each, and have one each on node 1: draws are not even over nodes, and
    the row of each exceeds the busiest node but for the empty slots."""
    first, second = np.arange(6), np.arange(6, 24)
    slots = np.concatenate([np.tile(first, 4), first, second, np.arange(24, 72)])
    share = np.concatenate([np.full(6, 1.0), np.full(18, 0.1), np.full(48, 1e-3)])
    share /= share.sum()
    held, _, away, work = chances(slots, 72, 4)
    own, falls = own_work(share, 4)
    beside = 4 * (away * ~np.eye(72, dtype=bool)) @ share + own - falls * held
    over = beside - (work @ share).max() * (1 - held)
    assert over.max() > 0.01
    assert over.max() <= share.max() * (24 - held.sum())


def test_own_work_is_below_its_curve_and_meets_it() -> None:
    for bins in (2, 3, 4, 8):
        held = np.arange(1, bins + 1) / bins
        share = np.array([0.1, 0.2, 0.7])
        own, falls = own_work(share, bins)
        gap = share[:, None] * ((1 - held) / held) - (own[:, None] - falls[:, None] * held)
        assert gap.min() >= -1e-12
        assert gap.min(axis=1) == pytest.approx(0.0, abs=1e-12)


def posed(seed: int, shape: tuple[int, int, int, int]) -> LayerProblem:
    experts, nodes, gpus, slots_per_gpu = shape
    rates = replace(
        RATES, slow_bytes_per_s=LINKS[seed % 3], tokens_per_gpu=(8.0, 512.0)[seed // 3 % 2],
        token_s=(3e-8, 1e-6)[seed // 6 % 2],
    )  # fmt: skip
    return random_problem(
        seed, experts, nodes * gpus, gpus, slots_per_gpu, k=2 + seed % 2, tokens=30, windows=1 + seed % 2,
        dispatch=("nearest", "sglang_static", "sglang_dynamic")[seed // 4 % 3],
        message=("per_node", "per_rank")[seed // 2 % 2], rates=rates,
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_no_placement_beats_the_bound_nor_what_is_checked_of_it(shape: tuple[int, int, int, int]) -> None:
    """All placements where they are few, else 300 of them; the check proves what is claimed."""
    near = 0.0
    for seed in range(8):
        problem = posed(seed, shape)
        best = min(score_layer(problem, s).objective for s in sampled(problem, np.random.default_rng(seed), 300))
        bound = layer_bound(problem, stop=Stop(0.3))
        assert bound.value <= best * (1 + 1e-9)
        if bound.witness is not None:
            proven = least_objective(problem, bound.witness)
            assert bound.value * (1 - 1e-6) <= proven <= best * (1 + 1e-9)
        near = max(near, bound.value / best)
    assert near > 0.5


def test_all_placements_of_a_layer_keep_the_bound() -> None:
    """Nodes of two GPUs, whose copies of one expert may lie together; work and messages count alike."""
    for seed in range(4):
        problem = posed(12 * seed + 1, (4, 3, 1, 2))
        best = min(score_layer(problem, slots).objective for slots in placements(problem))
        assert layer_bound(problem, stop=Stop(1.0)).value <= best * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6), shape=st.sampled_from([s for s in SHAPES if s[2] * s[3] < s[0]]),
    limit=st.floats(1.0, 1.6), worth=st.sampled_from([0.05, 0.5, 2.0]), heat=st.sampled_from([0.0, 1.0, 2.0]),
    noise=st.sampled_from([0.0, 0.1]),
)  # fmt: skip
def test_prices_prove_only_what_remote_nodes_and_work_beyond_the_limit_pay_for(
    seed: int, shape: tuple[int, int, int, int], limit: float, worth: float, heat: float, noise: float
) -> None:
    """Any weights of work, prices of the solver or near them, and random placements."""
    rng = np.random.default_rng(seed)
    problem = posed(seed % 24, shape)
    experts, nodes, most = problem.experts, problem.topology.nodes, shape[2] * shape[3]
    share = np.exp(rng.normal(0, heat, experts))
    share /= share.sum()
    sets, weight = problem.data.sets, problem.data.window_weight @ problem.data.sets.weight
    homes = np.full(nodes, 1 / nodes)
    found = remote_bins(sets.ids, weight, experts, homes, most, Stop(0.3), work=NodeWork(share, limit, worth))
    values = [found.bins]
    for part in found.witness:
        tables = [np.rint(t * (1 + noise * rng.normal(size=len(t)))).clip(-32767, 32767) for t in part.tables.whole]
        rows = part.tables.rows * (1 + noise * rng.normal(size=2 * experts))
        tables = Tables(tuple(t.astype(np.int16) for t in tables), part.tables.units, rows, part.tables.alone)
        checked = replace(part, tables=tables)
        values.append(witnessed(problem, counted_reach(problem), (checked,), Checked(share, limit, worth)).remote_nodes)
    if noise == 0.0 and found.witness:
        assert values[1] >= values[0] - 1e-6
    for slots in sampled(problem, rng, 8):
        over = max(0.0, float((chances(slots, experts, nodes).work @ share).max()) - limit)
        reached = score_layer(problem, slots).remote_nodes_per_token
        assert max(values) <= reached + over * worth + 1e-9


def test_work_raises_the_bound_where_its_time_counts_and_never_lowers_it() -> None:
    """The shipped trace on four nodes, half as many slots again: from links that decide alone to work that does."""
    layer = layer_statistics([read_trace(str(example_trace()))], 1)[0]
    load, homes = layer.load[0], np.full(4, 0.25)
    plain = remote_bins(layer.sets.ids, layer.sets.weight[0], len(load), homes, 24).bins
    found = [
        remote_bins(
            layer.sets.ids, layer.sets.weight[0], len(load), homes, 24, work=NodeWork(load / load.sum(), 1.0, worth)
        ).bins
        for worth in (1e-3, 0.1, 1.0)
    ]  # fmt: skip
    assert found[0] > 0.98 * plain
    assert found[0] < found[1] < found[2]
    assert found[2] > 1.03 * plain


def test_a_witness_without_prices_of_work_is_checked_as_before() -> None:
    problem = posed(3, (8, 4, 2, 3))
    sets, homes = problem.data.sets, np.full(4, 0.25)
    weight = problem.data.window_weight @ sets.weight
    plain = remote_bins(sets.ids, weight, 8, homes, 6, Stop(0.3))
    reach = counted_reach(problem)
    for work in (None, Checked(np.full(8, 1 / 8), 1.0, 1.0)):
        assert witnessed(problem, reach, plain.witness, work).remote_nodes == pytest.approx(plain.bins, rel=1e-5)


@pytest.mark.parametrize("alone", [5e-324, 1e-310, 0.0, -1.0, 1e6, np.nan])
def test_a_weight_that_would_overflow_is_none(alone: float) -> None:
    problem = posed(3, (8, 4, 2, 3))
    plain = remote_bins(problem.data.sets.ids, problem.data.sets.weight[0], 8, np.full(4, 0.25), 6, Stop(0.3))
    (part,) = plain.witness
    forged = replace(part, tables=replace(part.tables, alone=alone))
    with pytest.raises(WitnessError, match="weighs the chance to be at home"):
        witnessed(problem, counted_reach(problem), (forged,))


@pytest.mark.parametrize(
    "changes", [
        {"dispatch": "planned"}, {"dispatch": "even"}, {"objective": "traffic"}, {"capacity": [3, 3, 3, 2]},
        {"home": np.array([0.4, 0.2, 0.2, 0.2])},
        {"dispatch": "sglang_static", "topology": Topology(4, 2, os_gpus=1)},
    ],
)  # fmt: skip
def test_where_nodes_differ_or_time_does_not_count_work_says_nothing(changes: dict[str, object]) -> None:
    problem = changed(random_problem(1, 8, 4, 1, 3, k=3, tokens=60, dispatch="nearest"), **changes)
    reach = counted_reach(problem)
    work = np.ones((1, 1)) if problem.objective.kind == "traffic" else least_work(problem)
    assert checked_node_work(problem, reach, work) is None
    bound = layer_bound(problem, stop=Stop(0.3))
    assert bound.witness is None or all(len(part.tables.rows) == 8 for part in bound.witness.reach)
