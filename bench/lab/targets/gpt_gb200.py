"""GPT-OSS-120B on GB200 NVL72: a published-style layout against the solved one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.lab.target import LabCase, NoOptions, Outcome, Target

if TYPE_CHECKING:
    from specs.scenario import Scenario


def baseline(case: LabCase[NoOptions]) -> Outcome:
    """The best published recipe at its best."""
    from bench.lab.rack.study import published

    return published(case)


def optimized(case: LabCase[NoOptions]) -> Outcome:
    """The planner's instances and placements."""
    from bench.lab.rack.study import solved

    return solved(case)


def fits(scenario: Scenario) -> str:
    """Why a scenario is no GPT-OSS-120B on racks; "" where it is."""
    from bench.lab.rack.study import fits_rack

    return fits_rack(scenario, "gpt_oss")


TARGET = Target(
    "gpt_gb200",
    "GPT-OSS-120B on GB200 NVL72: the best published layout against the solved one, prefill and decode apart.",
    baseline,
    optimized,
    fits=fits,
    spec="gpt_oss_120b_gb200_ib",
)
