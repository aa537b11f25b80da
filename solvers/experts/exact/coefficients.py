"""Numbers that exact models are built from: the tariff of a layer, and what its rules ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from placement.cost.layer.dispatch import policy_of
from placement.cost.layer.residues import MOST
from placement.cost.layer.tariff import BinLevel, LinkRow, Tariff, tariff_of
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.rates import ALIKE
from placement.problem.topology import Topology
from solvers.base import UnsupportedError
from solvers.experts.every import BLIND
from solvers.experts.exact.patterns import Patterns, count_patterns, patterns_of

#: Largest model that is built: terms of the touch chains and of the placement.
MOST_TERMS = 2_000_000


def gpus_of_bins(topology: Topology, level: BinLevel) -> list[range]:
    """GPUs of each bin of a level: "gpu", or "node"."""
    width = 1 if level == "gpu" else topology.gpus_per_node
    return [range(first, first + width) for first in range(0, topology.gpus, width)]


def bin_of_gpu(topology: Topology, level: BinLevel) -> IntArray:
    """[gpus] bin of each GPU at a level."""
    return np.arange(topology.gpus, dtype=np.int64) if level == "gpu" else topology.node_of_gpu


def expert_sets(problem: LayerProblem) -> list[list[int]]:
    """Experts of each token set, ascending; no sets where only load counts are known."""
    return [] if problem.data.sets is None else problem.data.sets.ids.tolist()


@dataclass(frozen=True)
class Coefficients:
    """A problem in numbers.

    Attributes:
        tariff: the prices; speeds are taken from it as they are.
        patterns: what dispatch makes of copies where homes dispatch differently, else None.
        links: rows of prices: over bins, or over the places of the patterns.
        work: [kinds, ways, windows, experts, gpus] what one copy adds to its GPU in a kind of pass, by the way in which
            the expert's copies lie: seconds times the kind's share, load over mean, or nothing ("traffic"). A way is a
            pattern; where there are none, so many copies (0 unused), wherever they are.
        shares, moved: [kinds] share of the passes, and of what messages take in the mean pass.
        pooled: [experts] load over the mean GPU load, mean over windows (for `max_load`).
        held: [gpus, experts] what the current placement holds, or None.
        gpu_alike: [gpus] GPUs that could change places with the one before on their node.
        node_alike: [nodes] nodes that could change places with the one before.
    """

    tariff: Tariff
    patterns: Patterns | None
    links: tuple[LinkRow, ...]
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
        return max((float(row.price.sum()) for row in self.links), default=self.tariff.least_link)

    @cached_property
    def dearest_work(self) -> FloatArray:
        """[kinds, windows, experts] the most that a copy adds to a GPU: as the only one."""
        return np.asarray(self.work.max(axis=(1, 4)))

    def by_way(self, load: FloatArray) -> FloatArray:
        """[ways, experts, gpus] load of one copy ([experts] of all), by the way in which copies lie."""
        if self.patterns is not None:
            return np.asarray(load[None, :, None] * self.patterns.served[:, None, :])
        counts = np.maximum(np.arange(self.tariff.most_copies + 1), 1)
        return np.repeat((load[None, :] / counts[:, None])[:, :, None], self.tariff.problem.topology.gpus, axis=2)


def coefficients_of(problem: LayerProblem) -> Coefficients:
    """The coefficients of `problem`.

    Raises:
        UnsupportedError: Replicas under a dispatch policy that is solved itself, more copies than the scorer tells a
            token's number by, or a model beyond MOST_TERMS.
    """
    tariff, patterns = tariff_of(problem), None
    if not tariff.alike:
        if policy_of(problem).solved:
            raise UnsupportedError(
                f"exact models don't price replicas under {problem.rules.dispatch} dispatch, whose shares are solved"
            )
        # Before the patterns are listed.
        _refuse_beyond(count_patterns(problem, tariff.most_copies) * problem.experts * problem.topology.gpus)
        patterns = patterns_of(tariff)
    _refuse_beyond(_terms(tariff, patterns))
    kinds = problem.hardware.rates.kinds if tariff.timed else ALIKE
    held = None if problem.rules.current is None else problem.held(problem.rules.current)
    pooled_mean = problem.data.mean_load.sum() / int(problem.hardware.alive.sum())
    return Coefficients(
        tariff, patterns, tariff.links if patterns is None else patterns.links, _work(tariff, patterns),
        np.array([kind.share for kind in kinds]), np.array([kind.share * kind.tokens for kind in kinds]),
        problem.data.mean_load / max(pooled_mean, 1e-300), held, *_alike(problem, patterns),
    )  # fmt: skip


def _terms(tariff: Tariff, patterns: Patterns | None) -> int:
    """About how many terms the model has.

    Raises:
        UnsupportedError: More copies than the scorer tells a token's number by.
    """
    problem, numbers = tariff.problem, numbers_of(tariff)
    if numbers > MOST:
        raise UnsupportedError(
            f"exact models tell up to {MOST:,} numbers of a token apart; {tariff.most_copies} copies need {numbers:,}"
        )
    sets = numbers * problem.data.sets.ids.size if problem.data.sets is not None and not tariff.linear else 0
    if patterns is None:
        return tariff.most_copies * problem.topology.gpus * (problem.experts + sets)
    places = sum(len(shares.T) for shares in patterns.shares.values())
    each = len(patterns.holds) * (problem.topology.gpus + places)
    return each * problem.experts + tariff.most_copies * places * sets


def _refuse_beyond(terms: int) -> None:
    if terms > MOST_TERMS:
        raise UnsupportedError(f"the exact model would have about {terms:,} terms, more than {MOST_TERMS:,}")


def _work(tariff: Tariff, patterns: Patterns | None) -> FloatArray:
    """Coefficients.work."""
    problem = tariff.problem
    if patterns is None:
        by_copies = tariff.copy_times if tariff.timed else tariff.copy_loads[None]
        work = np.repeat(by_copies[..., None], problem.topology.gpus, axis=-1)
    else:
        load = problem.data.load if tariff.timed else tariff.relative_load
        served = load[None, :, :, None] * patterns.served[:, None, None, :]
        work = tariff.slot_times(tariff.all_tokens * served) if tariff.timed else served[None]
    return np.asarray(work * (problem.objective.kind != "traffic"))


def numbers_of(tariff: Tariff) -> int:
    """How many numbers of a token tell all choices of copies apart; 1 where no number picks them (Tariff.together)."""
    return math.lcm(*range(1, tariff.most_copies + 1)) if tariff.together else 1


def _alike(problem: LayerProblem, patterns: Patterns | None) -> tuple[BoolArray, BoolArray]:
    """([gpus], [nodes]) what may change places with its neighbour before, without a change of any rule or price."""
    topology = problem.topology
    if tariff_of(problem).together or (patterns is not None and problem.rules.dispatch not in BLIND):
        # The order of GPUs says which copy serves.
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
