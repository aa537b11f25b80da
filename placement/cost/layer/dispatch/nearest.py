"""The copy on the home GPU; else the copies on its node, else all copies, one of them drawn fairly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch.base import Shares
from placement.kernels import lean_kernel
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch


class Nearest:
    """See DispatchPolicy. One copy is drawn for each home GPU and expert."""

    alike = False
    drawn_once = True
    together = False
    solved = False
    closed_form: Dispatch = "nearest"

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        gpus, entries = topology.gpus, topology.gpus * int(count.sum())
        start, slot = np.zeros(gpus * len(count) + 1, dtype=np.int64), np.empty(entries, dtype=np.int64)
        fraction = np.empty(entries)
        used = _nearest(copies, count, slots_per_gpu, gpus, topology.gpus_per_node, start, slot, fraction)
        return Shares(np.arange(gpus, dtype=np.int64), start, slot[:used].copy(), fraction[:used].copy())

    def on_nodes(self, holds: BoolArray, homes: FloatArray, target: IntArray | None) -> FloatArray:
        away = (~holds * homes[:, None]).sum(axis=0)
        return np.asarray(holds * (homes[:, None] + (away / holds.sum(axis=0))[None, :]))


@lean_kernel
def _nearest(
    copies: NDArray[np.int64], count: NDArray[np.int64], slots_per_gpu: int, gpus: int, gpus_per_node: int,
    start: NDArray[np.int64], slot: NDArray[np.int64], fraction: NDArray[np.float64],
) -> int:  # fmt: skip
    """Fills the rows of `nearest` dispatch; how many entries they have."""
    experts, used = len(count), 0
    for home in range(gpus):
        node = home // gpus_per_node
        for e in range(experts):
            first, near = used, 0
            for i in range(count[e]):
                gpu = copies[e, i] // slots_per_gpu
                if gpu == home:
                    # The home GPU's own copy takes all.
                    slot[first], near, used = copies[e, i], 1, first + 1
                    break
                if gpu // gpus_per_node == node:
                    slot[used] = copies[e, i]
                    near, used = near + 1, used + 1
            if near == 0:
                for i in range(count[e]):
                    slot[used] = copies[e, i]
                    used += 1
            for i in range(first, used):
                fraction[i] = 1.0 / (used - first)
            start[home * experts + e + 1] = used
    return used
