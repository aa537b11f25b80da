"""One message for each GPU that serves a token, from its home."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.messages.base import Counts
from placement.problem.arrays import FloatArray, IntArray


class PerRank:
    """See MessageRule."""

    forwards = False
    counts: Counts = "touches"
    nodes_decide = False

    def per_token(self, touched: FloatArray, copies: FloatArray, usable: FloatArray) -> FloatArray:
        return touched

    def reached(self, gpu: IntArray, usable: IntArray) -> tuple[IntArray, IntArray]:
        gpus = int(gpu.max(initial=0)) + 1
        return np.divmod(np.unique(np.arange(len(gpu))[:, None] * gpus + gpu), gpus)
