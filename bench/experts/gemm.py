"""Grouped expert products of one GPU of a plan, timed on one device. Imports torch."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from bench.experts.kernels import KERNELS, Library, ProductType, Run
from placement.problem.arrays import FloatArray, IntArray
from specs.fields import bytes_of

#: Weights are rotated through so many times the last-level cache, so that each run reads them from memory.
CACHES = 4
#: Cache of a CPU, where nothing better is known.
_CPU_CACHE = 64 * 2**20
#: Runs in one captured graph, at least: what a replay takes to begin is a small part of it.
_GRAPH_RUNS = 12
#: Seconds of untimed work: an idle GPU's clock is low, a busy one's falls as far as its power wants.
_SETTLE_S = 0.1
#: Cycles that the GPU spins before the clock starts (about 2 ms), so that the host is ahead of it ever after.
_HEAD_START = 4_000_000


@dataclass(frozen=True)
class Shape:
    """An expert's dimensions, and the slots of a GPU."""

    hidden: int
    width: int
    slots: int


@dataclass(frozen=True)
class Timing:
    """Repeated runs.

    Attributes:
        seconds: [repeats] of one run each (on a GPU: the mean over one graph's runs).
        clock_mhz: the GPU's clock while they ran, or None where nobody tells.
    """

    seconds: FloatArray
    clock_mhz: float | None = None

    @property
    def median_s(self) -> float:
        """The run that counts."""
        return float(np.median(self.seconds))

    @property
    def spread(self) -> float:
        """Half of what lies between the quartiles, relative to the median."""
        low, high = np.percentile(self.seconds, [25, 75])
        return float(high - low) / 2 / self.median_s if self.median_s else 0.0


class Products:
    """The SwiGLU products of one GPU's slots, over rotating sets of weights."""

    def __init__(
        self, shape: Shape, library: Library, kind: ProductType, device: torch.device, most_tokens: int, seed: int
    ) -> None:
        """Args: most_tokens: largest number of copies that a run will have."""
        self.shape, self.device = shape, device
        whole = round(3 * shape.slots * shape.hidden * shape.width * bytes_of(kind))
        self.sets = max(2, -(-CACHES * _cache_bytes(device) // whole))
        self._kernels = KERNELS[library, kind](shape.slots, shape.hidden, shape.width, self.sets, device, seed)
        self._x = self._kernels.states(max(1, most_tokens))

    def timed(self, count: IntArray, warmup: int, repeats: int) -> Timing:
        """Times all products of a GPU whose slots have `count` [slots] tokens."""
        x = self._x[: int(count.sum())]
        if not len(x):
            return Timing(np.zeros(repeats))
        # Sizes are on the device beforehand.
        run = self._kernels.run(x, torch.from_numpy(count).to(self.device))
        return timed(run, self.sets, self.device, warmup, repeats)


def timed(run: Run, sets: int, device: torch.device, warmup: int, repeats: int) -> Timing:
    """Times `run(which)`, with `which` in turn below `sets`."""
    for turn in range(warmup):
        run(turn % sets)
    if device.type == "cuda":
        return _by_events(run, sets, device, repeats)
    found = np.zeros(repeats)
    for turn in range(repeats):
        started = time.perf_counter()
        run(turn % sets)
        found[turn] = time.perf_counter() - started
    return Timing(found)


def _by_events(run: Run, sets: int, device: torch.device, repeats: int) -> Timing:
    # One graph: launches from Python, and of a graph a run, would be longer than a decode step's kernels.
    runs = max(_GRAPH_RUNS, sets)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(device)
    with torch.cuda.graph(graph):
        for turn in range(runs):
            run(turn % sets)
    _settle(graph, device)
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    torch.cuda._sleep(_HEAD_START)
    marks[0].record()
    for mark in marks[1:]:
        graph.replay()
        mark.record()
    clock = clock_mhz(device)
    torch.cuda.synchronize(device)
    each = [begun.elapsed_time(ended) * 1e-3 / runs for begun, ended in pairwise(marks)]
    return Timing(np.array(each), clock)


def _settle(graph: torch.cuda.CUDAGraph, device: torch.device) -> None:
    """Replays until the clock is what it stays at under this load."""
    until = time.monotonic() + _SETTLE_S
    while time.monotonic() < until:
        graph.replay()
        torch.cuda.synchronize(device)


def clock_mhz(device: torch.device) -> float | None:
    """The GPU's clock now; None where its driver's library is not installed for Python."""
    try:
        return float(torch.cuda.clock_rate(device))
    except (ModuleNotFoundError, RuntimeError):
        return None


def _cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return _CPU_CACHE
