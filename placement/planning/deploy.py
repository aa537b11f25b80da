"""Makes a deployment: columns, the master problem, and what its answer yields."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.check.deployment import HeldGpus, Kind, deployment_faults
from placement.cli.options import DeployOptions
from placement.cli.progress import Progress
from placement.cost.step.kernels import KernelTables
from placement.cost.step.roles import Role, kv_bytes_per_request
from placement.errors import InfeasibleError, InputError
from placement.routing.holdout import load_routing
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.columns import ColumnSet, Placed, list_columns, pool_of
from solvers.deploy.layout import NodeGroup, layout
from solvers.deploy.problem import Column, Deployment, MasterProblem, Pool
from solvers.deploy.solve import SecondOpinion, second_opinion, solve_master
from solvers.split.enumerate import enumerate_splits
from solvers.split.pins import check_pins
from specs.loading import load_cluster, load_scenario
from specs.scenario import Scenario
from specs.validation import validate
from specs.workload import ServingWorkload

ROLES: dict[str, tuple[Role, ...]] = {
    "aggregated": ("aggregated",),
    "disaggregated": ("prefill", "decode"),
    "mixed": ("aggregated", "prefill", "decode"),
}
#: TPOT limits of the front, as shares of the workload's.
FRONT = (0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class Part:
    """Instances of one column in a deployment."""

    column: Column
    pool: Pool
    count: int


@dataclass(frozen=True)
class Answer:
    """A deployment under one TPOT objective, its parts by role, and rates in output tokens.

    `nodes` is where the parts lie: their columns are indices of `parts`.
    """

    tpot_ms: float
    deployment: Deployment
    parts: tuple[Part, ...]
    tokens_per_s: float
    tokens_per_s_per_gpu: float
    bound: float
    slowest_ttft_s: float | None
    slowest_tpot_s: float | None
    nodes: tuple[NodeGroup, ...]


@dataclass(frozen=True)
class DeploymentReport:
    """What the command shows.

    Attributes:
        answers: one, or the front by TPOT. columns: of the last answer. second: CP-SAT's opinion, if asked for.
        gpus: of all pools. seconds: wall clock.
    """

    scenario: Scenario
    pools: tuple[Pool, ...]
    mode: str
    target_rate: float | None
    placed: bool
    answers: tuple[Answer, ...]
    columns: ColumnSet
    second: SecondOpinion | None
    gpus: int
    seconds: float


def make_deployment(spec: str, options: DeployOptions, progress: Progress) -> DeploymentReport:
    """Chooses the instances of a serving scenario.

    Raises:
        InputError: a training scenario, an unknown pool, or pins that no split can have.
        InfeasibleError: nothing fits HBM or meets the objectives, or the wanted rate is out of reach.
    """
    started = time.perf_counter()
    scenario = _asked(load_scenario(spec), options)
    workload = scenario.workload
    if workload.kind != "serving":
        raise InputError(scenario.name, "workload", "is training; instances are deployed for serving", "use solve")
    clusters = [scenario.cluster, *(load_cluster(name) for name in options.pools)]
    pools = [scenario.model_copy(update={"cluster": cluster}) for cluster in clusters]
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    check_pins(scenario, scenario.pins, redundant)
    placed: Placed | None = None
    if options.placed:
        progress.stage("reading the routing" if options.traces else "making synthetic routing")
        routing = load_routing(scenario, options.traces, options.seed, windows=1, mixture=False)
        placed = PlacedLayers(routing.solved_on)
    kernels = KernelTables.installed() if options.kernel_tables else None
    answers: list[Answer] = []
    found: tuple[ColumnSet, MasterProblem, Deployment] | None = None
    limits = [workload.tpot_ms * share for share in FRONT] if options.front else [workload.tpot_ms]
    for limit in limits:
        progress.stage(f"pricing splits at TPOT {limit:.4g} ms")
        here = [_with_tpot(pool, workload, limit) for pool in pools]
        columns = list_columns(here, ROLES[options.mode], scenario.pins, redundant, placed, kernels)
        problem = MasterProblem(tuple(pool_of(pool) for pool in here), columns.columns, kv_bytes_per_request(scenario))
        if options.target_rate is not None:
            problem = replace(problem, goal="gpus", target=options.target_rate / workload.osl)
        progress.stage("choosing instances")
        try:
            _require(here[0], columns, options)
            deployment = solve_master(problem, options.time_limit)
        except InfeasibleError:
            if options.front:
                continue
            raise
        found = (columns, problem, deployment)
        answers.append(_answer(here, problem, deployment, workload, limit))
    if found is None:
        raise InfeasibleError(
            f"{scenario.name}: nothing is feasible at any TPOT from {limits[0]:.4g} to {limits[-1]:.4g} ms"
        )
    columns, problem, deployment = found
    second = None
    if options.second_opinion:
        progress.stage("asking CP-SAT")
        second = second_opinion(problem, deployment, options.time_limit, options.seed)
    return DeploymentReport(
        scenario, problem.pools, options.mode, options.target_rate, options.placed, tuple(answers), columns, second,
        sum(pool.gpus for pool in problem.pools), time.perf_counter() - started,
    )  # fmt: skip


def _asked(scenario: Scenario, options: DeployOptions) -> Scenario:
    """The scenario with what the command line overrides, checked as a whole."""
    data = scenario.model_dump()
    if options.redundant is not None:
        data["redundant"] = options.redundant
    for name in ("tp", "ep", "pp", "dp", "batch"):
        if getattr(options, name) is not None:
            data["pins"][name] = getattr(options, name)
    for name in ("ttft_ms", "tpot_ms"):
        if getattr(options, name) is not None and data["workload"]["kind"] == "serving":
            data["workload"][name] = getattr(options, name)
    changed: Scenario = validate(Scenario, data, f"{scenario.name} with the given options")
    return changed


def _with_tpot(scenario: Scenario, workload: ServingWorkload, tpot_ms: float) -> Scenario:
    return scenario.model_copy(update={"workload": workload.model_copy(update={"tpot_ms": tpot_ms})})


def _require(scenario: Scenario, columns: ColumnSet, options: DeployOptions) -> None:
    """Refuses a scenario in which no role has a column, with the smallest relaxation that gives it one."""
    roles = {column.role for column in columns.columns}
    if "aggregated" in roles or {"prefill", "decode"} <= roles:
        return
    workload = scenario.workload
    if not columns.fits or options.mode == "aggregated" or workload.kind != "serving":
        # The search over whole splits knows the memory line and the objective that fail.
        enumerate_splits(scenario, scenario.pins, scenario.redundant)
        raise InfeasibleError(f"{scenario.name}: no instance within HBM, TTFT and TPOT once experts are placed")
    lacking: Sequence[str] = [
        f"{name} {limit:.4g} ms can't be met, the best is {best * 1e3:.4g} ms ({best * 1e3 / limit - 1:.2%} over)"
        for name, limit, best, role in (
            ("TTFT", workload.ttft_ms, columns.reach.prefill_ttft_s, "prefill"),
            ("TPOT", workload.tpot_ms, columns.reach.tpot_s, "decode"),
        )
        if role not in roles
    ]
    raise InfeasibleError(f"{scenario.name}: {'; '.join(lacking)}: relax {' and '.join(w.split()[0] for w in lacking)}")


def _answer(
    scenarios: Sequence[Scenario],
    problem: MasterProblem,
    deployment: Deployment,
    workload: ServingWorkload,
    tpot_ms: float,
) -> Answer:
    """The answer with its packing, checked from outside.

    Raises:
        RuntimeError: the solver's answer is invalid (a bug).
    """
    used = [i for i, count in enumerate(deployment.counts) if count]
    used.sort(key=lambda i: (problem.columns[i].role, -deployment.counts[i] * problem.columns[i].gpus))
    parts = [Part(problem.columns[i], problem.pools[problem.columns[i].pool], deployment.counts[i]) for i in used]
    packed = layout(problem, deployment.counts)
    if packed is None:
        raise RuntimeError(f"the solver's instances do not fit the nodes: {deployment.counts}")
    place = {column: at for at, column in enumerate(used)}
    nodes = tuple(
        NodeGroup(group.pool, group.nodes, tuple((place[i], gpus, n) for i, gpus, n in group.held)) for group in packed
    )
    faults = deployment_faults(
        scenarios,
        [Kind(p.column.pool, p.column.split, p.count, p.column.point.ttft_s, p.column.point.tpot_s) for p in parts],
        [HeldGpus(group.pool, group.nodes, {i: gpus for i, gpus, _ in group.held}) for group in nodes],
    )
    if faults:
        raise RuntimeError(f"the solver returned an invalid deployment: {'; '.join(faults)}")
    rate = deployment.requests_per_s * workload.osl
    ttft = [p.column.point.ttft_s for p in parts if p.column.point.ttft_s is not None]
    tpot = [p.column.point.tpot_s for p in parts if p.column.point.tpot_s is not None]
    bound = deployment.bound * workload.osl if deployment.goal == "rate" else deployment.bound
    return Answer(
        tpot_ms, deployment, tuple(parts), rate, rate / max(1, deployment.gpus), bound, max(ttft, default=None),
        max(tpot, default=None), nodes,
    )  # fmt: skip
