"""Recorded against synthetic routing, side by side: `python -m bench.routing_fit [FOLDER of recorded traces]`.

Both are judged alike: placements of 64 experts on 4 nodes x 4 GPUs without replicas are made on the first half of each
trace's sequences and measured on the second. The two placements are the ends between which a planner works: one that
only balances (longest processing time) and one that only co-locates (annealed swaps, 16 experts a node).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numba import njit

from bench.recorded import DOMAINS
from placement.problem.arrays import FloatArray, IntArray
from placement.routing.parts import split_by_sequence
from placement.routing.reader import example_trace, read_trace
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import synthesize
from placement.routing.trace import Trace

#: The mean over layers and traces of max/mean load in the recordings; knob of the synthetic side of the table.
RECORDED_SKEW = 3.86
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    return cast(Callable[_P, _R], njit(cache=True, nogil=True)(function))


@dataclass(frozen=True)
class Figures:
    """What the fit compares, means over layers (and traces).

    Attributes:
        skew, skew_deviation: max/mean expert load of a layer over a whole trace, and its deviation over layers.
        load_variation: coefficient of variation of a layer's expert loads.
        balanced_nodes, colocated_nodes: distinct nodes per held-out token under either placement.
        colocated_nodes_seen: the latter on the tokens it was made on.
        cosine: of the loads of a trace's two halves.
        distinct: share of a layer's k-sets that are distinct.
        next_overlap, far_overlap: experts that a token shares with the next one, and with the 16th after it.
    """

    skew: float
    skew_deviation: float
    load_variation: float
    balanced_nodes: float
    colocated_nodes: float
    colocated_nodes_seen: float
    cosine: float
    distinct: float
    next_overlap: float
    far_overlap: float


def measure(
    traces: Sequence[Trace], nodes: int = 4, gpus: int = 16, layers: Sequence[int] | None = None, swaps: int = 40_000
) -> Figures:
    """Figures of one or more traces of a model; traces weigh alike in the placements and in the means.

    Args:
        nodes, gpus: where the placements are made; experts are spread evenly over GPUs.
        layers: the layers that placements are made for; all by default.
        swaps: tries of the annealing, a layer.
    """
    halves = [split_by_sequence(trace) for trace in traces]
    seen = layer_statistics([first for first, _ in halves])
    rows = []
    for layer in range(traces[0].layers) if layers is None else layers:
        part = seen[layer]
        mean_load = part.window_weight @ part.load
        if part.sets is None:
            raise ValueError("traces have sets")
        weight = part.window_weight @ part.sets.weight
        balanced = balance(mean_load, gpus) // (gpus // nodes)
        colocated = colocate(part.sets.ids.astype(np.int64), weight, traces[0].experts, nodes, swaps)
        held_out = [second.topk_ids[layer] for _, second in halves]
        rows.append(
            (
                np.mean([nodes_per_token(ids, balanced) for ids in held_out]),
                np.mean([nodes_per_token(ids, colocated) for ids in held_out]),
                np.mean([nodes_per_token(first.topk_ids[layer], colocated) for first, _ in halves]),
            )
        )
    ends = np.mean(rows, axis=0)
    own = np.mean([_trace_figures(trace, *split) for trace, split in zip(traces, halves, strict=True)], axis=0)
    return Figures(*map(float, (*own[:3], *ends, *own[3:])))


def balance(load: FloatArray, gpus: int) -> IntArray:
    """[experts] GPU of each expert: the heaviest first onto the least loaded GPU that has a free slot."""
    slots = len(load) // gpus
    total, used = np.zeros(gpus), np.zeros(gpus, dtype=np.int64)
    gpu_of = np.empty(len(load), dtype=np.int64)
    for expert in np.argsort(-load, kind="stable"):
        gpu = int(np.argmin(np.where(used < slots, total, np.inf)))
        gpu_of[expert] = gpu
        total[gpu] += load[expert]
        used[gpu] += 1
    return gpu_of


def colocate(ids: IntArray, weight: FloatArray, experts: int, nodes: int, swaps: int, seed: int = 0) -> IntArray:
    """[experts] node of each expert, as many on each, that makes the mean of distinct nodes per k-set small."""
    flat = ids.ravel().astype(np.int64)
    order = np.argsort(flat, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(flat, minlength=experts))]).astype(np.int64)
    rng = np.random.default_rng(seed)
    first = rng.permutation(experts) % nodes
    pairs = rng.integers(experts, size=(swaps, 2))
    chance = rng.random(swaps)
    return _anneal(ids, weight, first, start, order // ids.shape[1], nodes, pairs, chance)


def nodes_per_token(ids: IntArray, node_of: IntArray) -> float:
    """Mean number of distinct nodes that hold a token's experts; ids [tokens, k], node_of [experts]."""
    node = node_of[ids]
    return float(sum((node == n).any(axis=1).mean() for n in range(int(node_of.max()) + 1)))


def synthetic_lite(seed: int, skew: float = RECORDED_SKEW, coactivation: float = 1.0) -> Trace:
    """A synthetic trace of DeepSeek-V2-Lite's shape and the recordings' mean size."""
    return synthesize(26, 64, 6, 4411, 29, skew, coactivation, seed, model_name="deepseek-v2-lite")


@_compiled
def _shift(count: IntArray, weight: FloatArray, members: IntArray, old: int, new: int) -> float:
    """Moves one expert's k-sets from node `old` to `new` in the [sets, nodes] counts; the change of the cost."""
    change = 0.0
    for member in members:
        if count[member, old] == 1:
            change -= weight[member]
        if count[member, new] == 0:
            change += weight[member]
        count[member, old] -= 1
        count[member, new] += 1
    return change


@_compiled
def _anneal(
    ids: IntArray,
    weight: FloatArray,
    node_of: IntArray,
    start: IntArray,
    sets_of: IntArray,
    nodes: int,
    pairs: IntArray,
    chance: FloatArray,
) -> IntArray:
    count = np.zeros((len(ids), nodes), np.int64)
    for row in range(len(ids)):
        for expert in ids[row]:
            count[row, node_of[expert]] += 1
    best, least, cost = node_of.copy(), 0.0, 0.0
    for step in range(len(pairs)):
        heat = 0.005 * 0.01 ** (step / len(pairs))
        e, f = pairs[step, 0], pairs[step, 1]
        a, b = node_of[e], node_of[f]
        if a == b:
            continue
        of_e, of_f = sets_of[start[e] : start[e + 1]], sets_of[start[f] : start[f + 1]]
        change = _shift(count, weight, of_e, a, b) + _shift(count, weight, of_f, b, a)
        if change <= 0 or chance[step] < np.exp(-change / heat):
            node_of[e], node_of[f] = b, a
            cost += change
            if cost < least:
                best[:] = node_of
                least = cost
        else:
            _shift(count, weight, of_f, a, b)
            _shift(count, weight, of_e, b, a)
    return best


def _trace_figures(trace: Trace, first: Trace, second: Trace) -> tuple[float, ...]:
    whole = layer_statistics([trace])
    load = np.array([layer.load[0] for layer in whole])
    one, two = (np.array([layer.load[0] for layer in layer_statistics([part])]) for part in (first, second))
    ratio = load.max(axis=1) / load.mean(axis=1)
    cosine = (one * two).sum(axis=1) / np.sqrt((one**2).sum(axis=1) * (two**2).sum(axis=1))
    distinct = [len(layer.sets.ids) / trace.tokens for layer in whole if layer.sets is not None]
    used = np.zeros((trace.layers, trace.tokens, trace.experts), dtype=bool)
    np.put_along_axis(used, trace.topk_ids.astype(np.int64), True, axis=2)
    overlap = [
        np.count_nonzero(used[:, lag:] & used[:, :-lag]) / trace.layers / (trace.tokens - lag) for lag in (1, 16)
    ]
    return (
        float(ratio.mean()), float(ratio.std()), float((load.std(axis=1) / load.mean(axis=1)).mean()),
        float(cosine.mean()), float(np.mean(distinct)), *overlap,
    )  # fmt: skip


def _row(name: str, figures: Figures) -> str:
    f = figures
    return (
        f"| {name} | {f.skew:.2f} ± {f.skew_deviation:.2f} | {f.load_variation:.2f} | {f.balanced_nodes:.2f} "
        f"| {f.colocated_nodes:.2f} | {f.colocated_nodes_seen:.2f} | {f.cosine:.3f} | {f.distinct:.2f} "
        f"| {f.next_overlap:.2f} | {f.far_overlap:.2f} |"
    )


def _recorded(folder: Path) -> list[Trace]:
    traces = [read_trace(folder / f"dsv2lite_{domain}.npz", 64, 26, 6) for domain in DOMAINS]
    return [trace for trace in traces if isinstance(trace, Trace)]


def main() -> None:
    """Prints the tables of docs/routing.md."""
    parser = argparse.ArgumentParser(description="Recorded against synthetic routing.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/traces"), help="recorded traces")
    folder = parser.parse_args().folder
    print("| routing | max/mean load | variation | balanced | co-located | on seen | cosine | distinct | next | far |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    if folder.is_dir():
        recorded = _recorded(folder)
        print(_row("recorded, three domains", measure(recorded)), flush=True)
        for trace in recorded:
            print(_row(f"recorded, {trace.name}", measure([trace])), flush=True)
    for seed in range(4):
        print(_row(f"synthetic, seed {seed}", measure([synthetic_lite(seed)])), flush=True)
    some = range(0, 26, 3)
    for coactivation in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0):
        trace = synthetic_lite(0, coactivation=coactivation)
        print(_row(f"co-activation {coactivation}", measure([trace], layers=some)), flush=True)
    for skew in (1.5, 2.5, 3.5, 4.5, 5.6):
        print(_row(f"skew {skew}", measure([synthetic_lite(0, skew=skew)], layers=some)), flush=True)
    tiny = read_trace(example_trace())
    if isinstance(tiny, Trace):
        found = measure([tiny])
        alike = synthesize(tiny.layers, tiny.experts, tiny.top_k, tiny.tokens, len(tiny.seq_lens), found.skew, 1.0, 0)
        print(_row("recorded, example trace", found), flush=True)
        print(_row("synthetic, its shape and skew", measure([alike])), flush=True)
    if folder.is_dir():
        for nodes, gpus in ((2, 8), (8, 16), (16, 16)):
            print(_row(f"recorded, {nodes} nodes", measure(recorded, nodes, gpus, some)), flush=True)
            print(_row(f"synthetic, {nodes} nodes", measure([synthetic_lite(0)], nodes, gpus, some)), flush=True)


if __name__ == "__main__":
    main()
