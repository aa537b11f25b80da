"""New names for the GPUs of a placement, so that as few slots as possible change from an older one.

Which GPU is called which does not change its load. Within what may be renamed, the best names are an assignment
problem (Kuhn 1955): its value for a pair of GPUs is how many experts they share.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.problem import IntArray


@njit(cache=True, nogil=True)
def _shared(new: NDArray[np.int64], old: NDArray[np.int64], experts: int, out: NDArray[np.float64]) -> None:
    """Fills out [new GPUs, old GPUs] with how many experts they share (copies counted); new, old: [gpus, width]."""
    count = np.zeros(experts, np.int64)
    for g in range(len(new)):
        for h in range(len(old)):
            for e in new[g]:
                count[e] += 1
            same = 0
            for e in old[h]:
                if 0 <= e < experts and count[e] > 0:
                    count[e] -= 1
                    same += 1
            out[g, h] = same
            for e in new[g]:
                count[e] = 0


@njit(cache=True, nogil=True)
def _settle(new: NDArray[np.int64], old: NDArray[np.int64]) -> None:
    """Orders each GPU's experts so that one which it had keeps its slot, in place; new, old: [gpus, width]."""
    width = new.shape[1]
    for g in range(len(new)):
        for s in range(width):
            if new[g, s] == old[g, s]:
                continue
            for t in range(width):
                if new[g, t] == old[g, s] and new[g, t] != old[g, t]:
                    new[g, s], new[g, t] = new[g, t], new[g, s]
                    break


def renaming(slots: IntArray, old: IntArray, experts: int, nodes: int, gpus: int) -> IntArray:
    """[gpus] new name of each GPU, so that GPUs share as many experts as possible with those of `old` of their name.

    Args:
        slots, old: [slots] logical expert of each slot; entries of either that are no expert match nothing.
        nodes: within a node GPUs may change names, and nodes as wholes; 1 where any GPU may take any name.
        gpus: in all; a multiple of nodes.
    """
    from scipy.optimize import linear_sum_assignment

    new, before = slots.reshape(gpus, -1), np.ascontiguousarray(old).reshape(gpus, -1)
    shared = np.empty((gpus, gpus))
    _shared(new, before, experts, shared)
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
    """[slots] the placement with GPUs renamed, and slots within GPUs reordered, so that the fewest slots change.

    Args: those of `renaming`.
    """
    new, before = slots.reshape(gpus, -1), np.ascontiguousarray(old).reshape(gpus, -1)
    out = np.empty_like(new)
    out[renaming(slots, old, experts, nodes, gpus)] = new
    _settle(out, before)
    return out.reshape(-1)
