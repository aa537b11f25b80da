"""A problem as flat arrays for the compiled search: what a GPU's work and a bin's messages cost, with prices from
placement.cost. The search's own objective only guides it; answers are scored by placement.cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.cost.layer.links import effective_rule
from placement.cost.layer.score import slot_time
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class Bins:
    """Where messages are counted, and what the busiest of them costs.

    A bin is a node (`per_node` across nodes) or a GPU. Of P[b], the chance that a token touches bin b, the ingress of
    group i takes in_s * mean(P over i) seconds and the egress of group o out_s * (sum(P) - sum(P over o)) seconds,
    dispatch and combine together. With several nodes only the slow links count here, with one node the fast ones.

    Attributes:
        of_gpu: [gpus] bin. in_group, out_group: [bins] group index.
        linear: messages are copies, not distinct tokens (`per_expert`), so P is a load.
    """

    of_gpu: IntArray
    in_group: IntArray
    out_group: IntArray
    in_s: float
    out_s: float
    linear: bool

    @property
    def count(self) -> int:
        return len(self.in_group)


def bins_of(problem: LayerProblem) -> Bins:
    """The bins that decide a problem's dispatch time."""
    topology, rates = problem.topology, problem.hardware.rates
    rule = effective_rule(problem)
    gpus, m, nodes, n = topology.gpus, topology.gpus_per_node, topology.nodes, rates.tokens_per_gpu
    both = rates.dispatch_bytes + rates.combine_bytes
    gpu = np.arange(gpus, dtype=np.int64)
    linear = rule == "per_expert"
    if nodes == 1:
        # Of all tokens a GPU in use is the home of as many as any other.
        live = int(problem.hardware.alive.sum())
        scale = both * n * gpus / live / rates.fast_bytes_per_s
        return Bins(gpu, gpu, gpu, scale * (live - 1), scale, linear)
    scale = both * n / rates.slow_bytes_per_s
    if rule == "per_node":
        node = np.arange(nodes, dtype=np.int64)
        return Bins(topology.node_of_gpu, node, node, scale * (nodes - 1), scale, False)
    return Bins(gpu, gpu // topology.gpus_per_tray, topology.node_of_gpu, scale * (gpus - m), scale, linear)


@dataclass(frozen=True)
class Terms:
    """Arrays of one problem.

    Attributes:
        cost: [most copies + 1, windows, experts] seconds of one copy's slot when an expert has that many copies
            (`even` split), for objective "time"; else the copy's load over the mean GPU load.
        load: [windows, experts] load over the mean GPU load (a perfectly balanced GPU holds 1).
    """

    cost: FloatArray
    load: FloatArray
    bins: Bins
    window_weight: FloatArray


def terms_of(problem: LayerProblem) -> Terms:
    """The flat arrays of `problem`."""
    rates, topology = problem.hardware.rates, problem.topology
    alive = max(1, int(problem.hardware.alive.sum()))
    most = max(1, min(alive, problem.hardware.usable_slots - problem.experts + 1))
    mean = problem.data.load.sum(axis=1, keepdims=True) / alive
    load = problem.data.load / np.where(mean > 0, mean, 1.0)
    copies = np.maximum(np.arange(most + 1), 1)[:, None, None]
    if problem.objective.kind == "time":
        cost = slot_time(rates.tokens_per_gpu * topology.gpus * problem.data.load[None] / copies, rates)
    else:
        cost = load[None] / copies
    bins = bins_of(problem)
    if problem.objective.kind == "load":
        bins = Bins(bins.of_gpu, bins.in_group, bins.out_group, 0.0, 0.0, True)
    return Terms(cost, load, bins, problem.data.window_weight)
