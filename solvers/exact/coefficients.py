"""Numbers that both exact models are built from: prices by copies, and the rows that a link's time must cover.

Prices come from placement.cost; tests hold these rows against placement.cost.score_layer on random placements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from placement.cost.moe_layer import effective_rule, latency_s, slot_time
from placement.problem import FloatArray, IntArray, LayerProblem
from solvers.base import UnsupportedError

#: Largest model that is built: terms of the touch chains and of the placement.
MOST_TERMS = 2_000_000


@dataclass(frozen=True)
class LinkRow:
    """One link: it takes sum(seconds * P) for dispatch and combine, where P are touch chances of GPUs or of nodes."""

    level: Literal["gpu", "node"]
    seconds: FloatArray


@dataclass(frozen=True)
class Coefficients:
    """A problem in numbers.

    Attributes:
        most: largest number of copies an expert can have.
        work: [most + 1, windows, experts] what one copy adds to its GPU (row 0 unused): seconds, or load over mean.
        links: the link rows; empty for objective "load".
        linear: P are loads (copies), not touch chances of sets.
        fixed: part of the objective that no placement changes (seconds).
        pooled: [experts] load over the mean GPU load, mean over windows (for `max_load`).
        held: [gpus, experts] what the current placement holds, or None.
    """

    most: int
    work: FloatArray
    links: tuple[LinkRow, ...]
    linear: bool
    fixed: float
    pooled: FloatArray
    held: IntArray | None


def coefficients_of(problem: LayerProblem) -> Coefficients:
    """The coefficients of `problem`.

    Raises:
        UnsupportedError: replicas under a dispatch policy other than `even`, or a model beyond MOST_TERMS.
    """
    topology, rates = problem.topology, problem.rates
    if problem.slots > problem.experts and problem.dispatch != "even":
        raise UnsupportedError(f"exact models price replicas under even dispatch only, not {problem.dispatch}")
    most = max(1, min(topology.gpus, problem.slots - problem.experts + 1))
    sets = 0 if problem.sets is None else problem.sets.ids.size
    terms = most * topology.gpus * (problem.experts + sets)
    if terms > MOST_TERMS:
        raise UnsupportedError(f"the exact model would have about {terms:,} terms, more than {MOST_TERMS:,}")
    mean = problem.load.sum(axis=1, keepdims=True) / topology.gpus
    relative = problem.load / np.where(mean > 0, mean, 1.0)
    copies = np.maximum(np.arange(most + 1), 1)[:, None, None]
    timed = problem.objective == "time"
    if timed:
        work = slot_time(rates.tokens_per_gpu * topology.gpus * problem.load[None] / copies, rates)
    else:
        work = relative[None] / copies
    held = None
    if problem.current is not None:
        held = np.zeros((topology.gpus, problem.experts), dtype=np.int64)
        held[problem.gpu_of_slot, problem.current] = 1
    pooled_mean = problem.mean_load.sum() / topology.gpus
    return Coefficients(
        most, work, tuple(link_rows(problem)) if timed else (), effective_rule(problem) == "per_expert",
        2 * latency_s(problem) if timed else 0.0, problem.mean_load / max(pooled_mean, 1e-300), held,
    )  # fmt: skip


def link_rows(problem: LayerProblem) -> list[LinkRow]:
    """Every ingress and egress as a row over touch chances (docs/formulation.md, "Links").

    Homes are uniform, so GPUs of a node send alike, and a tray's ingress is the mean over its GPUs.
    """
    topology, rates = problem.topology, problem.rates
    gpus, m, nodes, n = topology.gpus, topology.gpus_per_node, topology.nodes, rates.tokens_per_gpu
    both = rates.dispatch_bytes + rates.combine_bytes
    fast, slow = both * n / rates.fast_bytes_per_s, both * n / rates.slow_bytes_per_s
    node = topology.node_of_gpu
    rows: list[LinkRow] = []
    by_node = effective_rule(problem) == "per_node"
    # Over the fast link a token also comes from the forwarding GPU of its node, whatever its home.
    homes = nodes if by_node else 1
    for g in range(gpus):
        if m > 1:
            others = ((node == node[g]) & (np.arange(gpus) != g)).astype(np.float64)
            rows.append(LinkRow("gpu", fast * homes * others))
            rows.append(LinkRow("gpu", np.where(np.arange(gpus) == g, fast * homes * (m - 1), 0.0)))
    if nodes == 1:
        return rows
    if by_node:
        for j in range(nodes):
            rows.append(LinkRow("node", np.where(np.arange(nodes) == j, slow * (nodes - 1), 0.0)))
            rows.append(LinkRow("node", np.where(np.arange(nodes) == j, 0.0, slow)))
        return rows
    size = topology.gpus_per_tray
    for tray in range(gpus // size):
        rows.append(LinkRow("gpu", np.where(np.arange(gpus) // size == tray, slow * (gpus - m) / size, 0.0)))
    for h in range(nodes):
        rows.append(LinkRow("gpu", np.where(node == h, 0.0, slow)))
    return rows


def slots_from(holds: FloatArray, problem: LayerProblem) -> IntArray:
    """[slots] placement from [experts, gpus] of 0 and 1; experts ascend on each GPU."""
    out = [np.flatnonzero(holds[:, g] > 0.5)[: problem.slots_per_gpu] for g in range(problem.topology.gpus)]
    return np.concatenate(out).astype(np.int64)
