"""From a plan that runs to a better one on new routing: fronts of all layers, and what a budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.layer.score import LayerScore, score_layer
from placement.errors import ParameterError
from placement.planning.case import AnyTrace
from placement.planning.current import check_widths, read_current
from placement.planning.effort import Budget, Effort
from placement.planning.judgement import certificate_of, judge, layer_record, versions, witness_of
from placement.planning.migration_case import Asked, MigrationCase, migration_case, posed
from placement.planning.move_budget import MoveBudget
from placement.planning.other_engine import on_engine
from placement.planning.progress import OnProgress, Reporter
from placement.planning.resize import resize
from placement.planning.strategies import Answers, place_baselines, placement_of_answers
from placement.problem.arrays import FloatArray, IntArray
from placement.records.convert import figures_record, own_placement, served_record
from placement.records.migration import FrontRow, Migration, RoleMigration
from placement.records.plan import Plan, ProvenanceRecord
from placement.records.role import RUNNING, SOLVED, RolePlan, of_role
from placement.records.witness import RoleWitness, witness_bytes
from placement.routing.holdout import read_sources, routing_of
from solvers.experts.layers import TOLERANCE, LayerAnswer
from solvers.migration.allocate import transfer_seconds, within_seconds
from solvers.registry import BALANCER
from solvers.result import Status, Termination

#: Shares of all slots that the front's table shows.
SHOWN = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


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
        role: Which role's experts move; None: all, each within the budget. Those of other roles stay. GPUs and a
            map are of one role, which is named where there are several.
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
    of_one = bool(failed_gpus or fixed_gpus or to_gpus is not None or current is not None)
    moving = (plan.role(role),) if of_one else of_role(plan.roles, role)
    ran, resized = moving[0], None
    if to_gpus is not None:
        for name, given in (("failed_gpus", failed_gpus), ("fixed_gpus", fixed_gpus)):
            if given:
                raise ParameterError(name, "GPUs are named while their number changes", "leave out `to_gpus`, or these")
        if current is not None:
            raise ParameterError("current", "the map changes with the number of GPUs", "leave out `to_gpus`")
        resized = resize(plan, ran, to_gpus)
        plan, moving = resized.plan, (resized.role,)
    report.stage("reading the routing")
    model = plan.scenario.spec.model
    routing = routing_of(read_sources(model, traces), model.moe.computed_top_k, mixture=plan.tail >= 1.0)
    asked = Asked(plan, routing, "load" if routing.counts_only else plan.objective, most, effort, report)
    told, judged = list[RoleMigration](), list[_Judged]()
    for of in plan.roles:
        if any(of is each for each in moving):
            running = own_placement(of)
            if current is not None:
                runs = read_current(plan, of, current)
                check_widths(runs, of.widths(plan.scenario_of(of)), of)
                running = runs.placement
            case = migration_case(asked, of, running, (tuple(failed_gpus), tuple(fixed_gpus)), resized)
            migration, made = _role(case, None if resized is None else ran)
            told.append(migration)
            judged += [] if made is None else [made]
        elif most.given:
            judged.append(_kept(asked, of))
    return Migration(
        scenario=plan.scenario.name, engine=plan.engine, objective=asked.objective, routing=routing.record,
        roles=tuple(told), plan=_migrated(asked, judged) if most.given else None,
    )  # fmt: skip


@dataclass(frozen=True)
class _Judged:
    """A role on the new routing, and what proves its bounds there."""

    plan: RolePlan
    witness: RoleWitness


def _role(case: MigrationCase, ran: RolePlan | None) -> tuple[RoleMigration, _Judged | None]:
    """What moves buy in a role, and the role within the budget; `ran`: it before its number of GPUs changed."""
    report, slots = case.asked.report, sum(len(each) for each in case.running.slots)
    points = _chosen(case, slots)
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
    role, made = case.role, None if points is None else _moved(case, points)
    migration = RoleMigration(
        role=role.role, phase=role.phase, slots=slots, failed_gpus=case.failed_gpus,
        forced_moves=case.allocation.least, gpus_before=None if ran is None else ran.topology.gpus,
        gpus=role.topology.gpus - len(case.failed_gpus), batch_before=None if ran is None else ran.split.batch,
        batch=role.split.batch, before=before[1] if before is not None else None, rows=tuple(rows), chosen=chosen,
        plan=None if made is None else made.plan,
    )  # fmt: skip
    return migration, made


def _chosen(case: MigrationCase, slots: int) -> tuple[int, ...] | None:
    """Each layer's point within the budget, which has room for what is forced; None without a budget."""
    budget = case.asked.budget
    if budget.max_transfer_ms is not None:
        return within_seconds(
            case.fronts.layers, case.allocation, case.transfers, case.stages, budget.max_transfer_ms * 1e-3
        )
    most = budget.moves(slots)
    return None if most is None else case.allocation.points(most)


def _moves(case: MigrationCase, points: Sequence[int]) -> list[int]:
    return [front.points[i].moves for front, i in zip(case.fronts.layers, points, strict=True)]


def _judge(case: MigrationCase, points: Sequence[int]) -> list[LayerScore]:
    """Scores on the routing that judges."""
    return [
        score_layer(problem, front.points[i].slots, front.points[i].fractions)
        for problem, front, i in zip(case.judged, case.fronts.layers, points, strict=True)
    ]


def _mean(scores: Sequence[LayerScore], name: str) -> float:
    return float(np.mean([getattr(score, name) for score in scores]))


def _before(case: MigrationCase) -> tuple[list[LayerScore], FrontRow] | None:
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
    case: MigrationCase, points: Sequence[int], slots: int, before: tuple[list[LayerScore], FrontRow] | None,
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


def _moved(case: MigrationCase, points: Sequence[int]) -> _Judged:
    """The role at the chosen points, with baselines solved anew on this routing and what ran, if it still can."""
    answers = []
    for front, i, full in zip(case.fronts.layers, points, case.fronts.full, strict=True):
        point = front.points[i]
        ended = Termination.TIME if full.termination is Termination.TIME else Termination.WORK
        answers.append(_answer(point.slots, point.fractions, point.score, ended, full))
    free = tuple(problem.with_rules(current=None, fixed=None) for problem in case.problems)
    baselines = place_baselines(free, case.asked.effort.stop(), case.asked.effort, case.asked.report)
    # What ran does not run without the GPUs that were lost since, or on another number of them.
    runs = case.failed_gpus == case.role.failed_gpus and not case.resized
    return _judged(case.asked, case.role, case.failed_gpus, baselines, case.running if runs else None, answers)


def _kept(asked: Asked, role: RolePlan) -> _Judged:
    """A role whose experts stay, on the new routing: its figures and bounds are of that, as those of all roles are."""
    problems, own = posed(asked, role, asked.routing.solved_on, role.failed_gpus), own_placement(role)
    baselines = place_baselines(problems, asked.effort.stop(), asked.effort, asked.report)
    # Nothing is searched: a bound is what a baseline comes with.
    answers = [
        _answer(slots, fractions, score_layer(problem, slots, fractions), Termination.WORK, bounded)
        for problem, slots, fractions, bounded in zip(
            problems, own.slots, own.fractions, baselines[BALANCER], strict=True
        )
    ]
    return _judged(asked, role, role.failed_gpus, baselines, None, answers)


def _answer(
    slots: IntArray, fractions: FloatArray | None, score: LayerScore, ended: Termination, bounded: LayerAnswer
) -> LayerAnswer:
    """A layer's answer, with the bound of another."""
    optimal = score.objective <= bounded.bound * (1 + TOLERANCE)
    return LayerAnswer(
        slots, fractions, score, Status.OPTIMAL if optimal else Status.FEASIBLE, ended, bounded.bound,
        bounded.bound_source, bounded.witness,
    )  # fmt: skip


def _judged(
    asked: Asked, role: RolePlan, failed_gpus: tuple[int, ...], baselines: dict[str, Answers],
    running: Placement | None, answers: Sequence[LayerAnswer],
) -> _Judged:  # fmt: skip
    """The role with these answers and baselines, on the routing that judges."""
    placements = {name: placement_of_answers(layers) for name, layers in baselines.items()}
    if running is not None:
        placements[RUNNING] = running
    placements[SOLVED] = placement_of_answers(tuple(answers))
    assessor = Assessor(
        asked.plan.scenario_of(role), role.split.split(), role.phase, asked.routing.judged_on, asked.objective,
        failed_gpus=failed_gpus, role=role.role, cp=role.cp, requests_per_s=role.requests_per_s,
    )  # fmt: skip
    judgement = judge(assessor, placements, SOLVED, asked.report)
    plan = role.model_copy(
        update={
            "failed_gpus": failed_gpus,
            "layers": tuple(layer_record(old.layer, new) for old, new in zip(role.layers, answers, strict=True)),
            "predicted": judgement.predicted,
            "strategies": judgement.strategies,
            "certificate": certificate_of(tuple(answers), asked.objective),
            "served": served_record(assessor, placements[SOLVED]),
        }
    )
    return _Judged(plan, witness_of(plan, tuple(answers)))


def _migrated(asked: Asked, judged: Sequence[_Judged]) -> Plan:
    """The plan file of roles that were judged on the new routing."""
    plan, effort, roles = asked.plan, asked.effort, tuple(each.plan for each in judged)
    made = plan.model_copy(
        update={
            "objective": asked.objective,
            "roles": roles,
            "predicted": figures_record(plan.scenario.spec, roles),
            "provenance": ProvenanceRecord(
                strategy="migrate",
                seed=effort.seed,
                work=effort.budget.work,
                gap=effort.budget.stated_gap,
                balance_floor=False,
                routing=asked.routing.record,
                inputs=asked.routing.inputs,
                versions=versions(),
            ),
            "timings": None,
            "demand": None,
        }
    )
    return made.with_witness(witness_bytes([each.witness for each in judged]))
