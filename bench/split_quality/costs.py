"""Where a GPU's time goes for each output token: what explains why one split beats another."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.step.roles import Role
from placement.cost.step.throughput import ServingModel, breakdown_of, predict
from solvers.deploy.problem import Column
from specs.scenario import Scenario
from specs.workload import ServingWorkload

#: Deployments within this share of each other count as the same.
SAME = 1e-3


@dataclass(frozen=True)
class TokenCost:
    """Microseconds of one GPU for an output token, by phase and part, largest first."""

    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        return sum(value for _, value in self.parts)


def token_cost(scenario: Scenario, kinds: tuple[tuple[Column, int], ...]) -> TokenCost:
    """The mean over all GPUs of a deployment's instances, for each output token that it serves."""
    workload = scenario.workload
    found: dict[str, float] = {}
    if workload.kind != "serving":
        return TokenCost(())
    served = sum(c.point.requests_per_s * n for c, n in kinds if c.role == "aggregated")
    halves = [sum(c.point.requests_per_s * n for c, n in kinds if c.role == role) for role in _HALVES]
    served += min(halves)
    for column, count in kinds:
        # A half that could serve more than the other waits for it.
        busy = min(1.0, min(halves) / halves[_HALVES.index(column.role)]) if column.role in _HALVES else 1.0
        share = column.point.requests_per_s * count * busy / served
        for name, microseconds in _parts(scenario, workload, column).items():
            found[name] = found.get(name, 0.0) + share * microseconds
        idle = count * column.gpus * 1e6 * (1 - busy) / (served * workload.osl)
        if idle > 0:
            found["waiting for the other half"] = found.get("waiting for the other half", 0.0) + idle
    return TokenCost(tuple(sorted(found.items(), key=lambda item: -item[1])))


_HALVES: tuple[Role, ...] = ("prefill", "decode")


def _parts(scenario: Scenario, workload: ServingWorkload, column: Column) -> dict[str, float]:
    """Microseconds of a GPU per output token of a column's instances; they add up to all of their time."""
    split, constants = column.split, ServingModel(scenario, workload, column.split).efficiency
    model = ServingModel(scenario, workload, split, None, constants)
    whole = column.gpus / (column.point.requests_per_s * workload.osl) * 1e6
    found: dict[str, float] = {}
    if column.role != "prefill":
        sequences = split.batch / split.microbatches * split.dp
        per_token = split.gpus_per_stage / sequences / constants.decode_speed.value * 1e6
        for part in breakdown_of(model.decode_times(split.batch), model.passes, 1.0):
            found[f"decode, {part.name}"] = part.seconds * per_token
    if column.role != "decode":
        bunch = model.bunch(split.batch)
        per_token = split.gpus_per_stage * bunch.passes / (bunch.prompts * split.dp * workload.osl) * 1e6
        for part in breakdown_of(model.prefill_times(bunch.tokens), model.passes, constants.prefill_time.value):
            found[f"prefill, {part.name}"] = part.seconds * per_token
    rest = whole - sum(found.values())
    found["host work, stalls between ranks and stages, idle"] = max(0.0, rest)
    return found


def explanation(ours: TokenCost, theirs: TokenCost, name: str, most: int = 3) -> str:
    """The largest differences between two deployments, in words."""
    if abs(ours.total / theirs.total - 1) < SAME:
        return f"{name}, at its best degrees, is the same: {ours.total:.1f} us of a GPU for each output token"
    mine, other = dict(ours.parts), dict(theirs.parts)
    gains = sorted(((other.get(k, 0.0) - mine.get(k, 0.0), k) for k in {*mine, *other}), reverse=True)
    saved = [f"{k} {mine.get(k, 0.0):.1f} against {other.get(k, 0.0):.1f}" for gain, k in gains[:most] if gain > 0]
    lost = [f"{k} {mine.get(k, 0.0):.1f} against {other.get(k, 0.0):.1f}" for gain, k in gains[-2:] if gain < -0.5]
    text = (
        f"{ours.total:.1f} us of a GPU for each output token against {theirs.total:.1f} of {name}: {'; '.join(saved)}"
    )
    return text + (f"; it pays more for {'; '.join(lost)}" if lost else "")


def training_explanation(scenario: Scenario, ours: object, theirs: object, name: str) -> str:
    """The parts of a training step of two splits, in words."""
    from placement.problem.split import Split

    if not isinstance(ours, Split) or not isinstance(theirs, Split):
        return ""
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
