"""Which instances lie on which nodes: the packing that a deployment's counts promise, made explicit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from solvers.deploy.nodes import fill_nodes
from solvers.deploy.problem import MasterProblem


@dataclass(frozen=True)
class NodeGroup:
    """Nodes of a pool that hold the same.

    Attributes:
        pool: index of the pool. nodes: how many.
        held: (column, GPUs of the node, instances or parts of one) of what each of them holds.
    """

    pool: int
    nodes: int
    held: tuple[tuple[int, int, int], ...]


def layout(problem: MasterProblem, counts: Sequence[int]) -> tuple[NodeGroup, ...] | None:
    """A packing of a deployment's instances, nodes that hold the same together; None where there is none.

    An instance of more GPUs than a node fills whole nodes and has its rest, if any, in one more.
    """
    groups: list[NodeGroup] = []
    for index, pool in enumerate(problem.pools):
        mine = [
            (i, c, n) for i, (c, n) in enumerate(zip(problem.columns, counts, strict=True)) if c.pool == index and n
        ]
        left = pool.nodes
        waiting: dict[int, list[int]] = {}
        for i, column, count in mine:
            whole = problem.whole(column) * count
            if whole:
                groups.append(NodeGroup(index, whole, ((i, pool.gpus_per_node, 1),)))
                left -= whole
            if problem.piece(column):
                waiting.setdefault(problem.piece(column), []).extend([i] * count)
        if left < 0:
            return None
        pieces = tuple((size, len(waiting[size])) for size in sorted(waiting, reverse=True))
        filled = _bins(pieces, left, pool.gpus_per_node)
        if filled is None:
            return None
        alike: Counter[tuple[tuple[int, int, int], ...]] = Counter()
        for sizes in filled:
            held: Counter[int] = Counter()
            for size in sizes:
                held[waiting[size].pop()] += 1
            piece = {i: problem.piece(problem.columns[i]) for i in held}
            alike[tuple((i, piece[i] * n, n) for i, n in sorted(held.items()))] += 1
        groups += [NodeGroup(index, nodes, held) for held, nodes in sorted(alike.items())]
    return tuple(groups)


def _bins(pieces: tuple[tuple[int, int], ...], nodes: int, room: int) -> list[list[int]] | None:
    """Sizes in each used bin, of at most `nodes` bins of `room`: the largest first where that does, else any way."""
    bins: list[list[int]] = []
    for size, count in pieces:
        for _ in range(count):
            at = next((held for held in bins if sum(held) + size <= room), None)
            if at is None:
                at = []
                bins.append(at)
            at.append(size)
    return bins if len(bins) <= nodes else fill_nodes(pieces, nodes, room)
