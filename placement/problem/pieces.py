"""What lies in each pipeline stage, and what a layer stores, counted once per model."""

from __future__ import annotations

from dataclasses import dataclass

from placement.problem.schedule import piece_count, rank_of_piece
from placement.problem.split import Split
from specs.model import Model
from specs.scenario import Scenario


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
