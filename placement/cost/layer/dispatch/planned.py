"""Shares by home node that were solved (solvers.dispatch) or given."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch.base import Shares
from placement.cost.layer.dispatch.even import Even
from placement.errors import InputError
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.topology import Topology
from specs.engine import Dispatch


class Planned:
    """See DispatchPolicy."""

    alike = False
    drawn_once = False
    together = False
    solved = True
    closed_form: Dispatch = "nearest"

    def shares(
        self, topology: Topology, slots_per_gpu: int, copies: IntArray, count: IntArray, fractions: FloatArray | None
    ) -> Shares:
        if fractions is None:
            raise InputError("dispatch", "fractions", "planned dispatch needs its fractions", "solve them first")
        experts, nodes = len(count), topology.nodes
        if fractions.shape != (nodes, topology.gpus * slots_per_gpu):
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

    def on_nodes(self, holds: BoolArray, homes: FloatArray, target: IntArray | None) -> FloatArray:
        if target is None:
            return Even().on_nodes(holds, homes, target)
        served = np.zeros(holds.shape)
        for home, share in enumerate(homes):
            np.add.at(served, (target[home], np.arange(holds.shape[1])), share)
        return served

    def between_nodes(self, topology: Topology) -> Dispatch:
        return "planned"
