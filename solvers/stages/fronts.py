"""The recompute choice inside a piece, exactly: kept bytes against seconds over all choices for given layer counts."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TypeVar

from placement.stages import LayerKind, StageProblem

T = TypeVar("T")

#: [kinds] layers of each kind that take each option.
Choice = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Front:
    """Choices that no other one beats in both kept bytes and seconds.

    Attributes:
        kept: ascending bytes of one microbatch in flight; seconds: descending; choices: what reaches them.
    """

    kept: tuple[float, ...]
    seconds: tuple[float, ...]
    choices: tuple[Choice, ...]

    def best(self, room: float) -> int | None:
        """Index of the fastest choice that keeps at most `room` bytes a microbatch; None where none does."""
        at = bisect_right(self.kept, room)
        return at - 1 if at else None


class Fronts:
    """Fronts by layer counts, made once each. Layers are of few kinds and a kind's layers are alike, so only how many
    of them take which option counts: the knapsack over layers is one over counts."""

    def __init__(self, problem: StageProblem) -> None:
        self._kinds = problem.kinds
        self._of_kind: dict[tuple[int, int], list[tuple[float, float, tuple[int, ...]]]] = {}
        self._fronts: dict[tuple[int, ...], Front] = {}

    def of(self, counts: tuple[int, ...]) -> Front:
        """The front of so many layers of each kind."""
        if counts not in self._fronts:
            points: list[tuple[float, float, Choice]] = [(0.0, 0.0, ())]
            for index, count in enumerate(counts):
                each = self._one_kind(index, count)
                merged = ((a + kept, b + time, (*rest, own)) for a, b, rest in points for kept, time, own in each)
                points = _undominated(list(merged))
            kept, seconds, choices = zip(*points, strict=True)
            self._fronts[counts] = Front(kept, seconds, choices)
        return self._fronts[counts]

    def _one_kind(self, index: int, count: int) -> list[tuple[float, float, tuple[int, ...]]]:
        if (index, count) not in self._of_kind:
            options = self._kinds[index].options
            self._of_kind[index, count] = _undominated(
                [
                    (
                        sum(n * option.kept_bytes for n, option in zip(own, options, strict=True)),
                        sum(n * option.seconds for n, option in zip(own, options, strict=True)),
                        own,
                    )
                    for own in compositions(count, len(options))
                ]
            )
        return self._of_kind[index, count]


def compositions(count: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write `count` as an ordered sum of `parts` numbers of at least 0."""
    if parts == 1:
        return [(count,)]
    return [(first, *rest) for first in range(count + 1) for rest in compositions(count - first, parts - 1)]


def _undominated(points: list[tuple[float, float, T]]) -> list[tuple[float, float, T]]:
    """Points by ascending first value whose second value is below that of all before."""
    best: list[tuple[float, float, T]] = []
    for point in sorted(points, key=lambda entry: entry[:2]):
        if not best or point[1] < best[-1][1]:
            best.append(point)
    return best


def least_kept(kind: LayerKind) -> float:
    """Bytes that a layer of the kind keeps at least of one microbatch."""
    return min(option.kept_bytes for option in kind.options)
