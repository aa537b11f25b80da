"""The lab's study of pipeline schedules: 1F1B on even stages against the best order and cut that are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.lab.target import LabCase, Outcome, Target, fits_training, option


@dataclass(frozen=True)
class Options:
    """What can be changed."""

    schedule: Literal["gpipe", "1f1b", "interleaved", "zb_h1", "zb_v", "dualpipe", "dualpipe_v"] | None = option(
        None, "Run this schedule on both sides; the optimized one changes its stages alone."
    )
    microbatches: int | None = option(None, "Microbatches of a step; the global batch follows.", least=1, most=4096)
    pp: int | None = option(None, "Pipeline stages.", least=1, most=512)
    overlap: bool = option(False, "Transfers between stages run beside the computation.")
    chrome_trace: str | None = option(None, "Write the optimized run for chrome://tracing or Perfetto to this file.")
    csv: str | None = option(None, "Write the optimized order as torch's CSV to this file.")


def baseline(case: LabCase[Options]) -> Outcome:
    """The schedule, or 1F1B, on even stages."""
    from bench.lab.pipeline_schedule import baseline_outcome

    return baseline_outcome(case)


def optimized(case: LabCase[Options]) -> Outcome:
    """The best schedule and cut of all."""
    from bench.lab.pipeline_schedule import optimized_outcome

    return optimized_outcome(case)


TARGET = Target(
    "pipeline_schedule",
    "The best order of passes and cut into stages against 1F1B on even stages.",
    baseline,
    optimized,
    options=Options,
    judged_by="step_ms",
    fits=fits_training,
    spec="dgx_a100_175b",
    example="--schedule zb_h1",
)
