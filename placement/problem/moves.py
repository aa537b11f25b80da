"""Moves: what differs between two placements of the same slots."""

from __future__ import annotations

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import EMPTY, IntArray


def moves_between(before: IntArray, after: IntArray, slots_per_gpu: int) -> int:
    """How many experts `after` puts on a GPU that did not hold them in `before`; EMPTY never counts.

    Args:
        before, after: [slots] placements of the same slots. An order within a GPU means nothing.

    Raises:
        InputError: the placements are of unlike lengths.
    """
    before, after = np.asarray(before, dtype=np.int64), np.asarray(after, dtype=np.int64)
    if before.shape != after.shape or before.ndim != 1:
        raise InputError("moves", "", f"placements of {before.shape} and {after.shape} slots", "compare the same slots")
    width = max(int(before.max(initial=0)), int(after.max(initial=0))) + 1
    held = np.arange(len(before), dtype=np.int64) // slots_per_gpu * width
    return len(np.setdiff1d((held + after)[after != EMPTY], (held + before)[before != EMPTY]))
