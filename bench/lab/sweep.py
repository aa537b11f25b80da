"""Targets over scenarios: the targets of a scenario share its plans, several scenarios run side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.lab.harness import Asked, Skipped, run_pair
from bench.lab.planner import Planner
from bench.lab.target import PairResult, Target
from placement.planning.effort import Effort
from placement.planning.progress import OnProgress, Reporter
from solvers.parallel import each_layer

if TYPE_CHECKING:
    from specs.scenario import Scenario


@dataclass(frozen=True)
class Share:
    """One scenario with the targets that are asked of it."""

    scenario: Scenario
    targets: tuple[Target[Any], ...]
    asked: Asked


def pairs(
    shares: Sequence[Share], asked: Asked, on_progress: OnProgress | None = None
) -> Iterator[PairResult | Skipped]:
    """Each target on each scenario, in order.

    A plan leaves cores idle wherever a step is not divided by layers. So several scenarios share the workers between
    them, each in a process of its own. Neither changes a figure.

    Raises:
        InputError, InfeasibleError, NothingFoundError: See run_pair; of the first scenario that has one.
    """
    workers = Effort(workers=asked.workers).threads
    if min(workers, len(shares)) < 2:
        for share in shares:
            yield from _pairs(share, on_progress)
        return
    report = Reporter(on_progress)
    report.stage("scenarios", len(shares))
    each = max(1, workers // len(shares))
    alone = [replace(share, asked=replace(share.asked, workers=each)) for share in shares]
    with closing(each_layer(_whole, alone, workers)) as found:
        for results in found:
            report.advance()
            yield from results


def _whole(share: Share) -> list[PairResult | Skipped]:
    return list(_pairs(share, None))


def _pairs(share: Share, on_progress: OnProgress | None) -> Iterator[PairResult | Skipped]:
    asked = share.asked
    planner = Planner(asked.profile, asked.seed, asked.workers, on_progress)
    for target in share.targets:
        yield run_pair(target, share.scenario, asked, planner)
