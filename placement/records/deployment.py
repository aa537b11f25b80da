"""A deployment: which instances to run in which nodes, as `placement deploy` writes it (docs/formats.md)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from placement.records.base import Amount, Record, Text
from placement.records.demand import DemandRecord
from placement.records.layout import EngineName
from placement.records.plan import LayerStatus
from specs.fields import Count, Degree

SCHEMA: Literal["placement.deployment/1"] = "placement.deployment/1"


class PoolRecord(Record):
    """GPUs of one kind."""

    name: Text
    nodes: Degree
    gpus_per_node: Degree
    gpus: Degree


class InstanceRecord(Record):
    """Instances of one kind: role, pool, how many, and the split of each."""

    role: Literal["aggregated", "prefill", "decode"]
    pool: Text
    count: Degree
    gpus: Degree
    tp: Degree
    ep: Degree
    etp: Degree
    pp: Degree
    dp: Degree
    #: Attention ranks that share a prompt (context parallelism).
    cp: Degree
    batch: Count
    redundant: Annotated[int, Field(ge=0)]
    slots_per_gpu: Annotated[int, Field(ge=1)]
    requests_per_s: Amount
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    #: How the MoE layers in its figures were timed.
    moe_layer: Text
    #: Times of placed MoE layers over the balanced estimate, by phase.
    prefill_moe_ratio: Amount = 1.0
    decode_moe_ratio: Amount = 1.0

    @property
    def degrees(self) -> str:
        """The degrees that are not 1, for people."""
        named = (("TP", self.tp), ("EP", self.ep), ("PP", self.pp), ("DP", self.dp), ("CP", self.cp))
        return " ".join(f"{name}{degree}" for name, degree in named if degree > 1) or "on one GPU"


class HeldRecord(Record):
    """What a node holds: instances (or parts of one) by their index in `instances`, on so many of its GPUs."""

    instance: Annotated[int, Field(ge=0)]
    gpus: Degree
    count: Degree


class NodesRecord(Record):
    """Nodes of a pool that hold the same."""

    pool: Text
    nodes: Degree
    holds: tuple[HeldRecord, ...]


class DeploymentCertificate(Record):
    """How far the choice of instances can be from the best among the columns priced."""

    goal: Literal["rate", "gpus"]
    bound: Amount
    gap: Amount
    status: LayerStatus
    solver: Text


class AnswerRecord(Record):
    """The deployment under one TPOT limit."""

    tpot_limit_ms: Amount
    tokens_per_s: Amount
    tokens_per_s_per_gpu: Amount
    requests_per_s: Amount
    gpus: Annotated[int, Field(ge=0)]
    ttft_ms: Amount | None
    tpot_ms: Amount | None
    certificate: DeploymentCertificate
    instances: tuple[InstanceRecord, ...]
    nodes: tuple[NodesRecord, ...]


class DroppedRecord(Record):
    """Columns that were left out."""

    role: Text
    reason: Text
    count: Count


class ColumnsRecord(Record):
    """What the master problem chose among."""

    considered: Annotated[int, Field(ge=0)]
    kept: Annotated[int, Field(ge=0)]
    thinned: bool
    dropped: tuple[DroppedRecord, ...]


class Deployment(Record):
    """A deployment of a serving scenario: one answer, or the front by TPOT limit."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    schema_: Annotated[Literal["placement.deployment/1"], Field(alias="schema")]
    scenario: Text
    engine: EngineName
    mode: Literal["aggregated", "disaggregated", "mixed"]
    target_tokens_per_s: Amount | None
    placed: bool
    pools: tuple[PoolRecord, ...]
    answers: Annotated[tuple[AnswerRecord, ...], Field(min_length=1)]
    columns: ColumnsRecord
    #: What the last answer does under the demand that was asked for.
    demand: DemandRecord | None = None

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(pool.gpus for pool in self.pools)

    def __repr__(self) -> str:
        last = self.answers[-1]
        kinds = ", ".join(f"{each.count} {each.role} {each.degrees}" for each in last.instances)
        return f"<Deployment {last.tokens_per_s:,.0f} tokens/s on {last.gpus:,} of {self.gpus:,} GPUs: {kinds}>"

    __str__ = __repr__

    def json(self) -> str:  # type: ignore[override]
        """The deployment as JSON text."""
        return self.model_dump_json(by_alias=True, indent=1)
