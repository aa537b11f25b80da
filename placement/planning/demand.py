"""Demand as a question: how many GPUs serve it, how fast at the mean and for 95 of 100 requests, and what would."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from placement.cost.serving_sim.arrivals import AtRandom, Demand, InFlight, Recorded
from placement.cost.serving_sim.setup import LoadBalance
from placement.errors import InfeasibleError, ParameterError
from placement.planning.case import Case, load_scenario
from placement.planning.deploy import deployment_case
from placement.planning.progress import Reporter
from placement.planning.solve import Planned, solve
from placement.records.arrivals import read_arrivals
from placement.records.demand import MAX_REQUESTS, DemandRecord, HoldRecord
from placement.records.plan import Plan
from placement.records.simulated import SHOWN, kinds_of, simulate_demand
from solvers.registry import BALANCER
from specs.overrides import overridden
from specs.scenario import Scenario

#: Requests of a simulation in a search.
SEARCHED = 40_000
#: Bisections of the load that a deployment holds, and deployments that are solved for one that holds the demand.
BISECTIONS, SOLVES = 6, 3
#: A load below this share of the demand is not looked for.
LIGHTEST = 0.05

#: Simulates so many requests of a demand on a plan's instances.
Answer = Callable[[Plan, int, Demand], DemandRecord]


@dataclass(frozen=True)
class Asked:
    """A demand as it is asked for.

    Attributes:
        rate: Requests/s, at random.
        concurrency: Requests in flight at all times.
        arrivals: A record of requests; with `rate` as many times faster or slower, with `concurrency` for lengths
            alone.
        simulate: Simulate arrivals; None: where there is a demand.
        load_balance: Which attention rank gets a request; see placement.cost.serving_sim.simulate.run.
    """

    rate: float | None = None
    concurrency: int | None = None
    arrivals: Recorded | None = None
    simulate: bool | None = None
    load_balance: LoadBalance = "planned"

    def __post_init__(self) -> None:
        """Refuses what is no demand.

        Raises:
            ParameterError: A value out of range, or two that exclude each other.
        """
        if self.rate is not None and not (math.isfinite(self.rate) and self.rate > 0):
            raise ParameterError("rate", f"{self.rate:g} is no rate", "give requests/s above 0")
        if self.concurrency is not None and not 1 <= self.concurrency <= MAX_REQUESTS:
            raise ParameterError("concurrency", f"{self.concurrency} requests", f"give 1 to {MAX_REQUESTS:,}")
        if self.rate is not None and self.concurrency is not None:
            raise ParameterError("concurrency", "it and `rate` exclude each other", "leave one of the two out")

    @property
    def name(self) -> str | None:
        """The parameter that says what is asked; None where nothing is."""
        return next((name for name in ("rate", "concurrency", "arrivals") if getattr(self, name) is not None), None)

    @property
    def simulated(self) -> bool:
        """Whether arrivals are simulated."""
        return self.name is not None if self.simulate is None else self.simulate

    def at_mean_lengths(self, scenario: Scenario) -> Scenario:
        """The scenario with the mean lengths of the recorded requests."""
        recorded = self.arrivals
        if recorded is None:
            return scenario
        return overridden(scenario, isl=max(1, round(recorded.isl.mean())), osl=max(1, round(recorded.osl.mean())))


def plan_for_demand(
    scenario: Scenario | str | Path,
    *,
    rate: float | None = None,
    concurrency: int | None = None,
    arrivals: Recorded | str | Path | None = None,
    simulate: bool | None = None,
    load_balance: LoadBalance = "planned",
    **options: Any,
) -> Plan:
    """The fewest GPUs for a demand, and a simulation of it; without a demand, what all GPUs serve.

    Args:
        scenario: A serving scenario, or its name or file.
        rate, concurrency, simulate, load_balance: See Asked.
        arrivals: A record of requests (see Asked), or its CSV file. The plan is for its mean lengths.
        options: Further parameters of plan_deployment.

    Raises:
        InputError: See plan_deployment and read_arrivals; parameters that exclude each other.
        InfeasibleError: See plan_deployment.
    """
    recorded = arrivals if isinstance(arrivals, Recorded | None) else read_arrivals(arrivals)
    asked = Asked(rate, concurrency, recorded, simulate, load_balance)
    return solve_for(deployment_case(asked.at_mean_lengths(load_scenario(scenario)), **options), asked).plan


def solve_for(case: Case, asked: Asked, with_timings: bool = False) -> Planned:
    """Answers a case for a demand; the case has its mean lengths.

    With a demand the fewest GPUs for it are found with quickly placed experts. Then experts are placed as the case
    says, and arrivals are simulated. Instances that the case keeps are kept. Where time is limited and over, what would
    hold the 95th percentile is not looked for.

    Raises:
        InputError: Training, or a demand that excludes the case's target. Others: see plan_scenario.
    """
    started, workload = time.perf_counter(), case.scenario.workload
    if asked.name is None and not asked.simulated:
        return solve(case, with_timings)
    if workload.kind != "serving":
        raise ParameterError(asked.name or "simulate", "the workload is training: it has no requests", "leave it out")
    if case.target_tokens_per_s is not None and asked.name in ("rate", "concurrency"):
        raise ParameterError("target_rate", f"it and `{asked.name}` exclude each other", "leave one of the two out")
    demand = _demand(asked, case.target_tokens_per_s, workload.osl)

    def answer(found: Plan, requests: int, load: Demand) -> DemandRecord:
        return simulate_demand(
            kinds_of(found), load, load_balance=asked.load_balance, seed=case.effort.seed, requests=requests
        )

    wanted = 0.0
    if demand is None or case.deployment is not None:
        planned = solve(case, with_timings)
        demand = demand or AtRandom(planned.plan.predicted.tokens_per_s.value / workload.osl)
    else:
        wanted = _requests_per_s(demand, workload.osl * workload.tpot_ms * 1e-3) * workload.osl
        planned, wanted = _fewest(_quick(case), answer, demand, wanted, asked)
        if case.strategy != BALANCER:
            planned = solve(replace(case, deployment=planned.plan), with_timings)
    if asked.simulated:
        planned = replace(planned, plan=_simulated(case, planned.plan, demand, wanted, answer))
    timings = planned.timings.model_copy(update={"total_s": time.perf_counter() - started})
    plan = planned.plan.model_copy(update={"timings": timings}) if with_timings else planned.plan
    return replace(planned, plan=plan, timings=timings)


def _simulated(case: Case, plan: Plan, demand: Demand, wanted: float, answer: Answer) -> Plan:
    """The plan with its demand; `wanted`: tokens/s that its GPUs were chosen for, or 0."""
    report = case.report
    report.stage("simulating requests")
    record = answer(plan, SHOWN, demand)
    if not record.holds_p95 and not case.effort.stop().expired:
        report.stage("looking for what holds the 95th percentile", BISECTIONS)
        share = _held_share(lambda load: answer(plan, SEARCHED, load), demand, report)
        gpus = None
        if wanted and share > 0:
            gpus = _gpus_that_hold(_quick(case), answer, demand, wanted / share, plan.gpus)
        record = record.model_copy(update={"hold": HoldRecord(share=share, gpus=gpus)})
    return plan.model_copy(update={"demand": record})


def _quick(case: Case) -> Case:
    """The case with quickly placed experts on instances that are chosen."""
    return replace(case, strategy=BALANCER, certify=False)


def _fewest(quick: Case, answer: Answer, demand: Demand, tokens_per_s: float, asked: Asked) -> tuple[Planned, float]:
    """The fewest GPUs that serve a demand on average, and the tokens/s that they were planned for.

    Raises:
        InfeasibleError: All GPUs serve less.
    """
    try:
        planned = solve(replace(quick, target_tokens_per_s=tokens_per_s))
    except InfeasibleError as error:
        raise InfeasibleError(str(error).replace("`target_rate`", f"`{asked.name}`")) from None
    if not isinstance(demand, InFlight) or not asked.simulated:
        return planned, tokens_per_s
    # The closed form has every sequence of a closed loop at the limit; they may be faster, or slower.
    for _ in range(SOLVES - 1):
        record = answer(planned.plan, SEARCHED, demand)
        if record.holds_mean:
            break
        more = tokens_per_s * _over(record)
        try:
            planned, tokens_per_s = solve(replace(quick, target_tokens_per_s=more)), more
        except InfeasibleError:
            break
    return planned, tokens_per_s


def _demand(asked: Asked, target: float | None, osl: int) -> Demand | None:
    """Who asks when; None where nobody says.

    Args:
        target: Output tokens/s.
    """
    recorded = asked.arrivals
    if asked.concurrency is not None:
        return InFlight(asked.concurrency, recorded)
    wanted = asked.rate if target is None else target / osl
    if recorded is None:
        return None if wanted is None else AtRandom(wanted)
    if not math.isfinite(recorded.requests_per_s):
        raise ParameterError("arrivals", "all requests come at once: they have no rate", "give `concurrency`, too")
    return recorded if wanted is None else recorded.at_rate(wanted)


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


def _gpus_that_hold(quick: Case, answer: Answer, demand: Demand, tokens_per_s: float, had: int) -> int | None:
    """GPUs of a deployment that holds the 95th percentile of a demand; None where few tries find none.

    Args:
        tokens_per_s: What is planned for first.
        had: GPUs of the deployment that does not hold it: quick prices of as many are no better answer.
    """
    for _ in range(SOLVES):
        try:
            plan = solve(replace(quick, target_tokens_per_s=tokens_per_s)).plan
        except InfeasibleError:
            return None
        if plan.gpus > had and answer(plan, SEARCHED, demand).holds_p95:
            return plan.gpus
        tokens_per_s *= 1.03
    return None
