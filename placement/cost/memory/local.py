"""What one GPU of a split stores: weights of one layer of each kind and of the ends, and caches of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.problem.pieces import StageShape
from placement.problem.split import Split
from specs.blocks.base import Stored
from specs.blocks.run import Block
from specs.fields import bytes_of
from specs.model import Model
from specs.parameters import Part, block_weights, embedding_parameters, expert_type, head_parameters


@dataclass(frozen=True)
class Share:
    """Weights on one GPU: how many, and their bytes."""

    count: float = 0.0
    bytes: float = 0.0

    def __add__(self, other: Share) -> Share:
        return Share(self.count + other.count, self.bytes + other.bytes)


@dataclass(frozen=True)
class LocalBlock:
    """One layer of a kind on one GPU, by part; experts are those of the GPU's slots, `slot` is one of them."""

    attention: Share
    norms: Share
    dense: Share
    router: Share
    shared: Share
    experts: Share
    slot: Share

    @classmethod
    def of(cls, model: Model, block: Block, split: Split) -> LocalBlock:
        """The shares of `split`."""
        moe, weights = model.moe_of(block), block_weights(model, block)

        def held(slots: int) -> Share:
            count = 0.0 if moe is None else slots * moe.expert_elements(model.hidden) / split.etp
            return Share(count, count * bytes_of(expert_type(model, block)))

        def part(name: Part) -> Share:
            local = [(each.weight.local(split.tp), each.data_type) for each in weights if each.part == name]
            return Share(sum(count for count, _ in local), sum(count * bytes_of(kind) for count, kind in local))

        parts = (part("attention"), part("norms"), part("dense"), part("router"), part("shared"))
        return cls(*parts, held(0 if moe is None else split.width_of(model, block)), held(1))

    @property
    def without_experts(self) -> float:
        """Parameters of all parts but the routed experts."""
        return self.attention.count + self.norms.count + self.dense.count + self.router.count + self.shared.count


@dataclass(frozen=True)
class LocalParameters:
    """Weights on one GPU: [kinds] of one layer, and of a whole matrix for embedding, own_head (a stage's without
    embedding) and head (the stage's that has the embedding too); final_norm is the last stage's."""

    blocks: tuple[LocalBlock, ...]
    embedding: float
    head: float
    own_head: float
    final_norm: float

    @classmethod
    def of(cls, model: Model, split: Split) -> LocalParameters:
        """The shares of `split`; its depth and batch don't matter."""
        embedding, head = embedding_parameters(model) / split.tp, head_parameters(model) / split.tp
        return cls(
            blocks=tuple(LocalBlock.of(model, block, split) for block in model.kinds),
            embedding=embedding,
            head=head,
            # A tied head on another stage than the embedding needs its own copy of the matrix.
            own_head=head or embedding,
            final_norm=model.hidden,
        )

    def part(self, name: str, counts: Sequence[int]) -> Share:
        """One part of so many layers of each kind."""
        shares = [(getattr(block, name), count) for block, count in zip(self.blocks, counts, strict=True) if count]
        return Share(sum(each.count * count for each, count in shares), sum(each.bytes * n for each, n in shares))

    def experts(self, shape: StageShape) -> Share:
        """Routed experts of a stage."""
        return self.part("experts", shape.counts) if shape.slots is None else self.part("slot", shape.slots)

    def ends(self, shape: StageShape) -> float:
        """Embedding and head of a stage."""
        head = (self.head if shape.first else self.own_head) if shape.last else 0.0
        return head + (self.embedding if shape.first else 0.0)

    def dense(self, shape: StageShape) -> float:
        """All parameters of a stage but its routed experts'."""
        total = sum(count * block.without_experts for block, count in zip(self.blocks, shape.counts, strict=True))
        return total + self.ends(shape) + (self.final_norm if shape.last else 0.0)


def stored_by_kind(model: Model, context: float, tp: int = 1) -> tuple[Stored, ...]:
    """[kinds] what one layer keeps of a sequence of `context` tokens on one of `tp` GPUs."""
    mixers = (model.mixer_of(block) for block in model.kinds)
    return tuple(Stored() if mixer is None else mixer.stored(context, tp) for mixer in mixers)


def stored_bytes(model: Model, context: float, tp: int = 1) -> tuple[float, ...]:
    """[kinds] bytes of `stored_by_kind`."""
    types = model.types
    return tuple(kept.size(types.kv_cache, types.state) for kept in stored_by_kind(model, context, tp))


def total_of(by_kind: Sequence[float], counts: Sequence[int]) -> float:
    """The sum over so many layers of each kind."""
    return sum(each * count for each, count in zip(by_kind, counts, strict=True))
