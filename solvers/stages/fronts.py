"""The recompute choice inside a piece, exactly: kept bytes against seconds over all choices for given layer counts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from placement.arithmetic import weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.stages import LayerKind, StageProblem

#: [kinds] layers of each kind that take each option.
Choice = tuple[tuple[int, ...], ...]


class Fronts:
    """The fastest choice within memory, by layer counts (docs/formulation.md, "Inside a piece")."""

    def __init__(self, problem: StageProblem) -> None:
        self._kinds = problem.kinds
        self._of_kind: dict[tuple[int, int], Front] = {}
        self._of_first: dict[tuple[int, ...], Front] = {
            (): Front(np.zeros(1), np.zeros(1), np.zeros((1, 0), dtype=np.int64))
        }

    def best(self, counts: tuple[int, ...], room: float) -> tuple[float, Choice] | None:
        """(Seconds, choice) of the fastest way to run so many layers of each kind, within `room` kept bytes of one
        microbatch; None where none is."""
        first, last = self._first(counts[:-1]), self._one_kind(len(counts) - 1, counts[-1])
        place = np.searchsorted(last.kept, room - first.kept, side="right") - 1
        seconds = np.where(place >= 0, first.seconds + last.seconds[np.maximum(place, 0)], math.inf)
        at = int(seconds.argmin())
        if not math.isfinite(seconds[at]):
            return None
        taken = [*first.taken[at].tolist(), *last.taken[int(place[at])].tolist()]
        ends = list(accumulate((len(kind.options) for kind in self._kinds), initial=0))
        return float(seconds[at]), tuple(tuple(taken[start:end]) for start, end in pairwise(ends))

    def _first(self, counts: tuple[int, ...]) -> Front:
        """The front of so many layers of the first kinds."""
        if counts not in self._of_first:
            before, each = self._first(counts[:-1]), self._one_kind(len(counts) - 1, counts[-1])
            a, b = (index.ravel() for index in np.indices((len(before.kept), len(each.kept))))
            self._of_first[counts] = Front.of(
                before.kept[a] + each.kept[b],
                before.seconds[a] + each.seconds[b],
                np.hstack([before.taken[a], each.taken[b]]),
            )
        return self._of_first[counts]

    def _one_kind(self, index: int, count: int) -> Front:
        if (index, count) not in self._of_kind:
            options = self._kinds[index].options
            taken = compositions(count, len(options))
            kept = np.array([option.kept_bytes for option in options], dtype=np.float64)
            seconds = np.array([option.seconds for option in options], dtype=np.float64)
            self._of_kind[index, count] = Front.of(weighted_sum(kept, taken.T), weighted_sum(seconds, taken.T), taken)
        return self._of_kind[index, count]


@dataclass(frozen=True)
class Front:
    """Choices that no other one beats in both kept bytes and seconds.

    Attributes:
        kept: [choices] ascending bytes of one microbatch in flight; seconds: [choices] descending.
        taken: [choices, options] layers that take each option, kinds one after the other.
    """

    kept: FloatArray
    seconds: FloatArray
    taken: IntArray

    @classmethod
    def of(cls, kept: FloatArray, seconds: FloatArray, taken: IntArray) -> Front:
        """The undominated ones of these choices."""
        order = np.lexsort((seconds, kept))
        ordered = seconds[order]
        before = np.minimum.accumulate(np.concatenate([[math.inf], ordered[:-1]]))
        best = order[ordered < before]
        return cls(kept[best], seconds[best], taken[best])


def compositions(count: int, parts: int) -> IntArray:
    """[ways, parts] all ways to write `count` as an ordered sum of `parts` numbers of at least 0."""
    if parts == 1:
        return np.array([[count]])
    grid = np.indices((count + 1,) * (parts - 1)).reshape(parts - 1, -1)
    free = grid[:, grid.sum(axis=0) <= count]
    ways: IntArray = np.vstack([free, count - free.sum(axis=0, keepdims=True)]).T
    return ways


def least_kept(kind: LayerKind) -> float:
    """Bytes that a layer of the kind keeps at least of one microbatch."""
    return min(option.kept_bytes for option in kind.options)
