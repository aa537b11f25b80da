"""The short form of a model: its layers have one attention, which may slide in some, and experts or a dense block."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from specs.blocks.attention import GqaAttention
from specs.blocks.ffn import DenseFfn, Moe
from specs.blocks.latent import MlaAttention
from specs.blocks.run import Block, runs_of
from specs.fields import MAX_LAYERS, Count, LayerIndex, Layers, Spec, Width
from specs.model_common import Common


class SlidingWindow(Spec):
    """Layers whose index modulo `period` is in `layers` attend only to the last `window` tokens."""

    window: Count
    """Tokens that a query sees."""
    period: Layers = 1
    """Layers after which the pattern repeats."""
    layers: Annotated[tuple[LayerIndex, ...], Field(min_length=1, max_length=MAX_LAYERS)] = (0,)
    """Which layers of a period slide."""

    @model_validator(mode="after")
    def _layers_are_in_the_period(self) -> SlidingWindow:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError("layers names a layer twice; name each once")
        if max(self.layers) >= self.period:
            raise ValueError(f"layers names {max(self.layers)}, but period is {self.period}; stay below the period")
        return self


class Uniform(Common):
    """The short form of a model whose layers have one attention: what most models need."""

    layers: Layers
    """Number of layers."""
    attention: Annotated[GqaAttention | MlaAttention, Field(discriminator="kind")]
    """Attention of every layer."""
    moe: Moe
    """Experts of every MoE layer."""
    dense_layers: Annotated[tuple[LayerIndex, ...], Field(max_length=MAX_LAYERS)] = ()
    """Indices of the layers whose feed-forward block is dense."""
    dense_width: Width | None = None
    """Width of a dense layer."""
    sliding: SlidingWindow | None = None
    """Layers that see a window alone."""

    @model_validator(mode="after")
    def _layers_fit(self) -> Uniform:
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
        return self

    def blocks(self) -> dict[str, Any]:
        """The same as fields of Model."""
        mixers: dict[str, Any] = {"full": self.attention}
        if self.sliding is not None:
            mixers["sliding"] = self.attention.model_copy(update={"window": self.sliding.window})
        ffns: dict[str, Any] = {"moe": self.moe}
        if self.dense_layers and self.dense_width is not None:
            ffns["dense"] = DenseFfn(kind="dense", width=self.dense_width, gated=self.moe.gated)
        dense, sliding = set(self.dense_layers), self.sliding
        blocks = []
        for i in range(self.layers):
            slides = sliding is not None and i % sliding.period in sliding.layers
            blocks.append(Block(mixer="sliding" if slides else "full", ffn="dense" if i in dense else "moe"))
        used = {block.mixer for block in blocks}
        return {"mixers": {k: v for k, v in mixers.items() if k in used}, "ffns": ffns, "blocks": runs_of(blocks)}
