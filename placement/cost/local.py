"""Parameters that one GPU of a split stores: of one layer by component, of the ends, and of a whole stage."""

from __future__ import annotations

from dataclasses import dataclass

from placement.cost.stages import StageShape, local_attention_parameters
from placement.split import Split
from specs.parameters import (
    dense_ffn_parameters,
    embedding_parameters,
    expert_parameters,
    head_parameters,
    norm_parameters,
    router_parameters,
    shared_parameters,
)
from specs.schema import Model


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
