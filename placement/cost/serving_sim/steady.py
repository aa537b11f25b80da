"""The closed form at any load: what an instance of a kind does with so many requests/s."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.step.roles import InstancePoint, PrefillQueue, aggregated_point, decode_point


@dataclass(frozen=True)
class Steady:
    """One instance under a steady load.

    Attributes:
        batch: sequences of an attention rank, on average (0 for prefill).
        busy: share of the time that prefill takes up, or of the sequences that fit.
        ttft_s: None for decode. tpot_s: None for prefill.
    """

    batch: float
    busy: float
    ttft_s: float | None
    tpot_s: float | None


def steady(kind: InstanceKind, requests_per_s: float) -> Steady | None:
    """An instance of a kind that gets so many requests/s; None where they are more than it serves."""
    if kind.role == "prefill":
        queue = PrefillQueue.of(kind.model, kind.cp)
        busy = requests_per_s / queue.most_requests_per_s
        return None if busy >= 1 else Steady(0.0, busy, queue.at(busy).ttft_s, None)
    low, high = 0, kind.most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _at(kind, middle).requests_per_s <= requests_per_s else (low, middle)
    if low == kind.most:
        return None if _at(kind, low).requests_per_s < requests_per_s else _mean(kind, low, 0.0)
    below = _at(kind, low).requests_per_s if low else 0.0
    return _mean(kind, low, (requests_per_s - below) / (_at(kind, low + 1).requests_per_s - below))


def _at(kind: InstanceKind, batch: int) -> InstancePoint:
    return (aggregated_point if kind.role == "aggregated" else decode_point)(kind.model, batch)


def _mean(kind: InstanceKind, batch: int, part: float) -> Steady:
    """Part of the way from a batch to the next; with fewer than one sequence on average, those of one."""
    high = _at(kind, batch + 1) if part else _at(kind, batch)
    low = _at(kind, batch) if batch else high

    def mean(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else first + part * (second - first)

    return Steady(
        batch + part, (batch + part) / kind.most, mean(low.ttft_s, high.ttft_s), mean(low.tpot_s, high.tpot_s)
    )
