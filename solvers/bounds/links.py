"""Lower bounds on the busiest link of a layer, in seconds per byte of a message (the scorer's link_s)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import ReachWitness
from solvers.stop import DEFAULT, Stop

if TYPE_CHECKING:
    from solvers.bounds.evenness import NodeWork

#: The co-location bound is sought up to so many experts: eigenvalues take their cube.
MOST_EXPERTS = 1024


@dataclass(frozen=True)
class Reach:
    """Least means per token, over all placements and dispatches that the problem allows.

    Attributes:
        nodes, gpus: distinct nodes and GPUs reached. remote_nodes, remote_gpus: of these, other than the token's home.
        witness: what proves the one that co-location raised.
    """

    nodes: float
    gpus: float
    remote_nodes: float
    remote_gpus: float
    witness: tuple[ReachWitness, ...] = field(default=(), compare=False)


def counted_reach(problem: LayerProblem) -> Reach:
    """By counting slots: distinct experts take distinct slots, so k experts need ceil(k / slots) bins."""
    k = 1 if problem.data.sets is None else problem.data.sets.ids.shape[1]
    nodes = -(-k // _most_on(problem, problem.topology.gpus_per_node))
    gpus = -(-k // _most_on(problem, 1))
    return Reach(nodes, gpus, nodes - 1, gpus - 1)


def colocation_reach(
    problem: LayerProblem, reach: Reach, stop: Stop = DEFAULT, enough: Callable[[Reach], bool] | None = None,
    work: NodeWork | None = None,
) -> Reach:  # fmt: skip
    """`reach` with the co-location bound of the window mean where messages are counted that way, else as it is.

    Args:
        stop: when to return the best bound so far; its work scales the steps.
        enough: whether a reach that is proven is enough, which ends the steps, too.
        work: what the busiest node does; the reach then holds beside that much work, and beside more where its time
            counts (see NodeWork). None: whatever nodes do.
    """
    tariff, topology = tariff_of(problem), problem.topology
    if problem.data.sets is None or tariff.linear or topology.gpus == 1:
        return reach
    if problem.experts > MOST_EXPERTS:
        return reach
    from solvers.bounds.colocation import distinct_bins
    from solvers.bounds.homes import remote_bins
    from solvers.bounds.partitions import cut_sets

    weight = weighted_sum(problem.data.window_weight, problem.data.sets.weight)
    ids, weight = cut_sets(problem.data.sets.ids.astype(np.int64), weight, problem.data.mean_load)
    single = tariff.alike
    by_node = topology.nodes > 1 and (tariff.rule.forwards or not single)
    bins = topology.nodes if by_node else topology.gpus
    most = _most_on(problem, topology.gpus_per_node if by_node else 1)
    name = ("nodes" if by_node else "gpus") if single else ("remote_nodes" if by_node else "remote_gpus")

    def with_bins(found: float) -> Reach:
        return replace(reach, **{name: max(getattr(reach, name), found)})

    def is_enough(found: float) -> bool:
        return enough is not None and enough(with_bins(found))

    if single:
        found = distinct_bins(ids, weight, problem.experts, bins, most, stop, is_enough)
    else:
        homes = problem.hardware.homes.reshape(bins, -1).sum(axis=1)
        found = remote_bins(ids, weight, problem.experts, homes, most, stop, is_enough, work)
    return replace(with_bins(found.bins), witness=found.witness)


def _most_on(problem: LayerProblem, gpus: int) -> int:
    """Most distinct experts that so many neighbouring GPUs (one, or a node) can hold."""
    return max(1, min(problem.experts, int(problem.hardware.capacities.reshape(-1, gpus).sum(axis=1).max())))


def crossing(problem: LayerProblem, load: FloatArray, reach: Reach) -> FloatArray:
    """[windows] least messages that cross nodes in one dispatch; of homes with copies of their own what must be remote.

    Args:
        load: [windows, experts] loads. reach: means per token that hold in each of these windows.
    """
    topology, tariff = problem.topology, tariff_of(problem)
    if tariff.constant_links is not None:
        return np.full(len(load), float(tariff.constant_links.across[0]))
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, -1).sum(axis=1)
    total, k, none = float(tokens.sum()), load.sum(axis=1), np.zeros(len(load))
    if topology.nodes == 1:
        return none
    if tariff.alike:
        bins = np.array([reach.nodes if tariff.rule.forwards else reach.gpus])
        return np.asarray((total - float(tokens.max())) * (none + tariff.rule.per_token(bins, k, np.ones(1))))
    if tariff.rule.counts != "copies":
        return none + total * reach.remote_nodes
    return total * _least_away(load, _most_on(problem, topology.gpus_per_node))


def link_seconds(problem: LayerProblem, load: FloatArray, reach: Reach) -> FloatArray:
    """[windows] least seconds per byte of the busiest link, which carries at least the mean over those of its kind.

    Args:
        load: [windows, experts] loads. reach: means per token that hold in each of these windows.
    """
    topology, tariff = problem.topology, tariff_of(problem)
    if (links := tariff.constant_links) is not None:
        return np.full(len(load), float(tariff.busiest_s(links.fast, links.slow)[0]))
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)
    total = float(tokens.sum())
    fast = np.zeros(len(load))
    copies = tariff.rule.counts == "copies"
    if tariff.alike:
        if tariff.rule.forwards:
            fast += (total - float((tokens + tariff.enters).max())) * reach.gpus
        else:
            each = load.sum(axis=1) if copies else reach.gpus
            fast += float((tokens.sum(axis=1, keepdims=True) - tokens).min()) * each
    elif topology.nodes == 1:
        fast += total * (_least_away(load, _most_on(problem, 1)) if copies else reach.remote_gpus)
    slow = crossing(problem, load, reach)
    trays = problem.hardware.alive.reshape(-1, topology.gpus_per_tray)
    slow /= int(trays.any(axis=1).sum()) * topology.gpus_per_tray
    fast /= int(trays.sum())
    return np.asarray(tariff.busiest_s(fast, slow) * (1 - 1e-12))


def _least_away(load: FloatArray, most: int) -> FloatArray:
    """[windows] copies of a token that go to none of the `most` most loaded experts."""
    held = -np.sort(-load, axis=1)
    return np.asarray(np.maximum(load.sum(axis=1) - held[:, :most].sum(axis=1), 0.0))
