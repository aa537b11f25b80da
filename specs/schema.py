"""The data model of a scenario. Frozen, no unknown fields; sizes and rates carry their unit in the name.

GB is 1e9 bytes and GiB is 2**30 bytes; bandwidths are per direction. Properties without a unit suffix in the file
give SI units: bytes, bytes/s, FLOP/s, seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.architecture import (
    Attention,
    DataTypes,
    GqaAttention,
    MlaAttention,
    Model,
    Moe,
    Published,
    SlidingWindow,
)
from specs.fields import (
    BITS,
    MAX_COUNT,
    MAX_EXPERTS,
    MAX_GPU_EXPERT_PAIRS,
    MAX_GPUS,
    MAX_ROUTER_CHOICES,
    Count,
    DataType,
    Degree,
    Name,
    Positive,
    Share,
    Spec,
    Text,
    bytes_of,
)

__all__ = [
    "BITS",
    "MAX_COUNT",
    "Attention",
    "Cluster",
    "DataType",
    "DataTypes",
    "Dispatch",
    "Engine",
    "Gpu",
    "GqaAttention",
    "Link",
    "MessageRule",
    "MlaAttention",
    "Model",
    "Moe",
    "Phase",
    "Pins",
    "PlannedPhase",
    "Published",
    "Recompute",
    "Scenario",
    "Schedule",
    "ServingWorkload",
    "SlidingWindow",
    "Spec",
    "SyntheticRouting",
    "TrainingWorkload",
    "Workload",
    "bytes_of",
]

Dispatch = Literal["even", "nearest", "planned"]
MessageRule = Literal["per_expert", "per_rank", "per_node"]
Phase = Literal["prefill", "decode", "train"]
#: What a plan is made for: one phase, or those of aggregated serving together.
PlannedPhase = Literal["serving", "prefill", "decode", "train"]
Engine = Literal["vllm", "sglang", "trtllm"]
#: Order in which a stage runs the passes of its microbatches (docs/cost-model.md, "Training").
Schedule = Literal["gpipe", "1f1b", "interleaved", "zb_h1", "dualpipe", "dualpipe_v"]
#: What of a layer's activations is computed again in the backward pass.
Recompute = Literal["none", "selective", "full"]


class Gpu(Spec):
    """One accelerator: capacity, and dense (not sparse) peak rates."""

    name: Name
    #: Architecture, such as hopper; tells which measurements calibrate the cost model.
    generation: Name | None = None
    hbm_gib: Positive
    hbm_gb_per_s: Positive
    peak_tflops: dict[DataType, Positive]
    source: Text = ""

    @property
    def hbm_bytes(self) -> float:
        return self.hbm_gib * 2**30

    @property
    def hbm_bytes_per_s(self) -> float:
        return self.hbm_gb_per_s * 1e9

    def peak_flops(self, data_type: DataType) -> float:
        """Dense FLOP/s in `data_type`; a type the chip has no unit for runs in the next wider one it has."""
        wider: dict[DataType, tuple[DataType, ...]] = {
            "mxfp4": ("mxfp4", "nvfp4", "fp8", "bf16"),
            "nvfp4": ("nvfp4", "mxfp4", "fp8", "bf16"),
            "int4": ("int4", "int8", "bf16"),
            "fp8": ("fp8", "bf16"),
            "int8": ("int8", "bf16"),
            "fp16": ("fp16", "bf16"),
            "bf16": ("bf16", "fp16"),
            "fp32": ("fp32",),
        }
        for candidate in wider[data_type]:
            if candidate in self.peak_tflops:
                return self.peak_tflops[candidate] * 1e12
        raise ValueError(f"{self.name} states no peak rate for {data_type} or a wider type")

    @model_validator(mode="after")
    def _has_a_wide_type(self) -> Gpu:
        if not {"bf16", "fp16"} & set(self.peak_tflops):
            raise ValueError("peak_tflops needs bf16 or fp16; add one")
        return self


class Link(Spec):
    """One level's links, as one GPU sees them in one direction."""

    gb_per_s: Positive
    latency_us: Positive
    #: Achieved share of the nominal bandwidth for large messages.
    efficiency: Share = 1.0
    source: Text = ""

    @property
    def bytes_per_s(self) -> float:
        """Achieved bytes/s per GPU and direction."""
        return self.gb_per_s * 1e9 * self.efficiency

    @property
    def latency_s(self) -> float:
        return self.latency_us * 1e-6


class Cluster(Spec):
    """GPU -> tray (GPUs that share NICs) -> node (one fast-link domain) -> cluster."""

    name: Name
    summary: Text = ""
    gpu: Gpu
    nodes: Degree
    gpus_per_node: Degree
    #: GPUs that share their NICs: a NIC group carries gpus_per_tray times the per-GPU rate of `slow`.
    gpus_per_tray: Degree = 1
    fast: Link
    slow: Link

    @model_validator(mode="after")
    def _sizes_divide(self) -> Cluster:
        if self.gpus_per_node % self.gpus_per_tray:
            raise ValueError(
                f"gpus_per_node {self.gpus_per_node} is not a multiple of gpus_per_tray {self.gpus_per_tray}; "
                "change one of them"
            )
        if self.gpus > MAX_GPUS:
            raise ValueError(f"nodes x gpus_per_node is {self.gpus} GPUs; at most {MAX_GPUS} are planned")
        return self

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


class ServingWorkload(Spec):
    """Requests of ISL input and OSL output tokens, under service-level objectives."""

    kind: Literal["serving"]
    name: Name
    summary: Text = ""
    isl: Count
    osl: Count
    ttft_ms: Positive
    tpot_ms: Positive
    #: Tokens in flight per GPU when expert placement is priced: a prefill chunk, and a decode batch.
    prefill_tokens_per_gpu: Count = 4096
    decode_tokens_per_gpu: Count = 128


class TrainingWorkload(Spec):
    """A training step."""

    kind: Literal["training"]
    name: Name
    summary: Text = ""
    global_batch: Count
    sequence: Count
    microbatch: Count = 1
    #: Bytes per parameter of optimizer state and master weights (Adam with fp32 master: 12).
    optimizer_bytes_per_parameter: Positive = 12.0
    gradient_bytes_per_parameter: Positive = 4.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    #: "auto": chosen for each layer under HBM, at the least time.
    recompute: Recompute | Literal["auto"] = "full"
    schedule: Schedule = "1f1b"
    #: Model chunks of a stage under the interleaved schedule.
    chunks: Annotated[int, Field(ge=2, le=64, strict=True)] = 2


Workload = Annotated[ServingWorkload | TrainingWorkload, Field(discriminator="kind")]


class Pins(Spec):
    """Degrees that are fixed; what is None is solved."""

    tp: Degree | None = None
    ep: Degree | None = None
    pp: Degree | None = None
    dp: Degree | None = None
    batch: Count | None = None


class SyntheticRouting(Spec):
    """Knobs of the seeded routing synthesizer, for a model without a recording (see docs/routing.md)."""

    #: Largest over mean expert load in a layer.
    skew: Annotated[float, Field(ge=1, le=64, allow_inf_nan=False, strict=True)] = 4.5
    #: 0: experts fire independently of each other; 1: as strongly together as in the recorded traces.
    coactivation: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False, strict=True)] = 1.0
    tokens: Annotated[int, Field(ge=16, le=1_000_000, strict=True)] = 8192
    sequences: Annotated[int, Field(ge=2, le=100_000, strict=True)] = 64

    @model_validator(mode="after")
    def _sequences_have_tokens(self) -> SyntheticRouting:
        if self.sequences > self.tokens:
            raise ValueError(f"sequences {self.sequences} is more than tokens {self.tokens}; lower sequences")
        return self


class Scenario(Spec):
    """One planning question: a model, on a cluster, for a workload."""

    name: Name
    summary: Text = ""
    aliases: Annotated[tuple[Name, ...], Field(max_length=32)] = ()
    model: Model
    cluster: Cluster
    workload: Workload
    pins: Pins = Pins()
    redundant: Annotated[int, Field(ge=0, le=MAX_EXPERTS, strict=True)] | Literal["auto"] = "auto"
    dispatch: Dispatch = "even"
    message_rule: MessageRule = "per_node"
    #: All copies of a group's experts lie on one node (models with group-limited routing).
    keep_groups: Annotated[bool, Field(strict=True)] = False
    #: "none": dispatch, experts and combine one after the other; "two_batch": two half-batches hide each other.
    overlap: Literal["none", "two_batch"] = "none"
    #: The serving engine, where it is known: calibrates the cost model's fixed costs.
    engine: Engine | None = None
    routing: SyntheticRouting = SyntheticRouting()
    #: HBM kept for the framework, CUDA context and graphs, fragmentation.
    reserve_gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False, strict=True)] = 6.0

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
        if (pins.pp or 1) > self.model.layers:
            raise ValueError(f"pins.pp {pins.pp} is more than the model's {self.model.layers} layers; lower pins.pp")
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
        choices = len(self.model.moe_layers) * self.routing.tokens * moe.top_k
        if choices > MAX_ROUTER_CHOICES:
            raise ValueError(
                f"routing.tokens x MoE layers x top_k is {choices}, at most {MAX_ROUTER_CHOICES} are synthesized; "
                "lower routing.tokens"
            )
        return self

    @model_validator(mode="after")
    def _fits_the_context(self) -> Scenario:
        longest = self.workload.isl + self.workload.osl if self.workload.kind == "serving" else self.workload.sequence
        if self.model.context is not None and longest > self.model.context:
            raise ValueError(
                f"workload's sequences of {longest} tokens are longer than the model's context {self.model.context}; "
                "shorten the workload or raise model.context"
            )
        return self
