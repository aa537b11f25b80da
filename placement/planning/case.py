"""The question that a solve answers: one frozen record that every step of planning takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from placement.cost.pose import planned_phases
from placement.cost.step.kernels import KernelTables
from placement.engines.maps.registry import uneven_problem
from placement.errors import ParameterError
from placement.planning.effort import Budget, Effort
from placement.planning.progress import OnProgress, Reporter
from placement.problem.layer import Objective
from placement.records.plan import Plan, load_plan
from placement.records.role import SOLVED
from placement.routing.holdout import Source, read_sources, synthetic_source
from placement.routing.trace import LoadCounts, Trace
from solvers.params import DEFAULTS, SearchParams
from solvers.registry import BASELINES, get_solver
from specs.cluster import Cluster
from specs.loading import load_cluster
from specs.loading import load_scenario as read_scenario
from specs.overrides import overridden
from specs.scenario import Scenario
from specs.workload import PlannedPhase

#: Which instances may be chosen: those that serve whole requests, those that prefill or decode, or whichever is best.
Mode = Literal["auto", "aggregated", "disaggregated"]
MODES: tuple[Mode, ...] = get_args(Mode)
#: Kinds of instances at most, where nothing is said: one that prefills, one that decodes.
MAX_KINDS = 2

#: Recorded routing: an object, or a file's path.
AnyTrace = Trace | LoadCounts | str | Path


@dataclass(frozen=True)
class Case:
    """A planning question.

    Attributes:
        scenario: What is planned, every override filled in.
        phase: What expert placement is priced for.
        sources: Recorded routing; empty for synthetic.
        objective: Least time, load or traffic; None: time, or load where only counts are known.
        strategy: The solver's name.
        holdout: Whether part of each trace judges; None: where that is possible.
        windows: Load windows of each trace, or None for the default.
        tail: Share of the worst windows that counts, 1 their mean.
        balance_floor: Whether the plan stays as balanced as the load balancers' placements.
        mode: Which instances may be chosen.
        max_kinds: Most kinds of instances; None: any number.
        pools: Clusters of other GPUs, beside the scenario's.
        target_tokens_per_s: Output rate to reach with the fewest GPUs; None: the most tokens/s.
        placed: Whether splits are priced with quickly placed experts; else experts are taken as balanced.
        kernel_tables: Whether splits are priced with measured times of expert kernels, where there are any.
        certify: Whether the plan's own layers carry the best bound known; else what loads alone prove.
        redundant_by_layer: Whether the layers of a stage share its redundant experts as they gain from them.
        told: Whether the plan says what came next, and what recipes yield.
        deployment: A plan whose instances are kept; None: they are chosen.
        effort: Budget, seed, workers.
        report: Who is told of progress.
    """

    scenario: Scenario
    phase: PlannedPhase
    sources: tuple[Source, ...] = ()
    objective: Objective | None = None
    strategy: str = "auto"
    holdout: bool | None = None
    windows: int | None = None
    tail: float = 1.0
    balance_floor: bool = True
    mode: Mode = "auto"
    max_kinds: int | None = MAX_KINDS
    pools: tuple[Cluster, ...] = ()
    target_tokens_per_s: float | None = None
    placed: bool = True
    kernel_tables: bool = False
    certify: bool = True
    redundant_by_layer: bool = False
    told: bool = True
    deployment: Plan | None = None
    effort: Effort = field(default_factory=Effort)
    report: Reporter = field(default_factory=Reporter)

    @property
    def own(self) -> str:
        """The name of the plan's own row among the strategies."""
        return self.strategy if self.strategy in BASELINES else SOLVED

    def routing_sources(self) -> tuple[Source, ...]:
        """The recorded routing, or synthetic routing of the scenario's knobs."""
        return self.sources or (synthetic_source(self.scenario, self.effort.seed, self.effort.threads),)


def load_scenario(spec: str | Path | Scenario, **overrides: Any) -> Scenario:
    """A scenario of the catalog, or of a YAML file, with other values where `overrides` says so.

    Args:
        spec: The scenario's name, alias, file, or the scenario itself.
        overrides: Values by name, such as `engine="sglang"`, `ep=16`, `nodes=2` or `tpot_ms=30`, or by path, such as
            `set={"model.types.experts": "fp8"}` (see specs.overrides).

    Raises:
        InputError: There is no such scenario, or a value that it can't have.
    """
    scenario = spec if isinstance(spec, Scenario) else read_scenario(str(spec))
    return overridden(scenario, **overrides)


def make_case(
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
) -> Case:
    """A checked case; the arguments are those of `plan_scenario`.

    Raises:
        InputError: A scenario or trace that can't be read or does not fit. ParameterError: a value out of range.
        MissingExtraError: Kernel tables that are not installed.
    """
    effort = Effort(budget or Budget(), seed, workers, backend, params or DEFAULTS)
    scenario = load_scenario(scenario)
    phases = planned_phases(scenario)
    if phase is not None and phase not in phases:
        told = f"{phase} is no phase of the {scenario.workload.kind} workload {scenario.workload.name}"
        raise ParameterError("phase", told, f"choose {', '.join(phases)}")
    if objective is not None and objective not in get_args(Objective):
        raise ParameterError("objective", f"{objective!r} is no objective", f"choose {', '.join(get_args(Objective))}")
    if windows is not None and windows < 1:
        raise ParameterError("windows", f"{windows} windows", "give at least 1")
    if not 0.0 <= tail <= 1.0:
        raise ParameterError("tail", f"{tail:g} is no share", "give a number from 0 (worst window) to 1 (mean)")
    if mode not in MODES:
        raise ParameterError("mode", f"{mode!r} is no mode", f"choose {', '.join(MODES)}")
    if max_kinds is not None and max_kinds < 1:
        raise ParameterError("max_kinds", f"{max_kinds} kinds", "give at least 1")
    if target_rate is not None and not (math.isfinite(target_rate) and target_rate > 0):
        raise ParameterError("target_rate", f"{target_rate:g} is no rate", "give tokens/s above 0")
    if scenario.workload.kind == "training":
        for name, given in (("pools", bool(pools)), ("target_rate", target_rate is not None)):
            if given:
                raise ParameterError(
                    name, "the workload is training; instances are deployed for serving", "leave it out"
                )
    clusters = [pool if isinstance(pool, Cluster) else load_cluster(str(pool)) for pool in pools]
    names = [scenario.cluster.name, *(cluster.name for cluster in clusters)]
    if len(set(names)) < len(names):
        raise ParameterError("pools", "two pools have one name", "give each cluster a name of its own")
    if redundant_by_layer and (problem := uneven_problem(scenario.engine.name)):
        raise ParameterError("redundant_by_layer", problem, "leave it out: `redundant` gives each layer as many")
    get_solver(strategy)
    if kernel_tables:
        KernelTables.installed()  # what is missing is told before anything is computed
    report = Reporter(on_progress)
    if traces:
        report.stage("reading the routing")
    return Case(
        scenario=scenario,
        phase=phase or phases[0],
        sources=read_sources(scenario.model, traces),
        objective=objective,
        strategy=strategy,
        holdout=holdout,
        windows=windows,
        tail=tail,
        balance_floor=balance_floor,
        mode=mode,
        max_kinds=max_kinds,
        pools=tuple(clusters),
        target_tokens_per_s=target_rate,
        placed=placed,
        kernel_tables=kernel_tables,
        redundant_by_layer=redundant_by_layer,
        deployment=load_plan(deployment) if isinstance(deployment, str | Path) else deployment,
        effort=effort,
        report=report,
    )
