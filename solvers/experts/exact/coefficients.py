"""Numbers that exact models are built from: the tariff of a layer, and what its rules ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from placement.cost.layer.residues import MOST
from placement.cost.layer.tariff import Tariff, tariff_of
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.rates import ALIKE
from placement.problem.topology import Topology
from solvers.base import UnsupportedError

#: Largest model that is built: terms of the touch chains and of the placement.
MOST_TERMS = 2_000_000


def gpus_of_bins(topology: Topology, level: str) -> list[range]:
    """GPUs of each bin of a level: "gpu", or "node"."""
    width = 1 if level == "gpu" else topology.gpus_per_node
    return [range(first, first + width) for first in range(0, topology.gpus, width)]


def bin_of_gpu(topology: Topology, level: str) -> IntArray:
    """[gpus] bin of each GPU at a level."""
    return np.arange(topology.gpus, dtype=np.int64) if level == "gpu" else topology.node_of_gpu


def expert_sets(problem: LayerProblem) -> list[list[int]]:
    """Experts of each token set, ascending; no sets where only load counts are known."""
    return [] if problem.data.sets is None else problem.data.sets.ids.tolist()


@dataclass(frozen=True)
class Coefficients:
    """A problem in numbers.

    Attributes:
        tariff: the prices; links and speeds are taken from it as they are.
        work: [kinds, most + 1, windows, experts] what one copy adds to its GPU in a kind of pass, by how many there are
            (0 unused): seconds times the kind's share, load over mean, or nothing ("traffic").
        shares, moved: [kinds] share of the passes, and of what messages take in the mean pass.
        pooled: [experts] load over the mean GPU load, mean over windows (for `max_load`).
        held: [gpus, experts] what the current placement holds, or None.
        gpu_alike: [gpus] GPUs that could change places with the one before on their node.
        node_alike: [nodes] nodes that could change places with the one before.
    """

    tariff: Tariff
    work: FloatArray
    shares: FloatArray
    moved: FloatArray
    pooled: FloatArray
    held: BoolArray | None
    gpu_alike: BoolArray
    node_alike: BoolArray

    @property
    def dearest_link(self) -> float:
        """No placement makes a link dearer, times the copies of a token."""
        return max((float(row.price.sum()) for row in self.tariff.links), default=self.tariff.least_link)


def coefficients_of(problem: LayerProblem) -> Coefficients:
    """The coefficients of `problem`.

    Raises:
        UnsupportedError: Replicas under a dispatch policy that does not share alike, more copies than the scorer tells
            a token's number by, or a model beyond MOST_TERMS.
    """
    tariff, topology, numbers = tariff_of(problem), problem.topology, numbers_of(tariff_of(problem))
    if not tariff.alike:
        raise UnsupportedError(
            f"exact models price replicas under even dispatch and token_hash only, not {problem.rules.dispatch}"
        )
    if numbers > MOST:
        raise UnsupportedError(
            f"exact models tell up to {MOST:,} numbers of a token apart; {tariff.most_copies} copies need {numbers:,}"
        )
    sets = numbers * problem.data.sets.ids.size if problem.data.sets is not None and not tariff.linear else 0
    terms = tariff.most_copies * topology.gpus * (problem.experts + sets)
    if terms > MOST_TERMS:
        raise UnsupportedError(f"the exact model would have about {terms:,} terms, more than {MOST_TERMS:,}")
    kinds = problem.hardware.rates.kinds if tariff.timed else ALIKE
    held = None if problem.rules.current is None else problem.held(problem.rules.current)
    pooled_mean = problem.data.mean_load.sum() / int(problem.hardware.alive.sum())
    return Coefficients(
        tariff,
        tariff.copy_times if tariff.timed else tariff.copy_loads[None] * (problem.objective.kind == "load"),
        np.array([kind.share for kind in kinds]), np.array([kind.share * kind.tokens for kind in kinds]),
        problem.data.mean_load / max(pooled_mean, 1e-300), held, *_alike(problem),
    )  # fmt: skip


def numbers_of(tariff: Tariff) -> int:
    """How many numbers of a token tell all choices of copies apart; 1 where no number picks them (Tariff.together)."""
    return math.lcm(*range(1, tariff.most_copies + 1)) if tariff.together else 1


def _alike(problem: LayerProblem) -> tuple[BoolArray, BoolArray]:
    """([gpus], [nodes]) what may change places with its neighbour before, without a change of any rule or price."""
    topology = problem.topology
    if tariff_of(problem).together:
        # The order of GPUs says which copy a number takes.
        return np.zeros(topology.gpus, dtype=bool), np.zeros(topology.nodes, dtype=bool)
    rows = np.stack([problem.hardware.capacities, problem.hardware.speeds, problem.hardware.homes])
    same = np.append(False, (rows[:, 1:] == rows[:, :-1]).all(axis=0))
    # Trays tell GPUs of a node apart; so do unlike homes, whose tokens enter a node at their own local rank.
    inside = np.arange(topology.gpus) % topology.gpus_per_node > 0
    gpus = same & inside & (topology.gpus_per_tray == 1) & problem.hardware.uniform_home
    by_node = rows.reshape(len(rows), topology.nodes, -1)
    nodes = np.append(False, (by_node[:, 1:] == by_node[:, :-1]).all(axis=(0, 2)))
    return gpus, nodes


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
