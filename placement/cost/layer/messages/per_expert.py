"""One message for each expert that a token uses, to the GPU of the copy that serves it."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.messages.base import Counts
from placement.problem.arrays import FloatArray, IntArray


class PerExpert:
    """See MessageRule."""

    forwards = False
    counts: Counts = "copies"
    nodes_decide = True

    def per_token(self, touched: FloatArray, copies: FloatArray, usable: FloatArray) -> FloatArray:
        return copies

    def reached(self, gpu: IntArray, usable: IntArray) -> tuple[IntArray, IntArray]:
        return np.repeat(np.arange(len(gpu)), gpu.shape[1]), gpu.reshape(-1)
