"""What explains why one training split beats another."""

from __future__ import annotations

from placement.cost.step.throughput import predict
from placement.problem.split import Split
from specs.scenario import Scenario

#: Steps within this share of each other count as the same.
SAME = 1e-3


def explanation(scenario: Scenario, ours: Split, theirs: Split, name: str) -> str:
    """The parts of a training step of two splits, in words."""
    mine, other = predict(scenario, ours).step, predict(scenario, theirs).step
    if mine is None or other is None:
        return ""
    if abs(mine.step_s / other.step_s - 1) < SAME:
        return f"{name}, at its best degrees, is the same: a step of {mine.step_s:.2f} s"
    return (
        f"step {mine.step_s:.2f} s against {other.step_s:.2f} of {name}: bubble {mine.bubble_share:.1%} against "
        f"{other.bubble_share:.1%}; forward {mine.forward_s * mine.microbatches:.2f} against "
        f"{other.forward_s * other.microbatches:.2f} s; gradients {mine.gradients_s:.2f} "
        f"against {other.gradients_s:.2f} s"
    )
