"""A budget of moves, or of transfer time, shared out over the layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.layer.transfer import Transfer
from placement.problem.arrays import FloatArray, IntArray
from solvers.migration.front import LayerFront


@dataclass(frozen=True)
class Allocation:
    """The best sums of layer objectives by the total number of moves, all layers together.

    Attributes:
        least: moves that no choice can avoid. value: [most - least + 1] least sum of objectives with `least + i` moves
            or fewer.
        pick: [layers, most - least + 1] the point that layer takes, if the layers up to it have so many moves beyond
            their least.
        extra: for each layer, [points] moves of each point beyond the layer's first.
    """

    least: int
    value: FloatArray
    pick: IntArray
    extra: tuple[IntArray, ...]

    def points(self, moves: int) -> tuple[int, ...] | None:
        """Each layer's point in the best choice with at most `moves` moves; None if fewer than the least are given."""
        left = min(moves - self.least, len(self.value) - 1)
        if left < 0:
            return None
        chosen = []
        for layer in range(len(self.pick) - 1, -1, -1):
            point = int(self.pick[layer, left])
            left -= int(self.extra[layer][point])
            chosen.append(point)
        return tuple(reversed(chosen))


def allocate(fronts: Sequence[LayerFront]) -> Allocation:
    """The exact best choice of one point a layer for every total of moves, by dynamic programming over layers."""
    least = sum(front.points[0].moves for front in fronts)
    extra = tuple(
        np.array([point.moves - front.points[0].moves for point in front.points], dtype=np.int64) for front in fronts
    )
    most = int(sum(part[-1] for part in extra))
    value = np.zeros(most + 1)
    pick = np.zeros((len(fronts), most + 1), dtype=np.int64)
    for layer, front in enumerate(fronts):
        best = np.full(most + 1, np.inf)
        for i, point in enumerate(front.points):
            moves = int(extra[layer][i])
            with_point = value[: most + 1 - moves] + point.score.objective
            better = with_point < best[moves:]
            best[moves:][better] = with_point[better]
            pick[layer, moves:][better] = i
        value = best
    return Allocation(least, value, pick, extra)


def transfer_seconds(transfers: Sequence[Sequence[Transfer]], stages: Sequence[int], points: Sequence[int]) -> float:
    """Seconds of the slowest stage: layers of one stage share their GPUs' links, stages have GPUs of their own.

    Args:
        transfers: of each layer's points. stages: [layers] stage of each layer. points: [layers] the chosen points.
    """
    slowest = 0.0
    for stage in set(stages):
        parts = [transfers[i][points[i]] for i in range(len(points)) if stages[i] == stage]
        slowest = max(slowest, sum(parts[1:], parts[0]).seconds)
    return slowest


def within_seconds(
    fronts: Sequence[LayerFront],
    allocation: Allocation,
    transfers: Sequence[Sequence[Transfer]],
    stages: Sequence[int],
    limit: float,
) -> tuple[int, ...] | None:
    """A good choice whose transfers take at most `limit` seconds; None if what is forced takes longer.

    The best choice for the largest total of moves within it, then greedily the next point with the most gain a move.
    """

    def takes(points: Sequence[int]) -> float:
        return transfer_seconds(transfers, stages, points)

    low, high = allocation.least, allocation.least + len(allocation.value) - 1
    chosen = allocation.points(low)
    if chosen is None or takes(chosen) > limit:
        return None
    while low < high:
        middle = (low + high + 1) // 2
        points = allocation.points(middle)
        if points is not None and takes(points) <= limit:
            low, chosen = middle, points
        else:
            high = middle - 1
    best = list(chosen)
    options = sorted(
        (
            (_rate(fronts[layer], best[layer], point), layer, point)
            for layer in range(len(fronts))
            for point in range(best[layer] + 1, len(fronts[layer].points))
        ),
        reverse=True,
    )
    for _, layer, point in options:
        if point <= best[layer]:
            continue
        kept, best[layer] = best[layer], point
        if takes(best) > limit:
            best[layer] = kept
    return tuple(best)


def _rate(front: LayerFront, first: int, second: int) -> float:
    a, b = front.points[first], front.points[second]
    return (a.score.objective - b.score.objective) / (b.moves - a.moves)
