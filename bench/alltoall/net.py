"""All-to-all among a group's ranks, every byte of it counted. Imports torch; ranks alone use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bench.alltoall.job import KINDS
from placement.problem.arrays import IntArray


@dataclass
class Traffic:
    """Bytes that this rank sent to and received from each rank, [kinds, gpus]."""

    sent: IntArray
    received: IntArray

    @classmethod
    def none(cls, gpus: int) -> Traffic:
        """Nothing yet."""
        return cls(np.zeros((len(KINDS), gpus), dtype=np.int64), np.zeros((len(KINDS), gpus), dtype=np.int64))


@dataclass
class Net:
    """A process group: `ranks` are its members in the job's numbering, this rank among them."""

    ranks: tuple[int, ...]
    device: torch.device
    group: Any = None
    traffic: Traffic | None = field(default=None)

    def all_to_all(self, rows: Tensor, send: IntArray, receive: IntArray, kind: str) -> Tensor:
        """Rows from all members, in their order.

        Args:
            rows: [sum(send), ...] sorted by receiver. send, receive: [members] rows to and from each member.
            kind: what the bytes count as (KINDS).
        """
        out = rows.new_empty((int(receive.sum()), *rows.shape[1:]))
        if len(self.ranks) == 1 < dist.get_world_size():
            # A group of one is made of no ranks but this; a world of one has its group.
            out.copy_(rows)
        else:
            dist.all_to_all_single(out, rows.contiguous(), receive.tolist(), send.tolist(), group=self.group)
        if self.traffic is not None:
            size = rows[:1].numel() * rows.element_size() if len(rows) else out[:1].numel() * out.element_size()
            members, place = list(self.ranks), KINDS.index(kind)
            self.traffic.sent[place, members] += send * size
            self.traffic.received[place, members] += receive * size
        return out

    def counts(self, send: IntArray) -> IntArray:
        """[members] how many rows each member has for this rank, where it has `send` [members] for them."""
        each = np.ones(len(self.ranks), dtype=np.int64)
        told = self.all_to_all(torch.from_numpy(send.copy()).to(self.device), each, each, "metadata")
        return np.asarray(told.cpu().numpy(), dtype=np.int64)


@dataclass(frozen=True)
class Nets:
    """The groups that exchanges run over: all ranks, those of this node, and those of this local rank on every node."""

    world: Net
    node: Net
    rail: Net

    @classmethod
    def make(cls, rank: int, gpus: int, gpus_per_node: int, device: torch.device) -> Nets:
        """Makes the groups; every rank has to call it."""
        nodes = gpus // gpus_per_node
        by_node = [tuple(range(j * gpus_per_node, (j + 1) * gpus_per_node)) for j in range(nodes)]
        by_rail = [tuple(range(r, gpus, gpus_per_node)) for r in range(gpus_per_node)]
        found: dict[tuple[int, ...], Any] = {}
        for ranks in (*by_node, *by_rail):
            if ranks not in found:
                found[ranks] = dist.new_group(list(ranks)) if 1 < len(ranks) < gpus else None
        mine, rail = by_node[rank // gpus_per_node], by_rail[rank % gpus_per_node]
        return cls(Net(tuple(range(gpus)), device), Net(mine, device, found[mine]), Net(rail, device, found[rail]))

    def count_into(self, traffic: Traffic | None) -> None:
        """From now on, bytes are counted there; None: nowhere."""
        for net in (self.world, self.node, self.rail):
            net.traffic = traffic
