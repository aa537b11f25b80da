"""Every copy of an expert serves as many of its tokens."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch.base import Shares
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch


class Even:
    """See DispatchPolicy."""

    alike = True
    drawn_once = False
    together = False
    solved = False
    closed_form: Dispatch = "even"

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        start = np.concatenate([[0], np.cumsum(count)])
        flat = copies[np.arange(copies.shape[1])[None, :] < count[:, None]]
        homes = np.zeros(topology.gpus, dtype=np.int64)
        return Shares(homes, start, flat, np.repeat(1.0 / count, count))

    def on_nodes(self, holds: BoolArray, homes: FloatArray, target: IntArray | None) -> FloatArray:
        return np.asarray(holds / holds.sum(axis=0)[None, :])

    def between_nodes(self, topology: Topology) -> Dispatch:
        return self.closed_form
