"""Which instances lie on which nodes: the packing that a deployment's counts promise, made explicit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from solvers.deploy.nodes import fill_nodes
from solvers.deploy.problem import MasterProblem, Pool


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
    """A packing of a deployment's instances; see `pack`."""
    kinds = [(column.pool, column.gpus, count) for column, count in zip(problem.columns, counts, strict=True)]
    return pack(problem.pools, kinds)


def pack(pools: Sequence[Pool], kinds: Sequence[tuple[int, int, int]]) -> tuple[NodeGroup, ...] | None:
    """A packing of instances, nodes that hold the same together; None where there is none.

    An instance of more GPUs than a node fills whole nodes and has its rest, if any, in one more.

    Args:
        pools: Nodes of each kind of GPU.
        kinds: (index of its pool, GPUs of an instance, instances) of each kind.
    """
    groups: list[NodeGroup] = []
    for index, pool in enumerate(pools):
        room, left = pool.gpus_per_node, pool.nodes
        waiting: dict[int, list[int]] = {}
        for i, (at, gpus, count) in enumerate(kinds):
            if at != index or not count:
                continue
            if whole := gpus // room * count:
                groups.append(NodeGroup(index, whole, ((i, room, 1),)))
                left -= whole
            if gpus % room:
                waiting.setdefault(gpus % room, []).extend([i] * count)
        if left < 0:
            return None
        pieces = tuple((size, len(waiting[size])) for size in sorted(waiting, reverse=True))
        filled = _bins(pieces, left, room)
        if filled is None:
            return None
        alike: Counter[tuple[tuple[int, int, int], ...]] = Counter()
        for sizes in filled:
            held: Counter[int] = Counter()
            for size in sizes:
                held[waiting[size].pop()] += 1
            alike[tuple((i, kinds[i][1] % room * n, n) for i, n in sorted(held.items()))] += 1
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
