"""Splits chosen for deployments that their operators describe, next to what they ran.

What is not published is assumed, and said so: lengths at which the published rates of prefill and decode balance, and
so many clients as the published decode holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.accuracy.settings import checkpoint, priced_as
from bench.split_choice.choose import ROLES, priced
from bench.split_choice.reason import difference
from bench.split_choice.recipes import Workers
from solvers.deploy.clients import Serving, best_serving, list_servers
from solvers.deploy.columns import pool_of
from specs.loading import generic_engine, load_cluster, load_model
from specs.scenario import Scenario
from specs.workload import ServingWorkload


@dataclass(frozen=True)
class Ran:
    """A deployment that is described.

    Attributes:
        precision: of the checkpoint. isl, osl, prefix_hit, clients: what it serves. workers: what was run.
        tokens_per_s: published: output of all decode GPUs.
        source: where it is described, and what is assumed.
    """

    name: str
    cluster: str
    nodes: int
    engine: str
    precision: str
    isl: int
    osl: int
    prefix_hit: float
    clients: int
    workers: tuple[Workers, ...]
    tokens_per_s: float
    source: str

    @property
    def gpus(self) -> int:
        """GPUs of what was run."""
        return sum(each.count * each.gpus for each in self.workers)

    @property
    def scenario(self) -> Scenario:
        """The question: clients wait as long as it takes; two half batches hide each other's messages, as they ran."""
        cluster = load_cluster(self.cluster).model_copy(update={"nodes": self.nodes})
        workload = ServingWorkload(
            kind="serving", name="clients", isl=self.isl, osl=self.osl, ttft_ms=1e9, tpot_ms=1e9,
            prefix_hit=self.prefix_hit,
        )  # fmt: skip
        # As published throughputs are priced: engines' default limits are not those that were run.
        engine = priced_as("sglang") if self.engine == "sglang" else generic_engine()
        model = checkpoint(load_model("deepseek_r1"), self.precision)
        return Scenario(
            name=self.name, model=model, cluster=cluster, workload=workload, engine=engine, overlap="two_batch"
        )


_BLOG = "github.com/lm-sys/lm-sys.github.io, blog"
RAN = (
    Ran(
        "DeepSeek, H800", "h800_2048_ib", 30, "generic", "fp8", 4385, 1208, 0.563, 13_500,
        (Workers("prefill", 3, "DEP32"), Workers("decode", 1, "DEP144")), 266_400.0,
        "open-infra-index, day 6: 608e9 tokens in (56.3% cached) and 168e9 out a day, 4,989 stored tokens, 20-22 "
        "tokens/s a user; assumed: 3 prefill units for one of decode, as the rates a node balance",
    ),
    Ran(
        "SGLang, 96 H100", "h100_hgx_ib", 13, "sglang", "fp8", 2000, 1840, 0.0, 19_000,
        (Workers("prefill", 1, "DEP32"), Workers("decode", 1, "DEP72")), 200_538.0,
        f"{_BLOG} 2025-05-05: prefill and decode measured apart, 256 a rank; assumed: answers as long as balances them",
    ),
    Ran(
        "SGLang, GB200, fp8", "gb200_nvl72_ib", 1, "sglang", "fp8", 2000, 2000, 0.0, 38_000,
        (Workers("prefill", 6, "DEP4"), Workers("decode", 1, "DEP48")), 436_176.0,
        f"{_BLOG} 2025-09-25: measured apart; assumed: 768 a rank, 6 prefill instances, as the rates balance",
    ),
    Ran(
        "SGLang, GB200, nvfp4", "gb200_nvl72_ib", 1, "sglang", "fp4", 2000, 2000, 0.0, 69_000,
        (Workers("prefill", 6, "DEP4"), Workers("decode", 1, "DEP48")), 642_528.0,
        f"{_BLOG} 2025-09-25: measured apart, 1,408 a rank, prefill on DEP 2, which does not hold this checkpoint "
        "here; assumed: as many GPUs prefill as the rates balance",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """A deployment next to the planner's own.

    Attributes:
        theirs: None where it has no price, and then why.
    """

    ran: Ran
    ours: Serving | None
    theirs: Serving | None
    why: str

    @property
    def gain(self) -> float | None:
        """Requests/s of ours over theirs."""
        if self.ours is None or self.theirs is None or not self.theirs.requests_per_s:
            return None
        return self.ours.requests_per_s / self.theirs.requests_per_s


def deployments(told: Callable[[str], None]) -> tuple[Beside, ...]:
    """Every described deployment next to the planner's own on as many GPUs.

    Args:
        told: gets each name.
    """
    found = []
    for ran in RAN:
        told(ran.name)
        scenario = ran.scenario
        servers = list_servers(scenario, ROLES["disagg"])
        ours = best_serving(servers, ran.clients, pool_of(scenario), ran.gpus)
        theirs, why = priced(scenario, ran.workers, ran.clients)
        if ours is not None and theirs is not None:
            why = difference(scenario, servers, ran.clients, ran.gpus, ours, theirs).words
        found.append(Beside(ran, ours, theirs, why))
    return tuple(found)
