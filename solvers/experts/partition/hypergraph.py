"""The co-activation hypergraph of a layer: copies of experts as vertices, tokens' expert sets as hyperedges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.packing import replicate

#: More hyperedges than these are cut to the heaviest ones: time grows faster than what light ones decide.
MOST_EDGES = 60_000


@dataclass(frozen=True)
class Hypergraph:
    """Vertices to be put into blocks, and hyperedges that should touch few of them.

    Attributes:
        expert: [vertices] expert that a vertex is a copy of; -1 for an anchor (a home node).
        load: [vertices] expected copies of a token that it serves; 0 for an anchor.
        anchor: [vertices] block that a vertex is fixed to, or -1.
        rows: [edges, most pins] vertices of each hyperedge, ascending, padded in front with -1.
        weight: [edges] share of the tokens.
    """

    expert: IntArray
    load: FloatArray
    anchor: IntArray
    rows: IntArray
    weight: FloatArray

    @property
    def vertices(self) -> int:
        return len(self.expert)

    @property
    def edges(self) -> int:
        return len(self.rows)

    def pins(self) -> tuple[IntArray, IntArray]:
        """([edges + 1], [pins]) hyperedges in compressed rows."""
        held = self.rows >= 0
        start = np.concatenate([[0], np.cumsum(held.sum(axis=1))]).astype(np.int64)
        return start, self.rows[held]

    def within(self, members: IntArray) -> Hypergraph:
        """The hypergraph of some vertices alone, in their order; hyperedges with one pin or none are gone."""
        place = np.full(self.vertices + 1, -1, dtype=np.int64)  # its last entry is that of the padding
        place[members] = np.arange(len(members))
        rows, weight = merged(place[self.rows], self.weight)
        return Hypergraph(self.expert[members], self.load[members], self.anchor[members], rows, weight)


def merged(rows: IntArray, weight: FloatArray) -> tuple[IntArray, FloatArray]:
    """Alike hyperedges as one, with their summed weight; those with fewer than two pins connect nothing and go.

    Args:
        rows: [edges, most pins] vertices in any order, padded anywhere with -1; a vertex counts once.
    """
    rows = np.sort(rows, axis=1)
    twice = np.zeros(rows.shape, dtype=bool)
    twice[:, 1:] = rows[:, 1:] == rows[:, :-1]
    rows = np.sort(np.where(twice, -1, rows), axis=1)
    kept = ((rows >= 0).sum(axis=1) > 1) & (weight > 0)
    rows, weight = rows[kept], weight[kept]
    if not len(rows):
        return rows, weight
    order = np.lexsort(rows.T)
    rows, weight = rows[order], weight[order]
    first = np.flatnonzero(np.concatenate([[True], (rows[1:] != rows[:-1]).any(axis=1)]))
    rows, weight = rows[first], np.add.reduceat(weight, first)
    if len(rows) > MOST_EDGES:
        heaviest = np.sort(np.argsort(-weight, kind="stable")[:MOST_EDGES])
        rows, weight = rows[heaviest], weight[heaviest]
    return np.ascontiguousarray(rows), weight


@dataclass(frozen=True)
class Copies:
    """Which copies of each expert there are: expert e owns vertices first[e] .. first[e] + count[e] - 1."""

    count: IntArray
    first: IntArray

    @classmethod
    def of(cls, problem: LayerProblem) -> Copies:
        """The copies that the heuristics choose: each further slot to the expert with the largest load per copy."""
        count = np.asarray(
            replicate(problem.data.mean_load, problem.hardware.usable_slots, int(problem.hardware.alive.sum()))
        )
        return cls(count, np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64))

    @property
    def expert(self) -> IntArray:
        """[copies] expert of each copy."""
        return np.repeat(np.arange(len(self.count)), self.count)


def by_set(problem: LayerProblem, copies: Copies) -> Hypergraph:
    """A hyperedge a token set, with all copies of its experts as pins; the problem has token sets.

    Exact for `even` dispatch where an expert's copies share a block; copies on several count as if a token touched all.
    """
    ids, weight = _sets(problem)
    most = int(copies.count.max())
    place = np.arange(most)
    table = np.where(place[None, :] < copies.count[:, None], copies.first[:, None] + place[None, :], -1)
    rows, weight = merged(table[ids].reshape(len(ids), -1), weight)
    expert = copies.expert
    load = (problem.data.mean_load / copies.count)[expert]
    return Hypergraph(expert, load, np.full(len(expert), -1, dtype=np.int64), rows, weight)


def by_home(problem: LayerProblem, copies: Copies, serves: IntArray, share: FloatArray) -> Hypergraph:
    """A hyperedge a token set and home node: the copies that serve that home, and an anchor on the home itself.

    The connectivity of such a hyperedge less 1 is the number of remote nodes of its tokens.

    Args:
        serves: [homes, experts] copy (vertex) that serves a home's tokens. share: [homes] share of the tokens.
    """
    ids, weight = _sets(problem)
    nodes, total = len(serves), int(copies.count.sum())
    rows = np.concatenate(
        [np.column_stack([serves[home][ids], np.full(len(ids), total + home)]) for home in range(nodes)]
    )
    rows, weight = merged(rows, np.concatenate([weight * part for part in share]))
    load = np.zeros(total + nodes)
    for home in range(nodes):
        np.add.at(load, serves[home], share[home] * problem.data.mean_load)
    return Hypergraph(
        np.concatenate([copies.expert, np.full(nodes, -1)]), load,
        np.concatenate([np.full(total, -1), np.arange(nodes)]), rows, weight,
    )  # fmt: skip


def first_homes(nodes: int, copies: Copies) -> IntArray:
    """[nodes, experts] copy that serves each home before any placement: neighbours share a copy, as many to each."""
    return np.asarray(copies.first[None, :] + np.arange(nodes)[:, None] * copies.count[None, :] // nodes)


def local_homes(serves: IntArray, copies: Copies, node: IntArray) -> IntArray:
    """[nodes, experts] as `serves`, but for a home that holds a copy that copy; node: [copies] node of each."""
    out = serves.copy()
    expert = copies.expert
    for copy in np.flatnonzero(copies.count[expert] > 1)[::-1]:
        out[node[copy], expert[copy]] = copy
    return out


def _sets(problem: LayerProblem) -> tuple[IntArray, FloatArray]:
    """([sets, k] experts, [sets] mean weight)."""
    if problem.data.sets is None:
        raise ValueError("a hypergraph needs token sets")
    return problem.data.sets.ids.astype(np.int64), weighted_sum(problem.data.window_weight, problem.data.sets.weight)
