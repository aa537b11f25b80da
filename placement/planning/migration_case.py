"""What a migration begins with: a role as it runs, on new routing, and each layer's front from there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import expert_bytes
from placement.cost.layer.transfer import Transfer, transfer
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch
from placement.errors import InfeasibleError, ParameterError
from placement.planning.effort import Effort
from placement.planning.move_budget import MoveBudget
from placement.planning.progress import Reporter
from placement.planning.resize import Resized
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.layer import LayerProblem, Objective
from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.routing.holdout import Routing
from solvers.migration.allocate import Allocation, allocate, transfer_seconds
from solvers.migration.front import standing
from solvers.migration.run import Fronts, layer_fronts


@dataclass(frozen=True)
class Asked:
    """What holds for every role of the plan."""

    plan: Plan
    routing: Routing
    objective: Objective
    budget: MoveBudget
    effort: Effort
    report: Reporter


@dataclass(frozen=True)
class MigrationCase:
    """What is migrated, and the fronts of it.

    Attributes:
        problems, judged: one a layer, on the routing solved on and on the one that judges.
        failed_gpus: those of the plan, and those lost since, ascending.
        stages: stage of each layer. transfers: of each layer's points. resized: whether the number of GPUs changes.
    """

    asked: Asked
    role: RolePlan
    failed_gpus: tuple[int, ...]
    problems: tuple[LayerProblem, ...]
    judged: tuple[LayerProblem, ...]
    running: Placement
    stages: tuple[int, ...]
    fronts: Fronts
    transfers: tuple[tuple[Transfer, ...], ...]
    allocation: Allocation
    resized: bool


def migration_case(
    asked: Asked, role: RolePlan, running: Placement, named: tuple[tuple[int, ...], tuple[int, ...]],
    resized: Resized | None,
) -> MigrationCase:  # fmt: skip
    """The case, solved; `named` are the failed and the fixed GPUs."""
    scenario, effort, report = asked.plan.scenario_of(role), asked.effort, asked.report
    widths = role.widths(scenario)
    gpus, (lost, fixed) = role.topology.gpus, named
    for name, given in (("failed_gpus", lost), ("fixed_gpus", fixed)):
        wrong = [gpu for gpu in given if not 0 <= gpu < gpus]
        if wrong:
            raise ParameterError(name, f"GPU {wrong[0]} of {gpus}", f"give GPUs from 0 to {gpus - 1}")
    failed = tuple(sorted({*role.failed_gpus, *lost}))
    if set(failed) & set(fixed):
        raise ParameterError("fixed_gpus", "a failed GPU can't keep its experts", "name it once")
    alive = np.ones(gpus, dtype=bool)
    alive[list(failed)] = False
    for moe, width in zip(scenario.model.moes, widths, strict=True):
        experts, left = moe.experts, int(alive.sum()) * width
        if left < experts:
            raise InfeasibleError(
                f"the {int(alive.sum())} GPUs left have {left} slots for {experts} experts, {experts - left} too few"
            )
    kept = np.isin(np.arange(gpus), fixed)

    problems = tuple(
        one.with_rules(current=slots, fixed=kept.repeat(width) if kept.any() else None)
        for one, width, slots in zip(
            posed(asked, role, asked.routing.solved_on, failed), widths, running.slots, strict=True
        )
    )
    stages = role.stages_of_layers
    senders = alive if failed else None
    sizes = [expert_bytes(scenario.model, scenario.model.layout[i]) for i in scenario.model.moe_blocks]

    def moved(i: int, slots: IntArray) -> Transfer:
        one = problems[i]
        width, rates = one.hardware.slots_per_gpu, one.hardware.rates
        if resized is not None:
            return resized.transfer(i, slots, width, sizes[i], rates)
        return transfer(one.topology, running.slots[i], slots, width, sizes[i], rates, senders)

    # Told before anything is solved.
    forced = [(moved(i, standing(problem)),) for i, problem in enumerate(problems)]
    asked.budget.check_forced(
        sum(len(slots) for slots in running.slots), sum(part.moves for (part,) in forced),
        transfer_seconds(forced, stages, [0] * len(forced)),
    )  # fmt: skip
    report.stage("solving anew, and with few moves", 2 * len(problems))
    fronts = layer_fronts(
        problems, running.fractions, effort.stop(), effort.seed, effort.threads, effort.backend, report.advance,
        report.advance,
    )  # fmt: skip
    transfers = tuple(tuple(moved(i, point.slots) for point in front.points) for i, front in enumerate(fronts.layers))
    return MigrationCase(
        asked, role, failed, problems, posed(asked, role, asked.routing.judged_on, failed), running, stages, fronts,
        transfers, allocate(fronts.layers), resized is not None,
    )  # fmt: skip


def posed(
    asked: Asked, role: RolePlan, statistics: Sequence[LayerData], failed_gpus: tuple[int, ...]
) -> tuple[LayerProblem, ...]:
    """The role's layers on a routing, at the batch that its experts were placed for."""
    scenario, split = asked.plan.scenario_of(role), role.split.split()
    if scenario.workload.kind == "serving":
        split = at_batch(split, role.posed_batch)
    return layer_problems(
        scenario, split, role.phase, statistics, asked.objective, tail=asked.plan.tail, failed_gpus=failed_gpus
    )
