"""The data model of a scenario. Frozen, no unknown fields; sizes and rates carry their unit in the name.

GB is 1e9 bytes and GiB is 2**30 bytes; bandwidths are per direction. Properties without a unit suffix in the file
give SI units: bytes, bytes/s, FLOP/s, seconds.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DataType = Literal["fp32", "bf16", "fp16", "fp8", "int8", "mxfp4", "nvfp4", "int4"]
Dispatch = Literal["even", "nearest", "planned"]
MessageRule = Literal["per_expert", "per_rank", "per_node"]
Phase = Literal["prefill", "decode", "train"]

#: Upper limit of every count in a spec: beyond it a typing error is likelier than a real system.
MAX_COUNT = 10_000_000
Count = Annotated[int, Field(ge=1, le=MAX_COUNT, strict=True)]
Index = Annotated[int, Field(ge=0, le=MAX_COUNT, strict=True)]
Positive = Annotated[float, Field(gt=0, le=1e9, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=200)]

BITS: dict[DataType, float] = {
    "fp32": 32,
    "bf16": 16,
    "fp16": 16,
    "fp8": 8,
    "int8": 8,
    # 4-bit elements and one 8-bit scale for each block of 32 (mxfp4) or 16 (nvfp4).
    "mxfp4": 4.25,
    "nvfp4": 4.5,
    "int4": 4.25,
}


def bytes_of(data_type: DataType) -> float:
    """Bytes of one element, block scales counted in."""
    return BITS[data_type] / 8


class Spec(BaseModel):
    """Base of every record: immutable, and a field that is not known is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class GqaAttention(Spec):
    """Grouped-query attention; multi-head attention is the case kv_heads == query_heads."""

    kind: Literal["gqa"]
    query_heads: Count
    kv_heads: Count
    head_dim: Count
    bias: bool = False
    qk_norm: bool = False
    sinks: bool = False

    @model_validator(mode="after")
    def _heads_divide(self) -> GqaAttention:
        if self.query_heads % self.kv_heads:
            raise ValueError(f"query_heads {self.query_heads} is not a multiple of kv_heads {self.kv_heads}")
        return self


class MlaAttention(Spec):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): a compressed KV vector and one shared rotary key."""

    kind: Literal["mla"]
    heads: Count
    q_rank: Count | None = None
    kv_rank: Count
    rope_dim: Count
    nope_dim: Count
    value_dim: Count


Attention = Annotated[GqaAttention | MlaAttention, Field(discriminator="kind")]


class SlidingWindow(Spec):
    """Layers whose index modulo `period` is in `layers` attend only to the last `window` tokens."""

    window: Count
    period: Count = 1
    layers: tuple[Index, ...] = (0,)


class Moe(Spec):
    """The mixture-of-experts feed-forward block."""

    experts: Count
    top_k: Count
    expert_width: Count
    shared_experts: Index = 0
    shared_width: Count | None = None
    groups: Count = 1
    top_groups: Count = 1
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    shared_gate: bool = False

    @model_validator(mode="after")
    def _choice_is_possible(self) -> Moe:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than experts {self.experts}")
        if self.experts % self.groups:
            raise ValueError(f"experts {self.experts} is not a multiple of groups {self.groups}")
        if self.top_groups > self.groups:
            raise ValueError(f"top_groups {self.top_groups} is more than groups {self.groups}")
        return self


class DataTypes(Spec):
    """What each part is stored, computed and sent in."""

    attention: DataType = "bf16"
    dense: DataType = "bf16"
    experts: DataType = "bf16"
    embedding: DataType = "bf16"
    kv_cache: DataType = "bf16"
    #: What the matrix units multiply expert activations in.
    compute: DataType = "bf16"
    dispatch: DataType = "bf16"
    combine: DataType = "bf16"


class Published(Spec):
    """Parameter counts as published, in billions, with their source; tests hold the computed counts against them."""

    total_b: Positive
    active_b: Positive
    source: str


class Model(Spec):
    """A transformer with mixture-of-experts layers, by its true dimensions."""

    name: Name
    layers: Count
    hidden: Count
    vocabulary: Count
    attention: Attention
    moe: Moe
    #: Indices of the layers whose feed-forward block is dense.
    dense_layers: tuple[Index, ...] = ()
    dense_width: Count | None = None
    tied_embedding: bool = False
    sliding: SlidingWindow | None = None
    types: DataTypes = DataTypes()
    #: Whether the published active count leaves the input embedding out (a look-up, not a product).
    published: Published | None = None
    context: Count | None = None

    @model_validator(mode="after")
    def _layers_fit(self) -> Model:
        if len(set(self.dense_layers)) != len(self.dense_layers):
            raise ValueError("dense_layers names a layer twice")
        if self.dense_layers and max(self.dense_layers) >= self.layers:
            raise ValueError(f"dense_layers names layer {max(self.dense_layers)}, but layers is {self.layers}")
        if len(self.dense_layers) == self.layers:
            raise ValueError("every layer is dense: this is no mixture-of-experts model")
        if self.dense_layers and self.dense_width is None:
            raise ValueError("dense_layers needs dense_width")
        return self

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """The model's own indices of its MoE layers, ascending."""
        dense = set(self.dense_layers)
        return tuple(i for i in range(self.layers) if i not in dense)


class Gpu(Spec):
    """One accelerator: capacity, and dense (not sparse) peak rates."""

    name: Name
    hbm_gib: Positive
    hbm_gb_per_s: Positive
    peak_tflops: dict[DataType, Positive]
    source: str = ""

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
            raise ValueError("peak_tflops needs bf16 or fp16")
        return self


class Link(Spec):
    """One level's links, as one GPU sees them in one direction."""

    gb_per_s: Positive
    latency_us: Positive
    #: Achieved share of the nominal bandwidth for large messages.
    efficiency: Share = 1.0
    source: str = ""

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
    gpu: Gpu
    nodes: Count
    gpus_per_node: Count
    #: GPUs that share their NICs: a NIC group carries gpus_per_tray times the per-GPU rate of `slow`.
    gpus_per_tray: Count = 1
    fast: Link
    slow: Link

    @model_validator(mode="after")
    def _sizes_divide(self) -> Cluster:
        if self.gpus_per_node % self.gpus_per_tray:
            raise ValueError(
                f"gpus_per_node {self.gpus_per_node} is not a multiple of gpus_per_tray {self.gpus_per_tray}"
            )
        if self.gpus > 65_536:
            raise ValueError(f"nodes x gpus_per_node is {self.gpus}; at most 65536 GPUs are planned")
        return self

    @property
    def gpus(self) -> int:
        return self.nodes * self.gpus_per_node


class ServingWorkload(Spec):
    """Requests of ISL input and OSL output tokens, under service-level objectives."""

    kind: Literal["serving"]
    name: Name
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
    global_batch: Count
    sequence: Count
    microbatch: Count = 1
    #: Bytes per parameter of optimizer state and master weights (Adam with fp32 master: 12).
    optimizer_bytes_per_parameter: Positive = 12.0
    gradient_bytes_per_parameter: Positive = 4.0
    zero_stage: Literal[0, 1, 2, 3] = 1
    recompute: Literal["none", "full"] = "full"


Workload = Annotated[ServingWorkload | TrainingWorkload, Field(discriminator="kind")]


class Pins(Spec):
    """Degrees that are fixed; what is None is solved."""

    tp: Count | None = None
    ep: Count | None = None
    pp: Count | None = None
    dp: Count | None = None
    batch: Count | None = None


class SyntheticRouting(Spec):
    """Knobs of the seeded routing synthesizer, for a model without a recording (see docs/routing.md)."""

    #: Largest over mean expert load in a layer.
    skew: Annotated[float, Field(ge=1, le=64, allow_inf_nan=False)] = 4.5
    #: 0: experts fire independently of each other; 1: as strongly together as in the recorded traces.
    coactivation: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] = 1.0
    tokens: Annotated[int, Field(ge=16, le=1_000_000, strict=True)] = 4096
    sequences: Annotated[int, Field(ge=2, le=100_000, strict=True)] = 64


class Scenario(Spec):
    """One planning question: a model, on a cluster, for a workload."""

    name: Name
    aliases: tuple[Name, ...] = ()
    model: Model
    cluster: Cluster
    workload: Workload
    pins: Pins = Pins()
    redundant: Index | Literal["auto"] = "auto"
    dispatch: Dispatch = "even"
    message_rule: MessageRule = "per_node"
    #: "none": dispatch, experts and combine one after the other; "two_batch": two half-batches hide each other.
    overlap: Literal["none", "two_batch"] = "none"
    routing: SyntheticRouting = SyntheticRouting()
    #: HBM kept for the framework, CUDA context and graphs, fragmentation.
    reserve_gib: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] = 6.0
