"""Plans a scenario in four steps: split, routing, placement, judgement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from placement.cost.assess import Assessor
from placement.cost.memory.hbm import memory_of
from placement.cost.pose import layer_problems
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.cost.step.throughput import ServingModel
from placement.planning.case import AnyTrace, Case, make_case
from placement.planning.effort import Budget
from placement.planning.judgement import certificate_of, judge, layer_record, versions
from placement.planning.progress import COMPILING, OnProgress
from placement.planning.strategies import Answers, place, place_baselines, placement_of_answers
from placement.planning.tokens import affordable_tokens, with_tokens
from placement.problem.layer import Objective
from placement.problem.split import Split
from placement.records.convert import engine_name, figures_record, memory_record, stage_records, topology_record
from placement.records.layout import EngineRecord, ScenarioRecord, SplitRecord
from placement.records.plan import SCHEMA, Plan, ProvenanceRecord, TimingsRecord
from placement.records.role import RolePlan
from placement.routing.holdout import Routing, routing_of
from solvers.ahead import SEARCH_PARTS, compiling, is_compiled
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.replicas import with_replicas
from solvers.params import SearchParams
from solvers.result import Termination
from solvers.split.enumerate import SplitChoice, enumerate_splits
from solvers.stop import Stop
from specs.scenario import Scenario
from specs.workload import PlannedPhase

#: Share of TTFT and TPOT that the fitted batch may use up under the load balancer's placement.
HEADROOM = 0.98
#: Shares of the time left that the split, synthetic routing, redundant experts and placing have at most, where time is
#: limited. What one leaves over is the others'; heuristics, their scores and the judgement take what they need.
SPLIT, ROUTING, REPLICAS, PLACING = 0.25, 0.25, 0.15, 0.9


@dataclass(frozen=True)
class Planned:
    """A plan, and what the report says beside it.

    Attributes:
        choice: The split choice. lowered_from: batch before it was lowered for the routing's imbalance, or None.
        timings: Wall-clock seconds, whether or not the plan holds them.
    """

    plan: Plan
    choice: SplitChoice
    lowered_from: int | None
    timings: TimingsRecord


def plan_scenario(
    scenario: Scenario | str | Path,
    *,
    traces: Sequence[AnyTrace] = (),
    phase: PlannedPhase | None = None,
    objective: Objective | None = None,
    strategy: str = "auto",
    holdout: bool | None = None,
    windows: int | None = None,
    tail: float = 1.0,
    balance_floor: bool = True,
    budget: Budget | None = None,
    params: SearchParams | None = None,
    seed: int = 0,
    workers: int = 0,
    backend: Any = None,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Plans a scenario: its split, its expert placement, what that yields, and how far from optimal it can be.

    The same scenario, traces, budget and seed give the same plan, byte for byte, unless a time limit cuts the search.

    Args:
        scenario: The scenario, or its name or file.
        traces: Recorded routing: objects of `load_trace`, or paths. Without any, routing is synthetic.
        phase: What expert placement is priced for; None: "serving" (prefill and decode as they count in tokens/s), or
            "train".
        objective: "time", "load" or "traffic"; None: time, or load where only load counts are known.
        strategy: A solver's name, such as "auto" or "eplb".
        holdout: Solve on the first half of each trace's sequences and judge on the second; None: where possible.
        windows: Load windows per trace; None: three in all to solve on, one per trace to judge on.
        tail: Share of the worst windows that counts: 1 their mean, 0 the worst window.
        balance_floor: Whether the plan stays as balanced as the load balancers' placements.
        budget: When solving stops; None: the default work, no time limit.
        params: What may be set of the search; None: the defaults.
        seed: Of every random choice.
        workers: Processes or threads; 0: one per core. Does not change the plan.
        backend: "processes", "threads", "sequential" or "ray"; None chooses.
        on_progress: Called with a Progress at each step.

    Raises:
        InputError: An argument or trace that does not fit the scenario.
        InfeasibleError: Nothing fits HBM or meets the objectives.
        NothingFoundError: Nothing was found within the budget.
    """
    case = make_case(
        scenario, traces=traces, phase=phase, objective=objective, strategy=strategy, holdout=holdout, windows=windows,
        tail=tail, balance_floor=balance_floor, budget=budget, params=params, seed=seed, workers=workers,
        backend=backend, on_progress=on_progress,
    )  # fmt: skip
    return solve(case).plan


def solve(case: Case, with_timings: bool = False) -> Planned:
    """Answers a case.

    Args:
        with_timings: Whether the plan holds wall-clock times; plans of the same case then differ.

    Raises:
        InputError, InfeasibleError, NothingFoundError: see plan_scenario.
    """
    if is_compiled():
        return _solve(case, with_timings, lambda _: None)
    case.report.stage(COMPILING)
    ahead = case.strategy in ("auto", "search") and case.effort.backend in (None, "processes")
    with compiling(*(SEARCH_PARTS if ahead and case.effort.threads > 1 else ())) as wait:
        return _solve(case, with_timings, wait)


def _solve(case: Case, with_timings: bool, compiled: Callable[[Stop], None]) -> Planned:
    """See `solve`; `compiled` waits until kernels are."""
    marks, stop, cut_short = [time.perf_counter()], case.effort.stop(), list[str]()
    case.report.stage("choosing the split")
    choice = enumerate_splits(case.scenario, stop=stop.share_of_time(SPLIT))
    if choice.considered < choice.listed:
        cut_short.append(f"split: {choice.considered:,} of {choice.listed:,} tried")
    marks.append(time.perf_counter())

    case, asked = in_time(case, stop.share_of_time(ROUTING)), case.scenario.routing.tokens
    if case.scenario.routing.tokens < asked:
        cut_short.append(f"synthetic routing: {case.scenario.routing.tokens:,} of {asked:,} tokens")
    routing = read_routing(case)
    objective: Objective = case.objective or ("load" if routing.counts_only else "time")
    if case.scenario.redundant == "auto" and case.scenario.workload.kind == "serving":
        case.report.stage("weighing redundant experts")
        weighing = stop.share_of_time(REPLICAS)
        choice = with_replicas(case.scenario, choice, PlacedLayers(routing.solved_on), weighing)
        if weighing.expired:
            cut_short.append("redundant experts: not all numbers weighed")
    marks.append(time.perf_counter())

    split = fitted_batch(case, choice.best, routing, stop)
    answers = place_experts(case, split, routing, objective, stop, compiled)
    late = sum(answer.termination is Termination.TIME for answer in answers[case.own])
    if late:
        cut_short.append(f"search: ended early in {late} of {len(answers[case.own])} layers")
    marks.append(time.perf_counter())

    placements = {name: placement_of_answers(layers) for name, layers in answers.items()}
    assessor = Assessor(case.scenario, split, case.phase, routing.judged_on, objective)
    judgement = judge(assessor, placements, case.own, case.report)
    marks.append(time.perf_counter())

    timings = TimingsRecord(
        total_s=marks[4] - marks[0], split_s=marks[1] - marks[0], routing_s=marks[2] - marks[1],
        solve_s=marks[3] - marks[2],
    )  # fmt: skip
    scenario, own = case.scenario, answers[case.own]
    rates = planned_rates(scenario, split, case.phase)
    kind: Literal["aggregated", "training"] = "aggregated" if scenario.workload.kind == "serving" else "training"
    role = RolePlan(
        role=kind,
        phase=case.phase,
        dispatch=scenario.dispatch_in_use,
        message_rule=planned_rule(scenario, split, case.phase, rates),
        messages=EngineRecord.of(scenario, split).messages,
        split=SplitRecord.of(split),
        posed_batch=split.batch,
        stages=stage_records(scenario, split),
        topology=topology_record(scenario, split),
        slots_per_gpu=split.slots_per_gpu,
        tokens_per_gpu=rates.tokens_per_gpu,
        layers=tuple(layer_record(index, one) for index, one in zip(scenario.model.moe_layers, own, strict=True)),
        memory=memory_record(memory_of(scenario, split)),
        predicted=judgement.predicted,
        strategies=judgement.strategies,
        certificate=certificate_of(own, objective),
    )
    plan = Plan(
        schema_=SCHEMA,
        scenario=ScenarioRecord(name=scenario.name, spec=scenario),
        engine=engine_name(scenario, [role]),
        mode=kind,
        objective=objective,
        tail=case.tail,
        roles=(role,),
        predicted=figures_record(scenario, [role]),
        provenance=ProvenanceRecord(
            strategy=case.strategy,
            seed=case.effort.seed,
            work=case.effort.budget.work,
            balance_floor=case.balance_floor,
            routing=routing.record,
            inputs=routing.inputs,
            params=case.effort.params.changed,
            versions=versions(),
            cut_short=tuple(cut_short),
        ),
        timings=timings if with_timings else None,
    )
    lowered = choice.best.batch if split.batch != choice.best.batch else None
    return Planned(plan, choice, lowered, timings)


def in_time(case: Case, stop: Stop) -> Case:
    """The case with as much synthetic routing as there is time for."""
    left = stop.seconds_left()
    if left is None or case.sources:
        return case
    case.report.stage("making synthetic routing")
    tokens = affordable_tokens(case.scenario, left, case.effort.threads)
    return replace(case, scenario=with_tokens(case.scenario, tokens))


def read_routing(case: Case) -> Routing:
    """The routing that is solved on and the routing that judges."""
    if not case.sources:
        case.report.stage("making synthetic routing")
    # A tail is one of the windows themselves: their mixture would stand for most of the weight.
    mixture = case.tail >= 1.0
    return routing_of(
        case.routing_sources(), case.scenario.model.moe.computed_top_k, case.holdout, case.windows, mixture=mixture
    )


def place_experts(
    case: Case, split: Split, routing: Routing, objective: Objective, stop: Stop, compiled: Callable[[Stop], None]
) -> dict[str, Answers]:
    """Each baseline's answers and the plan's own, by the name of their row. The baselines come first, and are quick."""
    problems = layer_problems(case.scenario, split, case.phase, routing.solved_on, objective, tail=case.tail)
    placing = stop.share_of_time(PLACING)
    answers = place_baselines(problems, placing, case.effort, case.report, case.own)
    if case.own not in answers:
        compiled(placing)
        answers[case.own] = place(problems, case.strategy, placing, case.effort, case.report, case.balance_floor)
    return answers


def fitted_batch(case: Case, split: Split, routing: Routing, stop: Stop) -> Split:
    """The split with the largest batch that meets TTFT and TPOT under the load balancer's placement.

    The split was chosen with balanced routing, at the batch that just meets the objectives; real routing is not
    balanced. The balancer's placement, made on the routing solved on, is priced on the routing that judges: the batch
    is one for all strategies, and no placement is fitted to that routing. A layer takes no longer for fewer tokens, so
    the times scored at the first batch are safe below it. A pinned batch, and training, are left as they are.
    """
    scenario, workload = case.scenario, case.scenario.workload
    if scenario.pins.batch is not None or workload.kind != "serving":
        return split
    problems = layer_problems(scenario, split, case.phase, routing.solved_on)
    balancer = place(problems, "eplb", stop, case.effort, case.report, certify=False)
    times = Assessor(scenario, split, case.phase, routing.judged_on).times(placement_of_answers(balancer))
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
