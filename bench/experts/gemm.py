"""Grouped expert products of one GPU of a plan, timed on one device. Imports torch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.alltoall.experts import grouped_mlp
from placement.problem.arrays import FloatArray, IntArray

ProductType = Literal["bf16", "fp8", "fp32"]
BYTES: dict[ProductType, int] = {"bf16": 2, "fp8": 1, "fp32": 4}
#: Weights are rotated through so many times the last-level cache, so that each run reads them from memory.
CACHES = 4
#: Cache of a CPU, where nothing better is known.
_CPU_CACHE = 64 * 2**20
_FP8 = torch.float8_e4m3fn
#: cuBLASLt wants fp8 rows in these units.
_FP8_ROWS = 16


@dataclass(frozen=True)
class Shape:
    """An expert's dimensions, and the slots of a GPU."""

    hidden: int
    width: int
    slots: int


def has_fp8(device: torch.device) -> bool:
    """Whether the chip multiplies fp8 matrices."""
    return device.type == "cuda" and bool(torch.cuda.get_device_capability(device) >= (8, 9))


class Products:
    """The SwiGLU products of one GPU's slots, over rotating sets of weights."""

    def __init__(self, shape: Shape, kind: ProductType, device: torch.device, most_tokens: int, seed: int) -> None:
        """Args: most_tokens: largest number of copies that a run will have."""
        self.shape, self.kind, self.device = shape, kind, device
        random = torch.Generator(device=device).manual_seed(seed)
        whole = 3 * shape.slots * shape.hidden * shape.width * BYTES[kind]
        self.sets = max(2, -(-CACHES * _cache_bytes(device) // whole))
        self._x = _random((max(1, most_tokens), shape.hidden), kind, device, random)
        # fp8 products want the second operand by columns: weights are kept transposed.
        wide, narrow = (shape.hidden, 2 * shape.width), (shape.width, shape.hidden)
        if kind == "fp8":
            wide, narrow = wide[::-1], narrow[::-1]
        self._up = [_random((shape.slots, *wide), kind, device, random) for _ in range(self.sets)]
        self._down = [_random((shape.slots, *narrow), kind, device, random) for _ in range(self.sets)]
        self._one = torch.ones((), device=device)

    @property
    def most_tokens(self) -> int:
        """Largest number of copies that a run may have."""
        return len(self._x)

    def seconds(self, count: IntArray, warmup: int, repeats: int) -> FloatArray:
        """[repeats] seconds of all products of a GPU whose slots have `count` [slots] tokens."""
        run = self._prepared(count)
        for turn in range(warmup):
            run(turn % self.sets)
        if self.device.type == "cuda":
            return self._by_events(run, repeats)
        found = np.zeros(repeats)
        for turn in range(repeats):
            started = time.perf_counter()
            run(turn % self.sets)
            found[turn] = time.perf_counter() - started
        return found

    def _by_events(self, run: Callable[[int], object], repeats: int) -> FloatArray:
        # A graph a set of weights: launches from Python would be longer than a decode step's kernels.
        graphs = []
        torch.cuda.synchronize(self.device)
        for turn in range(min(self.sets, repeats)):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                run(turn)
            graphs.append(graph)
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
        for turn, (start, end) in enumerate(pairs):
            start.record()
            graphs[turn % len(graphs)].replay()
            end.record()
        torch.cuda.synchronize(self.device)
        return np.array([start.elapsed_time(end) * 1e-3 for start, end in pairs])

    def _prepared(self, count: IntArray) -> Callable[[int], object]:
        """The products as a function of the set of weights; sizes are on the device beforehand."""
        x = self._x[: int(count.sum())]
        if not len(x):
            return lambda _: None
        if self.kind != "fp8":
            sizes = torch.from_numpy(count).to(self.device)
            return lambda which: grouped_mlp(x, self._up[which], self._down[which], sizes)
        sizes_list = [int(n) for n in count]

        def products(which: int) -> list[Tensor]:
            parts = zip(x.split(sizes_list), self._up[which], self._down[which], strict=True)
            return [self._expert(part, up, down) for part, up, down in parts if len(part)]

        return products

    def _expert(self, x: Tensor, up: Tensor, down: Tensor) -> Tensor:
        padded = functional.pad(x.view(torch.uint8), (0, 0, 0, -len(x) % _FP8_ROWS)).view(_FP8)
        both = self._scaled(padded, up)
        gate, value = both.chunk(2, dim=-1)
        return self._scaled((functional.silu(gate) * value).to(_FP8), down)

    def _scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        return torch._scaled_mm(
            x, weight.t(), scale_a=self._one, scale_b=self._one, out_dtype=torch.bfloat16, use_fast_accum=True
        )


def _random(size: tuple[int, ...], kind: ProductType, device: torch.device, random: torch.Generator) -> Tensor:
    found = torch.randn(
        size, generator=random, device=device, dtype=torch.float32 if kind == "fp32" else torch.bfloat16
    )
    found *= size[-1] ** -0.5
    return found.to(_FP8) if kind == "fp8" else found


def _cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    return _CPU_CACHE
