"""DeepSeek's expert-parallel load balancer, both policies (github.com/deepseek-ai/EPLB describes them)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.check.layer import check_layer
from placement.problem.arrays import EMPTY, FloatArray, IntArray, plain
from placement.problem.layer import LayerProblem
from solvers.base import Features, UnsupportedError
from solvers.experts.candidates import Candidate, candidate
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import distinct_packing, pack, pack_uneven, physical_experts, separate


def eplb_layer(load: FloatArray, slots: int, groups: int, nodes: int, gpus: int) -> IntArray:
    """[slots] logical expert of each physical expert, for one layer, exactly as the balancer's published example has
    it.

    Args:
        load: [experts] load. groups, nodes: with groups a multiple of nodes the policy is hierarchical, else global.
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
        physical = physical_experts(plain(load[members]), node_slots, node_slots)
        count = np.bincount(physical, minlength=per_node)
        gpu, place = pack((load[members] / count)[physical], node_gpus)
        out[node * node_slots + gpu * (node_slots // node_gpus) + place] = members[physical]
    return out


def uneven_layer(load: FloatArray, capacity: IntArray, speed: FloatArray, slots_per_gpu: int) -> IntArray:
    """[slots] the global policy on GPUs of unlike capacity or speed; copies of an expert on distinct GPUs.

    Args:
        load: [experts], at least as many as the largest capacity. capacity, speed: [gpus].
    """
    gpus = len(capacity)
    if not len(load):
        return np.full(gpus * slots_per_gpu, EMPTY, dtype=np.int64)
    physical = physical_experts(plain(load), int(capacity.sum()), int(capacity.sum()))
    share = load / np.bincount(physical, minlength=len(load))
    gpu = pack_uneven(share[physical], np.ones(len(physical), dtype=np.int64), plain(capacity, np.int64), plain(speed))
    order = np.argsort(gpu, kind="stable")
    usable = (np.arange(slots_per_gpu)[None, :] < capacity[:, None]).reshape(-1)
    slots = np.full(gpus * slots_per_gpu, EMPTY, dtype=np.int64)
    slots[usable] = physical[order]
    if separate(slots, slots_per_gpu, share, len(slots)):
        return slots
    return distinct_packing(load, gpus, slots_per_gpu, capacity, speed)


def _nodes_of_experts(problem: LayerProblem) -> IntArray | None:
    """[experts] node of each expert, groups (or experts) packed onto nodes of unlike room; None if they don't fit."""
    topology = problem.topology
    group = (
        np.arange(problem.experts)
        if problem.rules.group is None
        else np.unique(problem.rules.group, return_inverse=True)[1]
    )
    capacity = problem.hardware.capacities.reshape(topology.nodes, -1)
    size = np.bincount(group)
    speed = (problem.hardware.relative_speed * problem.hardware.alive).reshape(topology.nodes, -1).sum(axis=1)
    room = capacity.sum(axis=1)
    if (size == size[0]).all():
        # As many groups in proportion to slots as the balancer gives even nodes: no GPU may have more slots than its
        # node has experts, and no node more experts than slots.
        count, most = -(-capacity.max(axis=1) // size[0]), room // size[0]
        wanted = len(size) * room / room.sum()
        while count.sum() < len(size) and (count < most).any():
            count[np.argmax(np.where(count < most, wanted - count, -np.inf))] += 1
        if count.sum() != len(size) or (count > most).any():
            return None
        room = count * size[0]
    weight = np.bincount(group, weights=problem.data.mean_load)
    node = pack_uneven(weight, size, room, np.where(speed > 0, speed, 1.0))
    return None if (node < 0).any() else np.asarray(node[group])


class EplbSolver(Heuristic):
    """The better of the two policies, by the problem's own objective; copies that share a GPU are swapped apart.

    GPUs of unlike capacity or speed, which the balancer does not know, are bins of unlike room and speed.
    """

    name = "eplb"
    features = Features(groups=True, uneven=True, baseline=True, note="ignores traffic")

    def variants(self, problem: LayerProblem) -> list[IntArray]:
        """The placements of the policies that apply: global, and hierarchical by the problem's groups or by expert.

        Empty where the problem's groups can't be shared out over the nodes.
        """
        free = problem.with_rules(current=None, max_moves=None, fixed=None)
        alike = problem.hardware.usable_slots == problem.slots and bool((problem.hardware.relative_speed == 1.0).all())
        found = self._even(problem) if alike else self._uneven(problem)
        return [slots for slots in found if not check_layer(free, slots)]

    def _even(self, problem: LayerProblem) -> list[IntArray]:
        topology, load = problem.topology, problem.data.mean_load
        if problem.rules.group is None:
            choices = [(1, 1)] + ([(problem.experts, topology.nodes)] if topology.nodes > 1 else [])
        else:
            sizes = np.bincount(problem.rules.group)
            choices = [(len(sizes), topology.nodes)]
            if len(sizes) % topology.nodes or (sizes != sizes[0]).any():
                return []
        found = []
        for groups, nodes in choices:
            order = np.arange(problem.experts)
            if problem.rules.group is not None:
                order = np.argsort(problem.rules.group, kind="stable")
            slots = order[eplb_layer(load[order], problem.slots, groups, nodes, topology.gpus)]
            count = np.maximum(np.bincount(slots, minlength=problem.experts), 1)
            parts = 1 if problem.rules.group is None else topology.nodes
            span = problem.slots // parts
            if not separate(slots, problem.hardware.slots_per_gpu, load / count, span):
                slots = np.concatenate([self._apart(problem, part) for part in slots.reshape(parts, span)])
            found.append(np.asarray(slots, dtype=np.int64))
        return found

    def _uneven(self, problem: LayerProblem) -> list[IntArray]:
        topology, capacity, speed = problem.topology, problem.hardware.capacities, problem.hardware.relative_speed
        whole = uneven_layer(problem.data.mean_load, capacity, speed, problem.hardware.slots_per_gpu)
        found = [whole] if problem.rules.group is None else []
        if topology.nodes == 1:
            return [whole]
        node_of_expert = _nodes_of_experts(problem)
        if node_of_expert is None:
            return found
        parts = []
        for node in range(topology.nodes):
            gpus = slice(node * topology.gpus_per_node, (node + 1) * topology.gpus_per_node)
            members = np.flatnonzero(node_of_expert == node)
            if len(members) < capacity[gpus].max():
                return found
            part = uneven_layer(
                problem.data.mean_load[members], capacity[gpus], speed[gpus], problem.hardware.slots_per_gpu
            )
            parts.append(np.append(members, EMPTY)[part])  # EMPTY is the last index
        return [*found, np.concatenate(parts)]

    def _apart(self, problem: LayerProblem, part: IntArray) -> IntArray:
        """The experts of a part (a node, or all) packed again where no swap keeps their copies apart."""
        members = np.unique(part)
        gpus = len(part) // problem.hardware.slots_per_gpu
        return np.asarray(
            members[distinct_packing(problem.data.mean_load[members], gpus, problem.hardware.slots_per_gpu)]
        )

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] the variant that scores best.

        Raises:
            UnsupportedError: the policy can't keep the problem's groups.
        """
        return self.dispatched(problem, seed)[0]

    def dispatched(self, problem: LayerProblem, seed: int) -> tuple[IntArray, FloatArray | None]:
        """The variant that scores best; under `planned` dispatch each with fractions of its own, which come with it.

        Raises:
            UnsupportedError: the policy can't keep the problem's groups.
        """
        variants = self.supported(problem)
        if len(variants) == 1:
            return variants[0], None
        best = self._best(problem, variants)
        return best.slots, best.fractions

    def scored(self, problem: LayerProblem) -> Candidate:
        """The same variant with its score, for who would score it next.

        Raises:
            UnsupportedError: the policy can't keep the problem's groups.
        """
        return self._best(problem, self.supported(problem))

    def supported(self, problem: LayerProblem) -> list[IntArray]:
        """`variants`, of which there is at least one.

        Raises:
            UnsupportedError: the policy can't keep the problem's groups.
        """
        variants = self.variants(problem)
        if not variants:
            raise UnsupportedError("eplb finds no way to share these groups out over the nodes")
        return variants

    def _best(self, problem: LayerProblem, variants: Sequence[IntArray]) -> Candidate:
        scored = (candidate(problem, slots, thorough=True) for slots in variants)
        return min(scored, key=lambda each: each.score.objective)
