"""Dispatch plans in closed form: near copies, one node per home and expert, and shares as engines round them."""

from __future__ import annotations

import numpy as np

from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem


def target_fractions(problem: LayerProblem, slots: IntArray, target: IntArray) -> FloatArray:
    """[nodes, slots] shares where a home's tokens go evenly to the copies on one node.

    Args:
        target: [nodes, experts] that node by home node.
    """
    node = problem.hardware.gpu_of_slot // problem.topology.gpus_per_node
    used = slots != EMPTY
    fractions = np.zeros((problem.topology.nodes, problem.slots))
    for home in range(problem.topology.nodes):
        serves = used & (target[home][slots] == node)
        copies = np.bincount(slots[serves], minlength=problem.experts)
        fractions[home] = np.where(serves, 1.0 / np.maximum(copies[slots], 1), 0.0)
    return fractions


def rounded_fractions(fractions: FloatArray, slots: IntArray, levels: int = 16) -> FloatArray:
    """[nodes, slots] shares as multiples of 1 / levels, by largest remainders (Hamilton's method), so that they sum to
    1."""
    out = np.floor(fractions * levels + 1e-9)
    for home in range(len(out)):
        rest = fractions[home] * levels - out[home]
        used = np.flatnonzero(slots != EMPTY)
        sums = np.bincount(slots[used], out[home][used])
        order = used[np.lexsort((-rest[used], slots[used]))]
        first = np.concatenate([[0], np.cumsum(np.bincount(slots[used]))])
        place = np.arange(len(order)) - first[slots[order]]
        out[home][order] += place < (levels - sums[slots[order]])
    return np.asarray(out / levels)


def near_fractions(problem: LayerProblem, slots: IntArray) -> FloatArray:
    """[nodes, slots] even over the home node's copies, else over all."""
    topology = problem.topology
    node = problem.hardware.gpu_of_slot // topology.gpus_per_node
    fractions = np.zeros((topology.nodes, problem.slots))
    used = slots != EMPTY
    copies = np.bincount(slots[used], minlength=problem.experts)
    for home in range(topology.nodes):
        own = used & (node == home)
        here = np.bincount(slots[own], minlength=problem.experts)
        local = here[slots] > 0
        share = np.where(local, own / np.maximum(here[slots], 1), 1.0 / np.maximum(copies[slots], 1))
        fractions[home] = np.where(used, share, 0.0)
    return fractions
