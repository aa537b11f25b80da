"""The engines' own functions that pick copies, run from their unpacked wheels without the engines."""

from __future__ import annotations
import __future__

import ast
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import IntArray

_SGLANG = "sglang/srt/eplb/expert_location.py"
_VLLM = "vllm/model_executor/layers/fused_moe/router/base_router.py"


def sglang_copies(
    wheel: str, maps: IntArray, experts: int, gpus: int, os_nodes: int, algorithm: str = "static"
) -> tuple[IntArray, list[list[list[list[int]]]]]:
    """What each rank of SGLang makes of a map, by its own functions.

    Args:
        wheel: Folder of the unpacked wheel. maps: [layers, slots] logical experts.
        os_nodes: SGLang's --nnodes. algorithm: Its --ep-dispatch-algorithm, with an all-to-all backend.

    Returns:
        [gpus, layers, experts] slot by `static`; [gpus][layers][experts] slots that a rank lists (and `dynamic` draws
        from).

    Raises:
        InputError: The folder lacks the file.
    """
    import torch

    moe = SimpleNamespace(moe_a2a_backend="deepep", ep_dispatch_algorithm=algorithm)
    names: dict[str, Any] = {
        "torch": torch, "random": random, "get_exec": lambda: SimpleNamespace(moe=moe),
        "get_parallel": lambda: SimpleNamespace(ep_size=gpus, nnodes=os_nodes),
    }  # fmt: skip
    _define(wheel, _SGLANG, names, lambda name: name.startswith(("_", "compute_logical_to_rank")))
    # It asks whether ranks join or leave at run time.
    names["_prefer_same_node_experts"] = lambda: True
    rows, served, listed = torch.tensor(np.asarray(maps)), [], []
    for rank in range(gpus):
        copies = names["_compute_logical_to_all_physical_map"](rows, experts, gpus, rank)
        table = names["compute_logical_to_rank_dispatch_physical_map"](copies, gpus, maps.shape[1], rank)
        served.append(table.numpy())
        listed.append([[[slot for slot in row if slot >= 0] for row in layer] for layer in copies.tolist()])
    return np.stack(served).astype(np.int64), listed


def vllm_slots(wheel: str, ids: IntArray, copies: IntArray, count: IntArray) -> IntArray:
    """[tokens, k] slots that vLLM's own kernel gives a rank's batch, run on numpy in place of Triton.

    Args:
        wheel: Folder of the unpacked wheel. ids: [tokens, k] logical experts of the batch.
        copies: [experts, most] slots of each, ascending, padded with -1. count: [experts] how many.

    Raises:
        InputError: The folder lacks the file.
    """
    names: dict[str, Any] = {"tl": _Triton}
    _define(wheel, _VLLM, names, lambda name: name == "_eplb_map_and_record_i32_kernel")
    flat, out = ids.reshape(-1), np.full(ids.size, -1, dtype=np.int64)
    load = np.zeros(int(copies.max()) + 1, dtype=np.int64)
    names["_eplb_map_and_record_i32_kernel"](
        _Pointer(flat), _Pointer(count), _Pointer(copies.reshape(-1)), _Pointer(out), _Pointer(load),
        _Pointer(np.ones(1, dtype=np.int64)), _Pointer(np.zeros(1, dtype=np.int64)), len(count), copies.shape[1],
        len(load), ids.size, ids.shape[1], HAS_NUM_UNPADDED=False, BLOCK_SIZE=ids.size,
    )  # fmt: skip
    return out.reshape(ids.shape)


def _define(wheel: str, path: str, names: dict[str, Any], wanted: Any) -> None:
    """Runs the wanted function definitions of a file of the engine, without what the file imports."""
    file = Path(wheel) / path
    if not file.is_file():
        raise InputError("--wheels", str(file), "is not there", "give a folder of unpacked wheels")
    tree = ast.parse(file.read_text())
    functions = [each for each in _functions(tree) if wanted(each.name)]
    for each in functions:
        each.decorator_list = []
    flags = __future__.annotations.compiler_flag
    exec(compile(ast.Module(list(functions), []), str(file), "exec", flags), names)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Functions of a module, those under an `if` too; no methods."""
    left: list[ast.stmt] = list(tree.body)
    while left:
        each = left.pop(0)
        if isinstance(each, ast.FunctionDef):
            yield each
        elif isinstance(each, ast.If):
            left += each.body


class _Vector(np.ndarray):
    """Numbers of a kernel's block."""

    def to(self, _: Any) -> _Vector:
        found: _Vector = self.astype(np.int64).view(_Vector)
        return found


class _Pointer:
    """A pointer into an array."""

    def __init__(self, array: IntArray, at: Any = 0) -> None:
        self.array, self.at = array, at

    def __add__(self, offset: Any) -> _Pointer:
        return _Pointer(self.array, self.at + offset)


class _Triton:
    """What the kernel uses of triton.language, on numpy."""

    int64 = np.int64
    constexpr = object
    where, maximum = np.where, np.maximum

    @staticmethod
    def program_id(_: int) -> int:
        return 0

    @staticmethod
    def arange(first: int, last: int) -> _Vector:
        return np.arange(first, last).view(_Vector)

    @staticmethod
    def load(pointer: _Pointer, mask: Any = None, other: int = 0) -> _Vector:
        if mask is None:
            single: _Vector = pointer.array[pointer.at].view(_Vector)
            return single
        found = np.where(mask, pointer.array[np.where(mask, pointer.at, 0)], other)
        return found.view(_Vector)

    @staticmethod
    def store(pointer: _Pointer, values: Any, mask: Any) -> None:
        pointer.array[np.asarray(pointer.at)[mask]] = np.asarray(values)[mask]

    @staticmethod
    def atomic_add(pointer: _Pointer, value: int, mask: Any) -> None:
        np.add.at(pointer.array, np.asarray(pointer.at)[mask], value)
