"""Hypergraph partitioning: its hypergraphs against the scorer, its repair and partitions against brute force."""

import sys
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value, score_layer
from placement.errors import MissingExtraError
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from placement.routing.parts import split_by_sequence
from placement.routing.reader import read_trace
from placement.routing.statistics import layer_statistics
from solvers.base import EVERY_DISPATCH, UnsupportedError
from solvers.dispatch import target_fractions
from solvers.experts.floor import balance_floor
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.partition.hypergraph import (
    Copies,
    Hypergraph,
    by_home,
    by_set,
    first_homes,
    local_homes,
    merged,
)
from solvers.experts.partition.repair import Blocks, repaired
from solvers.experts.partition.solver import PartitionSolver
from solvers.registry import get_solver
from solvers.result import Termination
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, random_problem, running_problem

QUICK = Stop(0.4)  # one partition, no mapping


def connectivity(graph: Hypergraph, block: np.ndarray) -> float:
    """Weighted contacts of hyperedges and blocks, less one each."""
    return float(sum(w * (len(set(block[row[row >= 0]])) - 1) for row, w in zip(graph.rows, graph.weight, strict=True)))


def random_graph(seed: int, vertices: int = 12, edges: int = 30, experts: int | None = None) -> Hypergraph:
    rng = np.random.default_rng(seed)
    rows = np.where(rng.random((edges, 4)) < 0.8, rng.integers(0, vertices, (edges, 4)), -1)
    rows, weight = merged(rows, rng.random(edges))
    expert = np.arange(vertices) % (experts or vertices)
    return Hypergraph(expert, rng.random(vertices), np.full(vertices, -1), rows, weight)


def slots_of(problem: LayerProblem, copies: Copies, gpu: np.ndarray) -> np.ndarray:
    return copies.expert[np.lexsort((copies.expert, gpu))]


def test_merged_drops_what_connects_nothing_and_sums_what_is_alike() -> None:
    rows = np.array([[3, 1, -1], [1, 3, 3], [2, 2, -1], [-1, -1, 0], [0, 1, 2]])
    found, weight = merged(rows, np.array([0.1, 0.2, 0.3, 0.4, 0.0]))
    assert found.tolist() == [[-1, 1, 3]]
    assert weight == pytest.approx([0.3])


@pytest.mark.parametrize("windows", [1, 3])
def test_connectivity_is_the_scorers_nodes_per_token_with_one_copy_each(windows: int) -> None:
    problem = random_problem(3, windows=windows)
    copies = Copies.of(problem)
    graph = by_set(problem, copies)
    gpu = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 4))
    score = score_layer(problem, slots_of(problem, copies, gpu))
    assert connectivity(graph, gpu // 2) + 1.0 == pytest.approx(score.nodes_per_token)


def test_connectivity_is_the_scorers_where_copies_of_an_expert_share_a_node() -> None:
    problem = random_problem(4, experts=16, gpus=4, gpus_per_node=2, slots_per_gpu=8)
    copies = Copies(np.full(16, 2), np.arange(16) * 2)
    node = np.repeat(np.random.default_rng(1).permutation(np.repeat([0, 1], 8)), 2)
    gpu = node * 2 + np.tile([0, 1], 16)
    score = score_layer(problem, slots_of(problem, copies, gpu))
    assert connectivity(by_set(problem, copies), node) + 1.0 == pytest.approx(score.nodes_per_token)


def test_connectivity_by_home_is_the_scorers_remote_nodes_per_token() -> None:
    """Uneven homes, copies on unlike nodes, each home served by one copy of an expert."""
    home = np.array([0.3, 0.1, 0.05, 0.05, 0.1, 0.1, 0.2, 0.1])
    problem = random_problem(5, slots_per_gpu=6, dispatch="planned", home=home)
    copies = Copies.of(problem)
    gpu = np.random.default_rng(2).permutation(np.repeat(np.arange(8), 6))
    while check_layer(problem, slots_of(problem, copies, gpu)):
        gpu = np.random.default_rng(int(gpu @ np.arange(48))).permutation(gpu)
    serves = local_homes(first_homes(4, copies), copies, gpu // 2)
    graph = by_home(problem, copies, serves, problem.hardware.homes.reshape(4, 2).sum(axis=1))
    slots = slots_of(problem, copies, gpu)
    score = score_layer(problem, slots, target_fractions(problem, slots, (gpu // 2)[serves]))
    assert connectivity(graph, np.concatenate([gpu // 2, np.arange(4)])) == pytest.approx(score.remote_nodes_per_token)
    assert graph.load.sum() == pytest.approx(problem.data.mean_load.sum())


def test_first_homes_share_copies_alike() -> None:
    copies = Copies(np.array([1, 2, 4, 3]), np.array([0, 1, 3, 7]))
    serves = first_homes(4, copies)
    assert (copies.expert[serves] == np.arange(4)).all()
    assert serves.T.tolist() == [[0] * 4, [1, 1, 2, 2], [3, 4, 5, 6], [7, 7, 8, 9]]


def blocks_of(room: list[int], copies: int = 99, bins: list[int] | None = None) -> Blocks:
    n = len(room)
    return Blocks(np.array(room), np.full(n, copies), np.ones(n), np.arange(n) if bins is None else np.array(bins))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), experts=st.sampled_from([4, 6, 12]), cap=st.sampled_from([np.inf, 2.0, 1.6]))
def test_repair_keeps_sizes_copies_and_anchors(seed: int, experts: int, cap: float) -> None:
    graph = random_graph(seed, experts=experts)
    rng = np.random.default_rng(seed)
    anchor = np.full(12, -1)
    anchor[:2] = [0, 2]
    graph = replace(graph, anchor=anchor)
    start = rng.integers(0, 3, 12)
    start[:2] = [0, 2]
    found = repaired(graph, start, blocks_of([3, 4, 5], copies=2), cap)
    assert np.bincount(found, minlength=3).tolist() == [3, 4, 5]
    assert found[:2].tolist() == [0, 2]
    load = np.bincount(found, graph.load, minlength=3)
    worst = int(load.argmax())
    held = np.zeros((3, experts), dtype=int)
    np.add.at(held, (found, graph.expert), 1)
    if load[worst] <= cap * (1 + 1e-9):
        return
    # Above the cap: then no swap that keeps the copies apart lowers the larger of the two loads.
    for v, u in combinations(range(2, 12), 2):
        a, b = found[v], found[u]
        if worst not in (a, b) or a == b or graph.expert[v] == graph.expert[u]:
            continue
        if held[b, graph.expert[v]] >= 2 or held[a, graph.expert[u]] >= 2:
            continue
        moved = graph.load[v] - graph.load[u]
        assert max(load[a] - moved, load[b] + moved) >= load[worst] * (1 - 1e-8)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_repair_takes_the_cheapest_move_and_the_cheapest_swap(seed: int) -> None:
    graph = random_graph(seed)
    start = np.repeat([0, 1, 2], [5, 4, 3])
    moved = repaired(graph, start, blocks_of([4, 4, 4]), np.inf)
    options = [np.where(np.arange(12) == v, 2, start) for v in range(5)]
    assert connectivity(graph, moved) == pytest.approx(min(connectivity(graph, option) for option in options))

    start = np.repeat([0, 1], 6)
    loads = np.array([2.0] * 6 + [1.0] * 6)  # one swap of any pair takes block 0 from 12 to 11
    swapped = repaired(replace(graph, load=loads), start, blocks_of([6, 6]), 11.0)
    options = []
    for v in range(6):
        for u in range(6, 12):
            option = start.copy()
            option[[v, u]] = option[[u, v]]
            options.append(connectivity(graph, option))
    assert connectivity(graph, swapped) == pytest.approx(min(options))


def test_repair_counts_contacts_in_bins() -> None:
    """Inside a bin a swap is free, so loads are mended there even where the blocks' own connectivity would rise."""
    graph = replace(random_graph(1), load=np.array([3.0, 3, 3, 1, 1, 1, 2, 2, 2, 2, 2, 2]))
    start = np.repeat(np.arange(4), 3)
    found = repaired(graph, start, blocks_of([3] * 4, bins=[0, 0, 1, 1]), 7.0)
    assert (found // 2 == start // 2).all()
    assert np.bincount(found, graph.load).max() <= 7.0


def test_partition_of_small_hypergraphs_is_optimal() -> None:
    pytest.importorskip("mtkahypar")
    from solvers.experts.partition.kahypar import partition

    for seed in range(5):
        graph = random_graph(seed, vertices=10, edges=25)
        found = min(connectivity(graph, partition(graph, np.array([5, 5]), None, s)) for s in range(3))
        best = min(connectivity(graph, np.isin(np.arange(10), held).astype(int)) for held in combinations(range(10), 5))
        assert found == pytest.approx(best, rel=1e-4)


def test_partition_keeps_anchors_and_does_not_depend_on_edge_free_vertices() -> None:
    pytest.importorskip("mtkahypar")
    from solvers.experts.partition.kahypar import partition

    graph = replace(random_graph(2), anchor=np.array([2, 1] + [-1] * 10))
    found = partition(graph, np.array([4, 4, 4]), graph.anchor, 0)
    assert found[:2].tolist() == [2, 1]
    nothing = replace(graph, rows=graph.rows[:0], weight=graph.weight[:0])
    alone = partition(nothing, np.array([4, 4, 4]), graph.anchor, 0)
    assert alone[:2].tolist() == [2, 1]
    assert np.bincount(alone).tolist() == [4, 4, 4]


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
@pytest.mark.parametrize(("slots_per_gpu", "gpus_per_node"), [(4, 2), (6, 4), (5, 1), (5, 8)])
def test_placements_are_valid_and_repeatable(dispatch: str, slots_per_gpu: int, gpus_per_node: int) -> None:
    pytest.importorskip("mtkahypar")
    problem = random_problem(
        7, slots_per_gpu=slots_per_gpu, gpus_per_node=gpus_per_node, dispatch=dispatch, windows=2, tokens=200
    )
    found = PartitionSolver().solve(problem, QUICK, 1)
    assert found.slots is not None
    assert check_layer(problem, found.slots) == ()
    again = PartitionSolver().solve(problem, QUICK, 1)
    assert again.slots is not None
    assert found.slots.tolist() == again.slots.tolist()
    assert (found.fractions is not None) == (dispatch == "planned" and slots_per_gpu > 4)


@pytest.mark.parametrize("seed", range(6))
def test_unlike_gpus(seed: int) -> None:
    """Failed and slower GPUs, uneven homes, every dispatch."""
    pytest.importorskip("mtkahypar")
    dispatch = EVERY_DISPATCH[seed]
    problem = running_problem(seed, experts=16, gpus=6, gpus_per_node=2, tokens=100, dispatch=dispatch)
    found = PartitionSolver().solve(problem, QUICK, seed)
    assert check_layer(problem, found.slots) == ()


@pytest.mark.parametrize("dispatch", ["nearest", "sglang_static"])
def test_homes_that_are_served_nearby_are_told_apart(dispatch: str) -> None:
    """Hyperedges by home beat those that count all copies of a token's experts, whoever it is served by."""
    pytest.importorskip("mtkahypar")
    problem = random_problem(1, slots_per_gpu=6, dispatch=dispatch)
    told, alike = (PartitionSolver().solve(one, QUICK, 1).slots for one in (problem, changed(problem, dispatch="even")))
    assert objective_value(problem, told) < 0.93 * objective_value(problem, alike)


def test_a_failed_node_holds_nothing() -> None:
    pytest.importorskip("mtkahypar")
    capacity = np.array([6, 6, 0, 0, 6, 6, 6, 6])
    problem = random_problem(1, slots_per_gpu=6, dispatch="planned", capacity=capacity, tokens=200)
    found = PartitionSolver().solve(problem, QUICK, 0)
    assert check_layer(problem, found.slots) == ()
    assert (found.slots[12:24] == EMPTY).all()


def test_a_deadline_cuts_it_short_and_is_told() -> None:
    pytest.importorskip("mtkahypar")
    problem = random_problem(2, slots_per_gpu=6, dispatch="planned", tokens=200)
    cut = PartitionSolver().solve(problem, Stop.after(0.0), 0)
    assert check_layer(problem, cut.slots) == ()
    assert (cut.iterations, cut.termination) == (1, Termination.TIME)
    whole = PartitionSolver().solve(problem, Stop(), 0)
    assert (whole.iterations, whole.termination) == (5, Termination.FINISHED)


def test_keeps_the_balance_cap_and_co_activated_experts_together() -> None:
    pytest.importorskip("mtkahypar")
    for seed, stop in ((0, Stop()), (1, QUICK), (2, QUICK)):
        problem = random_problem(seed, experts=64, gpus=16, gpus_per_node=4, tokens=600)
        floored = balance_floor(problem)
        score = score_layer(problem, PartitionSolver().solve(floored, stop, 0).slots)
        rivals = [score_layer(problem, slots) for slots in EplbSolver().variants(problem)]
        assert score.pooled_imbalance <= floored.rules.max_load * (1 + 1e-6)
        assert score.nodes_per_token < 0.9 * min(rival.nodes_per_token for rival in rivals)
        assert score.objective < min(rival.objective for rival in rivals)


def test_recorded_routing_by_home(shared_dir: Path) -> None:
    """DeepSeek-V2-Lite, half as many slots again, planned dispatch: fewer remote nodes than the balancer."""
    pytest.importorskip("mtkahypar")
    trace, _ = split_by_sequence(read_trace(shared_dir / "traces" / "dsv2lite_law.npz"))
    layer = layer_statistics([trace])[13]
    problem = layer_problem(layer.load, Topology(16, 4), 6, RATES, sets=layer.sets, dispatch="planned")
    found = PartitionSolver().solve(problem, QUICK, 0)
    score = score_layer(problem, found.slots, found.fractions)
    rival = score_layer(changed(problem, dispatch="nearest"), EplbSolver().place(problem, 0))
    assert score.remote_nodes_per_token < 0.85 * rival.remote_nodes_per_token


def test_missing_library_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mtkahypar", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'placement\[partition\]'"):
        PartitionSolver().solve(random_problem(0), Stop(), 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"group": np.arange(32) % 4},
        {"current": np.arange(32), "max_moves": 3},
        {"current": np.arange(32), "fixed": np.arange(32) < 2},
        {"objective": "load"},
        {"with_sets": False},
    ],
)
def test_refuses_what_it_does_not_model(changes: dict[str, object]) -> None:
    with pytest.raises(UnsupportedError):
        get_solver("partition").solve(random_problem(0, **changes), Stop(), 0)
