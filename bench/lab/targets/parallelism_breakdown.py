"""Where a step's time goes under a split and those next to it."""

from __future__ import annotations

from bench.lab.target import LabCase, NoOptions, Outcome, Target


def baseline(case: LabCase[NoOptions]) -> Outcome:
    """Tensor parallelism in a node, pipeline stages over nodes."""
    from bench.lab.splits.study import outcome

    return outcome(case, best=False)


def optimized(case: LabCase[NoOptions]) -> Outcome:
    """The planner's splits."""
    from bench.lab.splits.study import outcome

    return outcome(case, best=True)


TARGET = Target(
    "parallelism_breakdown",
    "Splits by what a step spends on compute, KV reads, communication and bubble; why the chosen one wins.",
    baseline,
    optimized,
)
