"""New names for the GPUs of a placement, so that as few slots as possible change from an older one.

An assignment problem (Kuhn 1955): the value of a pair of GPUs is how many experts they share.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.kernels import kernel, lean_kernel
from placement.problem.arrays import FloatArray, IntArray


@dataclass(frozen=True)
class Renaming:
    """What new names of GPUs do to a placement.

    Attributes:
        names: [gpus] new name of each GPU. order: [slots] slot of the placement whose expert comes to each slot.
    """

    names: IntArray
    order: IntArray

    def slots(self, slots: IntArray) -> IntArray:
        """[slots] the placement under the new names."""
        return slots[self.order]

    def fractions(self, fractions: FloatArray) -> FloatArray:
        """[nodes, slots] dispatch fractions by home node under the new names, which keep nodes whole."""
        per_node = len(self.names) // len(fractions)
        node = np.empty(len(fractions), dtype=np.int64)
        node[self.names[::per_node] // per_node] = np.arange(len(fractions))
        return fractions[node][:, self.order]


@kernel
def _shared(new: NDArray[np.int64], old: NDArray[np.int64], experts: int, out: NDArray[np.float64]) -> None:
    """Fills out [new GPUs, old GPUs] with how many experts they share (copies counted); new, old: [gpus, width]."""
    count = np.zeros(experts, np.int64)
    for g in range(len(new)):
        for h in range(len(old)):
            for e in new[g]:
                if 0 <= e < experts:
                    count[e] += 1
            same = 0
            for e in old[h]:
                if 0 <= e < experts and count[e] > 0:
                    count[e] -= 1
                    same += 1
            out[g, h] = same
            for e in new[g]:
                if 0 <= e < experts:
                    count[e] = 0


@lean_kernel
def _settle(order: NDArray[np.int64], slots: NDArray[np.int64], old: NDArray[np.int64]) -> None:
    """Orders the slots that come to each GPU, `order` [gpus, width], so that an expert of `old` keeps its slot, in
    place."""
    width = order.shape[1]
    for g in range(len(order)):
        for s in range(width):
            if slots[order[g, s]] == old[g, s]:
                continue
            for t in range(width):
                if slots[order[g, t]] == old[g, s] and slots[order[g, t]] != old[g, t]:
                    order[g, s], order[g, t] = order[g, t], order[g, s]
                    break


def renaming(slots: IntArray, old: IntArray, experts: int, nodes: int, gpus: int) -> Renaming:
    """New names so that GPUs share as many experts as possible with those of `old` of their name, in the same slots.

    Args:
        slots, old: [slots] logical expert of each slot; entries of either that are no expert match nothing.
        nodes: within a node GPUs may change names, and nodes as wholes; 1 where any GPU may take any name.
        gpus: in all; a multiple of nodes.
    """
    before = np.ascontiguousarray(old).reshape(gpus, -1)
    names = _names(slots.reshape(gpus, -1), before, experts, nodes)
    order = np.empty((gpus, len(slots) // gpus), dtype=np.int64)
    order[names] = np.arange(len(slots)).reshape(gpus, -1)
    _settle(order, slots, before)
    return Renaming(names, order.reshape(-1))


def _names(new: IntArray, old: IntArray, experts: int, nodes: int) -> IntArray:
    """[gpus] the best names; new, old: [gpus, width] experts."""
    from scipy.optimize import linear_sum_assignment

    gpus = len(new)
    shared = np.empty((gpus, gpus))
    _shared(new, old, experts, shared)
    span = gpus // nodes
    # [new node, old node]: what the best names within the pair of nodes keep, and those names.
    kept = np.zeros((nodes, nodes))
    names = np.empty((nodes, nodes, span), dtype=np.int64)
    for n in range(nodes):
        for m in range(nodes):
            block = shared[n * span : (n + 1) * span, m * span : (m + 1) * span]
            rows, columns = linear_sum_assignment(block, maximize=True)
            kept[n, m] = block[rows, columns].sum()
            names[n, m] = columns
    out = np.empty(gpus, dtype=np.int64)
    for n, m in zip(*linear_sum_assignment(kept, maximize=True), strict=True):
        out[n * span : (n + 1) * span] = m * span + names[n, m]
    return out


def relabel(slots: IntArray, old: IntArray, experts: int, nodes: int, gpus: int) -> IntArray:
    """[slots] the placement under the names, and in the order within GPUs, that change the fewest slots; see
    `renaming`."""
    return renaming(slots, old, experts, nodes, gpus).slots(slots)
