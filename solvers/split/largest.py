"""The largest batch of a split within HBM and the objectives, by interpolation: few batches are priced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from placement.cost.memory.hbm import MemoryModel

#: After so many guesses between the ends of a bracket it is halved.
_HALVED = 3


@dataclass(frozen=True)
class Tried:
    """A batch that was priced.

    Attributes:
        over: Share by which it exceeds the objective that it exceeds most; at most 0 where it meets all.
        rate: What it yields.
    """

    over: float
    rate: float

    @classmethod
    def of(cls, rate: float, *figures: tuple[float, float]) -> Tried:
        """A batch that yields `rate`; figures: each with its limit."""
        return cls(max((figure - limit) / limit for figure, limit in figures), rate)


def largest_batch(at: Callable[[int], Tried], first: Tried, memory: MemoryModel, most: int, worst: float) -> int | None:
    """The largest batch within HBM and the objectives; None where one more, which is not, yields less than `worst`.

    Args:
        at: A batch priced; neither what it exceeds nor what it yields falls as the batch grows.
        first: A batch of 1, which meets all.
        most: Largest batch that may be tried.
        worst: A rate that must be reached.
    """

    def exceeds_hbm(batch: int) -> float:
        return memory.total_bytes(batch) - memory.capacity_bytes

    room = _last_within(exceeds_hbm, exceeds_hbm(1), 1, most)
    high = min(room + 1, most)
    end = first if high == 1 else at(high)
    if end.over <= 0 and high == room:
        return room
    if end.rate < worst:
        return None
    if end.over <= 0:
        return room
    slower = False

    def over(batch: int) -> float:
        nonlocal slower
        tried = at(batch)
        slower |= tried.over > 0 and tried.rate < worst
        return tried.over

    low = _between(over, (1, first.over), (high, end.over), lambda: slower)
    return None if slower else low


def _last_within(over: Callable[[int], float], at_first: float, first: int, last: int) -> int:
    """The last number from `first` to `last` that is not over."""
    if last <= first or (at_last := over(last)) <= 0:
        return max(first, last)
    return _between(over, (first, at_first), (last, at_last), lambda: False)


def _between(
    over: Callable[[int], float], low: tuple[int, float], high: tuple[int, float], ended: Callable[[], bool]
) -> int:
    """The last number whose `over` is at most 0, between one of which that holds and one of which it does not.

    Args:
        over: Never falls. low, high: Numbers with what they are over by. ended: Whether to give up.
    """
    (first, below), (last, above) = low, high
    guesses = 0
    while last - first > 1 and not ended():
        guesses += 1
        share = 0.5 if guesses % _HALVED == 0 else below / (below - above)
        middle = min(max(first + int((last - first) * share), first + 1), last - 1)
        value = over(middle)
        if value <= 0:
            first, below = middle, value
        else:
            last, above = middle, value
    return first
