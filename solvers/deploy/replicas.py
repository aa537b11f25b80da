"""Redundant experts of a chosen split: what they gain in balance and traffic against the KV cache they cost."""

from __future__ import annotations

from dataclasses import replace

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import memory_of
from placement.cost.step.throughput import predict
from placement.problem.engine_rules import slots_problem
from placement.problem.split import Split
from solvers.deploy.columns import MORE_SLOTS, Placed, price
from solvers.deploy.problem import Column
from solvers.split.degrees import Degrees
from solvers.split.enumerate import SplitChoice
from solvers.stop import DEFAULT, Stop
from specs.scenario import Scenario

#: Replicas have to gain this share of the rate: the quick placement tells balance and traffic no finer.
LEAST_GAIN = 0.01


def with_replicas(scenario: Scenario, choice: SplitChoice, placed: Placed, stop: Stop = DEFAULT) -> SplitChoice:
    """The choice among its best split and the runners-up, each with the fewest redundant experts and with more.

    Rates are those of quickly placed experts; without a gain of LEAST_GAIN over the best as it came, that stays. A
    training scenario is returned as it is, and so is a choice for which there is no time.
    """
    if scenario.workload.kind != "serving":
        return choice
    splits = [choice.best, *(each.split for each in choice.runners_up)]
    degrees = {
        Degrees(s.tp, s.ep, s.pp, s.dp, s.redundant + more * s.ep)
        for s in splits
        for more in (0, *(MORE_SLOTS if s.ep > 1 else ()))
        if not slots_problem(scenario, s, s.redundant + more * s.ep)
    }
    rated: list[tuple[float, Split]] = []
    came: float | None = None
    # One by one: a faster split of as many GPUs must not hide what the one that came would yield.
    for each in sorted(degrees, key=lambda d: (d.redundant, d.pp, d.tp, d.ep, d.dp)):
        if stop.expired:
            return choice
        for column in price(scenario, (each,), scenario.pins, placed):
            split, rate = _whole(scenario, column)
            rated.append((rate, split))
            if _degrees(split) == _degrees(choice.best):
                came = rate
    if not rated or came is None:
        return choice
    rate, split = max(rated, key=lambda entry: entry[0])
    if rate <= came * (1 + LEAST_GAIN):
        return choice
    cut = next((s.cut for s in splits if (s.tp, s.ep, s.pp, s.dp) == (split.tp, split.ep, split.pp, split.dp)), None)
    split = replace(split, cut=cut)
    if not memory_of(scenario, split).fits:
        return choice
    return replace(
        choice,
        best=split,
        prediction=predict(scenario, split, None, efficiency_of(scenario)),
        memory=memory_of(scenario, split),
        idle_gpus=scenario.cluster.gpus - split.gpus,
    )


def _degrees(split: Split) -> tuple[int, int, int, int, int]:
    return (split.tp, split.ep, split.pp, split.dp, split.redundant)


def _whole(scenario: Scenario, column: Column) -> tuple[Split, float]:
    """The column's split over the whole cluster, and its requests/s."""
    instances = scenario.cluster.gpus // column.gpus
    return replace(column.split, instances=instances), column.point.requests_per_s * instances
