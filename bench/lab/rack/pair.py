"""The pair of sides of a model family on racks, as a target's file names it; the study is imported when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lab.target import LabCase, NoOptions, Outcome, Target

if TYPE_CHECKING:
    from specs.scenario import Scenario


def rack_target(name: str, family: str, model: str, spec: str) -> Target[NoOptions]:
    """A published layout of a model family on racks against the solved one.

    Args:
        name: The target's name.
        family: What names of such models begin with, in lower case and with underscores.
        model: The model and its racks, as people call them.
        spec: The scenario that is taken where none is named.
    """

    def fits(scenario: Scenario) -> str:
        from bench.lab.rack.study import fits_rack

        return fits_rack(scenario, family)

    summary = f"{model}: the best published layout against the solved one, prefill and decode apart."
    return Target(name, summary, _baseline, _optimized, fits=fits, spec=spec)


def _baseline(case: LabCase[NoOptions]) -> Outcome:
    """The best published recipe at its best."""
    from bench.lab.rack.study import published

    return published(case)


def _optimized(case: LabCase[NoOptions]) -> Outcome:
    """The planner's instances and placements."""
    from bench.lab.rack.study import solved

    return solved(case)
