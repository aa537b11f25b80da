"""The whole placement of a layer from its loads, globally or with expert groups kept on nodes.

DeepSeek's balancer gives the start; what follows only lowers the busiest GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.kernels import kernel
from solvers.experts.heuristics.packing import longest_first, pack, physical_experts, separate
from solvers.experts.loads.local import improve
from solvers.experts.loads.pairs import best_copies, paired, trials_of_kick
from solvers.stop import DEFAULT, Stop

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: With two slots per GPU, local search gets one kick in so many beside the search over copies.
PAIR_SHARE = 4
#: Elementary steps of a trial of the search over copies beside one for each expert.
TRIAL = 40


@dataclass(frozen=True)
class Work:
    """How long one layer is searched.

    Attributes:
        kicks: most kicks of the local search (Lourenco, Martin and Stuetzle 2003), and what stands for them.
        steps: most elementary steps, some 4 ns each; a kick takes about slots x GPUs of them.
        stop: its deadline, too.
    """

    kicks: int
    steps: float = math.inf
    stop: Stop = DEFAULT

    def kicks_of(self, slots: int, gpus: int) -> int:
        """Kicks that the steps pay for."""
        return int(min(self.kicks, self.steps / (slots * gpus)))

    def trials_of(self, experts: int) -> int:
        """Trials of the search over copies that the steps pay for."""
        return int(min(self.kicks * trials_of_kick(experts), self.steps / (experts + TRIAL)))


def cost_table(load: Floats, most: int) -> Floats:
    """[most + 1, experts] load of one copy by the number of copies (row 0 as row 1)."""
    return np.asarray(load / np.maximum(np.arange(most + 1), 1)[:, None])


@kernel
def busiest(slots: Ints, width: int, load: Floats) -> float:
    """The largest GPU load of a placement whose copies share alike."""
    count = np.empty(len(load), np.int64)
    count[:] = 0
    for e in slots:
        count[e] += 1
    largest = 0.0
    for g in range(len(slots) // width):
        total = 0.0
        for e in slots[g * width : (g + 1) * width]:
            total += load[e] / count[e]
        largest = max(largest, total)
    return largest


@kernel
def _greedy(load: Floats, slots: int, gpus: int) -> tuple[Ints, Floats, Ints, float, bool]:
    """The balancer's replication and packing, then copies moved to distinct GPUs by swaps (GPUs with more slots than
    experts keep them): ([slots] placement, [experts] load of a copy, copies of each, busiest GPU as the balancer has
    it, whether all copies are apart)."""
    experts, width, most, own = len(load), slots // gpus, slots, -1.0
    share, weight, out = np.empty(experts), np.empty(slots), np.empty(slots, np.int64)
    count = np.empty(experts, np.int64)
    while True:
        made, replicas = physical_experts(load, slots, most), 0
        count[:] = 0
        for e in made:
            count[e] += 1
            replicas = max(replicas, count[e])
        for e in range(experts):
            share[e] = load[e] / count[e]
        for i in range(slots):
            weight[i] = share[made[i]]
        gpu, place = pack(weight, gpus)
        for i in range(slots):
            out[gpu[i] * width + place[i]] = made[i]
        if own < 0.0:
            own = busiest(out, width, load)
        if width > experts:
            return out, share, count, own, True
        if replicas <= gpus:
            return out, share, count, own, separate(out, width, share, slots)
        most = gpus


def _start(load: Floats, slots: int, gpus: int) -> tuple[Ints, float, float]:
    """([slots] the balancer's packing with copies of an expert on distinct GPUs, its largest copy, its own
    busiest GPU before copies were set apart)."""
    out, share, count, own, apart = _greedy(load, slots, gpus)
    if not apart:
        width = slots // gpus
        out = longest_first(load, count, np.full(gpus, width, dtype=np.int64), np.ones(gpus), width)
        if not separate(out, width, share, slots):
            # Experts in turn are always apart.
            out = np.resize(np.argsort(-load, kind="stable"), slots)
    return out, float(share.max()), own


def _search(load: Floats, start: Ints, gpus: int, target: float, work: Work, seed: int) -> Ints:
    """[slots] the start, improved; done when the busiest GPU is at most `target`."""
    experts, slots = len(load), len(start)
    width = slots // gpus
    if width == 1 or width > experts or gpus == 1:
        return start
    value = busiest(start, width, load)
    if value <= target or work.stop.expired:
        return start
    kicks = work.kicks_of(slots, gpus)
    cost = cost_table(load, max(1, min(gpus, slots - experts + 1)))
    if width == 2:
        copies = np.bincount(start, minlength=experts)
        best, reached, _ = best_copies(cost, copies, target, work.trials_of(experts), seed)
        start = np.asarray(paired(cost, best)) if reached < value else start
        # What the pairing cannot do: keep an expert with nearly as many copies as GPUs apart from itself, cheaply.
        kicks = kicks // PAIR_SHARE
    return np.asarray(improve(start, width, cost, target, kicks, seed, work.stop)[0])


def _by_nodes(
    load: Floats, slots: int, node_of_group: Ints, nodes: int, gpus: int, near: float, work: Work, seed: int
) -> tuple[Ints, float]:
    """([slots] placement with every group of experts (alike in size, in turn) on its node, its busiest GPU)."""
    span, own = slots // nodes, gpus // nodes
    node_of_expert = np.repeat(node_of_group, len(load) // len(node_of_group))
    members = [np.flatnonzero(node_of_expert == node) for node in range(nodes)]
    parts = [load[part] for part in members]
    starts = [_start(part, span, own) for part in parts]
    bound = max(max(largest, part.sum() / own) for (_, largest, _), part in zip(starts, parts, strict=True))
    target = min(near * bound, max(rival for _, _, rival in starts))
    out = np.empty(slots, dtype=np.int64)
    for node in range(nodes):
        found = _search(parts[node], starts[node][0], own, target, work, seed)
        out[node * span : (node + 1) * span] = members[node][found]
    return out, busiest(out, slots // gpus, load)


def place_layer(
    load: Floats, slots: int, groups: int, nodes: int, gpus: int, near: float, work: Work, seed: int
) -> tuple[Ints, float]:
    """([slots] logical expert of each slot, load of the busiest GPU), for one layer.

    Args:
        load: [experts]. groups, nodes: a multiple of nodes keeps each group, as many experts in turn, on one node;
            1, 1 is global. All counts divide each other as the balancer asks.
        near: stops when the busiest GPU is within this factor of the lower bound.
    """
    if nodes == 1:
        start, largest, rival = _start(load, slots, gpus)
        target = min(near * max(largest, load.sum() / gpus), rival)
        best = _search(load, start, gpus, target, work, seed)
        return best, busiest(best, slots // gpus, load)
    weight = load.reshape(groups, -1).sum(axis=1)
    node_of_group, rank = pack(weight, nodes)
    best, value = _by_nodes(load, slots, node_of_group, nodes, gpus, near, work, seed)
    width = groups // nodes
    if width < 2:
        return best, value
    # Groups packed better than the balancer does: worth it where the busiest node decides.
    packed = np.empty(groups, dtype=np.int64)
    packed[node_of_group * width + rank] = np.arange(groups)
    kicks = work.kicks_of(groups, nodes)
    better, reached, _ = improve(packed, width, cost_table(weight, 1), weight.sum() / nodes, kicks, seed, work.stop)
    if reached >= busiest(packed, width, weight) * (1 - 1e-9):
        return best, value
    node_of_group[better] = np.arange(groups) // width
    other, reached = _by_nodes(load, slots, node_of_group, nodes, gpus, near, work, seed)
    return (other, reached) if reached < value else (best, value)


@kernel
def _keeps_rules(slots: Ints, experts: int, groups: int, nodes: int, gpus: int) -> bool:
    """Whether a placement holds every expert, no copies on one GPU, and every group on one node."""
    width, span, size = len(slots) // gpus, len(slots) // nodes, experts // groups
    holder, node_of_group = np.empty(experts, np.int64), np.empty(groups, np.int64)
    holder[:] = -1
    node_of_group[:] = -1
    for s in range(len(slots)):
        e, g = slots[s], s // width
        # Slots come GPU by GPU, so a copy on the same GPU is the last one seen.
        if e < 0 or e >= experts or holder[e] == g:
            return False
        holder[e] = g
        if nodes > 1 and node_of_group[e // size] not in (-1, s // span):
            return False
        node_of_group[e // size] = s // span
    for e in range(experts):
        if holder[e] < 0:
            return False
    return True


def mend_layer(
    load: Floats, old: Ints, groups: int, nodes: int, gpus: int, target: float, work: Work, seed: int
) -> Ints | None:
    """[slots] an older placement, changed until no GPU has more than `target`; None where that was not reached.

    Also None where the older one breaks a rule: mending is for placements that are in use.
    """
    if not _keeps_rules(old, len(load), groups, nodes, gpus):
        return None
    out = np.empty_like(old)
    span, width = len(old) // nodes, len(old) // gpus
    for node in range(nodes):
        members, local = np.unique(old[node * span : (node + 1) * span], return_inverse=True)
        cost = cost_table(load[members], max(1, min(gpus // nodes, span - len(members) + 1)))
        kicks = work.kicks_of(span, gpus // nodes)
        found, reached, _ = improve(local, width, cost, target, kicks, seed, work.stop)
        if reached > target:
            return None
        out[node * span : (node + 1) * span] = members[found]
    return out if busiest(out, width, load) <= target else None


def count_copies(slots: Ints, experts: int) -> Ints:
    """[layers, experts] copies of every expert; slots: [layers, slots]."""
    cell = slots + np.arange(len(slots))[:, None] * experts
    return np.bincount(cell.ravel(), minlength=len(slots) * experts).reshape(-1, experts)


def reverse_map(slots: Ints, counts: Ints) -> Ints:
    """[layers, experts, most copies] slots of every expert, ascending, padded with -1; see `count_copies`."""
    table = np.full((*counts.shape, counts.max()), -1, dtype=np.int64)
    _fill_reverse(slots, np.zeros_like(counts), table)
    return table


@kernel
def _fill_reverse(slots: Ints, used: Ints, table: NDArray[np.int64]) -> None:
    for layer in range(slots.shape[0]):
        for s in range(slots.shape[1]):
            e = slots[layer, s]
            table[layer, e, used[layer, e]] = s
            used[layer, e] += 1
