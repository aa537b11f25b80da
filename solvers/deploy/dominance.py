"""Which columns of a pool can be in a best deployment: the fastest of each role and size, if no smaller ones are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from placement.cost.step.roles import Role
from solvers.deploy.problem import Column


def undominated(columns: Sequence[Column], room: int, dropped: Counter[tuple[Role, str]]) -> list[Column]:
    """The columns of one pool that are neither slower than one of as many GPUs nor than several smaller instances.

    Whatever holds a large instance holds the small ones that divide it: a part of a node, or whole nodes.
    """
    best: dict[tuple[Role, int], Column] = {}
    for column in columns:
        key = (column.role, column.gpus)
        held = best.get(key)
        if held is not None:
            dropped[(column.role, "slower than another of as many GPUs")] += 1
        if held is None or by_rate(column) < by_rate(held):
            best[key] = column
    kept = []
    for (role, gpus), column in sorted(best.items(), key=lambda item: (item[0][0], item[0][1])):
        smaller = [
            other
            for (kind, size), other in best.items()
            if kind == role and size < gpus and gpus % size == 0 and _divides(size, gpus, room)
        ]
        rate = column.point.requests_per_s
        if any(other.point.requests_per_s * (gpus // other.gpus) >= rate * (1 - 1e-12) for other in smaller):
            dropped[(role, "no faster than several smaller instances")] += 1
        else:
            kept.append(column)
    return kept


def _divides(size: int, gpus: int, room: int) -> bool:
    """Whether wherever an instance of `gpus` lies, gpus / size of `size` do."""
    if gpus <= room:
        return True
    return size % room == 0 or (room % size == 0)


def by_rate(column: Column) -> tuple[float, int, int, int, int, int]:
    """A key that sorts the fastest first, the plainest split before others as fast."""
    split = column.split
    return (-column.point.requests_per_s, split.redundant, split.pp, split.tp, split.ep, split.dp)
