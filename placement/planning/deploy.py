"""Plans a deployment: the planner of `solve` with quickly placed experts, at one TPOT limit or along a front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from placement.errors import InfeasibleError, InputError, ParameterError
from placement.planning.case import MAX_KINDS, AnyTrace, Case, Mode, load_scenario, make_case
from placement.planning.effort import Budget
from placement.planning.progress import OnProgress
from placement.planning.solve import Planned, solve
from placement.records.front import SCHEMA, Front, FrontAnswer
from placement.records.plan import Plan
from solvers.registry import BALANCER
from specs.cluster import Cluster
from specs.scenario import Scenario

#: TPOT limits of the front, as shares of the workload's.
FRONT = (0.25, 0.35, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)


def plan_deployment(
    scenario: Scenario | str | Path,
    *,
    mode: Mode = "auto",
    max_kinds: int | None = MAX_KINDS,
    pools: Sequence[Cluster | str | Path] = (),
    target_rate: float | None = None,
    traces: Sequence[AnyTrace] = (),
    placed: bool = True,
    kernel_tables: bool = False,
    budget: Budget | None = None,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Plan:
    """Chooses how many instances of which split serve the most tokens/s within HBM, TTFT and TPOT.

    The plan is the one of `plan_scenario` with experts placed by the load balancer, in seconds.

    Args:
        scenario: A serving scenario, or its name or file.
        mode: Instances that serve whole requests, that prefill or decode, or whichever is best.
        max_kinds: Most kinds of instances; None: any number.
        pools: Further pools of other GPUs: clusters, or their names or files.
        target_rate: Output tokens/s to reach with the fewest GPUs; None: the most tokens/s.
        traces: Recorded routing, objects or paths; without any, routing is synthetic.
        placed: Price splits with quickly placed experts; else take experts as balanced.
        kernel_tables: Use measured times of expert kernels where there are any.
        budget: When solving stops.
        seed: Of every random choice.
        on_progress: Called with a Progress at each step.

    Raises:
        InputError: A training scenario, an unknown pool, or pins that no split can have.
        InfeasibleError: Nothing fits HBM or meets the objectives, or the target is out of reach.
    """
    case = deployment_case(
        scenario, mode=mode, max_kinds=max_kinds, pools=pools, target_rate=target_rate, traces=traces, placed=placed,
        kernel_tables=kernel_tables, budget=budget, seed=seed, on_progress=on_progress,
    )  # fmt: skip
    return solve(case).plan


def plan_front(scenario: Scenario | str | Path, **asked: object) -> Front:
    """Tokens/s per GPU against tokens/s per user: the deployment at several TPOT limits.

    Args:
        scenario: A serving scenario, or its name or file.
        asked: Arguments of `plan_deployment`, without `target_rate`.

    Raises:
        InputError, InfeasibleError: See `plan_deployment`; infeasible is what no limit allows.
    """
    return front_of(deployment_case(scenario, **asked))


def deployment_case(scenario: Scenario | str | Path, **asked: object) -> Case:
    """The case of a deployment; see `plan_deployment`.

    Raises:
        InputError: A training scenario, or an argument that does not fit.
    """
    scenario = load_scenario(scenario)
    if scenario.workload.kind != "serving":
        raise InputError(scenario.name, "workload", "is training; instances are deployed for serving", "use solve")
    return replace(make_case(scenario, strategy=BALANCER, **asked), certify=False)  # type: ignore[arg-type]


def front_of(case: Case) -> Front:
    """The front of a deployment's case.

    Raises:
        InfeasibleError: No limit is feasible.
    """
    workload = case.scenario.workload
    if workload.kind != "serving":
        raise ValueError("a front is of a serving workload")
    if case.target_tokens_per_s is not None:
        raise ParameterError("front", "it and `target_rate` exclude each other", "leave one of the two out")
    answers, limits = [], [workload.tpot_ms * share for share in FRONT]
    for limit in limits:
        here = case.scenario.model_copy(update={"workload": workload.model_copy(update={"tpot_ms": limit})})
        try:
            answers.append(_answer(limit, solve(replace(case, scenario=here, told=False))))
        except InfeasibleError:
            continue
    if not answers:
        raise InfeasibleError(
            f"{case.scenario.name}: nothing is feasible at any TPOT from {limits[0]:.4g} to {limits[-1]:.4g} ms"
        )
    return Front(schema_=SCHEMA, scenario=case.scenario.name, answers=tuple(answers))


def _answer(limit: float, planned: Planned) -> FrontAnswer:
    plan = planned.plan
    figures = plan.predicted
    return FrontAnswer(
        tpot_limit_ms=limit, tokens_per_s=figures.tokens_per_s.value,
        tokens_per_s_per_gpu=figures.tokens_per_s.value / max(1, plan.gpus), gpus=plan.gpus,
        ttft_ms=None if figures.ttft_ms is None else figures.ttft_ms.value,
        tpot_ms=None if figures.tpot_ms is None else figures.tpot_ms.value,
        kinds=tuple(f"{role.split.instances} {role.role} {role.degrees}" for role in plan.roles),
        provenance=figures.tokens_per_s.provenance, interval=figures.tokens_per_s.interval,
        ttft_interval=None if figures.ttft_ms is None else figures.ttft_ms.interval,
        tpot_interval=None if figures.tpot_ms is None else figures.tpot_ms.interval,
    )  # fmt: skip
