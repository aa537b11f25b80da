"""What lies in each pipeline stage, and what a layer stores, counted once per model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from specs.parameters import attention_parameters
from specs.schema import GqaAttention, Model, bytes_of


@dataclass(frozen=True)
class StageShape:
    """Layers of one stage by kind.

    Attributes:
        full, sliding: layers whose attention sees the whole context, or only a window.
        dense, moe: layers by their feed-forward block (dense + moe == full + sliding).
        first, last: holds the embedding, or the output head.
    """

    full: int
    sliding: int
    dense: int
    moe: int
    first: bool
    last: bool

    @property
    def layers(self) -> int:
        return self.full + self.sliding


def stage_start(layers: int, pp: int, stage: int) -> int:
    """First layer of a stage under the even cut; earlier stages take the layers left over."""
    return -(-stage * layers // pp)


def stage_shapes(model: Model, pp: int) -> tuple[StageShape, ...]:
    """[pp] shape of each stage under the even cut into contiguous layers."""
    dense = set(model.dense_layers)
    sliding = model.sliding
    shapes = []
    for stage in range(pp):
        layers = range(stage_start(model.layers, pp, stage), stage_start(model.layers, pp, stage + 1))
        n_dense = sum(layer in dense for layer in layers)
        n_sliding = 0 if sliding is None else sum(layer % sliding.period in sliding.layers for layer in layers)
        shapes.append(
            StageShape(
                full=len(layers) - n_sliding,
                sliding=n_sliding,
                dense=n_dense,
                moe=len(layers) - n_dense,
                first=stage == 0,
                last=stage == pp - 1,
            )
        )
    return tuple(shapes)


@dataclass(frozen=True)
class StageTable:
    """The stages of a pipeline.

    Attributes:
        shapes: [pp] shape of each stage.
        distinct: first stage of each distinct shape; counts: how many stages have it.
    """

    shapes: tuple[StageShape, ...]
    distinct: tuple[int, ...]
    counts: tuple[int, ...]


def stage_table(model: Model, pp: int) -> StageTable:
    """The stages of `model` cut evenly into `pp`."""
    shapes = stage_shapes(model, pp)
    first: dict[StageShape, int] = {}
    for stage, shape in enumerate(shapes):
        first.setdefault(shape, stage)
    return StageTable(shapes, tuple(first.values()), tuple(shapes.count(shape) for shape in first))


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
