"""The recompute choice inside a piece, exactly: kept bytes against seconds over all choices for given layer counts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from placement.problem import FloatArray
from placement.stages import LayerKind, StageProblem

#: [kinds] layers of each kind that take each option.
Choice = tuple[tuple[int, ...], ...]


class Fronts:
    """The fastest choice within memory, by layer counts. Layers are of few kinds and a kind's layers are alike, so only
    how many of them take which option counts: the knapsack over layers is one over counts.

    Of one kind, and of all kinds but the last together, the choices that no other one beats in both kept bytes and
    seconds are listed once; a query looks for the best pair.
    """

    def __init__(self, problem: StageProblem) -> None:
        self._kinds = problem.kinds
        self._of_kind: dict[tuple[int, int], Front] = {}
        self._of_first: dict[tuple[int, ...], Front] = {(): Front.of([(0.0, 0.0, ())])}

    def best(self, counts: tuple[int, ...], room: float) -> tuple[float, Choice] | None:
        """(Seconds, choice) of the fastest way to run so many layers of each kind, within `room` kept bytes of one
        microbatch; None where none is."""
        first, last = self._first(counts[:-1]), self._one_kind(len(counts) - 1, counts[-1])
        place = np.searchsorted(last.kept, room - first.kept, side="right") - 1
        seconds = np.where(place >= 0, first.seconds + last.seconds[np.maximum(place, 0)], math.inf)
        at = int(seconds.argmin())
        if not math.isfinite(seconds[at]):
            return None
        return float(seconds[at]), (*first.choices[at], *last.choices[int(place[at])])

    def _first(self, counts: tuple[int, ...]) -> Front:
        """The front of so many layers of the first kinds."""
        if counts not in self._of_first:
            before, each = self._first(counts[:-1]), self._one_kind(len(counts) - 1, counts[-1])
            self._of_first[counts] = Front.of(
                [
                    (a + kept, b + time, (*rest, *own))
                    for a, b, rest in before.points()
                    for kept, time, own in each.points()
                ]
            )
        return self._of_first[counts]

    def _one_kind(self, index: int, count: int) -> Front:
        if (index, count) not in self._of_kind:
            options = self._kinds[index].options
            self._of_kind[index, count] = Front.of(
                [
                    (
                        sum(n * option.kept_bytes for n, option in zip(own, options, strict=True)),
                        sum(n * option.seconds for n, option in zip(own, options, strict=True)),
                        (own,),
                    )
                    for own in compositions(count, len(options))
                ]
            )
        return self._of_kind[index, count]


@dataclass(frozen=True)
class Front:
    """Choices that no other one beats in both kept bytes and seconds.

    Attributes:
        kept: ascending bytes of one microbatch in flight; seconds: descending; choices: what reaches them.
    """

    kept: FloatArray
    seconds: FloatArray
    choices: tuple[Choice, ...]

    @classmethod
    def of(cls, points: list[tuple[float, float, Choice]]) -> Front:
        """The undominated ones of (kept bytes, seconds, choice)."""
        best: list[tuple[float, float, Choice]] = []
        for point in sorted(points, key=lambda entry: entry[:2]):
            if not best or point[1] < best[-1][1]:
                best.append(point)
        kept, seconds, choices = zip(*best, strict=True)
        return cls(np.array(kept), np.array(seconds), choices)

    def points(self) -> Iterator[tuple[float, float, Choice]]:
        """(Kept bytes, seconds, choice) of each."""
        return zip(self.kept.tolist(), self.seconds.tolist(), self.choices, strict=True)


def compositions(count: int, parts: int) -> list[tuple[int, ...]]:
    """All ways to write `count` as an ordered sum of `parts` numbers of at least 0."""
    if parts == 1:
        return [(count,)]
    return [(first, *rest) for first in range(count + 1) for rest in compositions(count - first, parts - 1)]


def least_kept(kind: LayerKind) -> float:
    """Bytes that a layer of the kind keeps at least of one microbatch."""
    return min(option.kept_bytes for option in kind.options)
