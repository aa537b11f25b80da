"""DeepSeek's expert-parallel load balancer, both policies (github.com/deepseek-ai/EPLB describes them).

Global: replicate the hottest experts, then pack copies onto GPUs. Hierarchical: first pack expert groups onto nodes,
then replicate within each node, then pack onto the node's GPUs.
"""

from __future__ import annotations

import numpy as np

from placement.cost.moe_layer import objective_value
from placement.problem import FloatArray, IntArray, LayerProblem
from solvers.base import Features, UnsupportedError
from solvers.heuristics.base import Heuristic
from solvers.heuristics.packing import distinct_packing, pack, separate


def eplb_layer(load: FloatArray, slots: int, groups: int, nodes: int, gpus: int) -> IntArray:
    """[slots] logical expert of each physical expert, for one layer.

    Args:
        load: [experts] load. groups, nodes: with groups a multiple of nodes the policy is hierarchical, else global.

    The published example of the balancer is reproduced exactly (tests/solvers/test_heuristics.py).
    """
    experts = len(load)
    if groups % nodes or experts % groups:
        groups, nodes = 1, 1
    size = experts // groups
    node_of_group, rank = pack(load.reshape(groups, size).sum(axis=1), nodes)
    position = (node_of_group * (groups // nodes) + rank)[:, None] * size + np.arange(size)
    by_node = np.empty(experts, dtype=np.int64)
    by_node[position.reshape(-1)] = np.arange(experts)
    per_node, node_slots, node_gpus = experts // nodes, slots // nodes, gpus // nodes
    out = np.empty(slots, dtype=np.int64)
    for node in range(nodes):
        members = by_node[node * per_node : (node + 1) * per_node]
        physical = _physical(load[members], node_slots)
        count = np.bincount(physical, minlength=per_node)
        gpu, place = pack((load[members] / count)[physical], node_gpus)
        out[node * node_slots + gpu * (node_slots // node_gpus) + place] = members[physical]
    return out


def _physical(load: FloatArray, slots: int) -> IntArray:
    """[slots] experts in the order in which copies are made: one of each, then the hottest per copy."""
    physical = np.concatenate([np.arange(len(load)), np.zeros(slots - len(load), dtype=np.int64)])
    count = np.ones(len(load))
    for i in range(len(load), slots):
        physical[i] = int(np.argmax(load / count))
        count[physical[i]] += 1
    return physical


class EplbSolver(Heuristic):
    """The better of the two policies, by the problem's own objective.

    The balancer may put two copies of an expert on one GPU; such copies are swapped apart with the least change of
    load, as a placement must hold them apart.
    """

    name = "eplb"
    features = Features(groups=True, baseline=True, note="ignores traffic and moves")

    def variants(self, problem: LayerProblem) -> list[IntArray]:
        """The placements of the policies that apply: global, and hierarchical by the problem's groups or by expert.

        Empty where the problem's groups are of unlike sizes or can't be shared out evenly over the nodes.
        """
        topology, load = problem.topology, problem.mean_load
        if problem.group is None:
            choices = [(1, 1)] + ([(problem.experts, topology.nodes)] if topology.nodes > 1 else [])
        else:
            sizes = np.bincount(problem.group)
            choices = [(len(sizes), topology.nodes)]
            if len(sizes) % topology.nodes or (sizes != sizes[0]).any():
                return []
        found = []
        for groups, nodes in choices:
            order = np.arange(problem.experts)
            if problem.group is not None:
                order = np.argsort(problem.group, kind="stable")
            slots = order[eplb_layer(load[order], problem.slots, groups, nodes, topology.gpus)]
            count = np.maximum(np.bincount(slots, minlength=problem.experts), 1)
            parts = 1 if problem.group is None else topology.nodes
            span = problem.slots // parts
            if not separate(slots, problem.slots_per_gpu, load / count, span):
                slots = np.concatenate([self._apart(problem, part) for part in slots.reshape(parts, span)])
            found.append(np.asarray(slots, dtype=np.int64))
        return found

    def _apart(self, problem: LayerProblem, part: IntArray) -> IntArray:
        """The experts of a part (a node, or all) packed again where no swap keeps their copies apart."""
        members = np.unique(part)
        gpus = len(part) // problem.slots_per_gpu
        return np.asarray(members[distinct_packing(problem.mean_load[members], gpus, problem.slots_per_gpu)])

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] the variant that scores best.

        Raises:
            UnsupportedError: the policy can't keep the problem's groups.
        """
        variants = self.variants(problem)
        if not variants:
            raise UnsupportedError("eplb needs groups of one size, as many on every node")
        return min(variants, key=lambda slots: objective_value(scorable(problem), slots))


def scorable(problem: LayerProblem) -> LayerProblem:
    """The problem with a dispatch policy that needs no solved fractions: `nearest` stands for `planned`."""
    if problem.dispatch != "planned":
        return problem
    from dataclasses import replace

    return replace(problem, dispatch="nearest")
