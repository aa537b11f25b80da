"""What lies in each pipeline stage, and what a layer stores, counted once per model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from placement.schedules import piece_count, rank_of_piece
from placement.split import Split
from specs.parameters import attention_parameters
from specs.schema import GqaAttention, Model, Scenario, bytes_of


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


def stage_start(layers: int, pp: int, stage: int, cut: tuple[int, ...] | None = None) -> int:
    """First layer of a stage under `cut` (layers of each stage), or cut evenly: earlier stages take what is left."""
    return -(-stage * layers // pp) if cut is None else sum(cut[:stage])


def is_sliding(model: Model, layer: int) -> bool:
    """Whether a layer's attention sees only a window."""
    return model.sliding is not None and layer % model.sliding.period in model.sliding.layers


def stage_shapes(model: Model, pp: int, cut: tuple[int, ...] | None = None) -> tuple[StageShape, ...]:
    """[pp] shape of each of `pp` contiguous stages, under `cut` (layers of each) or cut evenly."""
    dense = set(model.dense_layers)
    shapes = []
    for stage in range(pp):
        layers = range(stage_start(model.layers, pp, stage, cut), stage_start(model.layers, pp, stage + 1, cut))
        n_dense = sum(layer in dense for layer in layers)
        n_sliding = sum(is_sliding(model, layer) for layer in layers)
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


def piece_rows(scenario: Scenario, split: Split) -> tuple[tuple[int, int, int], ...]:
    """(rank, first layer, layers) of each contiguous piece of the model, in the order of layers."""
    workload, layers = scenario.workload, scenario.model.layers
    pieces = piece_count(workload, split.pp)
    starts = [stage_start(layers, pieces, piece, split.cut) for piece in range(pieces + 1)]
    return tuple(
        (rank_of_piece(workload, split.pp, piece), starts[piece], starts[piece + 1] - starts[piece])
        for piece in range(pieces)
    )


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


def stage_table(model: Model, pp: int, cut: tuple[int, ...] | None = None) -> StageTable:
    """The stages of `model` cut into `pp`, evenly or as `cut` says."""
    shapes = stage_shapes(model, pp, cut)
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
