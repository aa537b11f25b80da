"""Makes a partition keep the rules, each time by the move or swap that raises the connectivity (km1) least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.kernels import kernel, lean, lean_kernel
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.partition.hypergraph import Hypergraph

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Blocks:
    """What is put where, and what a block may hold.

    Attributes:
        room: [blocks] vertices of each, anchors among them.
        copies: [blocks] most vertices of one expert in each.
        rate: [blocks] load at which a block is as busy as the mean one.
        bin: [blocks] what contacts of hyperedges are counted in: the blocks themselves, or the nodes of GPUs.
    """

    room: IntArray
    copies: IntArray
    rate: FloatArray
    bin: IntArray


def repaired(graph: Hypergraph, block: IntArray, blocks: Blocks, cap: float) -> IntArray:
    """[vertices] blocks of exactly their `room`, changed as little as the rules allow; anchors stay.

    Args:
        block: [vertices] block of each. blocks: their room sums to the vertices; copies are kept where a swap can.
        cap: largest wanted load / rate, kept where a swap can; infinite for no cap.
    """
    start, pins = graph.pins()
    edge = np.repeat(np.arange(graph.edges), np.diff(start))
    order = np.argsort(pins, kind="stable")
    of_vertex = np.concatenate([[0], np.cumsum(np.bincount(pins, minlength=graph.vertices))]).astype(np.int64)
    count = np.zeros((graph.edges, int(blocks.bin.max()) + 1), dtype=np.int64)
    np.add.at(count, (edge, blocks.bin[block[pins]]), 1)
    holds = np.zeros((len(blocks.room), int(graph.expert.max()) + 1), dtype=np.int64)
    real = graph.expert >= 0
    np.add.at(holds, (block[real], graph.expert[real]), 1)
    out = block.astype(np.int64).copy()
    free, size = graph.anchor < 0, np.bincount(out, minlength=len(blocks.room))
    total = np.bincount(out, graph.load, len(blocks.room))
    around = (blocks.bin, of_vertex, edge[order])
    weight, copies = graph.weight, blocks.copies
    # Sizes.
    while _mend_size(
        out, graph.expert, graph.load, free, *around, weight, count, holds, blocks.room, copies, size, total
    ):
        pass
    for v in np.flatnonzero(free):
        _mend_copies(int(v), out, graph.expert, graph.load, free, *around, weight, count, holds, copies, total)
    # Loads: each swap lowers the larger of two blocks' loads, so this ends.
    for _ in range(10 * graph.vertices):
        a = int(np.argmax(total / blocks.rate))
        if total[a] / blocks.rate[a] <= cap * (1 + 1e-12):
            break
        v, u = _cheapest_relief(
            a, float(cap), out, graph.expert, graph.load, free, *around, weight, count, holds, copies, total,
            blocks.rate,
        )  # fmt: skip
        if v < 0:
            break
        _swap(v, u, out, graph.expert, graph.load, *around, count, holds, total)
    return out


@lean_kernel
def _mend_size(
    block: Ints, expert: Ints, load: Floats, free: NDArray[np.bool_], bins: Ints, start: Ints, edges: Ints,
    weight: Floats, count: Ints, holds: Ints, room: Ints, copies: Ints, size: Ints, total: Floats,
) -> bool:  # fmt: skip
    """Makes the cheapest move out of a block that holds too many; False if there is none."""
    best_v, best_b, best = -1, -1, np.inf
    for turn in range(2):
        for v in range(len(block)):
            if not free[v] or size[block[v]] <= room[block[v]]:
                continue
            for b in range(len(room)):
                # At first only where an expert has no copy too many.
                if size[b] < room[b] and (turn == 1 or holds[b, expert[v]] < copies[b]):
                    delta = _bin_delta(v, bins[b], block, bins, start, edges, weight, count)
                    if delta < best:
                        best_v, best_b, best = v, b, delta
        if best_v >= 0:
            size[block[best_v]] -= 1
            size[best_b] += 1
            _move(best_v, best_b, block, expert, load, bins, start, edges, count, holds, total)
            return True
    return False


@lean_kernel
def _mend_copies(
    v: int, block: Ints, expert: Ints, load: Floats, free: NDArray[np.bool_], bins: Ints, start: Ints, edges: Ints,
    weight: Floats, count: Ints, holds: Ints, copies: Ints, total: Floats,
) -> None:  # fmt: skip
    """Swaps `v` for the cheapest other where its block has too many copies of its expert."""
    if holds[block[v], expert[v]] <= copies[block[v]]:
        return
    best_u, best = -1, np.inf
    for u in range(len(block)):
        if free[u] and _may_swap(v, u, block, expert, holds, copies):
            delta = _swap_delta(v, u, block, bins, start, edges, weight, count)
            if delta < best:
                best_u, best = u, delta
    if best_u >= 0:
        _swap(v, best_u, block, expert, load, bins, start, edges, count, holds, total)


@kernel
def _cheapest_relief(
    a: int, cap: float, block: Ints, expert: Ints, load: Floats, free: NDArray[np.bool_], bins: Ints, start: Ints,
    edges: Ints, weight: Floats, count: Ints, holds: Ints, copies: Ints, total: Floats, rate: Floats,
) -> tuple[int, int]:  # fmt: skip
    """The swap that costs least per load taken off block `a`; (-1, -1) if none leaves both below where `a` is."""
    vertices = len(block)
    busiest = total[a] / rate[a]
    # What each vertex of `a` costs in each bin, and each other vertex in that of `a`.
    away = np.zeros((vertices, count.shape[1]))
    for v in range(vertices):
        if not free[v]:
            continue
        if block[v] != a:
            away[v, bins[a]] = _bin_delta(v, bins[a], block, bins, start, edges, weight, count)
            continue
        for c in range(count.shape[1]):
            away[v, c] = _bin_delta(v, c, block, bins, start, edges, weight, count)
    best_v, best_u, best, most = -1, -1, np.inf, 0.0
    for v in range(vertices):
        if not free[v] or block[v] != a:
            continue
        for u in range(vertices):
            b = block[u]
            moved = load[v] - load[u]
            if b == a or not free[u] or moved <= 1e-12 * load[v]:
                continue
            after = max((total[a] - moved) / rate[a], (total[b] + moved) / rate[b])
            if after >= busiest * (1 - 1e-9) or not _may_swap(v, u, block, expert, holds, copies):
                continue
            useful = busiest - max(after, cap)
            # The two moves' own deltas count hyperedges with both as gains: their sum is a lower bound.
            if (away[v, bins[b]] + away[u, bins[a]]) / useful > best:
                continue
            price = _swap_delta(v, u, block, bins, start, edges, weight, count) / useful
            if price < best or (price == best and useful > most):
                best_v, best_u, best, most = v, u, price, useful
    return best_v, best_u


@lean
def _may_swap(v: int, u: int, block: Ints, expert: Ints, holds: Ints, copies: Ints) -> bool:
    a, b = block[v], block[u]
    if a == b or expert[v] == expert[u]:
        return False
    return bool(holds[b, expert[v]] < copies[b] and holds[a, expert[u]] < copies[a])


@lean
def _bin_delta(
    v: int, sink: int, block: Ints, bins: Ints, start: Ints, edges: Ints, weight: Floats, count: Ints
) -> float:
    """Change of the connectivity if `v` moves to bin `sink`."""
    source, delta = bins[block[v]], 0.0
    if source == sink:
        return delta
    for i in range(start[v], start[v + 1]):
        e = edges[i]
        if count[e, sink] == 0:
            delta += weight[e]
        if count[e, source] == 1:
            delta -= weight[e]
    return delta


@lean
def _swap_delta(
    v: int, u: int, block: Ints, bins: Ints, start: Ints, edges: Ints, weight: Floats, count: Ints
) -> float:
    """Change of the connectivity if `v` and `u` change places; hyperedges that hold both stay as they are."""
    a, b = bins[block[v]], bins[block[u]]
    delta, i, j = 0.0, start[v], start[u]
    if a == b:
        return delta
    while i < start[v + 1] or j < start[u + 1]:
        left = edges[i] if i < start[v + 1] else len(weight)
        right = edges[j] if j < start[u + 1] else len(weight)
        if left == right:
            i, j = i + 1, j + 1
        elif left < right:
            delta += weight[left] * ((count[left, b] == 0) - (count[left, a] == 1))
            i += 1
        else:
            delta += weight[right] * ((count[right, a] == 0) - (count[right, b] == 1))
            j += 1
    return delta


@lean
def _move(
    v: int, b: int, block: Ints, expert: Ints, load: Floats, bins: Ints, start: Ints, edges: Ints, count: Ints,
    holds: Ints, total: Floats,
) -> None:  # fmt: skip
    a = block[v]
    for i in range(start[v], start[v + 1]):
        count[edges[i], bins[a]] -= 1
        count[edges[i], bins[b]] += 1
    total[a] -= load[v]
    total[b] += load[v]
    holds[a, expert[v]] -= 1
    holds[b, expert[v]] += 1
    block[v] = b


@lean_kernel
def _swap(
    v: int, u: int, block: Ints, expert: Ints, load: Floats, bins: Ints, start: Ints, edges: Ints, count: Ints,
    holds: Ints, total: Floats,
) -> None:  # fmt: skip
    a, b = block[v], block[u]
    _move(v, b, block, expert, load, bins, start, edges, count, holds, total)
    _move(u, a, block, expert, load, bins, start, edges, count, holds, total)
