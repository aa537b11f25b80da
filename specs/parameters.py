"""Parameter counts from a model's dimensions. Weight shapes are those of the models' published checkpoints.

Every count is a number of elements, not bytes: block scales of quantized weights are not parameters. Active means
what one token multiplies with: its top_k experts, and everything else but the input embedding, of which a token only
looks up a row. Publishers differ on that last point; `ParameterCounts.active_counting` follows either custom.
"""

from __future__ import annotations

from dataclasses import dataclass

from specs.model import GqaAttention, MlaAttention, Model


def attention_parameters(model: Model) -> int:
    """Parameters of one layer's attention block, with its biases, sinks and inner norms (not the layer norm)."""
    if isinstance(model.attention, GqaAttention):
        return _gqa_parameters(model.attention, model.hidden)
    return _mla_parameters(model.attention, model.hidden)


def _gqa_parameters(attention: GqaAttention, hidden: int) -> int:
    queries = attention.query_heads * attention.head_dim
    keys = attention.kv_heads * attention.head_dim
    count = hidden * (queries + 2 * keys) + queries * hidden
    if attention.bias:
        count += queries + 2 * keys
    if attention.output_bias:
        count += hidden
    if attention.qk_norm:
        count += queries + keys if attention.qk_norm_span == "all_heads" else 2 * attention.head_dim
    if attention.sinks:
        count += attention.query_heads
    return count


def _mla_parameters(attention: MlaAttention, hidden: int) -> int:
    query_dim = attention.heads * (attention.nope_dim + attention.rope_dim)
    if attention.q_rank is None:
        queries = hidden * query_dim
    else:  # down-projection, its norm, up-projection
        queries = hidden * attention.q_rank + attention.q_rank + attention.q_rank * query_dim
    down = hidden * (attention.kv_rank + attention.rope_dim) + attention.kv_rank  # the norm spans kv_rank alone
    up = attention.kv_rank * attention.heads * (attention.nope_dim + attention.value_dim)
    output = attention.heads * attention.value_dim * hidden
    bias = (attention.q_rank or 0) + attention.kv_rank + attention.rope_dim + hidden if attention.bias else 0
    return queries + down + up + output + bias


def _ffn_parameters(model: Model, width: int, bias: bool) -> int:
    """Up- and down-projection, and the gate where there is one; biases count with their output's width."""
    inward = 2 if model.moe.gated else 1
    return (inward + 1) * model.hidden * width + (inward * width + model.hidden if bias else 0)


def dense_ffn_parameters(model: Model) -> int:
    """Parameters of one dense layer's feed-forward block; 0 where the model has no dense layer."""
    return 0 if model.dense_width is None else _ffn_parameters(model, model.dense_width, bias=False)


def expert_parameters(model: Model) -> int:
    """Parameters of one routed expert."""
    return _ffn_parameters(model, model.moe.expert_width, model.moe.bias)


def shared_parameters(model: Model) -> int:
    """Parameters of all shared experts of one MoE layer, with their gate."""
    moe = model.moe
    width = moe.shared_experts * (moe.shared_width or moe.expert_width)
    if width == 0:
        return 0
    return _ffn_parameters(model, width, bias=False) + (model.hidden if moe.shared_gate else 0)


def router_parameters(model: Model) -> int:
    """Parameters of one MoE layer's router."""
    return model.moe.experts * (model.hidden + (1 if model.moe.router_bias else 0))


def embedding_parameters(model: Model) -> int:
    """Parameters of the input embedding."""
    return model.vocabulary * model.hidden


def head_parameters(model: Model) -> int:
    """Parameters that the output head stores: 0 where it is tied to the embedding."""
    return 0 if model.tied_embedding else model.vocabulary * model.hidden


def norm_parameters(model: Model) -> int:
    """Weights of one layer's two norms (before attention, before the feed-forward block)."""
    return 2 * model.hidden


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model by component: of ONE layer, or of the whole for embedding, head and final_norm.

    Attributes:
        attention, norm: in every layer.
        dense_ffn: in a dense layer.
        router, shared: in an MoE layer; `expert` is one routed expert of it.
        head: stored parameters; 0 where tied to the embedding.
        head_product: parameters that the head multiplies with, tied or not.
        dense_layers, moe_layers: numbers of layers.
        experts, top_k: routed experts of an MoE layer, and those of one token.
    """

    attention: int
    norm: int
    dense_ffn: int
    router: int
    shared: int
    expert: int
    embedding: int
    head: int
    head_product: int
    final_norm: int
    dense_layers: int
    moe_layers: int
    experts: int
    top_k: int

    @property
    def dense_layer(self) -> int:
        """One dense layer."""
        return self.attention + self.norm + self.dense_ffn

    @property
    def moe_layer(self) -> int:
        """One MoE layer, all experts."""
        return self.moe_layer_without_experts + self.experts * self.expert

    @property
    def moe_layer_active(self) -> int:
        """One MoE layer, as one token uses it."""
        return self.moe_layer_without_experts + self.top_k * self.expert

    @property
    def moe_layer_without_experts(self) -> int:
        """One MoE layer without its routed experts."""
        return self.attention + self.norm + self.router + self.shared

    @property
    def total(self) -> int:
        """Every stored parameter."""
        layers = self.dense_layers * self.dense_layer + self.moe_layers * self.moe_layer
        return layers + self.final_norm + self.embedding + self.head

    @property
    def active(self) -> int:
        """Parameters that one token multiplies with: the output head counts, the input embedding does not."""
        return self.active_counting(embedding=False, head=True)

    def active_counting(self, embedding: bool, head: bool) -> int:
        """Active parameters by another custom: with the input embedding, or without the output head."""
        layers = self.dense_layers * self.dense_layer + self.moe_layers * self.moe_layer_active
        return layers + self.final_norm + self.embedding * embedding + self.head_product * head


def count_parameters(model: Model) -> ParameterCounts:
    """The parameter counts of `model`, computed from its dimensions."""
    return ParameterCounts(
        attention=attention_parameters(model),
        norm=norm_parameters(model),
        dense_ffn=dense_ffn_parameters(model),
        router=router_parameters(model),
        shared=shared_parameters(model),
        expert=expert_parameters(model),
        embedding=embedding_parameters(model),
        head=head_parameters(model),
        head_product=model.vocabulary * model.hidden,
        final_norm=model.hidden,
        dense_layers=len(model.dense_layers),
        moe_layers=len(model.moe_layers),
        experts=model.moe.experts,
        top_k=model.moe.top_k,
    )
