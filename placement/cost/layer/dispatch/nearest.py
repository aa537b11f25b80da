"""The copy on the home GPU; else the copies near it, else all copies, one of them drawn fairly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch.base import Shares
from placement.kernels import lean_kernel
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch


class Nearest:
    """See DispatchPolicy. Near are GPUs of the node; one copy is drawn for each home GPU and expert."""

    alike = False
    drawn_once = True
    together = False
    solved = False
    closed_form: Dispatch = "nearest"

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        return _near_shares(topology, slots_per_gpu, copies, count, topology.gpus_per_node, False)

    def on_nodes(self, holds: BoolArray, homes: FloatArray, target: IntArray | None) -> FloatArray:
        away = (~holds * homes[:, None]).sum(axis=0)
        return np.asarray(holds * (homes[:, None] + (away / holds.sum(axis=0))[None, :]))

    def between_nodes(self, topology: Topology) -> Dispatch:
        return self.closed_form


class NearestOnOsNode(Nearest):
    """See DispatchPolicy. SGLang's rule: of the copies on the home's OS node the first by slot, unless all are there.

    Read in sglang 0.5.23, eplb/expert_location.py: `_find_nearest_expert` before it lists a rank's copies
    (`_compute_logical_to_all_physical_map`), so that a `dynamic` draw is one of the same copies as a `static` one.
    Shares are expectations over the draws, or of one draw: `fractions` [gpus, slots] (see `sglang_draw`).

    Args:
        name: The policy. drawn_once: See DispatchPolicy.
    """

    def __init__(self, name: Dispatch, drawn_once: bool) -> None:
        self.closed_form, self.drawn_once = name, drawn_once

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        if fractions is not None:
            held = np.arange(copies.shape[1])[None, :] < count[:, None]
            slot = np.tile(copies[held], topology.gpus)
            start = np.concatenate([[0], np.cumsum(np.tile(count, topology.gpus))])
            homes = np.arange(topology.gpus, dtype=np.int64)
            return Shares(homes, start, slot, fractions[np.repeat(homes, held.sum()), slot])
        return _near_shares(topology, slots_per_gpu, copies, count, topology.os_gpus, True)

    def between_nodes(self, topology: Topology) -> Dispatch:
        # With small OS nodes few of a node's homes have a copy near, though the node has one.
        return self.closed_form if 2 * topology.os_gpus >= topology.gpus_per_node else "even"


def _near_shares(
    topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, near: int, first: bool
) -> Shares:
    """Shares of `nearest`, where groups of `near` GPUs are near each other; `first`: see NearestOnOsNode."""
    gpus, entries = topology.gpus, topology.gpus * int(count.sum())
    start, slot = np.zeros(gpus * len(count) + 1, dtype=np.int64), np.empty(entries, dtype=np.int64)
    fraction = np.empty(entries)
    used = _nearest(copies, count, slots_per_gpu, gpus, near, first, start, slot, fraction)
    alike = near if topology.nodes > 1 else 1
    return Shares(np.arange(gpus, dtype=np.int64), start, slot[:used].copy(), fraction[:used].copy(), alike=alike)


@lean_kernel
def _nearest(
    copies: NDArray[np.int64], count: NDArray[np.int64], slots_per_gpu: int, gpus: int, near_gpus: int,
    first_near: bool, start: NDArray[np.int64], slot: NDArray[np.int64], fraction: NDArray[np.float64],
) -> int:  # fmt: skip
    """Fills the rows of `nearest` dispatch; how many entries they have."""
    experts, used = len(count), 0
    for home in range(gpus):
        group = home // near_gpus
        for e in range(experts):
            first, near, own = used, 0, False
            for i in range(count[e]):
                gpu = copies[e, i] // slots_per_gpu
                if gpu == home:
                    # The home GPU's own copy takes all.
                    slot[first], near, used, own = copies[e, i], 1, first + 1, True
                    break
                if gpu // near_gpus == group:
                    slot[used] = copies[e, i]
                    near, used = near + 1, used + 1
            if near == 0:
                for i in range(count[e]):
                    slot[used] = copies[e, i]
                    used += 1
            elif first_near and not own and near < count[e]:
                used = first + 1
            for i in range(first, used):
                fraction[i] = 1.0 / (used - first)
            start[home * experts + e + 1] = used
    return used
