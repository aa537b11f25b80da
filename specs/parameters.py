"""Parameter counts from a model's dimensions. Weight shapes are those of the models' published checkpoints.

Every count is a number of elements, not bytes: block scales of quantized weights are not parameters. Active means
what one token multiplies with: its top_k experts, and everything else but the input embedding, of which a token only
looks up a row. Publishers differ on that last point; `ParameterCounts.active_counting` follows either custom.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from specs.blocks.base import Weight
from specs.blocks.ffn import DenseFfn
from specs.blocks.run import Block
from specs.fields import DataType
from specs.model import Model

#: What the weights of a block are counted as.
Part = Literal["attention", "norms", "dense", "router", "shared"]
PARTS: tuple[Part, ...] = ("attention", "norms", "dense", "router", "shared")


@dataclass(frozen=True)
class TypedWeight:
    """A weight of a block: what it is counted as, and the data type that it is stored in."""

    part: Part
    weight: Weight
    data_type: DataType


def block_weights(model: Model, block: Block) -> tuple[TypedWeight, ...]:
    """Every tensor of one block but its routed experts, with the type that it is stored in.

    Norms, biases, convolutions and routers stay in a 16-bit type whatever products are quantized to.
    """
    found: list[TypedWeight] = []
    types = model.types

    def add(part: Part, weights: tuple[Weight, ...], default: DataType, own: dict[str, DataType]) -> None:
        for weight in weights:
            if weight.count:
                kind: DataType = "bf16" if weight.plain else own.get(weight.name, default)
                found.append(TypedWeight(part, weight, kind))

    mixer, ffn, moe = model.mixer_of(block), model.ffn_of(block), model.moe_of(block)
    if mixer is not None:
        add("attention", mixer.weights(model.hidden), types.attention, mixer.types)
    parts = (mixer is not None) + (ffn is not None)
    add("norms", (Weight("norms", parts * (model.hidden + _stream_parameters(model)), 1, plain=True),), "bf16", {})
    if moe is not None:
        add("router", moe.router_weights(model.hidden), "bf16", {})
        shared = types.dense if types.shared is None else types.shared
        own = {"latent": types.dense, **moe.types}
        add("shared", moe.shared_weights(model.hidden), shared, own)
    elif isinstance(ffn, DenseFfn):
        add("dense", ffn.weights(model.hidden), types.dense, ffn.types)
    return tuple(found)


def _stream_parameters(model: Model) -> int:
    """Of one hyper-connection (arXiv 2409.19606): what mixes the residual streams before and after a part."""
    n = model.streams
    return 0 if n == 1 else (2 + n) * n * (n * model.hidden + 1) + 3


def expert_type(model: Model, block: Block) -> DataType:
    """The data type of the routed experts of a block."""
    moe = model.moe_of(block)
    return model.types.experts if moe is None else moe.types.get("experts", model.types.experts)


@dataclass(frozen=True)
class BlockCounts:
    """Parameters of one block by part; 0 where it has no such part.

    Attributes:
        expert: one routed expert; experts, top_k: how many there are, and how many of them compute for a token.
        layers: blocks of the model that are of this kind.
    """

    attention: int
    norms: int
    dense: int
    router: int
    shared: int
    expert: int
    experts: int
    top_k: int
    layers: int

    @property
    def without_experts(self) -> int:
        """All but the routed experts."""
        return self.attention + self.norms + self.dense + self.router + self.shared

    @property
    def total(self) -> int:
        """With all experts."""
        return self.without_experts + self.experts * self.expert

    @property
    def active(self) -> int:
        """As one token uses it."""
        return self.without_experts + self.top_k * self.expert


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a model.

    Attributes:
        blocks: of one block of each kind, in the order of Model.kinds.
        embedding, final_norm: of the ends.
        head: stored parameters of the output head; 0 where it is tied to the embedding.
        head_product: parameters that the head multiplies with, tied or not.
    """

    blocks: tuple[BlockCounts, ...]
    embedding: int
    head: int
    head_product: int
    final_norm: int

    @property
    def total(self) -> int:
        """Every stored parameter."""
        layers = sum(block.layers * block.total for block in self.blocks)
        return layers + self.final_norm + self.embedding + self.head

    @property
    def active(self) -> int:
        """Parameters that one token multiplies with: the output head counts, the input embedding does not."""
        return self.active_counting(embedding=False, head=True)

    def active_counting(self, embedding: bool, head: bool) -> int:
        """Active parameters by another custom: with the input embedding, or without the output head."""
        layers = sum(block.layers * block.active for block in self.blocks)
        return layers + self.final_norm + self.embedding * embedding + self.head_product * head


def count_block(model: Model, block: Block) -> BlockCounts:
    """The counts of one kind of block."""
    counts = dict.fromkeys(PARTS, 0)
    for each in block_weights(model, block):
        counts[each.part] += each.weight.count
    moe = model.moe_of(block)
    return BlockCounts(
        **counts,
        expert=0 if moe is None else moe.expert_elements(model.hidden),
        experts=0 if moe is None else moe.experts,
        top_k=0 if moe is None else moe.computed_top_k,
        layers=model.layout.count(block),
    )


def embedding_parameters(model: Model) -> int:
    """Parameters of the input embedding."""
    return model.vocabulary * model.hidden


def head_parameters(model: Model) -> int:
    """Parameters that the output head stores: 0 where it is tied to the embedding."""
    return 0 if model.tied_embedding else model.vocabulary * model.hidden


def count_parameters(model: Model) -> ParameterCounts:
    """The parameter counts of `model`, computed from its dimensions."""
    return ParameterCounts(
        blocks=tuple(count_block(model, block) for block in model.kinds),
        embedding=embedding_parameters(model),
        head=head_parameters(model),
        head_product=model.vocabulary * model.hidden,
        final_norm=model.hidden,
    )
