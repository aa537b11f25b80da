"""Numbers that both exact models are built from: prices by copies, and the rows that a link's time must cover.

Prices come from placement.cost; tests hold these rows against placement.cost.score_layer on random placements.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from placement.cost.layer.links import crowding, effective_rule, entering_tokens
from placement.cost.layer.score import latency_s, slot_times
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.rates import ALIKE
from placement.problem.topology import Topology
from solvers.base import UnsupportedError

#: Largest model that is built: terms of the touch chains and of the placement.
MOST_TERMS = 2_000_000


@dataclass(frozen=True)
class LinkRow:
    """One link: sum(price * P) for dispatch and combine, where P are touch chances of GPUs or of nodes.

    The price is in seconds, or for objective "traffic" in bytes.
    """

    level: Literal["gpu", "node"]
    price: FloatArray


def gpus_of_bins(topology: Topology, level: str) -> list[range]:
    """GPUs of each bin of a level: "gpu", or "node"."""
    width = 1 if level == "gpu" else topology.gpus_per_node
    return [range(first, first + width) for first in range(0, topology.gpus, width)]


def expert_sets(problem: LayerProblem) -> list[list[int]]:
    """Experts of each token set, ascending; no sets where only load counts are known."""
    return [] if problem.data.sets is None else problem.data.sets.ids.tolist()


@dataclass(frozen=True)
class Coefficients:
    """A problem in numbers.

    Attributes:
        most: largest number of copies an expert can have.
        work: [kinds, most + 1, windows, experts] what one copy adds to its GPU in a kind of pass, by how many there are
            (0 unused): seconds times the kind's share, load over mean, or nothing ("traffic").
        shares, moved: [kinds] share of the passes, and of what messages take in the mean pass.
        speed: [gpus] what a GPU's work is divided by.
        links: see link_rows.
        linear: P are loads (copies), not touch chances of sets.
        fixed: part of the objective that no placement changes (seconds).
        pooled: [experts] load over the mean GPU load, mean over windows (for `max_load`).
        held: [gpus, experts] what the current placement holds, or None.
        gpu_alike: [gpus] GPUs that could change places with the one before on their node.
        node_alike: [nodes] nodes that could change places with the one before.
    """

    most: int
    work: FloatArray
    shares: FloatArray
    moved: FloatArray
    speed: FloatArray
    links: tuple[LinkRow, ...]
    linear: bool
    fixed: float
    pooled: FloatArray
    held: IntArray | None
    gpu_alike: BoolArray
    node_alike: BoolArray


def coefficients_of(problem: LayerProblem) -> Coefficients:
    """The coefficients of `problem`.

    Raises:
        UnsupportedError: replicas under a dispatch policy other than `even`, or a model beyond MOST_TERMS.
    """
    topology, rates = problem.topology, problem.hardware.rates
    spare, alive = problem.hardware.usable_slots - problem.experts, int(problem.hardware.alive.sum())
    if spare and problem.rules.dispatch != "even":
        raise UnsupportedError(f"exact models price replicas under even dispatch only, not {problem.rules.dispatch}")
    most = max(1, min(alive, spare + 1))
    sets = 0 if problem.data.sets is None else problem.data.sets.ids.size
    terms = most * topology.gpus * (problem.experts + sets)
    if terms > MOST_TERMS:
        raise UnsupportedError(f"the exact model would have about {terms:,} terms, more than {MOST_TERMS:,}")
    mean = problem.data.load.sum(axis=1, keepdims=True) / alive
    relative = problem.data.load / np.where(mean > 0, mean, 1.0)
    copies = np.maximum(np.arange(most + 1), 1)[:, None, None]
    timed = problem.objective.kind == "time"
    if timed:
        kinds = rates.kinds
        work = slot_times(rates.tokens_per_gpu * topology.gpus * problem.data.load[None] / copies, rates)
    else:
        kinds = ALIKE
        work = relative[None, None] / copies * (problem.objective.kind == "load")
    held = None
    if problem.rules.current is not None:
        held = np.zeros((topology.gpus, problem.experts), dtype=np.int64)
        kept = problem.rules.current != EMPTY
        held[problem.hardware.gpu_of_slot[kept], problem.rules.current[kept]] = 1
    pooled_mean = problem.data.mean_load.sum() / alive
    return Coefficients(
        most, work, np.array([kind.share for kind in kinds]), np.array([kind.share * kind.tokens for kind in kinds]),
        problem.hardware.speeds if timed else problem.hardware.relative_speed, tuple(link_rows(problem)),
        effective_rule(problem) == "per_expert", 2 * latency_s(problem) if timed else 0.0,
        problem.data.mean_load / max(pooled_mean, 1e-300), held, *_alike(problem),
    )  # fmt: skip


def _alike(problem: LayerProblem) -> tuple[BoolArray, BoolArray]:
    """([gpus], [nodes]) what may change places with its neighbour before, without a change of any rule or price."""
    topology = problem.topology
    rows = np.stack([problem.hardware.capacities, problem.hardware.speeds, problem.hardware.homes])
    same = np.append(False, (rows[:, 1:] == rows[:, :-1]).all(axis=0))
    # Trays tell GPUs of a node apart; so do unlike homes, whose tokens enter a node at their own local rank.
    inside = np.arange(topology.gpus) % topology.gpus_per_node > 0
    gpus = same & inside & (topology.gpus_per_tray == 1) & problem.hardware.uniform_home
    by_node = rows.reshape(len(rows), topology.nodes, -1)
    nodes = np.append(False, (by_node[:, 1:] == by_node[:, :-1]).all(axis=(0, 2)))
    return gpus, nodes


def link_rows(problem: LayerProblem) -> list[LinkRow]:
    """Every ingress and egress as a row over touch chances (docs/formulation.md, "Links"), for one home class.

    For objective "load" there are none; for "traffic" one row holds the bytes per token of all of them.

    Where rows of one node differ in a factor only, as those of its trays, the largest stands for all.
    """
    topology, rates = problem.topology, problem.hardware.rates
    gpus, m, nodes, tray = topology.gpus, topology.gpus_per_node, topology.nodes, topology.gpus_per_tray
    both = rates.dispatch_bytes + rates.combine_bytes
    if problem.objective.kind == "load":
        return []
    if problem.objective.kind == "traffic":
        return [_crossing_row(problem)]
    fast, slow = both / rates.fast_bytes_per_s, both / rates.slow_bytes_per_s
    node, gpu = topology.node_of_gpu, np.arange(gpus)
    tokens = problem.hardware.home_tokens.reshape(nodes, m)
    by_node = effective_rule(problem) == "per_node"
    # Over the fast link a token also comes from the forwarding GPU of its node, whatever its home.
    enters = entering_tokens(problem) if by_node else np.zeros_like(tokens)
    passed = (tokens + enters).reshape(-1)
    rows: list[LinkRow] = []
    if m > 1:
        into = np.repeat(passed.reshape(nodes, m).sum(axis=1), m) - passed
        for g in range(gpus):
            others = ((node == node[g]) & (gpu != g)).astype(np.float64)
            rows.append(LinkRow("gpu", fast * passed[g] * others))
            rows.append(LinkRow("gpu", np.where(gpu == g, fast * into[g], 0.0)))
    if nodes == 1:
        return rows
    crowd_in, crowd_out = crowding(problem)
    sent = crowd_out * tokens.mean(axis=1)
    if by_node:
        into = crowd_in * enters.mean(axis=1)
        for j in range(nodes):
            rows.append(LinkRow("node", np.where(np.arange(nodes) == j, slow * into[j], 0.0)))
            rows.append(LinkRow("node", np.where(np.arange(nodes) == j, 0.0, slow * sent[j])))
        return rows
    away = tokens.sum() - tokens.sum(axis=1)
    for t in range(gpus // tray):
        rows.append(LinkRow("gpu", np.where(gpu // tray == t, slow * away[t * tray // m] / tray, 0.0)))
    for h in range(nodes):
        rows.append(LinkRow("gpu", np.where(node == h, 0.0, slow * sent[h])))
    return rows


def _crossing_row(problem: LayerProblem) -> LinkRow:
    """Bytes of a token, dispatch and combine, that cross nodes, over touch chances."""
    rates, by_home = problem.hardware.rates, problem.hardware.homes.reshape(problem.topology.nodes, -1).sum(axis=1)
    away = (rates.dispatch_bytes + rates.combine_bytes) * (1.0 - by_home)
    if effective_rule(problem) == "per_node":
        return LinkRow("node", away)
    return LinkRow("gpu", away[problem.topology.node_of_gpu])


def tail_shares(problem: LayerProblem) -> tuple[FloatArray, bool]:
    """([windows] weight of each window over `tail`, whether the worst window alone decides).

    In the epigraph form of the tail mean, eta + sum(share * max(0, value - eta)), shares are the weights of the excess.
    """
    weight = problem.data.window_weight / problem.data.window_weight.sum()
    positive = weight[weight > 0]
    if problem.objective.tail <= positive.min():
        return np.where(weight > 0, 1.0, 0.0), True
    return np.asarray(weight / problem.objective.tail), False


def slots_from(holds: FloatArray, problem: LayerProblem) -> IntArray:
    """[slots] placement from [experts, gpus] of 0 and 1; experts ascend on each GPU, EMPTY behind them."""
    out = np.full((problem.topology.gpus, problem.hardware.slots_per_gpu), EMPTY, dtype=np.int64)
    for g, room in enumerate(problem.hardware.capacities):
        held = np.flatnonzero(holds[:, g] > 0.5)[:room]
        out[g, : len(held)] = held
    return out.reshape(-1)
