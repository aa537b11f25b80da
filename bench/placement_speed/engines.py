"""The drop-in beside the engines' own functions, in one process, on shapes from tiny to 512 experts on 512 GPUs.

vLLM's and SGLang's functions are read from their unpacked wheels, which need not be installed. All get the same loads
on two threads; the median of several calls counts, after one that compiles or loads the kernels.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.placement_speed.loads import loads
from placement.errors import InputError
from placement.problem.arrays import FloatArray

#: (layers, experts, slots, groups, nodes, GPUs).
SHAPES = (
    (1, 8, 8, 1, 1, 2), (1, 8, 12, 1, 1, 4), (2, 16, 16, 4, 2, 4), (4, 32, 40, 1, 1, 8), (16, 60, 64, 1, 1, 8),
    (26, 64, 64, 1, 1, 16), (26, 64, 96, 1, 1, 16), (32, 8, 16, 1, 1, 8), (36, 128, 128, 1, 1, 8),
    (36, 128, 160, 1, 1, 32), (94, 128, 128, 1, 1, 64), (94, 128, 144, 1, 1, 16), (58, 256, 256, 8, 4, 32),
    (58, 256, 288, 8, 4, 32), (58, 256, 288, 1, 1, 144), (58, 256, 320, 1, 1, 64), (60, 384, 416, 1, 1, 32),
    (48, 512, 512, 1, 1, 256), (48, 512, 768, 1, 1, 256), (58, 320, 320, 1, 1, 320),
)  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """One shape: milliseconds for all layers and mean balancedness, ours and by engine."""

    shape: tuple[int, ...]
    milliseconds: float
    balancedness: float
    engines: dict[str, tuple[float, float]]


def engine_functions(wheels: str) -> dict[str, Callable[..., Any]]:
    """rebalance_experts of vLLM and SGLang by name, from a folder of unpacked wheels.

    Raises:
        InputError: the folder lacks one of them.
    """
    vllm = _module(Path(wheels) / "vllm/vllm/distributed/eplb/policy", "default")
    sglang = _module(Path(wheels) / "sglang/sglang/srt/eplb/eplb_algorithms", "deepseek")

    def as_sglang(weight: Any, slots: int, groups: int, nodes: int, gpus: int) -> Any:
        return sglang.rebalance_experts(weight, slots, groups, nodes, gpus, groups % nodes == 0)[0]

    return {"vllm": vllm.DefaultEplbPolicy.rebalance_experts, "sglang": as_sglang}


def _module(folder: Path, name: str) -> Any:
    """A module of a package's folder, without what the package itself imports."""
    if not (folder / f"{name}.py").exists():
        raise InputError("--wheels", str(folder), f"has no {name}.py", "give a folder of unpacked wheels")
    package = f"_bench_{folder.parent.name}_{folder.name}"
    stub = types.ModuleType(package)
    stub.__path__ = [str(folder)]
    sys.modules[package] = stub
    return importlib.import_module(f"{package}.{name}")


def beside_engines(wheels: str, seed: int = 1, repeats: int = 5) -> tuple[Beside, ...]:
    """Every shape by the drop-in and by both engines."""
    import torch

    from placement.compat.eplb import GroupsWarning, rebalance_experts, warm_up

    torch.set_num_threads(2)
    warm_up()
    warnings.simplefilter("ignore", GroupsWarning)
    functions = engine_functions(wheels)
    found = []
    for shape in SHAPES:
        layers, experts, *counts = shape
        weight = torch.from_numpy(loads(layers, experts, seed))
        gpus = counts[-1]
        took: dict[str, tuple[float, float]] = {}
        for name, function in {"ours": rebalance_experts, **functions}.items():
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                placed = function(weight, *counts)
                times.append(time.perf_counter() - began)
            slots = np.asarray(placed[0] if isinstance(placed, tuple) else placed)
            took[name] = 1e3 * statistics.median(times), _balancedness(weight.numpy(), slots, gpus)
        ours = took.pop("ours")
        found.append(Beside(shape, *ours, took))
    return tuple(found)


def _balancedness(weight: FloatArray, slots: Any, gpus: int) -> float:
    """Mean over layers of mean over largest GPU load, copies sharing alike."""
    found = []
    for load, row in zip(weight, slots, strict=True):
        each = (load / np.maximum(np.bincount(row, minlength=len(load)), 1))[row].reshape(gpus, -1).sum(axis=1)
        found.append(each.mean() / each.max())
    return float(np.mean(found))
