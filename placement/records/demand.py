"""What a deployment does under a demand, as a simulation found it (docs/cost-model.md, "Demand")."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from placement.records.base import Amount, Record, Whole
from specs.fields import Degree

#: A mean over its limit by no more than this is at it.
ALIKE = 1.02
#: Requests of a record, of a simulation, or in flight, at most.
MAX_REQUESTS = 1_000_000

DemandKind = Literal["random", "recorded", "closed_loop"]
ShareOf = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False, strict=True)]


class SpreadRecord(Record):
    """A figure over the requests, in milliseconds.

    Attributes:
        limit_ms: The workload's objective.
        planned_ms: The closed form at this load; None where it has no such load.
        error_ms: Half of the 95% interval of the mean.
        within: Share of requests at or below the limit.
    """

    limit_ms: Amount
    planned_ms: Amount | None
    mean_ms: Amount
    error_ms: Amount
    p50_ms: Amount
    p95_ms: Amount
    p99_ms: Amount
    within: ShareOf


class UseRecord(Record):
    """How busy the instances of one kind are, per server: an attention rank, or ranks that share prompts.

    Attributes:
        instance: Index of the role; kinds of which none was simulated are left out.
        servers: All of them. simulated: Those that were.
        waiting: Requests in line, on average. decoding: Sequences that decode, on average; fit: that the KV cache and
            the engine take.
        prefilling: Share of the time that its prefill passes take.
    """

    instance: Whole
    role: Literal["aggregated", "prefill", "decode"]
    servers: Degree
    simulated: Degree
    waiting: Amount
    decoding: Amount
    fit: Whole
    prefilling: Amount


class HoldRecord(Record):
    """What it takes to hold both limits at the 95th percentile.

    Attributes:
        share: Of the demand, so much this deployment serves so; 0 where none of it is light enough.
        gpus: That serve the whole demand so; None where those there are do not suffice, or all are in use.
    """

    share: ShareOf
    gpus: Whole | None


class DemandRecord(Record):
    """A simulated demand: who asked, what was served, how fast.

    Attributes:
        kind: Requests at random, as a record has them, or so many in flight at all times.
        recorded: Whether their lengths are of a record of requests, which the plan does not hold; else the workload's.
        load_balance: Which attention rank gets a request; see placement.cost.serving_sim.simulate.run.
        requests: About so many were to be simulated.
        asked_requests_per_s: None in a closed loop. in_flight: None elsewhere.
        isl, osl: Mean tokens of the requests.
        simulated, cut: Requests that came to the simulated servers, and how many of the first are left out because the
            run had not settled.
        grows: The line grows without end: more is asked than served.
        goodput_requests_per_s: Served within both limits.
        hold: None where the 95th percentile holds already.
    """

    kind: DemandKind
    recorded: bool
    load_balance: Literal["planned", "random", "round_robin", "least_loaded"]
    requests: Annotated[int, Field(ge=1, le=MAX_REQUESTS, strict=True)]
    asked_requests_per_s: Amount | None
    in_flight: Annotated[int, Field(ge=1, le=MAX_REQUESTS, strict=True)] | None
    isl: Amount
    osl: Amount
    simulated: Whole
    cut: Whole
    seconds: Amount
    grows: bool
    served_requests_per_s: Amount
    served_tokens_per_s: Amount
    goodput_requests_per_s: Amount
    ttft: SpreadRecord | None
    tpot: SpreadRecord | None
    use: tuple[UseRecord, ...]
    hold: HoldRecord | None = None

    @property
    def spreads(self) -> tuple[tuple[str, SpreadRecord], ...]:
        """The figures that there are, by name."""
        named = (("TTFT", self.ttft), ("TPOT", self.tpot))
        return tuple((name, spread) for name, spread in named if spread is not None)

    @property
    def holds_mean(self) -> bool:
        """Whether means are within the limits, to what a plan at its limits and a simulation of it may differ by."""
        return not self.grows and all(spread.mean_ms <= spread.limit_ms * ALIKE for _, spread in self.spreads)

    @property
    def holds_p95(self) -> bool:
        """Whether 95 of 100 requests are within each limit."""
        return not self.grows and all(spread.p95_ms <= spread.limit_ms for _, spread in self.spreads)
