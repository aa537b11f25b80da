"""Makes a plan: the split, the routing, every strategy's placement, and the figures of each on held-out routing."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from placement import __version__
from placement.cli.options import SolveOptions
from placement.cli.progress import Progress
from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.cost.layer.scenario_rates import topology_of
from placement.cost.memory.hbm import MemoryReport, memory_of
from placement.cost.pose import layer_problems, planned_phases
from placement.cost.step.serving_mix import planned_rates
from placement.cost.step.throughput import ServingModel
from placement.errors import InputError
from placement.problem.layer import LayerProblem, Objective
from placement.problem.pieces import piece_rows
from placement.problem.split import Split
from placement.records.convert import packed_fractions, predicted_record, strategy_record
from placement.records.plan import (
    CERTIFICATE_UNITS,
    SCHEMA,
    CertificateRecord,
    LayerRecord,
    MemoryLineRecord,
    MemoryRecord,
    Plan,
    ProvenanceRecord,
    ScenarioRecord,
    SplitRecord,
    StageRecord,
    StrategyRecord,
    TimingsRecord,
    TopologyRecord,
)
from placement.routing.holdout import Holdout, Routing, load_routing
from solvers.base import UnsupportedError
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.replicas import with_replicas
from solvers.experts.layers import TOLERANCE, LayerAnswer, plan_layers
from solvers.registry import BASELINES, get_solver
from solvers.result import Status
from solvers.split.enumerate import SplitChoice, enumerate_splits
from solvers.stop import Stop
from specs.scenario import Scenario
from specs.validation import validate
from specs.workload import PlannedPhase

#: The plan's own row in tables, where a solver made it.
SOLVED = "solved"
#: Share of TTFT and TPOT that the fitted batch may use up under the load balancer's placement.
HEADROOM = 0.98
_PACKAGES = ("numpy", "scipy", "numba", "ortools", "pulp", "pydantic")


@dataclass(frozen=True)
class Planned:
    """A plan, and what the report says beside it.

    Attributes:
        choice: the split choice. lowered_from: batch before it was lowered for the routing's imbalance, or None.
        timings: wall-clock seconds, whether or not the plan holds them.
    """

    plan: Plan
    choice: SplitChoice
    lowered_from: int | None
    timings: TimingsRecord


def make_plan(scenario: Scenario, options: SolveOptions, progress: Progress, with_timings: bool = False) -> Planned:
    """Plans a scenario.

    Raises:
        InputError: an option or trace that does not fit the scenario.
        InfeasibleError: nothing fits HBM or meets the objectives. NothingFoundError: nothing found within the limit.
    """
    started = time.perf_counter()
    stop_at = Stop.after(options.time_limit, options.work)
    get_solver(options.strategy)
    scenario = with_options(scenario, options)
    phase = _phase(scenario, options)
    progress.stage("choosing the split")
    choice = enumerate_splits(scenario)
    split_done = time.perf_counter()
    progress.stage("reading the routing" if options.traces else "making synthetic routing")
    # A tail is one of the windows themselves: their mixture would stand for most of the weight.
    mixture = options.tail >= 1.0
    routing = load_routing(scenario, options.traces, options.seed, _holdout(options), options.windows, mixture)
    objective: Objective = options.objective or ("load" if routing.counts_only else "time")
    if scenario.redundant == "auto" and scenario.workload.kind == "serving":
        progress.stage("weighing redundant experts")
        choice = with_replicas(scenario, choice, PlacedLayers(routing.solved_on))
    routing_done = time.perf_counter()

    split = choice.best
    if scenario.pins.batch is None and scenario.workload.kind == "serving":
        split = _within_objectives(scenario, split, phase, routing, stop_at, options, progress)
    problems = layer_problems(scenario, split, phase, routing.solved_on, objective, tail=options.tail)
    answers = _solve_all(problems, stop_at, options, progress)
    solved_done = time.perf_counter()

    progress.stage("scoring on held-out routing", len(answers))
    assessor = Assessor(scenario, split, phase, routing.judged_on, objective)
    strategies: list[StrategyRecord] = []
    own = _own_name(options)
    predicted = None
    for name, layers in answers.items():
        placement = Placement(tuple(a.slots for a in layers), tuple(a.fractions for a in layers))
        assessment = assessor.assess(placement)
        strategies.append(strategy_record(name, assessment, None if name == own else placement))
        if name == own:
            predicted = predicted_record(assessment.prediction)
        progress.advance()
    if predicted is None:
        raise RuntimeError(f"the strategies {list(answers)} lack the plan's own, {own}")
    timings = TimingsRecord(
        total_s=time.perf_counter() - started,
        split_s=split_done - started,
        routing_s=routing_done - split_done,
        solve_s=solved_done - routing_done,
    )
    topology = topology_of(scenario, split)
    plan = Plan(
        schema_=SCHEMA,
        scenario=ScenarioRecord(name=scenario.name, spec=scenario),
        phase=phase,
        objective=objective,
        tail=options.tail,
        dispatch=scenario.dispatch,
        message_rule=scenario.message_rule,
        split=SplitRecord.of(split),
        stages=_stages(scenario, split),
        topology=TopologyRecord(
            gpus=topology.gpus, gpus_per_node=topology.gpus_per_node, gpus_per_tray=topology.gpus_per_tray
        ),
        slots_per_gpu=split.slots_per_gpu,
        tokens_per_gpu=planned_rates(scenario, split, phase).tokens_per_gpu,
        layers=tuple(
            layer_record(index, answer) for index, answer in zip(scenario.model.moe_layers, answers[own], strict=True)
        ),
        memory=_memory_record(memory_of(scenario, split)),
        predicted=predicted,
        strategies=tuple(strategies),
        certificate=certificate_of(answers[own], objective),
        provenance=ProvenanceRecord(
            strategy=options.strategy,
            seed=options.seed,
            work=options.work,
            balance_floor=options.balance_floor,
            routing=routing.record,
            inputs=routing.inputs,
            versions=versions(),
        ),
        timings=timings if with_timings else None,
    )
    lowered = choice.best.batch if split.batch != choice.best.batch else None
    return Planned(plan, choice, lowered, timings)


def with_options(scenario: Scenario, options: SolveOptions) -> Scenario:
    """The scenario with what the command line overrides, checked as a whole.

    Raises:
        InputError: an override that the scenario can't have.
    """
    data = scenario.model_dump()
    for name in ("redundant", "dispatch", "message_rule", "keep_groups"):
        if getattr(options, name) is not None:
            data[name] = getattr(options, name)
    for name in ("tp", "ep", "pp", "dp", "batch"):
        if getattr(options, name) is not None:
            data["pins"][name] = getattr(options, name)
    if data == scenario.model_dump():
        return scenario
    changed: Scenario = validate(Scenario, data, f"{scenario.name} with the given options")
    return changed


def _phase(scenario: Scenario, options: SolveOptions) -> PlannedPhase:
    phases = planned_phases(scenario)
    if options.phase is None:
        return phases[0]
    if options.phase not in phases:
        raise InputError(
            "--phase", "", f"{options.phase} is no phase of the {scenario.workload.kind} workload "
            f"{scenario.workload.name}", f"choose {', '.join(phases)}",
        )  # fmt: skip
    return options.phase


def _holdout(options: SolveOptions) -> Holdout:
    return "auto" if options.holdout is None else "yes" if options.holdout else "no"


def _own_name(options: SolveOptions) -> str:
    return options.strategy if options.strategy in BASELINES else SOLVED


def solve_baselines(
    problems: tuple[LayerProblem, ...], options: SolveOptions, progress: Progress
) -> dict[str, tuple[LayerAnswer, ...]]:
    """Each baseline's answers, by its name."""
    answers = {}
    for name in BASELINES:
        progress.stage(f"placing experts: {name}", len(problems))
        # Of the others only what they reach is shown.
        own = name == options.strategy
        answers[name] = _solve(problems, name, Stop(options.work), options, progress, certify=own)
    return answers


def _solve_all(
    problems: tuple[LayerProblem, ...], stop: Stop, options: SolveOptions, progress: Progress
) -> dict[str, tuple[LayerAnswer, ...]]:
    """Each baseline's answers and the plan's own, by the name of their row. The baselines come first, and are quick."""
    answers = solve_baselines(problems, options, progress)
    own = _own_name(options)
    if own not in answers:
        progress.stage(f"placing experts: {options.strategy}", len(problems))
        answers[own] = _solve(problems, options.strategy, stop, options, progress)
    return answers


def _solve(
    problems: tuple[LayerProblem, ...],
    strategy: str,
    stop: Stop,
    options: SolveOptions,
    progress: Progress,
    certify: bool = True,
) -> tuple[LayerAnswer, ...]:
    try:
        return plan_layers(
            problems,
            strategy,
            stop,
            options.seed,
            options.threads,
            progress.advance,
            options.balance_floor,
            options.backend,
            certify,
        )
    except UnsupportedError as error:
        raise InputError("--strategy", strategy, str(error), "choose another strategy, such as auto") from None


def _within_objectives(
    scenario: Scenario,
    split: Split,
    phase: PlannedPhase,
    routing: Routing,
    stop: Stop,
    options: SolveOptions,
    progress: Progress,
) -> Split:
    """The split with the largest batch that meets TTFT and TPOT under the load balancer's placement.

    The split was chosen with balanced routing, at the batch that just meets the objectives; real routing is not
    balanced. The balancer's placement, made on the routing solved on, is priced on the routing that judges: the batch
    is one for all strategies, and no placement is fitted to that routing. A layer takes no longer for fewer tokens, so
    the times scored at the first batch are safe below it.
    """
    workload = scenario.workload
    if workload.kind != "serving":
        return split
    problems = layer_problems(scenario, split, phase, routing.solved_on)
    progress.stage("fitting the batch to the routing", len(problems))
    balancer = _solve(problems, "eplb", Stop(options.work, stop.deadline), options, progress, certify=False)
    placement = Placement(tuple(a.slots for a in balancer), tuple(a.fractions for a in balancer))
    times = Assessor(scenario, split, phase, routing.judged_on).times(placement)
    model = ServingModel(scenario, workload, split, times)

    def meets(batch: int) -> bool:
        point = model.at(batch)
        return point.ttft_s <= HEADROOM * workload.ttft_ms * 1e-3 and point.tpot_s <= HEADROOM * workload.tpot_ms * 1e-3

    if meets(split.batch) or not meets(1):
        return split
    low, high = 1, split.batch
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return replace(split, batch=low, microbatches=min(split.pp, low))


def _stages(scenario: Scenario, split: Split) -> tuple[StageRecord, ...]:
    return tuple(
        StageRecord(stage=rank, first_layer=first, layers=layers, gpus=split.gpus_per_stage)
        for rank, first, layers in piece_rows(scenario, split)
    )


def layer_record(index: int, answer: LayerAnswer) -> LayerRecord:
    """An answer as the plan file holds it; `index` is the model's own layer index."""
    objective = answer.score.objective
    bound = _bound(answer)
    return LayerRecord(
        layer=index,
        physical_to_logical=tuple(answer.slots.tolist()),
        dispatch_fractions=packed_fractions(answer.slots, answer.fractions),
        objective=objective,
        bound=bound,
        bound_source=answer.bound_source,
        gap=objective / bound - 1.0 if bound > 0 else None,
        status="optimal" if answer.status is Status.OPTIMAL else "feasible",
        termination=answer.termination.value,
    )


def _bound(answer: LayerAnswer) -> float:
    """The answer's bound; where it lies a rounding error above the objective, the objective."""
    objective = answer.score.objective
    if answer.bound > objective * (1 + TOLERANCE):
        raise RuntimeError(f"bound {answer.bound!r} ({answer.bound_source}) is above the objective {objective!r}")
    return min(answer.bound, objective)


def certificate_of(answers: tuple[LayerAnswer, ...], objective: Objective) -> CertificateRecord:
    """The certificate of all layers' answers."""
    unit, scale = CERTIFICATE_UNITS[objective]
    value = float(np.mean([answer.score.objective for answer in answers])) * scale
    bound = float(np.mean([_bound(answer) for answer in answers])) * scale
    return CertificateRecord(
        objective=value,
        bound=bound,
        gap=value / bound - 1.0 if bound > 0 else None,
        status="optimal" if all(answer.status is Status.OPTIMAL for answer in answers) else "feasible",
        unit=unit,
    )


def _memory_record(report: MemoryReport) -> MemoryRecord:
    return MemoryRecord(
        stage=report.stage,
        lines=tuple(MemoryLineRecord(name=line.name, bytes=line.bytes) for line in report.lines),
        total_bytes=report.total_bytes,
        capacity_bytes=report.capacity_bytes,
        headroom_bytes=report.headroom_bytes,
    )


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of what solves."""
    found = {"placement": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
