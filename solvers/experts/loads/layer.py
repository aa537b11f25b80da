"""The whole placement of a layer from its loads, globally or with expert groups kept on nodes.

DeepSeek's balancer gives the start; what follows only lowers the busiest GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.kernels import kernel, lean
from solvers.experts.heuristics.packing import distinct_packing, pack, physical_experts, separate
from solvers.experts.loads.local import improve, improve_rows
from solvers.experts.loads.pairs import best_copies, paired, trials_of_kick
from solvers.stop import DEFAULT, Stop

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: With two slots per GPU, local search gets one kick in so many beside the search over copies.
PAIR_SHARE = 4
#: Elementary steps of a trial of the search over copies beside one for each expert.
TRIAL = 40
#: Entries of the tables of costs made at once (2 MiB).
TABLES = 1 << 18


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
    """[..., most + 1, experts] load of one copy by the number of copies (row 0 as row 1); load: [..., experts]."""
    return np.asarray(load[..., None, :] / np.maximum(np.arange(most + 1), 1)[:, None])


@lean
def _share(slots: Ints, load: Floats, count: Ints, share: Floats) -> None:
    """Fills count [experts] of copies and share [experts], load of a copy."""
    count[:] = 0
    for e in slots:
        count[e] += 1
    for e in range(len(load)):
        share[e] = load[e] / max(count[e], 1)


@lean
def _heaviest(slots: Ints, width: int, share: Floats) -> float:
    """The largest GPU load; share: [experts] load of a copy."""
    most = 0.0
    for g in range(len(slots) // width):
        total = 0.0
        for e in slots[g * width : (g + 1) * width]:
            total += share[e]
        most = max(most, total)
    return most


@kernel
def busiest_rows(slots: Ints, width: int, load: Floats) -> Floats:
    """[rows] `busiest` of placements [rows, slots] and loads [rows, experts]."""
    rows, experts = load.shape
    out, count, share = np.empty(rows), np.empty(experts, np.int64), np.empty(experts)
    for i in range(rows):
        _share(slots[i], load[i], count, share)
        out[i] = _heaviest(slots[i], width, share)
    return out


def busiest(slots: Ints, width: int, load: Floats) -> float:
    """The largest GPU load of a placement whose copies share alike."""
    return float(busiest_rows(slots[None], width, load[None])[0])


@kernel
def _greedy(load: Floats, slots: int, nodes: int, gpus: int, near: float) -> tuple[Ints, Floats, Bools]:
    """The balancer's replication and packing, then copies moved to distinct GPUs by swaps (GPUs with more slots than
    experts keep them): ([rows, slots] placement; [rows] what no GPU of the layer needs to be below; [rows] whether all
    copies are apart). See `_placed`."""
    (rows, experts), width, bound, rival = load.shape, slots // gpus, 0.0, 0.0
    out, target, apart = np.empty((rows, slots), np.int64), np.empty(rows), np.empty(rows, np.bool_)
    count, share, weight = np.empty(experts, np.int64), np.empty(experts), np.empty(slots)
    for i in range(rows):
        # As the balancer does it; where that makes more copies of an expert than there are GPUs, with fewer.
        for most in (slots, gpus):
            made, replicas, in_all, dearest = physical_experts(load[i], slots, most), 0, 0.0, 0.0
            _share(made, load[i], count, share)
            for s in range(slots):
                weight[s] = share[made[s]]
            gpu, place = pack(weight, gpus)
            for s in range(slots):
                out[i, gpu[s] * width + place[s]] = made[s]
            if most == slots:
                rival = max(rival, _heaviest(out[i], width, share))
            for e in range(experts):
                in_all += load[i, e]
                dearest, replicas = max(dearest, share[e]), max(replicas, count[e])
            if width > experts or replicas <= gpus:
                break
        apart[i] = width > experts or separate(out[i], width, share, slots)
        bound = max(bound, dearest, in_all / gpus)
        if (i + 1) % nodes == 0:
            target[i + 1 - nodes : i + 1] = min(near * bound, rival)
            bound = rival = 0.0
    return out, target, apart


def _search(load: Floats, slots: Ints, gpus: int, target: Floats, work: Work, seed: Ints) -> None:
    """Improves placements in place; each is done when its busiest GPU is at most its target.

    load: [rows, experts]. slots: [rows, slots]. target, seed: [rows].
    """
    experts, n = load.shape[1], slots.shape[1]
    width = n // gpus
    if width == 1 or width > experts or gpus == 1:
        return
    value = busiest_rows(slots, width, load)
    above = (value > target).nonzero()[0]
    most, kicks, trials = max(1, min(gpus, n - experts + 1)), work.kicks_of(n, gpus), work.trials_of(experts)
    if width == 2:
        # Left to do is what the pairing cannot: keep an expert with nearly as many copies as GPUs apart from itself,
        # cheaply.
        kicks //= PAIR_SHARE
    each = max(1, TABLES // ((most + 1) * experts))
    for first in range(0, len(above), each):
        if work.stop.expired:
            return
        rows = above[first : first + each]
        start, cost = slots[rows], cost_table(load[rows], most)
        if width == 2:
            for i, row in enumerate(rows):
                if not work.stop.expired:
                    start[i] = _paired(cost[i], start[i], value[row], target[row], trials, seed[row])
        slots[rows] = improve_rows(start, width, cost, target[rows], kicks, seed[rows], work.stop)[0]


def _paired(cost: Floats, start: Ints, value: float, target: float, trials: int, seed: int) -> Ints:
    """[slots] the best pairing, two slots a GPU, of the copies found from those of the start; the start where its
    busiest GPU's `value` is not lowered."""
    best, reached, _ = best_copies(cost, np.bincount(start, minlength=cost.shape[1]), target, trials, seed)
    return np.asarray(paired(cost, best)) if reached < value else start


def _placed(load: Floats, slots: int, nodes: int, gpus: int, near: float, work: Work, seed: Ints) -> Ints:
    """[layers x nodes, slots] placements on the GPUs of each node, of loads [layers x nodes, experts].

    Args:
        slots, gpus: of a node. seed: [layers].
        near: a layer is done when its busiest GPU is within this factor of the lower bound, and at most the balancer's.
    """
    placed, target, apart = _greedy(load, slots, nodes, gpus, near)
    for row in (~apart).nonzero()[0]:
        placed[row] = distinct_packing(load[row], gpus, slots // gpus)
    _search(load, placed, gpus, target, work, seed.repeat(nodes))
    return np.asarray(placed)


def _by_nodes(
    load: Floats, slots: int, node_of_group: Ints, nodes: int, gpus: int, near: float, work: Work, seed: Ints
) -> tuple[Ints, Floats]:
    """([layers, slots] placements with every group of experts (alike in size, in turn) on its node, [layers] their
    busiest GPUs). node_of_group: [layers, groups]."""
    layers, experts = load.shape
    layer = np.arange(layers)[:, None]
    members = node_of_group.repeat(experts // node_of_group.shape[1], axis=1).argsort(axis=1, kind="stable")
    parts = load[layer, members].reshape(layers * nodes, -1)
    placed = _placed(parts, slots // nodes, nodes, gpus // nodes, near, work, seed)
    out = members.reshape(parts.shape)[np.arange(len(parts))[:, None], placed].reshape(layers, slots)
    return out, busiest_rows(out, slots // gpus, load)


def place_layers(
    load: Floats, slots: int, groups: int, nodes: int, gpus: int, near: float, work: Work, seed: int
) -> tuple[Ints, Floats]:
    """([layers, slots] logical expert of each slot, [layers] load of the busiest GPU).

    Args:
        load: [layers, experts], contiguous. groups, nodes: a multiple of nodes keeps each group, as many experts in
            turn, on one node; 1, 1 is global. All counts divide each other as the balancer asks.
        near: a layer is done when its busiest GPU is within this factor of the lower bound.
        seed: of the first layer; each later one has the next.
    """
    layers = len(load)
    # From 0 to 2**63 - 1, in a circle.
    seeds = (np.arange(layers) + seed % 2**63) & (2**63 - 1)
    if nodes == 1:
        placed = _placed(load, slots, 1, gpus, near, work, seeds)
        return placed, busiest_rows(placed, slots // gpus, load)
    weight = load.reshape(layers, groups, -1).sum(axis=2)
    node_of_group, packed = np.empty((layers, groups), np.int64), np.empty((layers, groups), np.int64)
    width, group, layer = groups // nodes, np.arange(groups), np.arange(layers)[:, None]
    for i in range(layers):
        node_of_group[i], rank = pack(weight[i], nodes)
        packed[i, node_of_group[i] * width + rank] = group
    out, value = _by_nodes(load, slots, node_of_group, nodes, gpus, near, work, seeds)
    if width <= 2:
        # The heaviest is with the lightest already, and so on: no way is better.
        return out, value
    # Groups packed better than the balancer does: worth it where the busiest node decides.
    mean, kicks = weight.sum(axis=1) / nodes, work.kicks_of(groups, nodes)
    better, reached, _ = improve_rows(packed, width, cost_table(weight, 1), mean, kicks, seeds, work.stop)
    again = (reached < busiest_rows(packed, width, weight) * (1 - 1e-9)).nonzero()[0]
    if len(again) == 0:
        return out, value
    node_of_group[layer, better] = group // width
    other, reached = _by_nodes(load[again], slots, node_of_group[again], nodes, gpus, near, work, seeds[again])
    lower = reached < value[again]
    out[again[lower]], value[again[lower]] = other[lower], reached[lower]
    return out, value


def place_layer(
    load: Floats, slots: int, groups: int, nodes: int, gpus: int, near: float, work: Work, seed: int
) -> tuple[Ints, float]:
    """`place_layers` of one layer: ([slots] logical expert of each slot, load of the busiest GPU)."""
    placed, value = place_layers(load[None], slots, groups, nodes, gpus, near, work, seed)
    return placed[0], float(value[0])


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


@kernel
def reverse_map(slots: Ints, experts: int) -> tuple[Ints, Ints]:
    """([layers, experts, most copies] slots of every expert, ascending, padded with -1; [layers, experts] copies).

    slots: [layers, slots] logical experts.
    """
    layers, most = len(slots), 0
    count = np.empty((layers, experts), np.int64)
    for layer in range(layers):
        count[layer] = 0
        for e in slots[layer]:
            count[layer, e] += 1
            most = max(most, count[layer, e])
    table = np.empty((layers, experts, most), np.int64)
    for layer in range(layers):
        table[layer] = -1
        count[layer] = 0
        for s in range(slots.shape[1]):
            e = slots[layer, s]
            table[layer, e, count[layer, e]] = s
            count[layer, e] += 1
    return table, count
