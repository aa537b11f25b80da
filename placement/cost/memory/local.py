"""Parameters that one GPU of a split stores: of one layer by component, of the ends, and of a whole stage."""

from __future__ import annotations

import math
from dataclasses import dataclass

from placement.problem.pieces import StageShape
from placement.problem.split import Split
from specs.fields import bytes_of
from specs.model import GqaAttention, Model
from specs.parameters import (
    attention_parameters,
    dense_ffn_parameters,
    embedding_parameters,
    expert_parameters,
    head_parameters,
    norm_parameters,
    router_parameters,
    shared_parameters,
)


@dataclass(frozen=True)
class LocalParameters:
    """Parameters on one GPU: of one layer, or of a whole matrix for embedding, own_head (a stage's without embedding)
    and head (the stage's that has the embedding too); final_norm is the last stage's."""

    attention: float
    norms: float
    dense_ffn: float
    router: float
    experts: float
    shared: float
    embedding: float
    head: float
    own_head: float
    final_norm: float

    @classmethod
    def of(cls, model: Model, split: Split) -> LocalParameters:
        """The shares of `split`; its depth and batch don't matter."""
        tp = split.tp
        embedding, head = embedding_parameters(model) / tp, head_parameters(model) / tp
        return cls(
            attention=local_attention_parameters(model, tp),
            norms=norm_parameters(model),
            dense_ffn=dense_ffn_parameters(model) / tp,
            router=router_parameters(model),
            experts=split.slots_per_gpu * expert_parameters(model) / split.etp,
            shared=shared_parameters(model) / tp,
            embedding=embedding,
            head=head,
            # A tied head on another stage than the embedding needs its own copy of the matrix.
            own_head=head or embedding,
            final_norm=model.hidden,
        )

    def ends(self, shape: StageShape) -> float:
        """Embedding and head of a stage."""
        head = (self.head if shape.first else self.own_head) if shape.last else 0.0
        return head + (self.embedding if shape.first else 0.0)

    def dense(self, shape: StageShape) -> float:
        """All parameters of a stage but its routed experts'."""
        total = shape.layers * (self.attention + self.norms) + shape.dense * self.dense_ffn
        total += shape.moe * (self.router + self.shared) + self.ends(shape)
        return total + (self.final_norm if shape.last else 0.0)


def local_attention_parameters(model: Model, tp: int) -> float:
    """Parameters of one layer's attention on one of `tp` GPUs.

    Heads are split; key and value heads are repeated where tp exceeds their number; MLA's down-projections are whole on
    every GPU.
    """
    attention, total = model.attention, attention_parameters(model)
    if isinstance(attention, GqaAttention):
        kv = 2 * model.hidden * attention.kv_heads * attention.head_dim
        return (total - kv) / tp + kv / min(tp, attention.kv_heads)
    whole = model.hidden * ((attention.q_rank or 0) + attention.kv_rank + attention.rope_dim)
    return (total - whole) / tp + whole


def kv_bytes_per_token(model: Model, tp: int = 1) -> float:
    """Bytes that one layer's KV cache stores for a token on one of `tp` GPUs.

    GQA stores the keys and values of the GPU's heads; MLA one compressed vector and the rotary key, whole on each GPU.
    """
    attention, size = model.attention, bytes_of(model.types.kv_cache)
    if isinstance(attention, GqaAttention):
        return 2 * math.ceil(attention.kv_heads / tp) * attention.head_dim * size
    return (attention.kv_rank + attention.rope_dim) * size


def stored_tokens(model: Model, context: float) -> float:
    """Tokens of a sequence that a sliding-window layer keeps."""
    return context if model.sliding is None else min(context, model.sliding.window)
