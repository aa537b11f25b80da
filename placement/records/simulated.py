"""Simulates a demand on a plan's instances, as the record of it that a plan holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from placement.cost.serving_sim.arrivals import AtRandom, Demand, InFlight, Recorded
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.sample import entry_shares
from placement.cost.serving_sim.setup import LoadBalance
from placement.cost.serving_sim.simulate import Run, run
from placement.cost.serving_sim.statistics import Spread, grows, unsettled
from placement.cost.serving_sim.steady import Steady, steady
from placement.cost.step.throughput import MoeTimes
from placement.errors import InputError
from placement.problem.arrays import FloatArray
from placement.records.demand import DemandKind, DemandRecord, SpreadRecord, UseRecord
from placement.records.plan import Plan
from placement.records.role import RolePlan

#: Requests of a simulation that a plan holds.
SHOWN = 200_000

KINDS: dict[type[Demand], DemandKind] = {AtRandom: "random", Recorded: "recorded", InFlight: "closed_loop"}


def simulate_demand(
    kinds: Sequence[InstanceKind],
    demand: Demand,
    *,
    load_balance: LoadBalance = "planned",
    seed: int = 0,
    requests: int = SHOWN,
) -> DemandRecord:
    """What instances do under a demand.

    Args:
        kinds: Of a plan's roles, in its order; one model and workload.
        demand: Who asks when.
        load_balance: Which attention rank gets a request; see placement.cost.serving_sim.simulate.run.
        seed: Of arrivals and chance.
        requests: About so many are simulated.

    Raises:
        InputError: Training, roles that serve no whole request, or a request that no KV cache holds.
    """
    return _record(kinds, demand, run(kinds, demand, load_balance, seed, requests), load_balance, requests)


def simulated_again(plan: Plan) -> DemandRecord | None:
    """The plan's demand, simulated anew without what it takes to hold the 95th percentile; None where the plan does not
    hold it whole: it has no demand, or a record's requests.

    Raises:
        InputError: See simulate_demand.
    """
    told = plan.demand
    if told is None or told.recorded:
        return None
    demand: Demand
    if told.in_flight is not None:
        demand = InFlight(told.in_flight)
    elif told.asked_requests_per_s:
        demand = AtRandom(told.asked_requests_per_s)
    else:
        raise InputError("demand", "asked_requests_per_s", "says of no demand", "plan it anew")
    return simulate_demand(
        kinds_of(plan), demand, load_balance=told.load_balance, seed=plan.provenance.seed, requests=told.requests
    )  # fmt: skip


def kinds_of(plan: Plan) -> list[InstanceKind]:
    """The instances of a plan, one kind a role, with the MoE-layer times of the plan's own placement.

    Raises:
        InputError: A training plan.
    """
    return [_kind(plan, role) for role in plan.roles]


def _kind(plan: Plan, role: RolePlan) -> InstanceKind:
    if role.role == "training":
        raise InputError(plan.scenario.name, "workload", "is training; only serving is simulated", "plan serving")
    own, count = role.own, role.split.instances
    moe = None
    if own is not None:
        # Where they are equal, the row's own: older plans have no batch of its own.
        decode_us = own.decode_us if own.at_own_batch is None else own.at_own_batch.decode_us
        moe = MoeTimes(prefill_s=_seconds(own.prefill_us), decode_s=_seconds(decode_us))
    split = replace(role.split.split(), instances=1)
    return InstanceKind(role.role, plan.scenario_of(role), split, count, role.cp, moe)


def _seconds(us: float | None) -> float | None:
    return None if us is None else us * 1e-6


def _record(
    kinds: Sequence[InstanceKind], demand: Demand, done: Run, load_balance: LoadBalance, requests: int
) -> DemandRecord:
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
        kind=KINDS[type(demand)],
        recorded=recorded is not None,
        load_balance=load_balance,
        requests=requests,
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
