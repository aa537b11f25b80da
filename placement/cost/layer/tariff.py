"""What one layer's work and messages cost: everything that prices a placement takes it from here.

Bins are where messages are counted: GPUs or nodes. A price of a bin multiplies P, the expected messages of a token to
it (MessageRule.per_token), and is of dispatch and combine together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np

from placement.cost.layer.dispatch import alike_homes, policy_of
from placement.cost.layer.links import LinkLoad, entering_tokens, link_parts, loads_of_one_class
from placement.cost.layer.messages import MessageRule, effective_rule
from placement.cost.layer.work import layer_seconds, slot_slopes, slot_times
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology

#: What bins are.
BinLevel: TypeAlias = Literal["gpu", "node"]
LEVELS: tuple[BinLevel, BinLevel] = ("gpu", "node")


@dataclass(frozen=True)
class LinkRow:
    """One link: sum(price * P) for dispatch and combine, where all homes dispatch alike.

    Attributes:
        level: Whether bins are GPUs or nodes.
        price: [bins] seconds, or bytes for objective "traffic"; see Tariff.home_links for [homes, bins].
    """

    level: BinLevel
    price: FloatArray


@dataclass(frozen=True)
class Bins:
    """Where the messages that decide are counted: across nodes, or with one node inside it.

    The ingress of group i takes in_s * mean(P over i) seconds and the egress of group o takes
    out_s * (sum(P) - sum(P over o)), where homes are alike and no GPU of several nodes has failed. Both are 0 where no
    message is priced (objective "load") or no placement changes them.

    Attributes:
        of_gpu: [gpus] bin. node: [bins] its node. in_group, out_group: [bins] index of the links of a bin.
        linear: P counts copies, or nothing that depends on the token sets.
        into: [nodes, bins] seconds of a bin's ingress for P of the tokens of a home node; bytes for "traffic".
        out: [egress groups] seconds of an egress for P of all its tokens; 0 for "traffic", whose bytes are in `into`.
    """

    of_gpu: IntArray
    node: IntArray
    in_group: IntArray
    out_group: IntArray
    in_s: float
    out_s: float
    linear: bool
    into: FloatArray
    out: FloatArray

    @property
    def count(self) -> int:
        return len(self.in_group)


def hop_latency_s(rates: LayerRates, topology: Topology) -> float:
    """Seconds before the first byte of a dispatch or a combine: one hop on each kind of link that is used."""
    fast = rates.fast_latency_s if topology.gpus_per_node > 1 else 0.0
    return fast + (rates.slow_latency_s if topology.nodes > 1 else 0.0)


def busiest_s(rates: LayerRates, fast: FloatArray | float, slow: FloatArray | float) -> FloatArray:
    """Seconds per byte of a message on the busier of a fast link with `fast` messages and a slow one with `slow`."""
    return np.maximum(slow / rates.slow_bytes_per_s, fast / rates.fast_bytes_per_s)


@dataclass(frozen=True)
class Tariff:
    """The prices of a problem; see `tariff_of`. Each is worked out when it is first asked for."""

    problem: LayerProblem

    @cached_property
    def rule(self) -> MessageRule:
        return effective_rule(self.problem)

    @cached_property
    def alike(self) -> bool:
        """Whether in every placement all homes dispatch in equal shares."""
        return alike_homes(self.problem)

    @cached_property
    def together(self) -> bool:
        """Whether what a placement changes hangs on which copies one token's experts take together."""
        replicas = self.problem.hardware.usable_slots > self.problem.experts
        return policy_of(self.problem).together and replicas and not self.linear

    @cached_property
    def rates(self) -> LayerRates:
        return self.problem.hardware.rates

    @cached_property
    def latency_s(self) -> float:
        """Seconds before the first byte of a dispatch or a combine."""
        return hop_latency_s(self.rates, self.problem.topology)

    @cached_property
    def wait_s(self) -> float:
        """What both latencies are of the objective."""
        return 2 * self.latency_s if self.timed else 0.0

    @cached_property
    def both_bytes(self) -> float:
        """Bytes of one message, dispatch and combine together."""
        return self.rates.both_bytes

    @cached_property
    def fast_s(self) -> float:
        """Seconds of one message, dispatch and combine together, on a GPU's fast link."""
        return self.both_bytes / self.rates.fast_bytes_per_s

    @cached_property
    def slow_s(self) -> float:
        """Seconds of one message on a GPU's part of a slow link."""
        return self.both_bytes / self.rates.slow_bytes_per_s

    @cached_property
    def all_tokens(self) -> float:
        """Tokens of all homes in the mean pass."""
        return self.rates.tokens_per_gpu * self.problem.topology.gpus

    @cached_property
    def timed(self) -> bool:
        return self.problem.objective.kind == "time"

    @cached_property
    def overlapped(self) -> bool:
        """Whether the objective has the larger of work and messages, not their sum."""
        return self.timed and self.rates.overlap == "two_batch"

    # Work

    @cached_property
    def most_copies(self) -> int:
        """Largest number of copies an expert can have."""
        spare = self.problem.hardware.usable_slots - self.problem.experts
        return max(1, min(int(self.problem.hardware.alive.sum()), spare + 1))

    @cached_property
    def relative_load(self) -> FloatArray:
        """[windows, experts] load over the window's mean load of a GPU with capacity."""
        load = self.problem.data.load
        return np.asarray(load / (load.sum(axis=1, keepdims=True) / max(1, int(self.problem.hardware.alive.sum()))))

    @cached_property
    def copy_loads(self) -> FloatArray:
        """[most copies + 1, windows, experts] relative load of one copy by their number (row 0 as row 1)."""
        return self.relative_load[None] / self._copies

    @cached_property
    def copy_times(self) -> FloatArray:
        """[kinds, most copies + 1, windows, experts] seconds of one copy's slot, times the kind's share."""
        return self.slot_times(self.all_tokens * self.problem.data.load[None] / self._copies)

    @cached_property
    def copy_costs(self) -> FloatArray:
        """[most copies + 1, windows, experts] seconds of one copy over all kinds, or its relative load."""
        return np.asarray(self.copy_times.sum(axis=0)) if self.timed else self.copy_loads

    @property
    def _copies(self) -> IntArray:
        return np.maximum(np.arange(self.most_copies + 1), 1)[:, None, None]

    @cached_property
    def speeds(self) -> FloatArray:
        """[gpus] what a GPU's work is divided by."""
        return self.problem.hardware.speeds if self.timed else self.problem.hardware.relative_speed

    def slot_times(self, tokens: FloatArray) -> FloatArray:
        """[kinds, ...] seconds of slots with that many tokens in the mean pass, times the kind's share."""
        return slot_times(tokens, self.rates)

    def slot_slopes(self, tokens: FloatArray) -> FloatArray:
        """[kinds, ...] derivative of `slot_times`."""
        return slot_slopes(tokens, self.rates)

    # Messages

    def busiest_s(self, fast: FloatArray, slow: FloatArray) -> FloatArray:
        """Seconds per byte of the busiest link; see `busiest_s` of this module."""
        return busiest_s(self.rates, fast, slow)

    def message_seconds(self, links: LinkLoad) -> tuple[FloatArray, FloatArray]:
        """([windows], [windows]) seconds of dispatch and of combine: latency, then the busiest link of either kind."""
        link_s = self.busiest_s(links.fast, links.slow)
        return self.latency_s + self.rates.dispatch_bytes * link_s, self.latency_s + self.rates.combine_bytes * link_s

    def moved_seconds(self, link_s: FloatArray) -> FloatArray:
        """Seconds of dispatch and combine together from the busiest link's seconds per byte (any shape)."""
        return np.asarray(2 * self.latency_s + self.both_bytes * link_s)

    def layer_seconds(self, moved: FloatArray, work: FloatArray) -> FloatArray:
        """[...] seconds of the layer; see placement.cost.layer.work.layer_seconds."""
        return layer_seconds(self.rates, moved, work, 2 * self.latency_s)

    @cached_property
    def constant_links(self) -> LinkLoad | None:
        """Messages on links where no placement changes them, else None."""
        if self.rule.counts != "all":
            return None
        alive = self.problem.hardware.alive.astype(np.float64)[None, :]
        by_node = alive.reshape(1, self.problem.topology.nodes, -1).max(axis=2)
        return loads_of_one_class(self.problem, alive, by_node)

    @cached_property
    def least_link(self) -> float:
        """What messages add to the objective, without latency, whatever the placement (seconds, or bytes a token)."""
        links = self.constant_links
        if links is None or self.problem.objective.kind == "load":
            return 0.0
        if self.timed:
            return self.both_bytes * float(self.busiest_s(links.fast, links.slow)[0])
        return self.both_bytes * float(links.across[0]) / self.all_tokens

    @cached_property
    def linear(self) -> bool:
        """Whether what a placement changes follows copies of tokens alone, not which bins a token touches."""
        return self.rule.counts != "touches" or self.problem.objective.kind == "load"

    @cached_property
    def links(self) -> tuple[LinkRow, ...]:
        """Every ingress and egress as a row over P (docs/formulation.md, "Links"), where all homes dispatch alike.

        For objective "load" there are none, nor where no placement changes them; for "traffic" one row holds the bytes
        per token of all of them. Where rows of one node differ in a factor only, as those of its trays, the largest
        stands for all.
        """
        if self.problem.objective.kind == "load" or self.constant_links is not None:
            return ()
        if self.problem.objective.kind == "traffic":
            return (self._crossing_row(),)
        return (*self._fast_rows(), *self._slow_rows())

    @cached_property
    def home_links(self) -> tuple[LinkRow, ...]:
        """As `links`, where homes dispatch differently: rows over P of each home, whose prices are [homes, bins]."""
        if self.problem.objective.kind == "load" or self.constant_links is not None:
            return ()
        tray, rows = self.problem.topology.gpus_per_tray, []
        for level, parts in zip(LEVELS, link_parts(self.problem), strict=True):
            if self.problem.objective.kind == "traffic":
                prices = self.both_bytes / self.all_tokens * parts.slow_out.sum(axis=2, keepdims=True)
            else:
                slow = np.concatenate([parts.slow_out, parts.slow_in], axis=2)
                prices = np.concatenate([
                    self.fast_s * parts.fast_out, self.fast_s * parts.fast_in,
                    self.slow_s * slow.reshape(*slow.shape[:2], -1, tray).mean(axis=3),
                ], axis=2)  # fmt: skip
            rows += [LinkRow(level, price) for price in np.moveaxis(prices, 2, 0) if price.any()]
        return tuple(rows)

    def _fast_rows(self) -> list[LinkRow]:
        topology, tokens = self.problem.topology, self._tokens
        m, node, gpu = topology.gpus_per_node, topology.node_of_gpu, np.arange(topology.gpus)
        if m == 1:
            return []
        # Over the fast link a token also comes from the forwarding GPU of its node, whatever its home.
        passed = tokens + self.enters
        into = (passed.sum(axis=1, keepdims=True) - passed).reshape(-1)
        passed = passed.reshape(-1)
        rows = []
        for g in range(topology.gpus):
            others = ((node == node[g]) & (gpu != g)).astype(np.float64)
            rows.append(LinkRow("gpu", self.fast_s * passed[g] * others))
            rows.append(LinkRow("gpu", np.where(gpu == g, self.fast_s * into[g], 0.0)))
        return rows

    def _slow_rows(self) -> list[LinkRow]:
        topology, tokens, slow = self.problem.topology, self._tokens, self.slow_s
        nodes, m, tray, node = topology.nodes, topology.gpus_per_node, topology.gpus_per_tray, topology.node_of_gpu
        if nodes == 1:
            return []
        into, sent = self._busiest_tray(self.enters), self._busiest_tray(tokens)
        rows = []
        if self.rule.forwards:
            for j in range(nodes):
                rows.append(LinkRow("node", np.where(np.arange(nodes) == j, slow * into[j], 0.0)))
                rows.append(LinkRow("node", np.where(np.arange(nodes) == j, 0.0, slow * sent[j])))
            return rows
        away, group = tokens.sum() - tokens.sum(axis=1), np.arange(topology.gpus) // tray
        for t in range(topology.gpus // tray):
            rows.append(LinkRow("gpu", np.where(group == t, slow * away[t * tray // m] / tray, 0.0)))
        for h in range(nodes):
            rows.append(LinkRow("gpu", np.where(node == h, 0.0, slow * sent[h])))
        return rows

    def _crossing_row(self) -> LinkRow:
        away = self.both_bytes * (1.0 - self.home_share)
        return LinkRow("node", away) if self.rule.forwards else LinkRow("gpu", away[self.problem.topology.node_of_gpu])

    @cached_property
    def home_share(self) -> FloatArray:
        """[nodes] share of the tokens whose home is there."""
        return np.asarray(self.problem.hardware.homes.reshape(self.problem.topology.nodes, -1).sum(axis=1))

    @cached_property
    def _tokens(self) -> FloatArray:
        """[nodes, ranks] tokens whose home is a GPU."""
        return self.problem.hardware.home_tokens.reshape(self.problem.topology.nodes, -1)

    @cached_property
    def enters(self) -> FloatArray:
        """[nodes, ranks] tokens of other nodes that come over a GPU, if they need its node."""
        return entering_tokens(self.problem) if self.rule.forwards else np.zeros_like(self._tokens)

    def _busiest_tray(self, tokens: FloatArray) -> FloatArray:
        """[nodes] mean of [nodes, ranks] over the GPUs of a node's busiest NIC group."""
        trays = tokens.reshape(self.problem.topology.nodes, -1, self.problem.topology.gpus_per_tray)
        return np.asarray(trays.mean(axis=2).max(axis=1))

    @cached_property
    def crowding(self) -> tuple[FloatArray, FloatArray]:
        """([nodes], [nodes]) tokens that enter and that leave a node at its busiest NIC group, over the node's mean.

        1 where all GPUs are the home of as many tokens and none has failed, and for the ingress of a rule that does not
        forward.
        """
        both = []
        for each in (self.enters, self._tokens):
            mean = each.mean(axis=1)
            both.append(np.where(mean > 0.0, self._busiest_tray(each) / np.where(mean > 0.0, mean, 1.0), 1.0))
        return both[0], both[1]

    @cached_property
    def bins(self) -> Bins:
        """The bins that decide the dispatch."""
        topology, n, live = self.problem.topology, self.rates.tokens_per_gpu, int(self.problem.hardware.alive.sum())
        gpus, m, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
        of_gpu, rate = np.arange(gpus, dtype=np.int64), self.rates.slow_bytes_per_s
        if nodes > 1 and self.rule.forwards:
            of_gpu, node = topology.node_of_gpu, np.arange(nodes, dtype=np.int64)
            in_group, out_group, others = node, node, nodes - 1
        elif nodes > 1:
            node, others = topology.node_of_gpu, gpus - m
            in_group, out_group = of_gpu // topology.gpus_per_tray, node
        else:
            node, in_group, out_group, rate = topology.node_of_gpu, of_gpu, of_gpu, self.rates.fast_bytes_per_s
            # Of all tokens a GPU in use is the home of as many as any other.
            n, others = n * gpus / live, live - 1
        priced = self.problem.objective.kind != "load" and self.constant_links is None
        out_s = self.both_bytes * n / rate if priced else 0.0
        in_s = out_s * others
        away, share = np.arange(nodes)[:, None] != node[None, :], self.home_share * nodes
        (crowd_in, crowd_out), size = self.crowding, np.bincount(in_group)[in_group]
        if self.problem.objective.kind == "traffic":
            each = self.both_bytes if priced else 0.0
            into, out = each * (away * self.home_share[:, None]), np.zeros(int(out_group.max()) + 1)
        elif nodes == 1:
            into, out = np.full((1, gpus), in_s), np.full(gpus, out_s)
        else:
            into = away * share[:, None] * in_s / (nodes - 1) * (crowd_in[node] / size)[None, :]
            out = out_s * share * crowd_out
        return Bins(of_gpu, node, in_group, out_group, in_s, out_s, self.linear, into, out)


def tariff_of(problem: LayerProblem) -> Tariff:
    """The problem's prices, made once."""
    return problem.kept(Tariff)
