"""Demand as a question: how many GPUs serve it, how fast at the mean and for 95 of 100 requests, and what would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from placement.cost.serving_sim.arrivals import AtRandom, Demand, InFlight, Recorded
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.simulate import Routing, Run, entry_shares, run
from placement.cost.serving_sim.statistics import Spread, grows, unsettled
from placement.cost.serving_sim.steady import Steady, steady
from placement.cost.step.kernels import KernelTables
from placement.cost.step.throughput import MoeTimes
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.planning.case import load_scenario
from placement.planning.deploy import plan_deployment
from placement.planning.progress import OnProgress, Reporter
from placement.problem.arrays import FloatArray
from placement.problem.split import Split
from placement.records.arrivals import read_arrivals
from placement.records.demand import DemandKind, DemandRecord, HoldRecord, SpreadRecord, UseRecord
from placement.records.deployment import Deployment, InstanceRecord
from specs.cluster import Cluster
from specs.loading import load_cluster
from specs.overrides import overridden
from specs.scenario import Scenario

#: Requests of a simulation that is shown, and of one in a search.
SHOWN, SEARCHED = 200_000, 40_000
#: Bisections of the load that a deployment holds, and deployments that are solved for one that holds the demand.
BISECTIONS, SOLVES = 6, 3
#: A load below this share of the demand is not looked for.
LIGHTEST = 0.05

KINDS: dict[type[Demand], DemandKind] = {AtRandom: "random", Recorded: "recorded", InFlight: "closed_loop"}


def simulate_demand(
    kinds: Sequence[InstanceKind],
    demand: Demand,
    *,
    routing: Routing = "planned",
    seed: int = 0,
    requests: int = SHOWN,
) -> DemandRecord:
    """What instances do under a demand.

    Args:
        kinds: Of a deployment or of a plan's roles, in its order; one model and workload.
        demand: Who asks when.
        routing: Which attention rank gets a request; see placement.cost.serving_sim.simulate.run.
        seed: Of arrivals and chance.
        requests: About so many are simulated.

    Raises:
        InputError: Training, roles that serve no whole request, or a request that no KV cache holds.
    """
    return _record(kinds, demand, run(kinds, demand, routing, seed, requests), routing, seed)


def plan_for_demand(
    scenario: Scenario | str | Path,
    *,
    rate: float | None = None,
    concurrency: int | None = None,
    arrivals: Recorded | str | Path | None = None,
    target_rate: float | None = None,
    front: bool = False,
    simulate: bool | None = None,
    routing: Routing = "planned",
    pools: Sequence[Cluster | str | Path] = (),
    kernel_tables: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Deployment:
    """The fewest GPUs for a demand, and a simulation of it; without a demand, what all GPUs serve.

    Args:
        scenario: A serving scenario, or its name or file.
        rate: Requests/s, at random.
        concurrency: Requests in flight at all times.
        arrivals: A record of requests, or its CSV file; with `rate` as many times faster or slower, with
            `concurrency` for lengths alone. The deployment is planned for its mean lengths.
        target_rate: Output tokens/s instead, of the workload's lengths.
        front: See plan_deployment; no demand is simulated.
        simulate: Simulate arrivals; None: where there is a demand.
        routing: See simulate_demand.
        pools, kernel_tables, seed, on_progress: See plan_deployment.
        options: Further parameters of plan_deployment.

    Raises:
        InputError: See plan_deployment and read_arrivals; parameters that exclude each other.
        InfeasibleError: See plan_deployment.
    """
    _check_one(rate=rate, concurrency=concurrency, target_rate=target_rate)
    asked = next((name for name, value in _named(rate, concurrency, arrivals, target_rate) if value is not None), None)
    if front and (asked is not None or simulate):
        raise ParameterError("front", f"it and `{asked or 'simulate'}` exclude each other", "leave one of the two out")
    report = Reporter(on_progress)
    recorded = arrivals if isinstance(arrivals, Recorded | None) else read_arrivals(arrivals)
    scenario = at_mean_lengths(load_scenario(scenario), recorded)
    workload = scenario.workload
    if workload.kind != "serving":
        raise InputError(scenario.name, "workload", "is training; instances are deployed for serving", "use solve")

    def solve(tokens_per_s: float | None) -> Deployment:
        return plan_deployment(
            scenario, target_rate=tokens_per_s, front=front, pools=pools, kernel_tables=kernel_tables, seed=seed,
            on_progress=on_progress, **options,
        )  # fmt: skip

    if asked is None:
        deployment = solve(None)
        demand: Demand = AtRandom(deployment.answers[-1].requests_per_s)
    else:
        demand = _demand(rate, concurrency, recorded, target_rate, workload.osl)
        wanted = _requests_per_s(demand, workload.osl * workload.tpot_ms * 1e-3)
        try:
            deployment = solve(wanted * workload.osl)
        except InfeasibleError as error:
            raise InfeasibleError(str(error).replace("`target_rate`", f"`{asked}`")) from None
    if simulate is False or (simulate is None and asked is None) or not deployment.answers[-1].requests_per_s:
        return deployment
    on_pools = [scenario, *(_on(scenario, pool) for pool in pools)]
    kernels = KernelTables.installed() if kernel_tables else None

    def answer(found: Deployment, requests: int, load: Demand) -> DemandRecord:
        return simulate_demand(
            kinds_of(found, on_pools, kernels), load, routing=routing, seed=seed, requests=requests
        )  # fmt: skip

    report.stage("simulating requests")
    record = answer(deployment, SHOWN, demand)
    for _ in range(SOLVES - 1):
        # The closed form has every sequence of a closed loop at the limit; they may be faster, or slower.
        if not isinstance(demand, InFlight) or record.holds_mean or asked is None:
            break
        wanted *= _over(record)
        try:
            deployment = solve(wanted * workload.osl)
        except InfeasibleError:
            break
        record = answer(deployment, SHOWN, demand)
    if not record.holds_p95:
        report.stage("looking for what holds the 95th percentile", BISECTIONS)
        share = _held_share(lambda load: answer(deployment, SEARCHED, load), demand, report)
        gpus = None
        if asked is not None and share > 0:
            gpus = _gpus_that_hold(solve, answer, demand, wanted * workload.osl / share)
        record = record.model_copy(update={"hold": HoldRecord(share=share, gpus=gpus)})
    return deployment.model_copy(update={"demand": record})


def at_mean_lengths(scenario: Scenario, recorded: Recorded | None) -> Scenario:
    """The scenario with the mean lengths of recorded requests."""
    if recorded is None:
        return scenario
    return overridden(scenario, isl=max(1, round(recorded.isl.mean())), osl=max(1, round(recorded.osl.mean())))


def kinds_of(
    deployment: Deployment, scenarios: Sequence[Scenario], kernels: KernelTables | None = None
) -> list[InstanceKind]:
    """The instances of a deployment's last answer, in their order.

    Args:
        scenarios: The scenario on each pool's cluster. kernels: measured times that they were priced by.
    """
    on = {scenario.cluster.name: scenario for scenario in scenarios}
    return [_kind(each, on[each.pool], kernels) for each in deployment.answers[-1].instances]


def _kind(each: InstanceRecord, scenario: Scenario, kernels: KernelTables | None) -> InstanceKind:
    split = Split(
        tp=each.tp, ep=each.ep, pp=each.pp, dp=each.dp, batch=each.batch, instances=1, redundant=each.redundant,
        slots_per_gpu=each.slots_per_gpu, etp=each.etp, microbatches=min(each.pp, each.batch),
    )  # fmt: skip
    moe = MoeTimes(prefill_ratio=each.prefill_moe_ratio, decode_ratio=each.decode_moe_ratio)
    return InstanceKind(each.role, scenario, split, each.count, each.cp, moe, kernels)


def _on(scenario: Scenario, pool: Cluster | str | Path) -> Scenario:
    cluster = pool if isinstance(pool, Cluster) else load_cluster(str(pool))
    return scenario.model_copy(update={"cluster": cluster})


def _named(*values: object) -> Sequence[tuple[str, object]]:
    return list(zip(("rate", "concurrency", "arrivals", "target_rate"), values, strict=True))


def _check_one(**given: object) -> None:
    names = [name for name, value in given.items() if value is not None]
    if len(names) > 1:
        raise ParameterError(names[1], f"it and `{names[0]}` exclude each other", "leave one of the two out")


def _demand(
    rate: float | None, concurrency: int | None, recorded: Recorded | None, target_rate: float | None, osl: int
) -> Demand:
    if concurrency is not None:
        return InFlight(concurrency, recorded)
    if recorded is None:
        return AtRandom(rate if rate is not None else (target_rate or 0.0) / osl)
    wanted = rate if rate is not None else None if target_rate is None else target_rate / osl
    if wanted is not None:
        return recorded.at_rate(wanted)
    if not np.isfinite(recorded.requests_per_s):
        raise ParameterError("arrivals", "all requests come at once: they have no rate", "give `rate`, too")
    return recorded


def _requests_per_s(demand: Demand, stay_s: float) -> float:
    """The rate of a demand; in a closed loop that of requests which stay so long."""
    return demand.requests / stay_s if isinstance(demand, InFlight) else demand.requests_per_s


def _lighter(demand: Demand, share: float) -> Demand:
    """A share of a demand."""
    if isinstance(demand, InFlight):
        return replace(demand, requests=max(1, round(demand.requests * share)))
    if isinstance(demand, AtRandom):
        return AtRandom(demand.requests_per_s * share)
    return demand.at_rate(demand.requests_per_s * share)


def _over(record: DemandRecord) -> float:
    """By how much more a mean is than its limit."""
    return max((spread.mean_ms / spread.limit_ms for _, spread in record.spreads), default=1.0)


def _held_share(answer: Callable[[Demand], DemandRecord], demand: Demand, report: Reporter) -> float:
    """The largest share of a demand of which a deployment holds the 95th percentile, to within 2%; 0 for none."""
    low, high = LIGHTEST, 1.0
    if not answer(_lighter(demand, low)).holds_p95:
        return 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if answer(_lighter(demand, middle)).holds_p95 else (low, middle)
        report.advance()
    return low


def _gpus_that_hold(
    solve: Callable[[float], Deployment],
    answer: Callable[[Deployment, int, Demand], DemandRecord],
    demand: Demand,
    tokens_per_s: float,
) -> int | None:
    """GPUs of a deployment that holds the 95th percentile of a demand; None where few tries find none.

    Args:
        tokens_per_s: What is planned for first.
    """
    for _ in range(SOLVES):
        try:
            found = solve(tokens_per_s)
        except InfeasibleError:
            return None
        if answer(found, SEARCHED, demand).holds_p95:
            return found.answers[-1].gpus
        tokens_per_s *= 1.03
    return None


def _record(kinds: Sequence[InstanceKind], demand: Demand, done: Run, routing: Routing, seed: int) -> DemandRecord:
    count, workload = len(done.arrival_s), kinds[0].workload
    if not count:
        raise InputError("demand", "", "is so large that no request is served in the simulated time", "ask for less")
    figures = [values for values in (done.ttft_s, done.tpot_s) if np.isfinite(values).all()]
    if isinstance(demand, Recorded):
        cut = 0
    elif isinstance(demand, InFlight):
        # Whole turns: who begins together goes on together.
        cut = count - max(1, count // demand.requests) * min(count, demand.requests)
    else:
        cut = max(unsettled(values) for values in figures)
    since = float(done.arrival_s[cut])
    counted = (done.done_s > since) & (done.done_s <= done.end_s)
    seconds = max(done.end_s - since, 1e-9)
    served = float(counted.sum()) / seconds / done.share
    planned = _planned(kinds, demand)
    ttft = _spread(done.ttft_s[cut:], workload.ttft_ms, planned[0])
    tpot = _spread(done.tpot_s[cut:], workload.tpot_ms, planned[1])
    limits = ((done.ttft_s, workload.ttft_ms), (done.tpot_s, workload.tpot_ms))
    late = [values[cut:] * 1e3 > limit for values, limit in limits]  # nan, where there is no such figure, is not late
    recorded = demand if isinstance(demand, Recorded) else demand.recorded if isinstance(demand, InFlight) else None
    return DemandRecord(
        kind="recorded"
        if isinstance(demand, Recorded)
        else "random"
        if isinstance(demand, AtRandom)
        else "closed_loop",
        routing=routing,
        seed=seed,
        asked_requests_per_s=None if isinstance(demand, InFlight) else demand.requests_per_s,
        in_flight=demand.requests if isinstance(demand, InFlight) else None,
        isl=float(workload.isl) if recorded is None else float(recorded.isl.mean()),
        osl=float(workload.osl) if recorded is None else float(recorded.osl.mean()),
        simulated=done.come,
        cut=cut,
        seconds=seconds,
        grows=isinstance(demand, AtRandom) and grows(done.waited_s[cut:].sum(axis=1)),
        served_requests_per_s=served,
        served_tokens_per_s=float(done.done_osl[counted].sum()) / seconds / done.share,
        goodput_requests_per_s=served * float(1.0 - (late[0] | late[1]).mean()),
        ttft=ttft,
        tpot=tpot,
        use=tuple(_use(index, kind, done, cut) for index, kind in enumerate(kinds) if done.simulated[index]),
    )


def _spread(values: FloatArray, limit_ms: float, planned_s: float | None) -> SpreadRecord | None:
    if not np.isfinite(values).all():
        return None
    ms = values * 1e3
    found = Spread.of(ms)
    return SpreadRecord(
        limit_ms=limit_ms,
        planned_ms=None if planned_s is None else planned_s * 1e3,
        mean_ms=found.mean,
        error_ms=found.error,
        p50_ms=found.p50,
        p95_ms=found.p95,
        p99_ms=found.p99,
        within=float((ms <= limit_ms).mean()),
    )


def _planned(kinds: Sequence[InstanceKind], demand: Demand) -> tuple[float | None, float | None]:
    """(TTFT, TPOT) by the closed form at this load, on average over requests."""
    first, second = entry_shares(kinds)
    found = [_closed_form(kind, demand, share) for kind, share in zip(kinds, first + second, strict=True)]
    decoding = [share if kind.role != "prefill" else 0.0 for kind, share in zip(kinds, first + second, strict=True)]

    def mean(shares: Sequence[float], name: str) -> float | None:
        total, weight = 0.0, 0.0
        for share, at in zip(shares, found, strict=True):
            if share > 0:
                value = None if at is None else getattr(at, name)
                if value is None:
                    return None
                total, weight = total + share * value, weight + share
        return total / weight if weight else None

    return mean(list(first), "ttft_s"), mean(decoding, "tpot_s")


def _closed_form(kind: InstanceKind, demand: Demand, share: float) -> Steady | None:
    if not isinstance(demand, InFlight):
        return steady(kind, demand.requests_per_s * share / kind.count)
    if kind.role == "prefill":
        return None
    # What so many sequences make of it, shared as the requests are.
    batch = min(kind.most, max(1, round(demand.requests * share / kind.servers)))
    point = replace(kind, split=replace(kind.split, batch=batch, microbatches=min(kind.split.pp, batch))).point
    return Steady(batch, batch / kind.most, point.ttft_s, point.tpot_s)


def _use(index: int, kind: InstanceKind, done: Run, cut: int) -> UseRecord:
    stage = 1 if kind.role == "decode" else 0
    here = done.kind[cut:, stage] == index
    servers = done.simulated[index]
    times = done.arrival_s[cut:]
    # Little's law: times of all requests over the time in which they came.
    seconds = servers * max(float(times[-1] - times[0]), 1e-9)
    decoded = done.decoded_s[cut:][here]
    return UseRecord(
        instance=index,
        role=kind.role,
        servers=kind.servers,
        simulated=servers,
        waiting=float(done.waited_s[cut:, stage][here].sum()) / seconds,
        decoding=0.0 if kind.role == "prefill" else float(decoded.sum()) / seconds,
        fit=kind.most if kind.role != "prefill" else 0,
        prefilling=0.0 if kind.role == "decode" else float(done.work_s[cut:][here].sum()) / seconds,
    )
