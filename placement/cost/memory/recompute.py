"""Which layers compute activations again in the backward pass, counted by piece of the model."""

from __future__ import annotations

from itertools import pairwise

from placement.problem.pieces import Counts, StageShape, count_kinds, stage_shapes, stage_starts
from placement.problem.schedule import piece_count
from placement.problem.split import Split
from specs.model import Model
from specs.workload import Recompute, TrainingWorkload

MODES: tuple[Recompute, ...] = ("none", "selective", "full")

#: Layers of one piece under each mode, in the order of MODES.
ModeCounts = tuple[Counts, Counts, Counts]


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
        nothing = (0,) * len(model.kinds)
        shapes = stage_shapes(model, pieces, split.cut) if shapes is None else shapes
        place = MODES.index(modes[0])
        return tuple((*(nothing,) * place, shape.counts, *(nothing,) * (2 - place)) for shape in shapes)  # type: ignore[misc]
    starts = stage_starts(model, pieces, split.cut)
    return tuple(
        (
            count_kinds(model, (i for i in range(first, end) if modes[i] == "none")),
            count_kinds(model, (i for i in range(first, end) if modes[i] == "selective")),
            count_kinds(model, (i for i in range(first, end) if modes[i] == "full")),
        )
        for first, end in pairwise(starts)
    )
