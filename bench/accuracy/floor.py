"""What no prediction can tell that knows only a plan: how much releases, drafts and repeats differ on one plan."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.accuracy.samples import Sample


@dataclass(frozen=True)
class Floor:
    """Errors of the best guess for every plan that was measured several times: its measurements' median.

    Attributes:
        rows: measurements of such plans. plans: how many.
        tpot, ttft: median absolute percentage errors.
    """

    rows: int
    plans: int
    tpot: float
    ttft: float


def floor_of(samples: Sequence[Sample], named: bool) -> Floor | None:
    """The floor over samples that a plan can't tell apart; None where all can be. `named`: the plan names an engine."""
    alike: dict[object, list[Sample]] = {}
    for sample in samples:
        if not sample.queued:
            setting = sample.named if named else sample.unnamed
            row = sample.row
            key = (sample.model, row.dtype, setting.case, setting.split, row.gpu, row.isl, row.osl)
            alike.setdefault(key, []).append(sample)
    several = [group for group in alike.values() if len(group) > 1]
    if not several:
        return None

    def median(values: Sequence[Sequence[float]]) -> float:
        off = []
        for group in values:
            best = math.exp(statistics.median(math.log(value) for value in group))
            # Half the measurements of a pair say nothing of the other: leave one out.
            share = len(group) / (len(group) - 1)
            off += [abs(math.exp(math.log(best / value) * share) - 1) for value in group]
        return statistics.median(off)

    return Floor(
        sum(len(group) for group in several),
        len(several),
        median([[sample.row.tpot_ms for sample in group] for group in several]),
        median([[sample.row.ttft_ms for sample in group] for group in several]),
    )
