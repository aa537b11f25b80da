"""Two levels: first which experts lie on which node, then on which of its GPUs; docs/formulation.md, "Local search"."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from placement.cost.layer.dispatch import policy_of
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.hardware import LayerHardware
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.experts.heuristics.packing import pack


def has_levels(problem: LayerProblem) -> bool:
    """Whether the node level alone decides the traffic that counts, and is smaller than the GPUs' level."""
    topology = problem.topology
    small = topology.gpus_per_node * problem.hardware.slots_per_gpu <= problem.experts
    decided = MESSAGE_RULES[problem.rules.message].nodes_decide
    return topology.nodes > 1 and topology.gpus_per_node > 1 and decided and small and problem.free


def node_level(problem: LayerProblem) -> LayerProblem:
    """The layer with one GPU a node, as strong as the node's GPUs together."""
    topology, m = problem.topology, problem.topology.gpus_per_node
    home = problem.hardware.home
    hardware = LayerHardware(
        Topology(topology.nodes, 1),
        problem.hardware.slots_per_gpu * m,
        problem.hardware.rates.together(m),
        home=None if home is None else home.reshape(topology.nodes, m).sum(axis=1),
    )
    dispatch = policy_of(problem).between_nodes(topology)
    return replace(problem, hardware=hardware).with_rules(current=None, dispatch=dispatch)


def onto_gpus(problem: LayerProblem, by_node: IntArray, node_load: FloatArray) -> IntArray:
    """[slots] the experts of each node packed onto its GPUs, longest processing time first.

    Args:
        by_node: [slots] experts, node by node, distinct in each. node_load: [nodes, experts] load of a copy there.
    """
    m, per_gpu = problem.topology.gpus_per_node, problem.hardware.slots_per_gpu
    out = np.empty(problem.slots, dtype=np.int64)
    for node, members in enumerate(by_node.reshape(problem.topology.nodes, m * per_gpu)):
        gpu, rank = pack(node_load[node, members], m)
        out[node * m * per_gpu + gpu * per_gpu + rank] = members
    return out


def copy_loads(problem: LayerProblem, by_node: IntArray, target: IntArray | None) -> FloatArray:
    """[nodes, experts] load of the one copy of an expert on a node (0 where it has none).

    Args:
        target: [nodes, experts] node that serves a home's tokens, for `planned` with replicas.
    """
    nodes, experts = problem.topology.nodes, problem.experts
    holds = np.zeros((nodes, experts), dtype=bool)
    holds[np.repeat(np.arange(nodes), len(by_node) // nodes), by_node] = True
    served = policy_of(problem).on_nodes(holds, tariff_of(problem).home_share, target)
    return np.asarray(served * problem.data.mean_load[None, :])


def copies_needed(problem: LayerProblem) -> IntArray | None:
    """[experts] copies below which a GPU that holds one is over the cap, if copies share alike; None: one will do.

    Nodes don't see it: a hot expert's only copy fits a node, but no GPU of it beside the coldest others.
    """
    if (
        problem.rules.max_load is None
        or not policy_of(problem).alike
        or problem.hardware.usable_slots == problem.experts
    ):
        return None
    load = problem.data.mean_load / (problem.data.mean_load.sum() / problem.topology.gpus)
    # One copy of each of the coldest; copies of their own could make them colder still, so they count for half at most.
    others = float(np.sort(load)[: problem.hardware.slots_per_gpu - 1].sum())
    room = problem.rules.max_load - min(others, 0.5 * problem.rules.max_load)
    needed = np.clip(np.ceil(load / room - 1e-9), 1, problem.topology.nodes)
    return np.asarray(needed, dtype=np.int64)
