"""Plans a scenario in four steps: split, routing, placement, judgement."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from placement.planning.case import MAX_KINDS, AnyTrace, Case, Mode, make_case
from placement.planning.choose import Choice, choice_of_plan, choice_of_split, choose
from placement.planning.effort import Budget
from placement.planning.guard import cautions, kept_told
from placement.planning.judgement import versions
from placement.planning.progress import COMPILING, OnProgress
from placement.planning.role import plan_role
from placement.planning.tokens import affordable_tokens, with_tokens
from placement.planning.worth import Carried
from placement.problem.layer import Objective
from placement.records.convert import engine_name, figures_record, mode_of_roles
from placement.records.layout import ScenarioRecord
from placement.records.plan import SCHEMA, Plan, ProvenanceRecord, TimingsRecord
from placement.records.role import SOLVED, RolePlan
from placement.records.witness import RoleWitness, witness_bytes
from placement.routing.holdout import Routing, routing_of
from placement.routing.parts import check_windows, select_part
from placement.routing.trace import LoadCounts
from solvers.ahead import SEARCH_PARTS, compiling, is_compiled
from solvers.params import SearchParams
from solvers.registry import BASELINES
from solvers.split.enumerate import enumerate_splits
from solvers.stop import Stop
from specs.cluster import Cluster
from specs.scenario import Scenario
from specs.workload import PlannedPhase

#: Shares of the time left that synthetic routing and the choice of instances have at most, where time is limited. What
#: one leaves over is the others'; heuristics, their scores and the judgement take what they need.
ROUTING, SPLIT = 0.25, 0.3


@dataclass(frozen=True)
class Planned:
    """A plan, and what the report says beside it.

    Attributes:
        choice: The chosen instances.
        timings: Wall-clock seconds, whether or not the plan holds them.
    """

    plan: Plan
    choice: Choice
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
    mode: Mode = "auto",
    max_kinds: int | None = MAX_KINDS,
    pools: Sequence[Cluster | str | Path] = (),
    target_rate: float | None = None,
    placed: bool = True,
    kernel_tables: bool = False,
    redundant_by_layer: bool = False,
    deployment: Plan | str | Path | None = None,
    budget: Budget | None = None,
    params: SearchParams | None = None,
    seed: int = 0,
    workers: int = 0,
    backend: Any = None,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Plans a scenario: its instances and their split, their expert placement, what that yields, and how good it is.

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
        mode: "aggregated" (instances serve whole requests), "disaggregated" (some prefill, some decode), or "auto".
        max_kinds: Most kinds of instances; None: any number.
        pools: Clusters of other GPUs, beside the scenario's: objects, or their names or files.
        target_rate: Output tokens/s to reach with the fewest GPUs; None: the most tokens/s.
        placed: Price splits with quickly placed experts; else take experts as balanced.
        kernel_tables: Price splits with measured times of expert kernels, where there are any.
        redundant_by_layer: Let the layers of a stage share its redundant experts: the same slots of a GPU in all,
            more of them in layers that gain more.
        deployment: A plan, or its file, whose instances are kept: only experts are placed anew.
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
        tail=tail, balance_floor=balance_floor, mode=mode, max_kinds=max_kinds, pools=pools, target_rate=target_rate,
        placed=placed, kernel_tables=kernel_tables, redundant_by_layer=redundant_by_layer, deployment=deployment,
        budget=budget, params=params, seed=seed, workers=workers, backend=backend, on_progress=on_progress,
    )  # fmt: skip
    return solve(case).plan


def solve(case: Case, with_timings: bool = False) -> Planned:
    """Answers a case.

    Args:
        with_timings: Whether the plan holds wall-clock times; plans of the same case then differ.

    Raises:
        InputError, InfeasibleError, NothingFoundError: see plan_scenario.
    """
    # Without a search there is nothing worth compiling ahead, nor a word about it.
    if case.strategy in BASELINES or is_compiled():
        return _solve(case, with_timings, lambda _: None)
    case.report.stage(COMPILING)
    ahead = case.strategy in ("auto", "search") and case.effort.backend in (None, "processes")
    with compiling(*(SEARCH_PARTS if ahead and case.effort.threads > 1 else ())) as wait:
        return _solve(case, with_timings, wait)


def _solve(case: Case, with_timings: bool, compiled: Callable[[Stop], None]) -> Planned:
    """See `solve`; `compiled` waits until kernels are."""
    marks, stop, cut_short = [time.perf_counter()], case.effort.stop(), list[str]()
    case, asked = in_time(case, stop.share_of_time(ROUTING)), case.scenario.routing.tokens
    if case.scenario.routing.tokens < asked:
        cut_short.append(f"synthetic routing: {case.scenario.routing.tokens:,} of {asked:,} tokens")
    routing = read_routing(case)
    objective: Objective = case.objective or ("load" if routing.counts_only else "time")
    marks.append(time.perf_counter())

    case.report.stage("choosing the split")
    choosing = stop.share_of_time(SPLIT)
    if case.deployment is not None:
        choice = choice_of_plan(case)
    elif case.scenario.workload.kind == "serving":
        choice = choose(case, routing, choosing)
    else:
        choice = choice_of_split(case.scenario, enumerate_splits(case.scenario, stop=choosing))
    if choice.record.considered < choice.record.listed:
        cut_short.append(f"split: {choice.record.considered:,} of {choice.record.listed:,} tried")
    marks.append(time.perf_counter())

    roles, witnesses, carried = list[RolePlan](), list[RoleWitness](), list[Carried]()
    told: list[str] = []
    lost: dict[str, float] = {}
    for i, chosen in enumerate(choice.roles):
        share = stop.share_of_time(1 / (len(choice.roles) - i))
        rest = (*carried, *map(Carried, choice.roles[i + 1 :]))
        planned = plan_role(case, chosen, routing, objective, share, compiled, rest)
        if planned.late:
            of = f" of {planned.plan.role}" if len(choice.roles) > 1 else ""
            ended = "interrupted" if stop.interrupted else "ended early"
            cut_short.append(f"search: {ended} in {planned.late} of {len(planned.plan.layers)} layers{of}")
        if planned.unfitted:
            cut_short.append(f"batches: not fitted for {planned.unfitted} other strategies")
        if planned.guarded:
            told.append(kept_told(planned.guarded, planned.plan))
        lost |= {name: max(ratio, lost.get(name, 0.0)) for name, ratio in planned.lost.items()}
        roles.append(planned.plan)
        witnesses.append(planned.witness)
        carried.append(planned.carried)
    marks.append(time.perf_counter())

    timings = TimingsRecord(
        total_s=marks[3] - marks[0], split_s=marks[2] - marks[1], routing_s=marks[1] - marks[0],
        solve_s=marks[3] - marks[2],
    )  # fmt: skip
    plan = Plan(
        schema_=SCHEMA,
        scenario=ScenarioRecord(name=case.scenario.name, spec=case.scenario),
        engine=engine_name(case.scenario, roles),
        mode=mode_of_roles(roles),
        objective=objective,
        tail=case.tail,
        roles=tuple(roles),
        nodes=choice.nodes,
        choice=choice.record,
        predicted=figures_record(case.scenario, roles),
        provenance=ProvenanceRecord(
            strategy=case.strategy,
            seed=case.effort.seed,
            work=case.effort.budget.work,
            balance_floor=case.balance_floor,
            routing=routing.record,
            inputs=routing.inputs,
            params=case.effort.params.changed,
            gap=case.effort.budget.stated_gap,
            versions=versions(),
            cut_short=tuple(cut_short),
            cautions=(*told, *cautions(routing, lost)) if case.own == SOLVED else (),
        ),
        timings=timings if with_timings else None,
    )
    return Planned(plan.with_witness(witness_bytes(witnesses)), choice, timings)


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
    sources = case.routing_sources()
    # A tail is one of the windows themselves: their mixture would stand for most of the weight.
    mixture = case.tail >= 1.0
    routing = routing_of(sources, case.scenario.model.moe.computed_top_k, case.holdout, case.windows, mixture=mixture)
    if case.windows is not None:
        for source in sources:
            part = source.routing
            part = part if isinstance(part, LoadCounts) else select_part(part, routing.record.solved_on)
            check_windows(part, case.windows)
    return routing
