"""Least messages on a layer's links, given what a token reaches at least; without the solvers' code.

The arguments are in docs/formulation.md, "Messages, by counting".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class Reach:
    """What a token reaches at least in the mean: nodes, GPUs, and these without its home."""

    nodes: float
    gpus: float
    remote_nodes: float
    remote_gpus: float


def most_experts(problem: LayerProblem, gpus: int) -> int:
    """Most distinct experts on any so many neighbouring GPUs: one, or a node."""
    room = problem.hardware.capacities.reshape(-1, gpus).sum(axis=1)
    return max(1, min(problem.experts, int(room.max())))


def counted(problem: LayerProblem) -> Reach:
    """Distinct experts take distinct slots, so a token needs as many bins as its experts fill."""
    k = 1 if problem.data.sets is None else problem.data.sets.ids.shape[1]
    nodes, gpus = (-(-k // most_experts(problem, size)) for size in (problem.topology.gpus_per_node, 1))
    return Reach(nodes, gpus, nodes - 1, gpus - 1)


def least_crossing(problem: LayerProblem, load: FloatArray, reach: Reach) -> FloatArray:
    """[windows] messages between nodes in one dispatch, at least.

    Args:
        load: [windows, experts] loads. reach: What holds in each of these windows.
    """
    tariff, topology = tariff_of(problem), problem.topology
    if tariff.constant_links is not None:
        return np.full(len(load), float(tariff.constant_links.across[0]))
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, -1).sum(axis=1)
    if topology.nodes == 1:
        return np.zeros(len(load))
    copies = tariff.rule.counts == "copies"
    if tariff.alike:
        # The messages of a home to its own node do not cross, and no node is the home of more than the largest share.
        each = load.sum(axis=1) if copies else reach.nodes if tariff.rule.forwards else reach.gpus
        return np.asarray((tokens.sum() - tokens.max()) * each * np.ones(len(load)))
    each = _elsewhere(problem, load, topology.gpus_per_node) if copies else reach.remote_nodes
    return np.asarray(tokens.sum() * each * np.ones(len(load)))


def least_link_s(problem: LayerProblem, load: FloatArray, reach: Reach) -> FloatArray:
    """[windows] seconds per byte of the busiest link, at least: the mean over the links of a kind in use.

    Args:
        load: [windows, experts] loads. reach: What holds in each of these windows.
    """
    tariff, topology, alive = tariff_of(problem), problem.topology, problem.hardware.alive
    if (links := tariff.constant_links) is not None:
        return np.full(len(load), float(tariff.busiest_s(links.fast, links.slow)[0]))
    trays = alive.reshape(-1, topology.gpus_per_tray)
    slow = least_crossing(problem, load, reach) / (trays.any(axis=1).sum() * topology.gpus_per_tray)
    return np.asarray(tariff.busiest_s(_least_inside(problem, load, reach) / alive.sum(), slow))


def _least_inside(problem: LayerProblem, load: FloatArray, reach: Reach) -> FloatArray:
    """[windows] messages between the GPUs of a node in one dispatch, at least, over all nodes."""
    tariff, topology = tariff_of(problem), problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, -1)
    copies, none = tariff.rule.counts == "copies", np.zeros(len(load))
    if tariff.alike and tariff.rule.forwards:
        # A GPU's messages come from all tokens but those that are at it already, from home or from another node.
        return np.asarray(none + (tokens.sum() - (tokens + tariff.enters).max()) * reach.gpus)
    if tariff.alike:
        others = tokens.sum(axis=1, keepdims=True) - tokens
        return np.asarray(others.min() * (load.sum(axis=1) if copies else none + reach.gpus))
    if topology.nodes > 1:
        return none
    return np.asarray(tokens.sum() * (_elsewhere(problem, load, 1) if copies else none + reach.remote_gpus))


def _elsewhere(problem: LayerProblem, load: FloatArray, gpus: int) -> FloatArray:
    """[windows] copies of a token for experts that its home bin cannot hold: all but the most loaded ones."""
    held = np.sort(load, axis=1)[:, load.shape[1] - most_experts(problem, gpus) :]
    return np.asarray(np.maximum(load.sum(axis=1) - held.sum(axis=1), 0.0))
