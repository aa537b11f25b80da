"""From a plan that runs to a better one on new routing: fronts of all layers, and what a budget buys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import expert_bytes
from placement.cost.layer.score import LayerScore, score_layer
from placement.cost.layer.transfer import Transfer, transfer
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch
from placement.errors import InfeasibleError, ParameterError
from placement.planning.case import SOLVED, AnyTrace
from placement.planning.current import check_widths, read_current
from placement.planning.effort import Budget, Effort
from placement.planning.judgement import certificate_of, judge, layer_record, versions
from placement.planning.other_engine import on_engine
from placement.planning.progress import OnProgress, Reporter
from placement.planning.resize import Resized, resize
from placement.planning.strategies import place_baselines, placement_of_answers
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.layer import LayerProblem, Objective
from placement.records.convert import figures_record, own_placement, served_record
from placement.records.migration import FrontRow, Migration
from placement.records.plan import Plan, ProvenanceRecord
from placement.records.role import RolePlan
from placement.routing.holdout import Routing, read_sources, routing_of
from solvers.experts.layers import TOLERANCE, LayerAnswer
from solvers.migration.allocate import Allocation, allocate, transfer_seconds, within_seconds
from solvers.migration.front import standing
from solvers.migration.run import Fronts, layer_fronts
from solvers.result import Status, Termination
from specs.scenario import Scenario

#: Shares of all slots that the front's table shows.
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)

#: The running placement's row in a migrated plan.
RUNNING = "running"


@dataclass(frozen=True)
class _Case:
    """What is migrated, and the fronts of it.

    Attributes:
        problems, judged: one a layer, on the routing solved on and on the one that judges.
        failed_gpus: those of the plan, and those lost since, ascending.
        stages: stage of each layer. transfers: of each layer's points. resized: whether the number of GPUs changes.
    """

    plan: Plan
    role: RolePlan
    scenario: Scenario
    routing: Routing
    objective: Objective
    failed_gpus: tuple[int, ...]
    problems: tuple[LayerProblem, ...]
    judged: tuple[LayerProblem, ...]
    running: Placement
    stages: tuple[int, ...]
    fronts: Fronts
    transfers: tuple[tuple[Transfer, ...], ...]
    allocation: Allocation
    resized: bool


@dataclass(frozen=True)
class MoveBudget:
    """Most that a migration may move; at most one is set.

    Attributes:
        max_moves: Experts that come to a GPU, in all layers. max_moves_percent: the same in percent of all slots.
        max_transfer_ms: Time that the busiest link is taken up.

    Raises:
        ParameterError: A value that is no budget, or more than one.
    """

    max_moves: int | None = None
    max_moves_percent: float | None = None
    max_transfer_ms: float | None = None

    def __post_init__(self) -> None:
        given = [
            name for name in ("max_moves", "max_moves_percent", "max_transfer_ms") if getattr(self, name) is not None
        ]
        for name in given:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ParameterError(name, f"{value:g} is no budget", "give a number from 0 on")
        if len(given) > 1:
            raise ParameterError(given[0], "more than one budget is given", f"leave out `{given[1]}`")

    @property
    def given(self) -> bool:
        """Whether there is a budget."""
        return any(value is not None for value in (self.max_moves, self.max_moves_percent, self.max_transfer_ms))

    def moves(self, slots: int) -> int | None:
        """The budget in moves of `slots` slots, or None."""
        if self.max_moves_percent is not None:
            # As written: 0.29 of 100 slots are 29, though the double is less.
            return int(slots * self.max_moves_percent / 100 + 1e-9)
        return self.max_moves

    def check_forced(self, slots: int, forced: int, seconds: float) -> None:
        """Whether there is room for what can't be left out.

        Args:
            slots: Of all layers.
            forced, seconds: Moves that failed, leaving or joining GPUs force, and the time of their transfers.

        Raises:
            InfeasibleError: They exceed the budget.
        """
        if self.max_transfer_ms is not None and seconds > self.max_transfer_ms * 1e-3:
            raise InfeasibleError(
                f"the {forced} moves that failed, leaving or joining GPUs force take {seconds * 1e3:.3g} ms, "
                f"{seconds * 1e3 - self.max_transfer_ms:.3g} ms over `max_transfer_ms`"
            )
        most = self.moves(slots)
        if most is not None and forced > most:
            raise InfeasibleError(
                f"failed, leaving or joining GPUs force {forced} moves, {forced - most} more than the budget of {most}"
            )


def migrate_plan(
    plan: Plan,
    traces: Sequence[AnyTrace],
    *,
    max_moves: int | None = None,
    max_moves_percent: float | None = None,
    max_transfer_ms: float | None = None,
    failed_gpus: Sequence[int] = (),
    fixed_gpus: Sequence[int] = (),
    to_gpus: int | None = None,
    engine: str | None = None,
    role: str | None = None,
    current: str | Path | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    workers: int = 0,
    backend: Any = None,
    on_progress: OnProgress | None = None,
) -> Migration:
    """What moves buy: the front from a plan as it runs to a full re-solve on new routing, and the plan within a budget.

    A move is an expert that comes to a GPU which did not hold it.

    Args:
        plan: The plan that runs.
        traces: New routing, objects or paths; split in halves as `plan_scenario` does.
        max_moves: Budget: moves in all layers. At most one of the three budgets is given.
        max_moves_percent: Budget: the same in percent of all slots.
        max_transfer_ms: Budget: time that the busiest link is taken up.
        failed_gpus: GPUs (expert-parallel ranks) lost since; what they held is put back with the fewest moves first.
        fixed_gpus: GPUs that keep their experts.
        to_gpus: Expert-parallel ranks that the plan is to have from now on; see `placement.planning.resize`. Experts of
            GPUs that leave are put back, and GPUs that join are filled, with the fewest moves first.
        engine: The engine that runs the plan, NAME[:BACKEND] or a file; None: the plan's own.
        role: Which role's experts move, where the plan has several.
        current: A file of the engine that runs: its map is what runs, not the plan's placement.
        budget: When solving stops.
        seed: Of every random choice.
        workers: Processes or threads; 0: one per core.
        backend: See `plan_scenario`.
        on_progress: Called with a Progress at each step.

    Returns:
        The front, and without a budget no plan.

    Raises:
        InputError: An argument or trace that does not fit the plan. InfeasibleError: the GPUs left have too few slots,
            or forced moves exceed the budget. NothingFoundError: the running placement can't be mended.
    """
    most = MoveBudget(max_moves, max_moves_percent, max_transfer_ms)
    if not traces:
        raise ParameterError("traces", "there is no new routing", "give at least one trace or file of load counts")
    plan = on_engine(plan, engine)
    effort, report = Effort(budget or Budget(), seed, workers, backend), Reporter(on_progress)
    of = plan.role(role)
    ran, resized = of, None
    if to_gpus is not None:
        for name, given in (("failed_gpus", failed_gpus), ("fixed_gpus", fixed_gpus)):
            if given:
                raise ParameterError(name, "GPUs are named while their number changes", "leave out `to_gpus`, or these")
        resized = resize(plan, of, to_gpus)
        plan, of = resized.plan, resized.role
    slots = of.topology.gpus * sum(of.widths(plan.scenario_of(of)))
    running = own_placement(of)
    if current is not None:
        if resized is not None:
            raise ParameterError("current", "the map changes with the number of GPUs", "leave out `to_gpus`")
        runs = read_current(plan, of, current)
        check_widths(runs, of.widths(plan.scenario_of(of)), of)
        running = runs.placement
    case = _case(plan, of, running, traces, (tuple(failed_gpus), tuple(fixed_gpus)), most, effort, report, resized)
    points = _chosen(case, most, slots)
    whole = case.allocation.least + len(case.allocation.value) - 1
    totals = sorted({case.allocation.least, *(int(share * slots) for share in SHOWN), whole})
    report.stage("scoring on held-out routing", len(totals) + 1)
    rows: list[FrontRow] = []
    before = _before(case)
    last = [len(front.points) - 1 for front in case.fronts.layers]
    after = _judge(case, last)
    for total in totals:
        shown = case.allocation.points(total)
        if shown is not None and (not rows or sum(_moves(case, shown)) > rows[-1].moves):
            rows.append(_row(case, shown, slots, before, after))
        report.advance()
    chosen = None if points is None else _row(case, points, slots, before, after)
    report.advance()
    return Migration(
        scenario=plan.scenario.name, engine=plan.engine, role=of.role, phase=of.phase, objective=case.objective,
        routing=case.routing.record, slots=slots, failed_gpus=case.failed_gpus, forced_moves=case.allocation.least,
        gpus_before=None if resized is None else ran.topology.gpus, gpus=of.topology.gpus - len(case.failed_gpus),
        batch_before=None if resized is None else ran.split.batch, batch=of.split.batch,
        before=before[1] if before is not None else None, rows=tuple(rows), chosen=chosen,
        plan=None if points is None else _migrated(case, points, effort, report),
    )  # fmt: skip


def _case(
    plan: Plan, role: RolePlan, running: Placement, traces: Sequence[AnyTrace],
    named: tuple[tuple[int, ...], tuple[int, ...]], most: MoveBudget, effort: Effort, report: Reporter,
    resized: Resized | None,
) -> _Case:  # fmt: skip
    """The case, solved; `named` are the failed and the fixed GPUs."""
    scenario, split = plan.scenario_of(role), role.split.split()
    if scenario.workload.kind == "serving":
        split = at_batch(split, role.posed_batch)
    widths = role.widths(scenario)
    gpus, (lost, fixed) = role.topology.gpus, named
    for name, given in (("failed_gpus", lost), ("fixed_gpus", fixed)):
        wrong = [gpu for gpu in given if not 0 <= gpu < gpus]
        if wrong:
            raise ParameterError(name, f"GPU {wrong[0]} of {gpus}", f"give GPUs from 0 to {gpus - 1}")
    failed = tuple(sorted({*role.failed_gpus, *lost}))
    if set(failed) & set(fixed):
        raise ParameterError("fixed_gpus", "a failed GPU can't keep its experts", "name it once")
    report.stage("reading the routing")
    moe = scenario.model.moe
    routing = routing_of(read_sources(scenario.model, traces), moe.computed_top_k, mixture=plan.tail >= 1.0)
    objective: Objective = "load" if routing.counts_only else plan.objective
    alive = np.ones(gpus, dtype=bool)
    alive[list(failed)] = False
    experts, left = moe.experts, int(alive.sum()) * role.slots_per_gpu
    if left < experts:
        raise InfeasibleError(
            f"the {int(alive.sum())} GPUs left have {left} slots for {experts} experts, {experts - left} too few"
        )
    kept = np.isin(np.arange(gpus), fixed)

    def posed(statistics: Sequence[LayerData], judged: bool) -> tuple[LayerProblem, ...]:
        made = layer_problems(scenario, split, role.phase, statistics, objective, tail=plan.tail, failed_gpus=failed)
        if judged:
            return made
        return tuple(
            one.with_rules(current=slots, fixed=kept.repeat(width) if kept.any() else None)
            for one, width, slots in zip(made, widths, running.slots, strict=True)
        )

    problems = posed(routing.solved_on, False)
    stages = tuple(
        next(
            stage.stage for stage in role.stages if stage.first_layer <= layer.layer < stage.first_layer + stage.layers
        )
        for layer in role.layers
    )
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
    most.check_forced(
        sum(len(slots) for slots in running.slots), sum(part.moves for (part,) in forced),
        transfer_seconds(forced, stages, [0] * len(forced)),
    )  # fmt: skip
    report.stage("solving anew, and with few moves", 2 * len(problems))
    fronts = layer_fronts(
        problems, running.fractions, effort.stop(), effort.seed, effort.threads, effort.backend, report.advance,
        report.advance,
    )  # fmt: skip
    transfers = tuple(tuple(moved(i, point.slots) for point in front.points) for i, front in enumerate(fronts.layers))
    return _Case(
        plan, role, scenario, routing, objective, failed, problems, posed(routing.judged_on, True), running, stages,
        fronts, transfers, allocate(fronts.layers), resized is not None,
    )  # fmt: skip


def _chosen(case: _Case, budget: MoveBudget, slots: int) -> tuple[int, ...] | None:
    """Each layer's point within the budget, which has room for what is forced; None without a budget."""
    if budget.max_transfer_ms is not None:
        return within_seconds(
            case.fronts.layers, case.allocation, case.transfers, case.stages, budget.max_transfer_ms * 1e-3
        )
    most = budget.moves(slots)
    return None if most is None else case.allocation.points(most)


def _moves(case: _Case, points: Sequence[int]) -> list[int]:
    return [front.points[i].moves for front, i in zip(case.fronts.layers, points, strict=True)]


def _judge(case: _Case, points: Sequence[int]) -> list[LayerScore]:
    """Scores on the routing that judges."""
    return [
        score_layer(problem, front.points[i].slots, front.points[i].fractions)
        for problem, front, i in zip(case.judged, case.fronts.layers, points, strict=True)
    ]


def _mean(scores: Sequence[LayerScore], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def _before(case: _Case) -> tuple[list[LayerScore], FrontRow] | None:
    """The running placement's scores on the routing that judges, and its row; None where failed GPUs hold a part."""
    solved = [front.before for front in case.fronts.layers if front.before is not None]
    if len(solved) < len(case.fronts.layers):
        return None
    judged = [
        score_layer(problem, slots, fractions)
        for problem, slots, fractions in zip(case.judged, case.running.slots, case.running.fractions, strict=True)
    ]
    row = FrontRow(
        0, 0.0, 0.0, 0.0, _mean(solved, "objective"), 0.0, 0.0, _mean(judged, "time_s") * 1e6,
        _mean(judged, "balancedness"), _mean(judged, "remote_nodes_per_token"),
    )  # fmt: skip
    return judged, row


def _row(
    case: _Case, points: Sequence[int], slots: int, before: tuple[list[LayerScore], FrontRow] | None,
    after: Sequence[LayerScore],
) -> FrontRow:  # fmt: skip
    layers = case.fronts.layers
    chosen = [front.points[i].score for front, i in zip(layers, points, strict=True)]
    first = [front.before or front.points[0].score for front in layers]
    last = [front.points[-1].score for front in layers]
    judged = _judge(case, points)
    start = _judge(case, [0] * len(layers)) if before is None else before[0]
    parts = [case.transfers[i][point] for i, point in enumerate(points)]
    moves = sum(_moves(case, points))
    return FrontRow(
        moves=moves, share=moves / slots, transfer_ms=transfer_seconds(case.transfers, case.stages, points) * 1e3,
        transfer_gb=sum(part.bytes for part in parts) / 1e9, objective=_mean(chosen, "objective"),
        gain=_gain(first, chosen, last), held_out_gain=_gain(start, judged, after),
        moe_layer_us=_mean(judged, "time_s") * 1e6, balancedness=_mean(judged, "balancedness"),
        remote_nodes_per_token=_mean(judged, "remote_nodes_per_token"),
    )  # fmt: skip


def _gain(before: Sequence[LayerScore], now: Sequence[LayerScore], after: Sequence[LayerScore]) -> float | None:
    """Share of the full re-solve's gain; None where that gains nothing."""
    whole = _mean(before, "objective") - _mean(after, "objective")
    return (_mean(before, "objective") - _mean(now, "objective")) / whole if whole > 0 else None


def _migrated(case: _Case, points: Sequence[int], effort: Effort, report: Reporter) -> Plan:
    """The plan file of the chosen points, with baselines solved anew on this routing and what ran, if it still can."""
    plan, role = case.plan, case.role
    answers = []
    for front, i, full in zip(case.fronts.layers, points, case.fronts.full, strict=True):
        point = front.points[i]
        optimal = point.score.objective <= full.bound * (1 + TOLERANCE)
        ended = Termination.TIME if full.termination is Termination.TIME else Termination.WORK
        answers.append(
            LayerAnswer(
                point.slots, point.fractions, point.score, Status.OPTIMAL if optimal else Status.FEASIBLE, ended,
                full.bound, full.bound_source,
            )
        )  # fmt: skip
    free = tuple(problem.with_rules(current=None, fixed=None) for problem in case.problems)
    baselines = place_baselines(free, effort.stop(), effort, report)
    placements = {name: placement_of_answers(layers) for name, layers in baselines.items()}
    # What ran does not run without the GPUs that were lost since, or on another number of them.
    if case.failed_gpus == role.failed_gpus and not case.resized:
        placements[RUNNING] = case.running
    placements[SOLVED] = placement_of_answers(tuple(answers))
    assessor = Assessor(
        case.scenario, role.split.split(), role.phase, case.routing.judged_on, case.objective,
        failed_gpus=case.failed_gpus, role=role.role, cp=role.cp, requests_per_s=role.requests_per_s,
    )  # fmt: skip
    judgement = judge(assessor, placements, SOLVED, report)
    moved = role.model_copy(
        update={
            "failed_gpus": case.failed_gpus,
            "layers": tuple(layer_record(old.layer, new) for old, new in zip(role.layers, answers, strict=True)),
            "predicted": judgement.predicted,
            "strategies": judgement.strategies,
            "certificate": certificate_of(tuple(answers), case.objective),
            "served": served_record(assessor, placements[SOLVED]),
        }
    )
    roles = tuple(moved if each is role else each for each in plan.roles)
    return plan.model_copy(
        update={
            "objective": case.objective,
            "roles": roles,
            "predicted": figures_record(plan.scenario.spec, roles),
            "provenance": ProvenanceRecord(
                strategy="migrate",
                seed=effort.seed,
                work=effort.budget.work,
                gap=effort.budget.stated_gap,
                balance_floor=False,
                routing=case.routing.record,
                inputs=case.routing.inputs,
                versions=versions(),
            ),
            "timings": None,
            "demand": None,
        }
    )
