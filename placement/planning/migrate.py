"""From a plan that runs to a better one on new routing: fronts of all layers, and what a budget buys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cli.options import MigrateOptions, SolveOptions
from placement.cli.progress import Progress
from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import expert_bytes
from placement.cost.layer.score import LayerScore, score_layer
from placement.cost.layer.transfer import Transfer, transfer
from placement.cost.pose import layer_problems
from placement.errors import InfeasibleError, InputError
from placement.planning.solve import (
    SOLVED,
    certificate_of,
    layer_record,
    solve_baselines,
    versions,
)
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.layer import LayerProblem, Objective
from placement.records.convert import own_placement, predicted_record, strategy_record
from placement.records.plan import Plan, ProvenanceRecord, StrategyRecord
from placement.report.migration import FrontRow, Migration
from placement.routing.holdout import Routing, load_routing
from solvers.experts.layers import TOLERANCE, LayerAnswer
from solvers.migration.allocate import Allocation, allocate, transfer_seconds, within_seconds
from solvers.migration.front import standing
from solvers.migration.run import Fronts, layer_fronts
from solvers.result import Status, Termination
from solvers.stop import Stop

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
        stages: stage of each layer. transfers: of each layer's points.
    """

    plan: Plan
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


def make_migration(plan: Plan, path: str, options: MigrateOptions, progress: Progress) -> tuple[Migration, Plan | None]:
    """The front of a plan on new routing, and the migrated plan that the budget buys.

    Returns:
        what the report tells, and the plan; None without a budget.

    Raises:
        InputError: an option or trace that does not fit the plan. InfeasibleError: the GPUs left have too few slots,
            or forced moves exceed the budget. NothingFoundError: the running placement can't be mended.
    """
    slots = plan.topology.gpus * plan.slots_per_gpu * len(plan.layers)
    case = _case(plan, options, slots, progress)
    points = _chosen(case, options, slots)
    most = case.allocation.least + len(case.allocation.value) - 1
    totals = sorted({case.allocation.least, *(int(share * slots) for share in SHOWN), most})
    progress.stage("scoring on held-out routing", len(totals) + 1)
    rows: list[FrontRow] = []
    before = _before(case)
    last = [len(front.points) - 1 for front in case.fronts.layers]
    after = _judge(case, last)
    for total in totals:
        shown = case.allocation.points(total)
        if shown is not None and (not rows or sum(_moves(case, shown)) > rows[-1].moves):
            rows.append(_row(case, shown, slots, before, after))
        progress.advance()
    chosen = None if points is None else _row(case, points, slots, before, after)
    progress.advance()
    migrated = None if points is None else _migrated(case, points, options, progress)
    layers = ()
    if points is not None:
        layers = tuple(front.points[i].slots.tolist() for front, i in zip(case.fronts.layers, points, strict=True))
    told = Migration(
        plan=path, scenario=plan.scenario.name, phase=plan.phase, objective=case.objective,
        routing=case.routing.record, slots=slots, failed_gpus=case.failed_gpus, forced_moves=case.allocation.least,
        before=before[1] if before is not None else None, rows=tuple(rows), chosen=chosen,
        model_layers=tuple(layer.layer for layer in plan.layers), layers=layers,
    )  # fmt: skip
    return told, migrated


def _case(plan: Plan, options: MigrateOptions, slots: int, progress: Progress) -> _Case:
    scenario, split = plan.scenario.spec, plan.split.split()
    gpus = plan.topology.gpus
    for name, named in (("--failed-gpu", options.failed_gpus), ("--fixed-gpu", options.fixed_gpus)):
        wrong = [gpu for gpu in named if gpu >= gpus]
        if wrong:
            raise InputError(name, "", f"GPU {wrong[0]} of {gpus}", f"give GPUs from 0 to {gpus - 1}")
    failed = tuple(sorted({*plan.failed_gpus, *options.failed_gpus}))
    if set(failed) & set(options.fixed_gpus):
        raise InputError("--fixed-gpu", "", "a failed GPU can't keep its experts", "name it once")
    progress.stage("reading the routing")
    routing = load_routing(scenario, options.traces, options.seed, "auto", None, plan.tail >= 1.0)
    objective: Objective = "load" if routing.counts_only else plan.objective
    running = own_placement(plan)
    alive = np.ones(gpus, dtype=bool)
    alive[list(failed)] = False
    experts, left = scenario.model.moe.experts, int(alive.sum()) * plan.slots_per_gpu
    if left < experts:
        raise InfeasibleError(
            f"the {int(alive.sum())} GPUs left have {left} slots for {experts} experts, {experts - left} too few"
        )
    held = np.isin(np.arange(gpus), options.fixed_gpus).repeat(plan.slots_per_gpu)

    def posed(statistics: Sequence[LayerData], judged: bool) -> tuple[LayerProblem, ...]:
        made = layer_problems(scenario, split, plan.phase, statistics, objective, tail=plan.tail, failed_gpus=failed)
        if judged:
            return made
        return tuple(
            one.with_rules(current=slots, fixed=held if held.any() else None)
            for one, slots in zip(made, running.slots, strict=True)
        )

    problems = posed(routing.solved_on, False)
    stages = tuple(
        next(
            stage.stage for stage in plan.stages if stage.first_layer <= layer.layer < stage.first_layer + stage.layers
        )
        for layer in plan.layers
    )
    size, senders = expert_bytes(scenario.model), alive if failed else None

    def moved(i: int, slots: IntArray) -> Transfer:
        one = problems[i]
        return transfer(one.topology, running.slots[i], slots, plan.slots_per_gpu, size, one.hardware.rates, senders)

    # Told before anything is solved.
    forced = [(moved(i, standing(problem)),) for i, problem in enumerate(problems)]
    _check_budget(
        options, slots, sum(part.moves for (part,) in forced), transfer_seconds(forced, stages, [0] * len(forced))
    )
    progress.stage("solving anew, and with few moves", 2 * len(problems))
    stop = Stop.after(options.time_limit, options.work)
    fronts = layer_fronts(
        problems, running.fractions, stop, options.seed, options.threads, options.backend, progress.advance,
        progress.advance,
    )  # fmt: skip
    transfers = tuple(tuple(moved(i, point.slots) for point in front.points) for i, front in enumerate(fronts.layers))
    return _Case(
        plan, routing, objective, failed, problems, posed(routing.judged_on, True), running, stages, fronts, transfers,
        allocate(fronts.layers),
    )  # fmt: skip


def _budget(options: MigrateOptions, slots: int) -> int | None:
    """The budget in moves, or None."""
    if options.max_moves_percent is not None:
        # As written: 0.29 of 100 slots are 29, though the double is less.
        return int(slots * options.max_moves_percent / 100 + 1e-9)
    return options.max_moves


def _check_budget(options: MigrateOptions, slots: int, forced: int, seconds: float) -> None:
    """Whether a budget has room for what failed GPUs force.

    Args:
        slots: of all layers. forced, seconds: moves that failed GPUs force, and the time of their transfers.

    Raises:
        InfeasibleError: they exceed the budget.
    """
    if options.max_transfer_ms is not None and seconds > options.max_transfer_ms * 1e-3:
        raise InfeasibleError(
            f"the {forced} moves that failed GPUs force take {seconds * 1e3:.3g} ms, "
            f"{seconds * 1e3 - options.max_transfer_ms:.3g} ms over --max-transfer-ms"
        )
    most = _budget(options, slots)
    if most is not None and forced > most:
        raise InfeasibleError(f"failed GPUs force {forced} moves, {forced - most} more than the budget of {most}")


def _chosen(case: _Case, options: MigrateOptions, slots: int) -> tuple[int, ...] | None:
    """Each layer's point within the budget, which has room for what is forced; None without a budget."""
    if options.max_transfer_ms is not None:
        return within_seconds(
            case.fronts.layers, case.allocation, case.transfers, case.stages, options.max_transfer_ms * 1e-3
        )
    most = _budget(options, slots)
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


def _migrated(case: _Case, points: Sequence[int], options: MigrateOptions, progress: Progress) -> Plan:
    """The plan file of the chosen points, with baselines solved anew on this routing and what ran, if it still can."""
    plan = case.plan
    scenario, split = plan.scenario.spec, plan.split.split()
    answers = []
    for front, i, full in zip(case.fronts.layers, points, case.fronts.full, strict=True):
        point = front.points[i]
        optimal = point.score.objective <= full.bound * (1 + TOLERANCE)
        ended = Termination.TIME if full.termination is Termination.TIME else Termination.WORK
        answers.append(
            LayerAnswer(
                point.slots, point.fractions, point.score, Status.OPTIMAL if optimal else Status.FEASIBLE, ended,
                full.bound, full.bound_source, 0.0,
            )
        )  # fmt: skip
    free = tuple(problem.with_rules(current=None, fixed=None) for problem in case.problems)
    solve = SolveOptions(work=options.work, seed=options.seed, workers=options.workers, backend=options.backend)
    placements = {
        name: Placement(tuple(a.slots for a in layers), tuple(a.fractions for a in layers))
        for name, layers in solve_baselines(free, solve, progress).items()
    }
    # What ran does not run without the GPUs that were lost since.
    if case.failed_gpus == plan.failed_gpus:
        placements[RUNNING] = case.running
    own = Placement(tuple(a.slots for a in answers), tuple(a.fractions for a in answers))
    assessor = Assessor(
        scenario, split, plan.phase, case.routing.judged_on, case.objective, failed_gpus=case.failed_gpus
    )
    strategies: list[StrategyRecord] = [
        strategy_record(name, assessor.assess(placement), placement) for name, placement in placements.items()
    ]
    assessed = assessor.assess(own)
    strategies.append(strategy_record(SOLVED, assessed, None))
    return plan.model_copy(
        update={
            "objective": case.objective,
            "failed_gpus": case.failed_gpus,
            "layers": tuple(layer_record(old.layer, new) for old, new in zip(plan.layers, answers, strict=True)),
            "predicted": predicted_record(assessed.prediction),
            "strategies": tuple(strategies),
            "certificate": certificate_of(tuple(answers), case.objective),
            "provenance": ProvenanceRecord(
                strategy="migrate",
                seed=options.seed,
                work=options.work,
                balance_floor=False,
                routing=case.routing.record,
                inputs=case.routing.inputs,
                versions=versions(),
            ),
            "timings": None,
        }
    )
