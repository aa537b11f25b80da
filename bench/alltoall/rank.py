"""One rank's run over a job's layers and exchanges. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from bench.alltoall.experts import COMPUTE, LocalExperts, hidden_states, packed, reference, relative_error
from bench.alltoall.job import PARTS, Exchange, Job, LayerWork, Ran, RankRecord, WireCount
from bench.alltoall.net import Nets, Traffic
from bench.alltoall.route import Route
from placement.problem.arrays import IntArray


class Clock:
    """When each of PARTS began and ended in one round. Timed parts start at a barrier; what lies between is `pack`."""

    def __init__(self, device: torch.device) -> None:
        self.begun, self.ended = np.zeros(len(PARTS)), np.zeros(len(PARTS))
        self._device = device
        self._mark = self._now()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Times its body as a part of PARTS."""
        self.pause()
        _barrier(self._device)
        place = PARTS.index(part)
        self.begun[place] = self._now()
        yield
        self.ended[place] = self._mark = self._now()

    def pause(self) -> None:
        """What passed since the last part was packing."""
        now = self._now()
        self.ended[PARTS.index("pack")] += now - self._mark
        self._mark = now

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.monotonic()


@dataclass(frozen=True)
class Seat:
    """Where a rank runs: its number, its device, and the interface of its node's uplink (or none)."""

    rank: int
    device: torch.device
    interface: str | None = None


def join(job: Job, rank: int, store: str, local_rank: int) -> torch.device:
    """Enters the process group; gives the device of this rank.

    Args:
        store: a rendezvous for torch.distributed, such as file:///... or env://.
    """
    torch.set_num_threads(1)
    device, bound = torch.device("cpu"), None
    if job.backend == "nccl":
        device = bound = torch.device("cuda", local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    dist.init_process_group(
        job.backend, init_method=store, rank=rank, world_size=job.gpus, timeout=timedelta(seconds=job.timeout_s),
        device_id=bound,
    )  # fmt: skip
    return device


def run_rank(job: Job, seat: Seat) -> Ran | None:
    """Runs all layers. Rank 0 gets what all ranks saw, the others None. The process group has to be there."""
    nets = Nets.make(seat.rank, job.gpus, job.gpus_per_node, seat.device)
    records, uplinks = [], []
    for work in job.layers:
        with torch.no_grad():
            mine, counted = _run_layer(job, work, seat, nets)
        everything: list[object] | None = [None] * job.gpus if seat.rank == 0 else None
        dist.gather_object((mine, counted), everything)
        if everything is not None:
            by_rank: list[tuple[list[RankRecord], WireCount | None]] = everything  # type: ignore[assignment]
            records.append(tuple(zip(*(each for each, _ in by_rank), strict=True)))
            uplinks.append(tuple(count for _, count in by_rank if count is not None))
    if seat.rank:
        return None
    told = torch.cuda.get_device_name(seat.device) if seat.device.type == "cuda" else "cpu"
    return Ran(tuple(records), tuple(uplinks) if seat.interface else (), told, torch.__version__)


def _run_layer(job: Job, work: LayerWork, seat: Seat, nets: Nets) -> tuple[list[RankRecord], WireCount | None]:
    """All exchanges of a layer, in turn in every round."""
    mine = np.flatnonzero(job.home == seat.rank)
    ids, weights = work.ids[mine], work.weights[mine]
    x = hidden_states(job, work.layer, seat.rank, len(mine), seat.device)
    expected = reference(job, work.layer, x, ids, weights)
    sent = packed(x, job.wire)
    ready = [_prepared(job, work, exchange, seat, nets, mine) for exchange in work.exchanges]
    begun, ended = np.zeros((2, len(ready), job.repeats, len(PARTS)))
    errors = [0.0] * len(ready)
    before = None
    for turn in range(-job.warmup, job.repeats):
        if turn == 0:
            before = _uplink(seat)
        for i, each in enumerate(ready):
            # Bytes are counted in the last round; every round sends the same.
            nets.count_into(each.traffic if turn == job.repeats - 1 else None)
            clock = Clock(seat.device)
            rows = each.route.dispatch(sent, clock.timed)
            with clock.timed("experts"):
                answers = each.experts.answers(rows, each.route.work)
            result = each.route.combine(answers, COMPUTE[job.wire], clock.timed)
            clock.pause()
            if turn >= 0:
                begun[i, turn], ended[i, turn] = clock.begun, clock.ended
            errors[i] = max(errors[i], relative_error(result, expected))
    nets.count_into(None)
    _barrier(seat.device)
    after = _uplink(seat)
    counted = None
    if before is not None and after is not None:
        counted = WireCount(after.out_bytes - before.out_bytes, after.in_bytes - before.in_bytes)
    found = [
        RankRecord(each.traffic.sent, each.traffic.received, begun[i], ended[i], each.metadata_s, errors[i])
        for i, each in enumerate(ready)
    ]
    return found, counted


@dataclass(frozen=True)
class _Ready:
    """An exchange with its route agreed and its experts loaded."""

    route: Route
    experts: LocalExperts
    traffic: Traffic
    metadata_s: float


def _prepared(job: Job, work: LayerWork, exchange: Exchange, seat: Seat, nets: Nets, mine: IntArray) -> _Ready:
    traffic = Traffic.none(job.gpus)
    nets.count_into(traffic)
    _barrier(seat.device)
    started = time.perf_counter()
    route = Route.make(nets, seat.rank, exchange, mine, work.weights[mine])
    seconds = time.perf_counter() - started
    nets.count_into(None)
    held = slice(seat.rank * exchange.slots_per_gpu, (seat.rank + 1) * exchange.slots_per_gpu)
    return _Ready(route, LocalExperts(job, work.layer, exchange.slots[held], seat.device), traffic, seconds)


def _barrier(device: torch.device) -> None:
    if device.type == "cuda":
        dist.barrier(device_ids=[device.index])
        torch.cuda.synchronize(device)
    else:
        dist.barrier()


def _uplink(seat: Seat) -> WireCount | None:
    """The kernel's byte counters of the node's uplink, or None without one."""
    if seat.interface is None:
        return None
    for line in Path("/proc/self/net/dev").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == seat.interface:
            fields = rest.split()
            return WireCount(out_bytes=int(fields[8]), in_bytes=int(fields[0]))
    raise RuntimeError(f"this rank's network namespace has no interface {seat.interface}")
