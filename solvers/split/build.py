"""Makes a split of a candidate's degrees."""

from __future__ import annotations

from placement.problem.schedule import schedule_problem
from placement.problem.split import Split, instances_that_fit
from solvers.split.degrees import Degrees
from specs.scenario import Scenario
from specs.workload import TrainingWorkload


def serving_split(scenario: Scenario, degrees: Degrees, batch: int) -> Split:
    """The serving split of a candidate, with as many instances as the cluster holds."""
    instances = instances_that_fit(scenario.cluster, degrees.tp * degrees.dp, degrees.pp)
    return _split(scenario, degrees, batch, instances, min(degrees.pp, batch))


def training_split(scenario: Scenario, workload: TrainingWorkload, degrees: Degrees, batch: int | None) -> Split | None:
    """The training split of a candidate with the most instances whose ranks share the global batch evenly.

    Args:
        batch: sequences of an attention rank in a step where that is pinned.

    Returns:
        None where no number of instances divides the global batch into what the schedule needs.
    """
    room = instances_that_fit(scenario.cluster, degrees.tp * degrees.dp, degrees.pp)
    for instances in range(room, 0, -1):
        each, rest = divmod(workload.global_batch, degrees.dp * instances)
        if rest or each % workload.microbatch or each == 0 or batch not in (None, each):
            continue
        if schedule_problem(scenario.model, workload, degrees.pp, each // workload.microbatch):
            continue
        return _split(scenario, degrees, each, instances, each // workload.microbatch)
    return None


def first_split(scenario: Scenario, degrees: Degrees, batch: int | None) -> Split | None:
    """The split of a candidate that needs least memory: one sequence in serving; None where training can't divide."""
    if scenario.workload.kind == "training":
        return training_split(scenario, scenario.workload, degrees, batch)
    return serving_split(scenario, degrees, batch or 1)


def _split(scenario: Scenario, degrees: Degrees, batch: int, instances: int, microbatches: int) -> Split:
    return Split(
        tp=degrees.tp,
        ep=degrees.ep,
        pp=degrees.pp,
        dp=degrees.dp,
        batch=batch,
        instances=instances,
        redundant=degrees.redundant,
        slots_per_gpu=(scenario.model.moe.experts + degrees.redundant) // degrees.ep,
        etp=degrees.tp * degrees.dp // degrees.ep,
        microbatches=microbatches,
    )
