"""Hypergraph partitioning as a layer solver: experts that tokens use together onto one node, then onto its GPUs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from placement.check.layer import check_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import EMPTY, FloatArray, IntArray, plain
from placement.problem.layer import LayerProblem
from solvers.base import EVERY_DISPATCH, Features, UnsupportedError
from solvers.dispatch import needs_fractions, target_fractions
from solvers.experts.candidates import Candidate, candidate, choose
from solvers.experts.heuristics.packing import longest_first, separate
from solvers.experts.partition.hypergraph import Copies, Hypergraph, by_home, by_set, first_homes, local_homes
from solvers.experts.partition.kahypar import load_library, partition
from solvers.experts.partition.repair import Blocks, repaired
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: Partitions of one hypergraph, each of another order of its vertices: the best of three had 2% fewer nodes per token.
STARTS = 3
#: Rounds of partition and local service where each home has its own copy of an expert.
HOME_ROUNDS = 2
#: Shares of the imbalance that the cap allows which nodes may have: packing onto GPUs adds its own.
NODE_SHARES = (0.9, 0.5)
#: Largest load of a node over the mean that is tried where there is no cap.
NODE_LOAD = 1.05


@dataclass(frozen=True)
class _Nodes:
    """[nodes with capacity] their index, usable slots, GPUs, share of homes, and load if balanced."""

    ids: IntArray
    room: IntArray
    gpus: IntArray
    home: FloatArray
    rate: FloatArray

    @classmethod
    def of(cls, problem: LayerProblem) -> _Nodes:
        nodes = problem.topology.nodes
        room = problem.hardware.capacities.reshape(nodes, -1).sum(axis=1)
        ids = np.flatnonzero(room)
        gpus = problem.hardware.alive.reshape(nodes, -1).sum(axis=1)
        speed = (problem.hardware.relative_speed * problem.hardware.alive).reshape(nodes, -1).sum(axis=1)
        home = problem.hardware.homes.reshape(nodes, -1).sum(axis=1)
        return cls(ids, room[ids], gpus[ids], home[ids], _mean(problem) * speed[ids])


class PartitionSolver:
    """Mt-KaHyPar: connectivity by node, then loads or connectivity by GPU; the best by placement.cost."""

    name = "partition"
    features = Features(
        traffic=True, dispatch=EVERY_DISPATCH, objectives=("time", "traffic"), sets=True, uneven=True,
        windows=True, tails=True,
        note="hypergraph partitioning; copies as the heuristics choose them; needs 'placement[partition]'",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve.

        Raises:
            MissingExtraError: Mt-KaHyPar is not installed.
        """
        load_library()
        nodes, copies = _Nodes.of(problem), Copies.of(problem)
        trials: list[_Trial] = []
        done = 0
        for division in _by_node(problem, nodes, copies, stop, seed):
            done += 1
            trials += _packed(problem, nodes, division)
            if stop.expired and trials:
                break
        if not trials:
            raise UnsupportedError("partition found no way to keep copies on distinct GPUs")
        found = [trial.packed for trial in trials]
        if not stop.expired:
            best = choose(problem, found)
            chosen = next(trial for trial in trials if trial.packed is best)
            found += _divided(problem, nodes, chosen)
        best = choose(problem, found)
        if needs_fractions(problem):
            best = choose(problem, [best, candidate(problem, best.slots, best.fractions, thorough=True)])
        termination = Termination.TIME if stop.expired else Termination.FINISHED
        return Result(best.slots, Status.FEASIBLE, termination, iterations=done, fractions=best.fractions)


@dataclass(frozen=True)
class _Division:
    """A hypergraph with the node of each vertex, by its position in `_Nodes`.

    Attributes:
        serves: [homes, experts] vertex that serves a home's tokens, where homes dispatch differently; None: all copies.
    """

    graph: Hypergraph
    node: IntArray
    serves: IntArray | None = None


@dataclass(frozen=True)
class _Trial:
    """A division of exact sizes, and the placement that packs it onto the nodes' GPUs by load."""

    division: _Division
    packed: Candidate


def _by_node(problem: LayerProblem, nodes: _Nodes, copies: Copies, stop: Stop, seed: int) -> Iterator[_Division]:
    """Every partition onto nodes, sizes not yet exact."""
    starts = max(1, round(STARTS * stop.work))
    graph = by_set(problem, copies)
    for i in range(starts):
        yield _Division(graph, partition(graph, nodes.room, None, _seed(seed, i)))
    if tariff_of(problem).alike or len(nodes.ids) == 1:
        return
    serves = first_homes(len(nodes.ids), copies)
    for i in range(HOME_ROUNDS):
        graph = by_home(problem, copies, serves, nodes.home)
        block = partition(graph, nodes.room + 1, graph.anchor, _seed(seed, i))
        yield _Division(graph, block, serves)
        serves = local_homes(serves, copies, block[: len(copies.expert)])


def _seed(seed: int, i: int) -> int:
    """Of run i."""
    return int(np.random.SeedSequence(seed, spawn_key=(i,)).generate_state(1)[0])


def _packed(problem: LayerProblem, nodes: _Nodes, division: _Division) -> list[_Trial]:
    """Placements of a division, repaired under looser and tighter caps on the loads of nodes."""
    m, per_gpu, graph = problem.topology.gpus_per_node, problem.hardware.slots_per_gpu, division.graph
    room = nodes.room + np.bincount(graph.anchor[graph.anchor >= 0], minlength=len(nodes.ids))
    caps = [np.inf, NODE_LOAD]
    if problem.rules.max_load is not None:
        caps = [np.inf, *(1.0 + (problem.rules.max_load - 1.0) * share for share in NODE_SHARES)]
    blocks = Blocks(room, nodes.gpus, nodes.rate, np.arange(len(nodes.ids)))
    found: list[_Trial] = []
    for cap in caps:
        division = replace(division, node=repaired(graph, division.node, blocks, cap))
        gpu = np.full(graph.vertices, -1, dtype=np.int64)
        for n, node in enumerate(nodes.ids):
            gpus, held = slice(node * m, (node + 1) * m), _members(division, n)
            _, place, count = np.unique(graph.expert[held], return_inverse=True, return_counts=True)
            load = np.bincount(place, graph.load[held])
            slots = longest_first(
                load,
                count,
                plain(problem.hardware.capacities[gpus], np.int64),
                plain(problem.hardware.relative_speed[gpus]),
                per_gpu,
            )
            separate(slots, per_gpu, load / count, len(slots))
            # An expert's copies, in any order, onto the GPUs that have one.
            used = np.flatnonzero(slots >= 0)
            used = used[np.argsort(slots[used], kind="stable")]
            gpu[held[np.argsort(place, kind="stable")]] = node * m + used // per_gpu
        found += [_Trial(division, packed) for packed in _placed(problem, division, gpu)]
    return found


def _divided(problem: LayerProblem, nodes: _Nodes, trial: _Trial) -> list[Candidate]:
    """The trial's nodes with their copies on GPUs by connectivity too: those together that tokens use together."""
    m, division = problem.topology.gpus_per_node, trial.division
    gpu = np.full(division.graph.vertices, -1, dtype=np.int64)
    for n, node in enumerate(nodes.ids):
        live = node * m + np.flatnonzero(problem.hardware.alive[node * m : (node + 1) * m])
        held, room = _members(division, n), problem.hardware.capacities[live]
        inside = division.graph.within(held)
        blocks = Blocks(room, np.ones_like(room), np.ones(len(room)), np.arange(len(room)))
        gpu[held] = live[repaired(inside, partition(inside, room, None, 0), blocks, np.inf)]
    return _placed(problem, division, gpu)


def _members(division: _Division, n: int) -> IntArray:
    """Copies on the node at position `n`."""
    return np.flatnonzero((division.node == n) & (division.graph.anchor < 0))


def _placed(problem: LayerProblem, division: _Division, gpu: IntArray) -> list[Candidate]:
    """The scored placement of [vertices] GPUs, repaired to sizes, distinct copies and the cap; nothing if copies of an
    expert could not be kept apart. Experts ascend on a GPU."""
    graph = division.graph
    real = np.flatnonzero(graph.anchor < 0)
    copies, live = graph.within(real), np.flatnonzero(problem.hardware.alive)
    blocks = Blocks(
        problem.hardware.capacities[live], np.ones_like(live), _mean(problem) * problem.hardware.relative_speed[live],
        problem.topology.node_of_gpu[live],
    )  # fmt: skip
    cap = np.inf if problem.rules.max_load is None else problem.rules.max_load
    gpu = live[repaired(copies, np.searchsorted(live, gpu[real]), blocks, cap)]
    slots = np.full(problem.slots, EMPTY, dtype=np.int64)
    slots[problem.hardware.usable] = copies.expert[np.lexsort((copies.expert, gpu))]
    if check_layer(problem, slots):
        return []
    fractions = None
    if division.serves is not None and needs_fractions(problem):
        # A failed node is no home; any node that has the expert will do for it.
        homes = np.minimum(np.arange(problem.topology.nodes), len(division.serves) - 1)
        homes[np.flatnonzero(problem.hardware.alive.reshape(len(homes), -1).any(axis=1))] = np.arange(
            len(division.serves)
        )
        node = problem.topology.node_of_gpu[gpu]
        fractions = target_fractions(problem, slots, node[division.serves[homes]])
    return [candidate(problem, slots, fractions)]


def _mean(problem: LayerProblem) -> float:
    """Mean load of a GPU with capacity."""
    return float(problem.data.mean_load.sum() / problem.hardware.alive.sum())
