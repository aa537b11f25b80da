"""Which expert groups share a node, by traffic and load together: starts for layers with group-limited routing.

docs/formulation.md, "Expert groups". All ways are tried where they are at most MOST_WAYS, else swaps descend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from math import factorial

import numpy as np

from placement.arithmetic import weighted_sum
from placement.check.layer import check_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.eplb import eplb_layer
from solvers.experts.heuristics.packing import distinct_packing, pack, separate

#: Ways to share groups out that are all tried: 8 groups on 4 nodes have 105, 12 on 4 have 15,400.
MOST_WAYS = 20_000
#: Starts of the swap descent where there are more ways, and ways that become placements.
STARTS, KEPT = 8, 3

#: node -> groups, each ascending, the nodes by their first group
Way = tuple[tuple[int, ...], ...]


def group_starts(problem: LayerProblem) -> list[IntArray]:
    """Placements [slots] with whole groups on nodes, the best estimated first; each valid by check_layer.

    Empty without groups, with one node, with GPUs of unlike capacity or speed, or where groups (alike in size) can't be
    shared out evenly over the nodes.
    """
    topology = problem.topology
    alike = problem.hardware.usable_slots == problem.slots and bool((problem.hardware.relative_speed == 1.0).all())
    if problem.rules.group is None or topology.nodes == 1 or not alike:
        return []
    members = [np.flatnonzero(problem.rules.group == value) for value in np.unique(problem.rules.group)]
    if len(members) % topology.nodes or len({len(each) for each in members}) > 1:
        return []
    prices = _Prices.of(problem, members)
    found = []
    for way in best_ways(prices, topology.nodes):
        slots = np.concatenate([_packed(problem, np.concatenate([members[i] for i in node])) for node in way])
        if not check_layer(problem, slots):
            found.append(slots)
    return found


@dataclass(frozen=True)
class _Prices:
    """What a share-out costs: see `_Prices.of`.

    Attributes:
        pattern: [patterns] groups that a kind of token uses, as bits. weight: [windows, patterns] share of the tokens;
            empty where messages follow loads.
        load: [windows, groups] copies of a token. work: [windows, groups] seconds on one GPU of a node.
        in_s, out_s: seconds of a node's ingress and egress links per token of all homes that reaches it.
        window_weight: [windows]. most_load: largest share of a window-mean load on one node, or infinity.
    """

    pattern: IntArray
    weight: FloatArray
    load: FloatArray
    work: FloatArray
    in_s: float
    out_s: float
    window_weight: FloatArray
    most_load: float

    @staticmethod
    def of(problem: LayerProblem, members: list[IntArray]) -> _Prices:
        """The prices of sharing out `members`, a list of the experts of each group."""
        topology, tariff = problem.topology, tariff_of(problem)
        pattern, weight = np.zeros(0, np.int64), np.zeros((problem.windows, 0))
        by_node = not tariff.linear and tariff.rule.forwards
        if problem.data.sets is not None and by_node and len(members) < 63:
            of = np.zeros(problem.experts, dtype=np.int64)
            for i, group in enumerate(members):
                of[group] = np.int64(1) << i
            bits = np.bitwise_or.reduce(of[problem.data.sets.ids], axis=1)
            pattern, inverse = np.unique(bits, return_inverse=True)
            weight = np.stack([np.bincount(inverse, row, len(pattern)) for row in problem.data.sets.weight])
        seconds = tariff.copy_times.sum(axis=0)[1] / topology.gpus_per_node
        # The busiest link and GPU also lead to few bytes: these are only starts.
        timed = problem.objective.kind != "load"
        cap = (
            np.inf
            if problem.rules.max_load is None
            else problem.rules.max_load * problem.data.mean_load.sum() / topology.nodes
        )
        return _Prices(
            pattern, weight,
            np.stack([problem.data.load[:, g].sum(axis=1) for g in members], axis=1),
            np.stack([(seconds if timed else problem.data.load)[:, g].sum(axis=1) for g in members], axis=1),
            tariff.bins.in_s, tariff.bins.out_s, problem.data.window_weight, float(cap),
        )  # fmt: skip

    def of_node(self, groups: tuple[int, ...]) -> tuple[FloatArray, FloatArray, float]:
        """([windows] tokens that reach a node with these groups, [windows] its work, its mean load)."""
        load = self.load[:, groups].sum(axis=1)
        reached = load
        if len(self.pattern):
            mask = np.bitwise_or.reduce(np.int64(1) << np.array(groups, dtype=np.int64))
            reached = self.weight[:, (self.pattern & mask) != 0].sum(axis=1)
        return reached, self.work[:, groups].sum(axis=1), float(weighted_sum(self.window_weight, load))


class _Pricing:
    """Prices of whole ways; what a node's groups cost is worked out once."""

    def __init__(self, prices: _Prices) -> None:
        self.prices = prices
        self.known: dict[tuple[int, ...], tuple[FloatArray, FloatArray, float]] = {}

    def __call__(self, way: Way) -> tuple[float, float]:
        """(Load of the fullest node over the cap, seconds of the busiest node link and shared work); less is better."""
        for node in way:
            if node not in self.known:
                self.known[node] = self.prices.of_node(node)
        parts = [self.known[node] for node in way]
        reached = np.stack([part[0] for part in parts])
        link = np.maximum(self.prices.in_s * reached, self.prices.out_s * (reached.sum(axis=0) - reached)).max(axis=0)
        work = np.stack([part[1] for part in parts]).max(axis=0)
        over = max(0.0, max(part[2] for part in parts) - self.prices.most_load)
        return round(over, 12), float(weighted_sum(self.prices.window_weight, link + work))


def best_ways(prices: _Prices, nodes: int, most_ways: int = MOST_WAYS) -> list[Way]:
    """Up to KEPT ways to share the groups out alike over `nodes` nodes, the best first.

    The first is the best of all where there are at most `most_ways`.
    """
    groups = prices.load.shape[1]
    each, price = groups // nodes, _Pricing(prices)
    count = factorial(groups) // (factorial(each) ** nodes * factorial(nodes))
    ways = list(_all_ways(tuple(range(groups)), each)) if count <= most_ways else _descents(prices, nodes, price)
    ranked = sorted(set(ways), key=lambda way: (*price(way), way))
    return ranked[:KEPT]


def _all_ways(left: tuple[int, ...], each: int) -> Iterator[Way]:
    """Every partition of `left` into parts of `each`; the first of what is left opens the next part."""
    if not left:
        yield ()
        return
    for mates in combinations(left[1:], each - 1):
        part = (left[0], *mates)
        for rest in _all_ways(tuple(i for i in left[1:] if i not in mates), each):
            yield (part, *rest)


def _descents(prices: _Prices, nodes: int, price: _Pricing) -> list[Way]:
    """Ways that no swap of two groups betters, from the packing by load and from random ways (fixed seeds)."""
    load = weighted_sum(prices.window_weight, prices.load)
    rng, found = np.random.default_rng(len(load)), []
    for start in range(STARTS):
        node = pack(load, nodes)[0] if start == 0 else rng.permutation(np.arange(len(load)) % nodes)
        best, value = _way(node, nodes), price(_way(node, nodes))
        better = True
        while better:
            better = False
            for a in range(len(node)):
                for b in range(a):
                    if node[a] == node[b]:
                        continue
                    node[a], node[b] = node[b], node[a]
                    tried = _way(node, nodes)
                    new = price(tried)
                    if new < value:
                        best, value, better = tried, new, True
                    else:
                        node[a], node[b] = node[b], node[a]
        found.append(best)
    return found


def _way(node: IntArray, nodes: int) -> Way:
    return tuple(sorted(tuple(np.flatnonzero(node == j).tolist()) for j in range(nodes)))


def _packed(problem: LayerProblem, members: IntArray) -> IntArray:
    """[slots of a node] the experts, replicated and packed by load, copies of one on distinct GPUs."""
    m, width = problem.topology.gpus_per_node, problem.hardware.slots_per_gpu
    load = np.ascontiguousarray(problem.data.mean_load[members])
    local = eplb_layer(load, m * width, 1, 1, m)
    share = load / np.maximum(np.bincount(local, minlength=len(members)), 1)
    if not separate(local, width, share, len(local)):
        local = distinct_packing(load, m, width)
    return np.asarray(members[local], dtype=np.int64)
