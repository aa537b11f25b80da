"""Mt-KaHyPar behind one door: hypergraph in, block of each vertex out.

Gottesbüren, Heuer, Maas, Sanders, Schlag: Scalable High-Quality Hypergraph Partitioning, ACM Transactions on Algorithms
2024. One thread; it keeps the interpreter's lock while it works.
"""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np

from placement.errors import MissingExtraError
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.partition.hypergraph import Hypergraph

#: Integer weight of all hyperedges together: the library counts in 32 bits.
TOTAL_WEIGHT = 1_000_000

# The library's seed belongs to the whole process: seed and run must not be parted by another thread.
_ONE_AT_A_TIME = threading.Lock()


def load_library() -> Any:
    """The module `mtkahypar`.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("mtkahypar")
    except ImportError as error:
        raise MissingExtraError(
            "strategy 'partition' needs Mt-KaHyPar; install it with: pip install 'placement[partition]'"
        ) from error


def integer_weights(weight: FloatArray) -> IntArray:
    """[edges] whole weights of at least 1 that sum to about TOTAL_WEIGHT."""
    whole = np.round(weight * (TOTAL_WEIGHT / weight.sum())).astype(np.int64)
    return np.asarray(np.maximum(1, whole))


def partition(graph: Hypergraph, room: IntArray, anchors: IntArray | None, seed: int) -> IntArray:
    """[vertices] block of each, for few (hyperedge, block) contacts (km1); sizes are aimed at, not promised.

    Args:
        room: [blocks] vertices wanted in each, anchors among them; positive.
        anchors: [vertices] block that a vertex is fixed to, -1 for none; None without any.
        seed: orders the vertices, which is what the deterministic preset's answer depends on.

    Raises:
        MissingExtraError: the library is not installed.
    """
    if len(room) == 1 or not graph.edges:
        return _in_turn(room, anchors, graph.vertices)
    library, order = load_library(), np.random.default_rng(seed).permutation(graph.vertices)
    start, pins = graph.pins()
    flat, ends = order[pins].tolist(), start.tolist()
    edges = [flat[ends[i] : ends[i + 1]] for i in range(graph.edges)]
    weight = integer_weights(graph.weight).tolist()
    with _ONE_AT_A_TIME:
        starter = library.initialize(1, False)
        context = starter.context_from_preset(library.PresetType.DETERMINISTIC)
        context.set_partitioning_parameters(len(room), 0.0, library.Objective.KM1)
        context.logging = False
        context.set_individual_target_block_weights(room.tolist())
        library.set_seed(seed & 0x7FFFFFFF)
        made = starter.create_hypergraph(context, graph.vertices, graph.edges, edges, [1] * graph.vertices, weight)
        if anchors is not None and (anchors >= 0).any():
            fixed = np.full(graph.vertices, -1, dtype=np.int64)
            fixed[order] = anchors
            made.add_fixed_vertices(fixed.tolist(), len(room))
        return np.asarray(made.partition(context).get_partition(), dtype=np.int64)[order]


def _in_turn(room: IntArray, anchors: IntArray | None, vertices: int) -> IntArray:
    """Blocks filled in turn, where nothing connects the vertices."""
    if anchors is None:
        return np.repeat(np.arange(len(room)), room)[:vertices].astype(np.int64)
    free = anchors < 0
    left = room - np.bincount(anchors[~free], minlength=len(room))
    out = anchors.copy()
    out[free] = np.repeat(np.arange(len(room)), left)[: int(free.sum())]
    return np.asarray(out)
