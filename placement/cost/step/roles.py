"""What one instance yields in its role: serving whole requests, or their prefill or decode half (disaggregated)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from placement.cost.memory.draft import draft_kv_bytes
from placement.cost.memory.local import stored_bytes, total_of
from placement.cost.step.collectives import all_gather_s
from placement.cost.step.throughput import PrefillPass, ServingModel
from placement.problem.limits import Limit
from placement.problem.pieces import stage_shapes
from placement.problem.split import Split, sharing_degrees
from specs.cluster import Cluster
from specs.scenario import Scenario

Role = Literal["aggregated", "prefill", "decode"]

#: A prefill instance is never planned busier than this, however loose the TTFT: arrivals vary.
MOST_BUSY = 0.95


@dataclass(frozen=True)
class InstancePoint:
    """One instance in a role at one batch.

    Attributes:
        requests_per_s: requests that it serves, or whose half it serves.
        ttft_s: of a request; None for decode. tpot_s: likewise; None for prefill.
    """

    requests_per_s: float
    ttft_s: float | None
    tpot_s: float | None


@dataclass(frozen=True)
class RoleRate:
    """Instances of one kind in a deployment: their role, how many, GPUs of each, and what each yields."""

    role: Role
    count: int
    gpus: int
    point: InstancePoint
    nic_bytes_per_s: float


def kv_bytes_per_request(scenario: Scenario) -> float:
    """Bytes of KV cache that a prompt leaves behind, over all layers: what moves from prefill to decode.

    Sliding-window layers move what they keep. Of a prefix in the cache nothing moves where decode instances keep a
    prefix cache, too: they are taken to have what prefill has. Serving scenarios only; others move nothing.
    """
    workload, model = scenario.workload, scenario.model
    if workload.kind != "serving":
        return 0.0
    (shape,) = stage_shapes(model, 1)

    def stored(tokens: float) -> float:
        return total_of(stored_bytes(model, tokens), shape.counts) + draft_kv_bytes(scenario, tokens)

    if not workload.prefix_hit or not scenario.engine.decode_prefix_cache:
        return stored(workload.isl)
    return stored(workload.isl) - stored(workload.cached_tokens)


def transfer_bytes_per_s(cluster: Cluster) -> float:
    """Rate of one GPU's share of a KV transfer: across nodes, or inside the only node there is."""
    return cluster.slow.bytes_per_s if cluster.nodes > 1 else cluster.fast.bytes_per_s


def aggregated_point(model: ServingModel, batch: int) -> InstancePoint:
    """An instance that prefills and decodes whole requests."""
    point = model.at(batch)
    rate = point.tokens_per_s * model.split.dp / model.workload.osl
    return InstancePoint(rate, point.ttft_s, point.tpot_s)


def decode_point(model: ServingModel, batch: int) -> InstancePoint:
    """An instance that only decodes: each of `batch` sequences of an attention rank takes OSL steps."""
    step = model.decode_step_s(batch)
    return InstancePoint(batch * model.split.dp / (step * model.workload.osl), None, step)


def context_degrees(scenario: Scenario, split: Split) -> list[int]:
    """Numbers of attention ranks that may share a prompt (`sharing_degrees`), ascending.

    Of them the one that is pinned, if one is; none where it does not divide. 1 alone where the engine shares no
    prompts, or only pinned ones.
    """
    pinned, shares = scenario.pins.cp, scenario.engine.shares_prompts
    able = shares == "planned" or (shares == "pinned" and pinned is not None)
    found = sharing_degrees(scenario.cluster, split.tp, split.dp) if able else [1]
    return [cp for cp in found if pinned in (None, cp)]


def shared_pass(model: ServingModel, tokens: float, cp: int) -> PrefillPass:
    """A prefill pass of `tokens` on each of cp ranks that share a prompt.

    Each layer gathers the ranks' keys and values over the fast link, then every rank attends with its own queries;
    causal work is balanced over ranks (both ends of the prompt to each).
    """
    one = model.full_pass if tokens >= model.budget else model.prefill_pass(tokens)
    if cp == 1:
        return one
    scenario = model.passes.scenario
    gathers = [
        all_gather_s(scenario.cluster, model.efficiency, cp, size, model.split.tp) if size else 0.0
        for size in stored_bytes(scenario.model, tokens * cp, model.split.tp)
    ]
    stages = [(total_of(gathers, shape.counts), count) for shape, count in model.passes.stages]
    total, deepest = sum(seconds * count for seconds, count in stages), max(seconds for seconds, _ in stages)
    return PrefillPass(one.stages_s + total, one.slowest_s + deepest)


def prompt_alone_s(model: ServingModel, cp: int = 1) -> float:
    """Seconds to the first token of a prompt that meets no other in a prefill instance, its KV transfer included.

    Args:
        cp: attention ranks that share the prompt (context parallelism).
    """
    workload, split, scenario = model.workload, model.split, model.passes.scenario
    one = shared_pass(model, min(workload.computed_tokens / cp, model.budget), cp)
    count = max(1.0, workload.computed_tokens / (cp * model.budget))
    transfer = kv_bytes_per_request(scenario) / (split.tp * cp * split.pp * transfer_bytes_per_s(scenario.cluster))
    return model.first_token_s + one.stages_s + (count - 1) * one.slowest_s + transfer


@dataclass(frozen=True)
class PrefillQueue:
    """An instance that only prefills, as a queue: prompts arrive at random and are served in full passes.

    An M/D/1 queue (Pollaczek and Khinchine), whose mean wait at a utilization u is u / (2 (1 - u)) services.

    Attributes:
        alone_s: TTFT of a prompt that meets no other.
        service_s: that a prompt takes a rank, or cp ranks that share it.
        most_requests_per_s: of all ranks, with full passes.
    """

    alone_s: float
    service_s: float
    most_requests_per_s: float

    @classmethod
    def of(cls, model: ServingModel, cp: int = 1) -> PrefillQueue:
        """The queue of an instance whose prompts are shared by `cp` attention ranks."""
        workload, full = model.workload, shared_pass(model, model.budget, cp)
        return cls(
            alone_s=prompt_alone_s(model, cp),
            service_s=full.slowest_s * max(1.0, workload.computed_tokens / (cp * model.budget)),
            most_requests_per_s=model.split.dp * model.budget / (workload.computed_tokens * full.slowest_s),
        )

    def at(self, busy: float) -> InstancePoint:
        """The instance at a utilization below 1."""
        return InstancePoint(
            busy * self.most_requests_per_s, self.alone_s + busy / (2 * (1 - busy)) * self.service_s, None
        )


def most_prefill_requests_per_s(model: ServingModel) -> float:
    """Of an instance that only prefills, as busy as it is ever planned, however many ranks share a prompt: to gather
    keys and values takes time."""
    computed = model.workload.computed_tokens * model.full_pass.slowest_s
    return MOST_BUSY * model.split.dp * model.budget / computed


def prefill_point(model: ServingModel, ttft_s: float, cp: int = 1) -> InstancePoint | None:
    """An instance that only prefills, as busy as the TTFT allows; None where one prompt alone takes longer.

    The KV cache leaves over the ranks' own links before the first decode step. Sharing a prompt between cp ranks
    shortens it and its wait, and costs gathers.
    """
    queue = PrefillQueue.of(model, cp)
    spare = ttft_s - queue.alone_s
    if spare < 0:
        return None
    return queue.at(min(MOST_BUSY, 2 * spare / (queue.service_s + 2 * spare)))


def prefill_at(model: ServingModel, requests_per_s: float, cp: int = 1) -> InstancePoint:
    """An instance that only prefills, given so many requests/s; see `prefill_point`.

    Beyond MOST_BUSY it serves what MOST_BUSY allows: more would wait without end.
    """
    queue = PrefillQueue.of(model, cp)
    return queue.at(min(MOST_BUSY, requests_per_s / queue.most_requests_per_s))


def deployment_requests_per_s(kinds: Sequence[RoleRate], kv_bytes: float) -> float:
    """Requests/s of a deployment: whole ones, and as many in two halves as prefill, decode and the links between carry.

    Args:
        kv_bytes: of a request (kv_bytes_per_request); they leave over the prefill GPUs' links and come in over those of
            decode.
    """
    total = {role: sum(k.count * k.point.requests_per_s for k in kinds if k.role == role) for role in _ROLES}
    halves = min(total["prefill"], total["decode"])
    if kv_bytes > 0:
        for role in ("prefill", "decode"):
            links = sum(k.count * k.gpus * k.nic_bytes_per_s for k in kinds if k.role == role)
            halves = min(halves, links / kv_bytes)
    return total["aggregated"] + halves


_ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")


@dataclass(frozen=True)
class Handed:
    """Most requests/s that are handed to instances that decode, and what keeps them from being more."""

    requests_per_s: float
    by: Limit


def handed_over(prefill: Sequence[RoleRate], decode: RoleRate, kv_bytes: float) -> Handed:
    """What instances that prefill, and the links, hand to the only kind that decodes, however much that carries.

    Args:
        kv_bytes: See `deployment_requests_per_s`.
    """
    able = replace(decode, point=InstancePoint(math.inf, None, None))
    most = deployment_requests_per_s([*prefill, able], kv_bytes)
    made = sum(kind.count * kind.point.requests_per_s for kind in prefill)
    return Handed(most, "prefill" if most >= made else "links")
