"""One exchange on one rank: dispatch in one hop or two, and combine the same way back. Imports torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bench.alltoall.hops import ABSENT, Outgoing, outgoing
from bench.alltoall.job import Exchange
from bench.alltoall.net import Net, Nets
from placement.cost.layer.messages import MESSAGE_RULES
from placement.problem.arrays import EMPTY, FloatArray, IntArray

#: Times a part of PARTS by its name, from a barrier on.
Timed = Callable[[str], AbstractContextManager[None]]


@dataclass(frozen=True)
class Hop:
    """One hop with what both sides know of it.

    Attributes:
        row: [sent] source row of each message, on the device. send, receive: [members] messages.
        slots, weights: [received, width] what the received rows are for.
        home_weight: [sent, 1] on the device, or None.
    """

    net: Net
    row: Tensor
    send: IntArray
    receive: IntArray
    slots: IntArray
    weights: FloatArray
    home_weight: Tensor | None

    @classmethod
    def agree(cls, net: Net, messages: Outgoing) -> Hop:
        """Tells the receivers what comes: counts, then slots and weights. All of it counts as metadata."""
        receive = net.counts(messages.count)
        width = messages.slots.shape[1]
        told = np.concatenate([messages.slots, messages.weights.view(np.int32)], axis=1)
        heard = net.all_to_all(torch.from_numpy(told).to(net.device), messages.count, receive, "metadata").cpu().numpy()
        weighed = messages.home_weight
        return cls(
            net,
            torch.from_numpy(messages.row).to(net.device),
            messages.count,
            receive,
            heard[:, :width].astype(np.int64),
            np.ascontiguousarray(heard[:, width:]).view(np.float32).astype(np.float64),
            None if weighed is None else torch.from_numpy(weighed).to(net.device)[:, None],
        )

    def out(self, rows: Tensor, kind: str) -> Tensor:
        """Received rows for the packed rows that this rank sends."""
        return self.net.all_to_all(rows, self.send, self.receive, kind)

    def back(self, rows: Tensor, kind: str) -> Tensor:
        """Answers to the rows that this rank sent, for its own answers to those that it received."""
        return self.net.all_to_all(rows, self.receive, self.send, kind)


@dataclass(frozen=True)
class Work:
    """What a rank's experts have to do with the rows that arrive.

    Attributes:
        row: [copies] received row, on the device. expert: [copies] logical expert, ascending by local slot.
        count: [slots_per_gpu] copies of each local slot.
        weight: [copies, 1] on the device.
        rows: received rows.
    """

    row: Tensor
    expert: IntArray
    count: IntArray
    weight: Tensor
    rows: int


@dataclass(frozen=True)
class Route:
    """An exchange, ready to run again: `across` is the first hop of a rule that forwards, `last` the other."""

    across: Hop | None
    last: Hop
    work: Work
    tokens: int

    @classmethod
    def make(cls, nets: Nets, rank: int, exchange: Exchange, mine: IntArray, weights: FloatArray) -> Route:
        """Plans an exchange with the other ranks, each of which has to call it.

        Args:
            mine: [tokens] tokens whose home is this rank. weights: [tokens, k] theirs.
        """
        per_gpu, gpus, m = exchange.slots_per_gpu, len(nets.world.ranks), len(nets.node.ranks)
        served = exchange.served[mine]
        gpu, rule = served // per_gpu, MESSAGE_RULES[exchange.rule]
        distinct, every = rule.counts != "copies", np.zeros(0, dtype=np.int64)
        if rule.counts == "all":
            # Ranks that have not failed hold something.
            every = np.flatnonzero((exchange.slots.reshape(gpus, -1) != EMPTY).any(axis=1))
        if not rule.forwards or gpus == m:
            last, across = Hop.agree(nets.world, outgoing(served, weights, gpu, gpus, distinct, every)), None
        else:
            own, node = rank // m, gpu // m
            net, enters = nets.rail, np.tile(np.arange(gpus // m), (len(served), 1))
            if exchange.entry is not None:
                net, enters = nets.world, exchange.entry[mine]
            away = np.where(node == own, ABSENT, np.take_along_axis(enters, node, axis=1))
            others = enters[:, np.setdiff1d(every // m, own)]
            across = Hop.agree(net, outgoing(served, weights, away, len(net.ranks), distinct, others))
            slots = np.concatenate([np.where(node == own, served, ABSENT), across.slots])
            scale = np.concatenate([weights, across.weights])
            local = np.where(slots == ABSENT, ABSENT, slots // per_gpu - own * m)
            near = every[every // m == own] - own * m
            last = Hop.agree(nets.node, outgoing(slots, scale, local, m, distinct, near))
        return cls(across, last, _work(last, exchange, rank), len(served))

    def dispatch(self, x: Tensor, timed: Timed) -> Tensor:
        """Rows that arrive at this rank's experts. x: [tokens, ...] hidden states as sent."""
        source = x
        if self.across is not None:
            packed = x.index_select(0, self.across.row)
            with timed("dispatch_across"):
                passed = self.across.out(packed, "dispatch")
            source = torch.cat([x, passed])
        packed = source.index_select(0, self.last.row)
        with timed("dispatch_within" if self.across is not None else "dispatch_across"):
            return self.last.out(packed, "dispatch")

    def combine(self, answers: Tensor, wire: torch.dtype, timed: Timed) -> Tensor:
        """[tokens, hidden] fp32 results at home. answers: [received rows, hidden] fp32, weighed where the rank does."""
        packed = answers.to(wire)
        with timed("combine_within" if self.across is not None else "combine_across"):
            found = self.last.back(packed, "combine").float()
        if self.last.home_weight is not None:
            found *= self.last.home_weight
        sources = self.tokens + (int(self.across.receive.sum()) if self.across is not None else 0)
        total = found.new_zeros((sources, answers.shape[1])).index_add_(0, self.last.row, found)
        if self.across is None:
            return total
        # What a node adds up crosses as one row a token.
        packed = total[self.tokens :].to(wire)
        with timed("combine_across"):
            found = self.across.back(packed, "combine").float()
        return total[: self.tokens].index_add_(0, self.across.row, found)


def _work(hop: Hop, exchange: Exchange, rank: int) -> Work:
    row, choice = np.nonzero(hop.slots != ABSENT)
    slot = hop.slots[row, choice]
    order = np.argsort(slot, kind="stable")
    row, choice, slot = row[order], choice[order], slot[order]
    first = rank * exchange.slots_per_gpu
    if len(slot) and not first <= slot[0] <= slot[-1] < first + exchange.slots_per_gpu:
        raise RuntimeError(f"rank {rank} was sent a token for slot {slot[-1]}, which it does not hold")
    device = hop.net.device
    weight = torch.from_numpy(hop.weights[row, choice].astype(np.float32)).to(device)
    return Work(
        torch.from_numpy(row).to(device),
        exchange.slots[slot],
        np.bincount(slot - first, minlength=exchange.slots_per_gpu),
        weight[:, None],
        len(hop.slots),
    )
