"""Plans a deployment: columns, the master problem, and what its answer yields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from placement.check.deployment import HeldGpus, Kind, deployment_faults
from placement.cost.step.kernels import KernelTables
from placement.cost.step.roles import Role, kv_bytes_per_request
from placement.cost.step.throughput import MoeTimes
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.planning.case import AnyTrace, load_scenario
from placement.planning.progress import OnProgress, Reporter
from placement.problem.engine_rules import engine_notes
from placement.records.deployment import (
    SCHEMA,
    AnswerRecord,
    ColumnsRecord,
    Deployment,
    DeploymentCertificate,
    DroppedRecord,
    HeldRecord,
    InstanceRecord,
    NodesRecord,
    PoolRecord,
)
from placement.records.layout import EngineName
from placement.routing.holdout import read_sources, routing_of, synthetic_source
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.columns import ColumnSet, Placed, list_columns, pool_of
from solvers.deploy.layout import layout
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.problem import Deployment as Chosen
from solvers.deploy.solve import solve_master
from solvers.split.enumerate import enumerate_splits
from solvers.split.pins import check_pins
from specs.cluster import Cluster
from specs.loading import load_cluster
from specs.scenario import Scenario
from specs.workload import ServingWorkload

Mode = Literal["aggregated", "disaggregated", "mixed"]
ROLES: dict[Mode, tuple[Role, ...]] = {
    "aggregated": ("aggregated",),
    "disaggregated": ("prefill", "decode"),
    "mixed": ("aggregated", "prefill", "decode"),
}
#: TPOT limits of the front, as shares of the workload's.
FRONT = (0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


def plan_deployment(
    scenario: Scenario | str | Path,
    *,
    mode: Mode = "mixed",
    pools: Sequence[Cluster | str | Path] = (),
    target_rate: float | None = None,
    front: bool = False,
    traces: Sequence[AnyTrace] = (),
    placed: bool = True,
    kernel_tables: bool = False,
    time_limit: float | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Deployment:
    """Chooses how many instances of which split serve the most tokens/s within HBM, TTFT and TPOT.

    Args:
        scenario: A serving scenario, or its name or file.
        mode: Instances that serve whole requests, that prefill or decode, or whichever is best.
        pools: Further pools of other GPUs: clusters, or their names or files.
        target_rate: Output tokens/s to reach with the fewest GPUs; None: the most tokens/s.
        front: Answer at several TPOT limits.
        traces: Recorded routing, objects or paths; without any, routing is synthetic.
        placed: Price imbalance and traffic by a quick expert placement; else take experts as balanced.
        kernel_tables: Use measured times of expert kernels where there are any.
        time_limit: Seconds for each master problem.
        seed: Of every random choice.
        on_progress: Called with a Progress at each step.

    Raises:
        InputError: A training scenario, an unknown pool, or pins that no split can have.
        InfeasibleError: Nothing fits HBM or meets the objectives, or the target is out of reach.
    """
    scenario, report = load_scenario(scenario), Reporter(on_progress)
    workload = scenario.workload
    if workload.kind != "serving":
        raise InputError(scenario.name, "workload", "is training; instances are deployed for serving", "use solve")
    if front and target_rate is not None:
        raise ParameterError("front", "it and `target_rate` exclude each other", "leave one of the two out")
    others = [pool if isinstance(pool, Cluster) else load_cluster(str(pool)) for pool in pools]
    on_pools = [scenario, *(scenario.model_copy(update={"cluster": cluster}) for cluster in others)]
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    check_pins(scenario, scenario.pins, redundant)
    layers: Placed | None = None
    if placed:
        report.stage("reading the routing" if traces else "making synthetic routing")
        sources = read_sources(scenario.model, traces) or (synthetic_source(scenario, seed),)
        layers = PlacedLayers(
            routing_of(sources, scenario.model.moe.computed_top_k, windows=1, mixture=False).solved_on
        )
    kernels = KernelTables.installed() if kernel_tables else None
    answers: list[AnswerRecord] = []
    found: tuple[ColumnSet, MasterProblem] | None = None
    limits = [workload.tpot_ms * share for share in FRONT] if front else [workload.tpot_ms]
    for limit in limits:
        report.stage(f"pricing splits at TPOT {limit:.4g} ms")
        here = [_with_tpot(pool, workload, limit) for pool in on_pools]
        columns = list_columns(here, ROLES[mode], scenario.pins, redundant, layers, kernels)
        problem = MasterProblem(tuple(pool_of(pool) for pool in here), columns.columns, kv_bytes_per_request(scenario))
        if target_rate is not None:
            problem = replace(problem, goal="gpus", target=target_rate / workload.osl)
        report.stage("choosing instances")
        try:
            _require(here[0], columns, mode)
            chosen = solve_master(problem, time_limit)
        except InfeasibleError:
            if front:
                continue
            raise
        found = (columns, problem)
        answers.append(_answer(here, problem, chosen, workload, limit, layers))
    if found is None:
        raise InfeasibleError(
            f"{scenario.name}: nothing is feasible at any TPOT from {limits[0]:.4g} to {limits[-1]:.4g} ms"
        )
    columns, problem = found
    return Deployment(
        schema_=SCHEMA,
        scenario=scenario.name,
        engine=EngineName(
            name=scenario.engine.name,
            version=scenario.engine.version,
            backend=scenario.engine.backend,
            notes=_notes(on_pools, problem, chosen),
        ),
        mode=mode,
        target_tokens_per_s=target_rate,
        placed=placed,
        pools=tuple(
            PoolRecord(name=p.name, nodes=p.nodes, gpus_per_node=p.gpus_per_node, gpus=p.gpus) for p in problem.pools
        ),
        answers=tuple(answers),
        columns=ColumnsRecord(
            considered=columns.considered,
            kept=len(columns.columns),
            thinned=columns.thinned,
            dropped=tuple(DroppedRecord(role=d.role, reason=d.reason, count=d.count) for d in columns.dropped),
        ),
    )


def _with_tpot(scenario: Scenario, workload: ServingWorkload, tpot_ms: float) -> Scenario:
    return scenario.model_copy(update={"workload": workload.model_copy(update={"tpot_ms": tpot_ms})})


def _require(scenario: Scenario, columns: ColumnSet, mode: Mode) -> None:
    """Refuses a scenario in which no role has a column, with the smallest relaxation that gives it one."""
    roles = {column.role for column in columns.columns}
    if "aggregated" in roles or {"prefill", "decode"} <= roles:
        return
    workload = scenario.workload
    if not columns.fits or mode == "aggregated" or workload.kind != "serving":
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
    chosen: Chosen,
    workload: ServingWorkload,
    tpot_ms: float,
    layers: Placed | None,
) -> AnswerRecord:
    """The answer with its packing, checked from outside.

    Raises:
        RuntimeError: the solver's answer is invalid (a bug).
    """
    used = [i for i, count in enumerate(chosen.counts) if count]
    used.sort(key=lambda i: (problem.columns[i].role, -chosen.counts[i] * problem.columns[i].gpus))
    packed = layout(problem, chosen.counts)
    if packed is None:
        raise RuntimeError(f"the solver's instances do not fit the nodes: {chosen.counts}")
    place = {column: at for at, column in enumerate(used)}
    parts = [(problem.columns[i], chosen.counts[i]) for i in used]
    faults = deployment_faults(
        scenarios,
        [Kind(c.pool, c.split, count, c.point.ttft_s, c.point.tpot_s) for c, count in parts],
        [HeldGpus(group.pool, group.nodes, {place[i]: gpus for i, gpus, _ in group.held}) for group in packed],
    )
    if faults:
        raise RuntimeError(f"the solver returned an invalid deployment: {'; '.join(faults)}")
    rate = chosen.requests_per_s * workload.osl
    instances = tuple(
        _instance(problem, column, count, layers(scenarios[column.pool], column.split) if layers else MoeTimes())
        for column, count in parts
    )
    return AnswerRecord(
        tpot_limit_ms=tpot_ms,
        tokens_per_s=rate,
        tokens_per_s_per_gpu=rate / max(1, chosen.gpus),
        requests_per_s=chosen.requests_per_s,
        gpus=chosen.gpus,
        ttft_ms=max((each.ttft_ms for each in instances if each.ttft_ms is not None), default=None),
        tpot_ms=max((each.tpot_ms for each in instances if each.tpot_ms is not None), default=None),
        certificate=DeploymentCertificate(
            goal=chosen.goal,
            bound=chosen.bound * workload.osl if chosen.goal == "rate" else chosen.bound,
            gap=chosen.gap,
            status="optimal" if chosen.optimal else "feasible",
            solver=chosen.solver,
        ),
        instances=instances,
        nodes=tuple(
            NodesRecord(
                pool=problem.pools[group.pool].name,
                nodes=group.nodes,
                holds=tuple(HeldRecord(instance=place[i], gpus=gpus, count=n) for i, gpus, n in group.held),
            )
            for group in packed
        ),
    )


def _notes(scenarios: Sequence[Scenario], problem: MasterProblem, chosen: Chosen) -> tuple[str, ...]:
    """What a user must know of the engine, over all instances."""
    used = (column for column, count in zip(problem.columns, chosen.counts, strict=True) if count)
    told = (note for column in used for note in engine_notes(scenarios[column.pool], column.split))
    return tuple(dict.fromkeys(told))


def _instance(problem: MasterProblem, column: Column, count: int, moe: MoeTimes) -> InstanceRecord:
    split, point = column.split, column.point
    degrees = {name: getattr(split, name) for name in ("tp", "ep", "etp", "pp", "dp", "batch", "redundant")}
    return InstanceRecord(
        role=column.role, pool=problem.pools[column.pool].name, count=count, gpus=column.gpus, cp=column.cp,
        slots_per_gpu=split.slots_per_gpu, requests_per_s=point.requests_per_s, ttft_ms=_ms(point.ttft_s),
        tpot_ms=_ms(point.tpot_s), moe_layer=column.moe_source, prefill_moe_ratio=moe.prefill_ratio,
        decode_moe_ratio=moe.decode_ratio, **degrees,
    )  # fmt: skip


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e3
