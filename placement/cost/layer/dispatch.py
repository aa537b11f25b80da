"""Dispatch policies: which share of the tokens of each home goes to which copy of an expert."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology


@dataclass(frozen=True)
class Shares:
    """Shares of tokens by home class, in compressed rows: class c, expert e owns entries start[c*E+e] : start[c*E+e+1].

    Attributes:
        class_of_gpu: [gpus] home class of each source GPU; homes of one class dispatch alike.
        start: [classes * experts + 1] row starts.
        slot: [entries] slot that serves the share.
        fraction: [entries] share of the class's tokens for that expert, 0..1; each row sums to 1.
    """

    class_of_gpu: IntArray
    start: IntArray
    slot: IntArray
    fraction: FloatArray

    @property
    def classes(self) -> int:
        return int(self.class_of_gpu.max()) + 1


def dispatch_shares(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> Shares:
    """The shares of the problem's dispatch policy, in expectation over its fair draws.

    `even`: every copy alike. `nearest`: the copy on the home GPU; else the copies on its node, else all copies, one of
    them drawn fairly for that home GPU and expert. `planned`: `fractions` [nodes, slots] by home node.

    Args:
        slots: [slots] experts; EMPTY slots serve nothing.

    Raises:
        InputError: `planned` without fractions, or fractions of an expert that don't sum to 1.
    """
    slots, topology, policy = np.asarray(slots, dtype=np.int64), problem.topology, problem.rules.dispatch
    copies, count = _copies(slots, problem.experts)
    gpus = topology.gpus
    if policy == "even" or bool((count == 1).all()):
        start = np.concatenate([[0], np.cumsum(count)])
        flat = copies[np.arange(copies.shape[1])[None, :] < count[:, None]]
        return Shares(np.zeros(gpus, dtype=np.int64), start, flat, np.repeat(1.0 / count, count))
    if policy == "planned":
        return planned_shares(slots, problem.experts, topology, fractions)
    start, slot, fraction = _nearest(copies, count, problem.hardware.slots_per_gpu, gpus, topology.gpus_per_node)
    return Shares(np.arange(gpus, dtype=np.int64), start, slot, fraction)


def planned_shares(slots: IntArray, experts: int, topology: Topology, fractions: FloatArray | None) -> Shares:
    """The shares of `planned` dispatch.

    Args:
        slots: [slots] experts, or EMPTY. fractions: [nodes, slots] by home node.

    Raises:
        InputError: No fractions, or fractions of an expert that don't sum to 1.
    """
    if fractions is None:
        raise InputError("dispatch", "fractions", "planned dispatch needs its fractions", "solve them first")
    copies, count = _copies(slots, experts)
    return _planned(copies, count, len(slots), topology, fractions)


def _copies(slots: IntArray, experts: int) -> tuple[IntArray, IntArray]:
    """[experts, most copies] slots of each expert (padded with 0) and [experts] their count."""
    order = np.argsort(slots, kind="stable").astype(np.int64)
    order = order[np.searchsorted(slots[order], 0) :]  # EMPTY comes first
    expert = slots[order]
    count = np.bincount(expert, minlength=experts).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    table = np.zeros((experts, int(count.max())), dtype=np.int64)
    table[expert, np.arange(len(order)) - first[expert]] = order
    return table, count


def _planned(copies: IntArray, count: IntArray, slots: int, topology: Topology, fractions: FloatArray) -> Shares:
    experts, nodes = len(count), topology.nodes
    if fractions.shape != (nodes, slots):
        raise InputError(
            "dispatch", "fractions", f"shape {fractions.shape} is not (nodes, slots)", "give one row a node"
        )
    held = np.arange(copies.shape[1])[None, :] < count[:, None]
    slot = np.tile(copies[held], nodes)
    start = np.concatenate([[0], np.cumsum(np.tile(count, nodes))])
    fraction = fractions[np.repeat(np.arange(nodes), held.sum()), slot]
    sums = np.add.reduceat(fraction, start[:-1])
    if (fraction < -1e-9).any() or not np.allclose(sums, 1.0, atol=1e-6):
        worst = int(np.argmax(np.abs(sums - 1.0)))
        raise InputError(
            "dispatch", "fractions", f"expert {worst % experts} of node {worst // experts} sums to {sums[worst]:g}",
            "shares of an expert must sum to 1",
        )  # fmt: skip
    return Shares(topology.node_of_gpu, start, slot, np.clip(fraction, 0.0, 1.0))


@njit(cache=True, nogil=True)
def _nearest(
    copies: NDArray[np.int64], count: NDArray[np.int64], slots_per_gpu: int, gpus: int, gpus_per_node: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    experts = count.shape[0]
    start = np.zeros(gpus * experts + 1, np.int64)
    slot = np.empty(gpus * count.sum(), np.int64)
    fraction = np.empty(gpus * count.sum(), np.float64)
    used = 0
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
            fraction[first:used] = 1.0 / (used - first)
            start[home * experts + e + 1] = used
    return start, slot[:used].copy(), fraction[:used].copy()
