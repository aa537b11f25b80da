"""What lies in each pipeline stage, and what a layer stores, counted once per model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from placement.problem.schedule import piece_count, rank_of_piece
from placement.problem.split import Split
from specs.model import Model
from specs.scenario import Scenario

#: [kinds] layers of each of Model.kinds.
Counts = tuple[int, ...]


@dataclass(frozen=True)
class StageShape:
    """Layers of one stage by kind.

    Attributes:
        counts: layers of each of Model.kinds.
        first, last: holds the embedding, or the output head.
        slots: slots of a rank in its layers of each kind together; None: those of the split's `redundant`.
    """

    counts: Counts
    first: bool
    last: bool
    slots: Counts | None = None

    @property
    def layers(self) -> int:
        return sum(self.counts)


def stage_starts(model: Model, pp: int, cut: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """[pp + 1] first block of each of `pp` stages, and the end, under `cut` (blocks of each stage), or cut evenly.

    Evenly: whole layers as the model's own numbering counts them, the earlier stages take what is left.
    """
    if cut is not None:
        return tuple(accumulate(cut, initial=0))
    each = model.blocks_per_layer
    return tuple(each * -(-stage * model.whole_layers // pp) for stage in range(pp + 1))


def count_kinds(model: Model, layers: Iterable[int]) -> Counts:
    """How many of these layers are of each of Model.kinds."""
    counts = [0] * len(model.kinds)
    for layer in layers:
        counts[model.kind_of_layer[layer]] += 1
    return tuple(counts)


def stage_shapes(
    model: Model, pp: int, cut: tuple[int, ...] | None = None, widths: Sequence[int] | None = None
) -> tuple[StageShape, ...]:
    """[pp] shape of each of `pp` contiguous stages, under `cut` (layers of each) or cut evenly.

    Args:
        widths: [MoE layers] slots of a rank, where they are not those of the split's `redundant`.
    """
    starts = stage_starts(model, pp, cut)
    return tuple(
        StageShape(
            count_kinds(model, range(first, end)), stage == 0, stage == pp - 1,
            None if widths is None else _slots(model, range(first, end), widths),
        )
        for stage, (first, end) in enumerate(pairwise(starts))
    )  # fmt: skip


def _slots(model: Model, layers: range, widths: Sequence[int]) -> Counts:
    """Slots of a rank in these layers of each of Model.kinds."""
    slots = [0] * len(model.kinds)
    for layer, width in zip(model.moe_blocks, widths, strict=True):
        slots[model.kind_of_layer[layer]] += width if layer in layers else 0
    return tuple(slots)


def piece_rows(scenario: Scenario, split: Split) -> tuple[tuple[int, int, int], ...]:
    """(rank, first layer, layers) of each contiguous piece, in the order of layers, as the model numbers them."""
    workload, pieces = scenario.workload, piece_count(scenario.workload, split.pp)
    each = scenario.model.blocks_per_layer
    starts = [start // each for start in stage_starts(scenario.model, pieces, split.cut)]
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


def stage_table(
    model: Model, pp: int, cut: tuple[int, ...] | None = None, widths: Sequence[int] | None = None
) -> StageTable:
    """The stages of `model` cut into `pp`, evenly or as `cut` says; `widths`: see stage_shapes."""
    shapes = stage_shapes(model, pp, cut, widths)
    first: dict[StageShape, int] = {}
    for stage, shape in enumerate(shapes):
        first.setdefault(shape, stage)
    return StageTable(shapes, tuple(first.values()), tuple(shapes.count(shape) for shape in first))
