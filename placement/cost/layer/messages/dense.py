"""All-gather before the experts, reduce-scatter after them: every token goes to every GPU, whatever the placement.

Both are hierarchical: a token goes once to each other node, and from there to every GPU of the node.
"""

from __future__ import annotations

import numpy as np

from placement.cost.layer.messages.base import Counts
from placement.problem.arrays import FloatArray, IntArray


class Dense:
    """See MessageRule."""

    forwards = True
    counts: Counts = "all"
    nodes_decide = False

    def per_token(self, touched: FloatArray, copies: FloatArray, usable: FloatArray) -> FloatArray:
        return np.broadcast_to(usable, touched.shape).astype(np.float64)

    def reached(self, gpu: IntArray, usable: IntArray) -> tuple[IntArray, IntArray]:
        return np.repeat(np.arange(len(gpu)), len(usable)), np.tile(usable, len(gpu))
