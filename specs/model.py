"""A mixture-of-experts transformer by its dimensions: attention, experts, data types, published parameter counts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from specs.fields import (
    MAX_LAYERS,
    MAX_PARAMETERS,
    Count,
    DataType,
    Experts,
    Flag,
    Heads,
    LayerIndex,
    Layers,
    Name,
    Positive,
    Spec,
    Text,
    TopK,
    Width,
)


class GqaAttention(Spec):
    """Grouped-query attention; multi-head attention is the case kv_heads == query_heads."""

    kind: Literal["gqa"]
    query_heads: Heads
    kv_heads: Heads
    head_dim: Width
    #: Bias of the query, key and value projections, and of the output projection.
    bias: Flag = False
    output_bias: Flag = False
    #: Query and key norms; their weights span one head (shared by all heads) or all heads.
    qk_norm: Flag = False
    qk_norm_span: Literal["head", "all_heads"] = "head"
    #: One learned sink logit per query head.
    sinks: Flag = False

    @model_validator(mode="after")
    def _heads_divide(self) -> GqaAttention:
        if self.query_heads % self.kv_heads:
            raise ValueError(
                f"query_heads {self.query_heads} is not a multiple of kv_heads {self.kv_heads}; change one of them"
            )
        return self


class MlaAttention(Spec):
    """Multi-head latent attention (DeepSeek-V2, section 2.1): a compressed KV vector and one shared rotary key."""

    kind: Literal["mla"]
    heads: Heads
    q_rank: Width | None = None
    kv_rank: Width
    rope_dim: Width
    nope_dim: Width
    value_dim: Width
    #: Bias of the down-projections and of the output projection.
    bias: Flag = False


Attention = Annotated[GqaAttention | MlaAttention, Field(discriminator="kind")]


class SlidingWindow(Spec):
    """Layers whose index modulo `period` is in `layers` attend only to the last `window` tokens."""

    window: Count
    period: Layers = 1
    layers: Annotated[tuple[LayerIndex, ...], Field(min_length=1, max_length=MAX_LAYERS)] = (0,)

    @model_validator(mode="after")
    def _layers_are_in_the_period(self) -> SlidingWindow:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("layers names a layer twice; name each once")
        if max(self.layers) >= self.period:
            raise ValueError(f"layers names {max(self.layers)}, but period is {self.period}; stay below the period")
        return self


class Moe(Spec):
    """The mixture-of-experts feed-forward block."""

    experts: Experts
    top_k: TopK
    expert_width: Width
    shared_experts: Annotated[int, Field(ge=0, le=1_024, strict=True)] = 0
    #: Width of one shared expert; expert_width where it is not given.
    shared_width: Width | None = None
    groups: Experts = 1
    top_groups: Experts = 1
    #: Three matrices (gate, up, down), as in SwiGLU, or two; dense layers alike.
    gated: Flag = True
    #: Bias of the experts' projections, and of the router (or its load-balancing correction).
    bias: Flag = False
    router_bias: Flag = False
    #: A learned scalar gate on the shared expert's output.
    shared_gate: Flag = False

    @model_validator(mode="after")
    def _choice_is_possible(self) -> Moe:
        if self.top_k > self.experts:
            raise ValueError(f"top_k {self.top_k} is more than experts {self.experts}; lower top_k or raise experts")
        if self.experts % self.groups:
            raise ValueError(f"experts {self.experts} is not a multiple of groups {self.groups}; change one of them")
        if self.top_groups > self.groups:
            raise ValueError(f"top_groups {self.top_groups} is more than groups {self.groups}; lower top_groups")
        reachable = self.experts // self.groups * self.top_groups
        if self.top_k > reachable:
            raise ValueError(
                f"top_k {self.top_k} is more than the {reachable} experts of top_groups {self.top_groups}; "
                "lower top_k or raise top_groups"
            )
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
    active_b: Positive | None = None
    #: What active_b counts: some sources leave out the input embedding (looked up, not multiplied), some the output
    #: head as well.
    active_counts_embedding: Flag = True
    active_counts_head: Flag = True
    #: Half a unit of active_b's last digit; given only where no figure exact to 1% is published.
    active_rounding_b: Positive | None = None
    source: Text


class Model(Spec):
    """A transformer with mixture-of-experts layers, by its true dimensions."""

    name: Name
    summary: Text = ""
    layers: Layers
    hidden: Width
    vocabulary: Count
    attention: Attention
    moe: Moe
    #: Indices of the layers whose feed-forward block is dense.
    dense_layers: Annotated[tuple[LayerIndex, ...], Field(max_length=MAX_LAYERS)] = ()
    dense_width: Width | None = None
    #: The output head is the input embedding's matrix.
    tied_embedding: Flag = False
    sliding: SlidingWindow | None = None
    types: DataTypes = DataTypes()
    published: Published | None = None
    #: Longest sequence in tokens.
    context: Count | None = None

    @model_validator(mode="after")
    def _layers_fit(self) -> Model:
        if len(set(self.dense_layers)) != len(self.dense_layers):
            raise ValueError("dense_layers names a layer twice; name each once")
        if self.dense_layers and max(self.dense_layers) >= self.layers:
            raise ValueError(
                f"dense_layers names layer {max(self.dense_layers)}, but layers is {self.layers}; count from 0"
            )
        if len(self.dense_layers) == self.layers:
            raise ValueError("every layer is dense: this is no mixture-of-experts model; leave MoE layers")
        if self.dense_layers and self.dense_width is None:
            raise ValueError("dense_layers needs dense_width; add it")
        widest = max(self.moe.experts * self.moe.expert_width, self.dense_width or 0)
        if self.layers * self.hidden * widest > MAX_PARAMETERS:
            raise ValueError(
                f"layers x hidden x experts x expert_width is over {MAX_PARAMETERS:.0e} parameters; check the sizes"
            )
        return self

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """The model's own indices of its MoE layers, ascending."""
        dense = set(self.dense_layers)
        return tuple(i for i in range(self.layers) if i not in dense)
