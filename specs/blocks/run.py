"""The blocks of a model in order: each a mixer and a feed-forward block by name, in runs that repeat."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import DenseFfn, Moe
from specs.blocks.latent import CompressedAttention, MlaAttention
from specs.blocks.recurrent import GatedDelta, KimiDelta, Lightning, Mamba, Mamba2, ShortConv
from specs.fields import MAX_LAYERS, Layers, Name, Spec

AnyMixer = Annotated[
    GqaAttention | MlaAttention | CompressedAttention | GatedDelta | KimiDelta | Lightning | Mamba2 | Mamba | ShortConv,
    Field(discriminator="kind"),
]
Ffn = Annotated[DenseFfn | Moe, Field(discriminator="kind")]


class Block(Spec):
    """One block: a mixer, then a feed-forward block, by their names in the model; either may be absent."""

    mixer: Name | None = None
    """Name of its mixer."""
    ffn: Name | None = None
    """Name of its feed-forward block."""

    @model_validator(mode="after")
    def _is_something(self) -> Block:
        if self.mixer is None and self.ffn is None:
            raise ValueError("a block has neither mixer nor ffn; name one")
        return self


class BlockRun(Spec):
    """Blocks that follow each other, `repeat` times."""

    repeat: Layers = 1
    """How often they follow each other."""
    blocks: Annotated[tuple[Block, ...], Field(min_length=1, max_length=MAX_LAYERS)]
    """The blocks, in order."""


def runs_of(blocks: list[Block]) -> tuple[BlockRun, ...]:
    """Blocks as runs: the shortest repeating pattern of each stretch, longest stretches first."""
    runs, start = [], 0
    while start < len(blocks):
        best = (1, 1)
        for period in range(1, min(16, len(blocks) - start) + 1):
            pattern, repeat = blocks[start : start + period], 1
            while blocks[start + repeat * period : start + (repeat + 1) * period] == pattern:
                repeat += 1
            if repeat * period > best[0] * best[1] and (repeat > 1 or period == 1):
                best = (repeat, period)
        repeat, period = best
        runs.append(BlockRun(repeat=repeat, blocks=tuple(blocks[start : start + period])))
        start += repeat * period
    return tuple(runs)
