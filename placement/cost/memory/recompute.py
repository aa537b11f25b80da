"""Which layers compute activations again in the backward pass, counted by piece of the model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from placement.problem.pieces import StageShape, is_sliding, stage_shapes, stage_start
from placement.problem.schedule import piece_count
from placement.problem.split import Split
from specs.model import Model
from specs.workload import Recompute, TrainingWorkload

MODES: tuple[Recompute, ...] = ("none", "selective", "full")


@dataclass(frozen=True)
class LayerCounts:
    """Layers by attention (full, sliding) and, counted again, by feed-forward block (dense, moe)."""

    full: int
    sliding: int
    dense: int
    moe: int

    @property
    def layers(self) -> int:
        return self.full + self.sliding

    @classmethod
    def of(cls, model: Model, layers: Iterable[int]) -> LayerCounts:
        """The counts of the layers of those indices."""
        dense = set(model.dense_layers)
        pairs = [(is_sliding(model, layer), layer in dense) for layer in layers]
        sliding, flat = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        return cls(len(pairs) - sliding, sliding, flat, len(pairs) - flat)


#: Layers of one piece under each mode, in the order of MODES.
ModeCounts = tuple[LayerCounts, LayerCounts, LayerCounts]


def mode_of_workload(workload: TrainingWorkload) -> Recompute:
    """The mode of every layer where a split says nothing: what keeps least, if the workload leaves it open."""
    return "full" if workload.recompute == "auto" else workload.recompute


def mode_counts(
    model: Model, workload: TrainingWorkload, split: Split, shapes: tuple[StageShape, ...] | None = None
) -> tuple[ModeCounts, ...]:
    """[pieces] layers of each piece by what they compute again; `shapes` are the pieces', where known."""
    pieces = piece_count(workload, split.pp)
    modes = split.recompute or (mode_of_workload(workload),) * model.layers
    if modes.count(modes[0]) == len(modes):
        nothing = LayerCounts(0, 0, 0, 0)
        shapes = stage_shapes(model, pieces, split.cut) if shapes is None else shapes
        whole = (LayerCounts(shape.full, shape.sliding, shape.dense, shape.moe) for shape in shapes)
        place = MODES.index(modes[0])
        return tuple((*(nothing,) * place, counts, *(nothing,) * (2 - place)) for counts in whole)  # type: ignore[misc]
    starts = [stage_start(model.layers, pieces, piece, split.cut) for piece in range(pieces + 1)]
    return tuple(
        (
            LayerCounts.of(model, (i for i in range(first, end) if modes[i] == "none")),
            LayerCounts.of(model, (i for i in range(first, end) if modes[i] == "selective")),
            LayerCounts.of(model, (i for i in range(first, end) if modes[i] == "full")),
        )
        for first, end in pairwise(starts)
    )
