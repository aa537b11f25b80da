"""The data model of a scenario. Frozen, no unknown fields; sizes and rates carry their unit in the name.

GB is 1e9 bytes and GiB is 2**30 bytes; bandwidths are per direction. Properties without a unit suffix in the file
give SI units: bytes, bytes/s, FLOP/s, seconds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from specs.cluster import Cluster
from specs.engine import Dispatch, Engine, MessageRule, Overlap
from specs.fields import (
    MAX_EXPERTS,
    MAX_GPU_EXPERT_PAIRS,
    MAX_ROUTER_CHOICES,
    Count,
    DataType,
    Degree,
    Name,
    Spec,
    Text,
)
from specs.model import Model
from specs.model_common import DataTypes
from specs.workload import Workload


class Pins(Spec):
    """Degrees that are fixed; what is None is solved."""

    tp: Degree | None = None
    """Tensor-parallel degree of attention."""
    ep: Degree | None = None
    """Expert-parallel degree."""
    pp: Degree | None = None
    """Pipeline stages."""
    dp: Degree | None = None
    """Data-parallel degree of attention in an instance."""
    batch: Annotated[Count, Field(json_schema_extra={"unit": "sequences"})] | None = None
    """Sequences per attention rank."""
    cp: Degree | None = None
    """Attention ranks that share a prompt (context parallelism), in instances that only prefill."""


class SyntheticRouting(Spec):
    """Knobs of the seeded routing synthesizer, for a model without a recording (see docs/routing.md)."""

    skew: Annotated[float, Field(ge=1, le=64, allow_inf_nan=False, strict=True)] = 4.5
    """Largest over mean expert load in a layer."""
    coactivation: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] = 1.0
    """How strongly experts fire together: 0 independently, 1 as in recorded traces."""
    tokens: Annotated[int, Field(ge=16, le=1_000_000, strict=True, json_schema_extra={"unit": "tokens"})] = 8192
    """Length of the synthesized trace."""
    sequences: Annotated[int, Field(ge=2, le=100_000, strict=True, json_schema_extra={"unit": "sequences"})] = 64
    """Sequences that the tokens are of."""

    @model_validator(mode="after")
    def _sequences_have_tokens(self) -> SyntheticRouting:
        if self.sequences > self.tokens:
            raise ValueError(f"sequences {self.sequences} is more than tokens {self.tokens}; lower sequences")
        return self


def _named_engine(value: Any) -> Any:
    """The engine of a name; None is the generic one."""
    if value is not None and not isinstance(value, str):
        return value
    from specs.loading import generic_engine, load_engine  # which reads scenarios, too

    return load_engine(value) if value else generic_engine()


class Scenario(Spec):
    """One planning question: a model, on a cluster, for a workload."""

    name: Name
    """What it is called on screens and in plans."""
    summary: Text = ""
    """One line about it."""
    aliases: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    """Other names in the catalog."""
    model: Model
    """What is served or trained."""
    cluster: Cluster
    """What it runs on."""
    workload: Workload
    """Requests and their objectives, or a training step."""
    pins: Pins = Pins()
    """Degrees that are fixed; what is not pinned is solved."""
    prefill_pins: Pins = Pins()
    """Degrees of instances that only prefill, where they differ from `pins`."""
    decode_pins: Pins = Pins()
    """Degrees of instances that only decode, where they differ from `pins`."""
    redundant: Annotated[int, Field(ge=0, le=MAX_EXPERTS, strict=True)] | Literal["auto"] = "auto"
    """Redundant experts (slots beyond one copy each) per MoE layer; auto: replicas are weighed against KV cache."""
    engine: Annotated[Engine, BeforeValidator(_named_engine)] = Field(default_factory=lambda: _named_engine(None))
    """The serving engine with its all-to-all backend."""
    dispatch: Dispatch | None = None
    """What experts are placed for: which copy of one serves a token (docs/formulation.md, "Dispatch"); unset: the
    engine's own rule, by which it serves whatever is asked here."""
    message_rule: MessageRule | None = None
    """What a token is sent once per; dense: every token to every GPU; unset: the engine's, for each phase."""
    overlap: Overlap | None = None
    """none: dispatch, experts and combine one after the other; two_batch: two half-batches hide each other; unset: the
    engine's."""
    keep_groups: Annotated[bool, Field(strict=True)] = False
    """All copies of a group's experts lie on one node (models with group-limited routing)."""
    routing: SyntheticRouting = SyntheticRouting()
    """Synthetic routing, used without a trace."""
    reserve_gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, strict=True)] | None = None
    """HBM of each GPU that is kept for the framework, CUDA context and graphs, and fragmentation; unset: the
    engine's."""
    degrees: Literal["usual", "any"] = "usual"
    """Degrees that are tried where none is pinned: usual: those that somebody runs; any: all that the engine loads."""

    @model_validator(mode="after")
    def _fits_the_cluster(self) -> Scenario:
        gpus, pins = self.cluster.gpus, self.pins
        for name in ("tp", "ep", "pp", "dp"):
            degree = getattr(pins, name)
            if degree is not None and degree > gpus:
                raise ValueError(f"pins.{name} {degree} is more than the cluster's {gpus} GPUs; lower pins.{name}")
        product = (pins.tp or 1) * (pins.pp or 1) * (pins.dp or 1)
        if product > gpus:
            raise ValueError(f"pins tp x pp x dp is {product}, but the cluster has {gpus} GPUs; lower a pin")
        if (pins.pp or 1) > self.model.whole_layers:
            raise ValueError(
                f"pins.pp {pins.pp} is more than the model's {self.model.whole_layers} layers; lower pins.pp"
            )
        if len({each.top_k for each in self.model.moes}) > 1:
            raise ValueError(
                f"the MoE layers of model {self.model.name} differ in top_k, which is not planned; give one"
            )
        moe = self.model.moe
        if self.keep_groups and moe.groups < 2:
            raise ValueError(f"keep_groups is set, but model {self.model.name} has no expert groups; unset keep_groups")
        if self.redundant != "auto" and self.redundant > moe.experts * (gpus - 1):
            raise ValueError(
                f"redundant {self.redundant} is more than {moe.experts} experts have room for on {gpus} GPUs (one copy "
                "of an expert per GPU); lower redundant"
            )
        if gpus * moe.experts > MAX_GPU_EXPERT_PAIRS:
            raise ValueError(
                f"GPUs x experts is {gpus * moe.experts}; at most {MAX_GPU_EXPERT_PAIRS} are planned; lower one of them"
            )
        choices = len(self.model.moe_layers) * self.routing.tokens * moe.computed_top_k
        if choices > MAX_ROUTER_CHOICES:
            raise ValueError(
                f"routing.tokens x MoE layers x top_k is {choices}, at most {MAX_ROUTER_CHOICES} are synthesized; "
                "lower routing.tokens"
            )
        return self

    @model_validator(mode="after")
    def _fits_the_engine(self) -> Scenario:
        engine, workload = self.engine, self.workload.kind
        if workload not in engine.workloads:
            raise ValueError(f"engine {engine.name} runs no {workload}; leave the engine out")
        if workload == "training" and not engine.cuda_graphs:
            raise ValueError("engine.cuda_graphs is off, which changes decode steps alone; leave it on in training")
        if self.overlap not in (None, *engine.overlaps):
            able = " or ".join(engine.overlaps)
            raise ValueError(f"overlap {self.overlap} is more than {engine.label} can do; choose {able}")
        stored = self.model.types.kv_cache
        if engine.kv_types is not None and stored not in engine.kv_types:
            able = " or ".join(engine.kv_types)
            raise ValueError(f"model.types.kv_cache {stored} is no type that {engine.label} stores; choose {able}")
        return self

    @model_validator(mode="after")
    def _pins_what_roles_have(self) -> Scenario:
        training = self.workload.kind == "training"
        if training and (self.prefill_pins != Pins() or self.decode_pins != Pins() or self.pins.cp is not None):
            raise ValueError("prefill_pins, decode_pins and pins.cp are of serving; leave them out in training")
        if self.decode_pins.cp is not None:
            raise ValueError("decode_pins.cp is set, but prompts are shared in prefill alone; pin prefill_pins.cp")
        if self.prefill_pins.batch is not None:
            raise ValueError("prefill_pins.batch is set, but a batch is of decode steps; pin decode_pins.batch")
        return self

    def of_role(self, role: str, cluster: Cluster | None = None) -> Scenario:
        """The scenario of a role's instances: with the role's pins, on their cluster (None: the scenario's)."""
        pinned = self.own_pins(role)
        if not pinned and cluster is None:
            return self
        pins = self.pins.model_copy(update=pinned)
        return self.model_copy(update={"pins": pins, "cluster": cluster or self.cluster})

    def own_pins(self, role: str) -> dict[str, int]:
        """What is pinned of a role's instances alone."""
        own = {"prefill": self.prefill_pins, "decode": self.decode_pins}.get(role, Pins())
        return {name: degree for name, degree in own if degree is not None}

    @property
    def dispatch_in_use(self) -> Dispatch:
        """Which copy of an expert serves a token."""
        return self.dispatch or self.engine.in_use.dispatch[0]

    @property
    def dispatch_served(self) -> Dispatch:
        """By which rule the engine serves: the one asked for, where it has it; else its own."""
        able = self.engine.in_use.dispatch
        return self.dispatch if self.dispatch is not None and self.dispatch in able else able[0]

    @property
    def overlap_in_use(self) -> Overlap:
        """How messages and experts overlap."""
        return self.overlap or self.engine.overlaps[0]

    @property
    def types(self) -> DataTypes:
        """The data types that the model runs in: its own, and where it leaves one open, the engine's."""
        own = self.model.types
        if own.compute is not None:
            return own
        found = self.engine.compute(own.experts, self.cluster.least_gpu.generation)
        return own.model_copy(update={"compute": found or own.multiplied})

    @property
    def dispatch_type(self) -> DataType:
        """What a token's hidden state is sent in on dispatch."""
        return self.model.types.dispatch if self.engine.in_use.quantizes else "bf16"

    @model_validator(mode="after")
    def _fits_the_context(self) -> Scenario:
        longest = self.workload.isl + self.workload.osl if self.workload.kind == "serving" else self.workload.sequence
        if self.model.context is not None and longest > self.model.context:
            raise ValueError(
                f"workload's sequences of {longest} tokens are longer than the model's context {self.model.context}; "
                "shorten the workload or raise model.context"
            )
        return self
