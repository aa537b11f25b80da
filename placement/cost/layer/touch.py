"""How many tokens reach each GPU and each node: the chance that a token touches it, by home class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.cost.layer.dispatch import Shares
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class Touch:
    """Expectations per token of one home class.

    Attributes:
        load: [classes, windows, gpus] copies of a token that go to a GPU.
        gpu: [classes, windows, gpus] chance that at least one copy goes to the GPU (equals load without token sets).
        node: [classes, windows, nodes] chance that at least one goes to the node (expected copies without sets).
        slot_load: [windows, slots] copies of a token that go to a slot, averaged over homes (0 for an EMPTY slot).
    """

    load: FloatArray
    gpu: FloatArray
    node: FloatArray
    slot_load: FloatArray


def touch(problem: LayerProblem, shares: Shares) -> Touch:
    """Loads and touch chances of a placement whose dispatch is `shares`.

    The draws of different experts are independent, so a token with experts K touches a GPU with chance
    1 - prod over e in K of (1 - share of e that goes there).
    """
    topology, classes = problem.topology, shares.classes
    gpu = shares.slot // problem.hardware.slots_per_gpu
    homes = np.asarray(np.bincount(shares.class_of_gpu, minlength=classes) / topology.gpus, dtype=np.float64)
    if not problem.hardware.uniform_home:
        homes = np.bincount(shares.class_of_gpu, weights=problem.hardware.homes, minlength=classes).astype(np.float64)
    load, slot_load = _loads(
        problem.data.load, shares.start, shares.slot, gpu, shares.fraction, homes, topology.gpus, problem.slots
    )
    sets = problem.data.sets
    if sets is None:
        node = load.reshape(classes, problem.windows, topology.nodes, -1).sum(axis=3)
        return Touch(load, load, node, slot_load)
    node_of = topology.node_of_gpu
    by_gpu = _touched(
        sets.ids, sets.weight, problem.experts, shares.start, gpu, shares.fraction, np.arange(classes), topology.gpus,
    )  # fmt: skip
    # Where every GPU is a class (`nearest`), those of one node still share out alike over nodes: one of each is enough.
    each = classes == topology.gpus and topology.nodes > 1
    some = np.arange(0, classes, topology.gpus_per_node if each else 1)
    by_node = _touched(
        sets.ids, sets.weight, problem.experts, shares.start, node_of[gpu], shares.fraction, some, topology.nodes,
    )  # fmt: skip
    if each:
        by_node = by_node[node_of]
    return Touch(load, by_gpu, by_node, slot_load)


@njit(cache=True, nogil=True)
def _loads(
    load: NDArray[np.float64],
    start: NDArray[np.int64],
    slot: NDArray[np.int64],
    gpu: NDArray[np.int64],
    fraction: NDArray[np.float64],
    homes: NDArray[np.float64],
    gpus: int,
    slots: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    windows, experts = load.shape
    classes = len(homes)
    out = np.zeros((classes, windows, gpus))
    by_slot = np.zeros((windows, slots))
    for c in range(classes):
        for e in range(experts):
            for i in range(start[c * experts + e], start[c * experts + e + 1]):
                for w in range(windows):
                    part = fraction[i] * load[w, e]
                    out[c, w, gpu[i]] += part
                    by_slot[w, slot[i]] += homes[c] * part
    return out, by_slot


#: With up to so many places a set's chances are worked out for all of them, as vectors; else for those it may reach.
DENSE = 64


@njit(cache=True, nogil=True)
def _keep_rows(
    experts: int,
    start: NDArray[np.int64],
    place: NDArray[np.int64],
    fraction: NDArray[np.float64],
    row: int,
    keep: NDArray[np.float64],
) -> None:
    """Fills keep [experts, places] with the chance that a class's token does not send an expert's copy to a place."""
    keep[:] = 1.0
    for e in range(experts):
        for i in range(start[row + e], start[row + e + 1]):
            keep[e, place[i]] -= fraction[i]
        for i in range(start[row + e], start[row + e + 1]):
            keep[e, place[i]] = max(0.0, keep[e, place[i]])


@njit(cache=True, nogil=True)
def _keep_entries(
    experts: int,
    start: NDArray[np.int64],
    place: NDArray[np.int64],
    fraction: NDArray[np.float64],
    row: int,
    first_entry: NDArray[np.int64],
    entry_place: NDArray[np.int64],
    entry_keep: NDArray[np.float64],
    entry_of: NDArray[np.int64],
) -> None:
    """The same chances in compressed rows, one entry for each expert and place that a copy may go to.

    Args:
        first_entry: [experts + 1] filled; 0 comes first. entry_place, entry_keep: [entries] filled.
        entry_of: [places] -1 everywhere, before and after.
    """
    used = 0
    for e in range(experts):
        for i in range(start[row + e], start[row + e + 1]):
            p = place[i]
            if entry_of[p] < 0:
                entry_of[p] = used
                entry_place[used] = p
                entry_keep[used] = 1.0
                used += 1
            entry_keep[entry_of[p]] -= fraction[i]
        for i in range(first_entry[e], used):
            entry_keep[i] = max(0.0, entry_keep[i])
            entry_of[entry_place[i]] = -1
        first_entry[e + 1] = used


@njit(cache=True, nogil=True)
def _touched(
    ids: NDArray[np.int32],
    weight: NDArray[np.float64],
    experts: int,
    start: NDArray[np.int64],
    place: NDArray[np.int64],
    fraction: NDArray[np.float64],
    classes: NDArray[np.int64],
    places: int,
) -> NDArray[np.float64]:
    """[classes, windows, places] chance of touching each place; several copies of an expert in one place add up."""
    sets, k = ids.shape
    windows = weight.shape[0]
    out = np.zeros((len(classes), windows, places))
    miss = np.ones(places)
    # With few places:
    keep = np.empty((experts if places <= DENSE else 0, places))
    # With many:
    first_entry = np.zeros(experts + 1, np.int64)
    ends = start[::experts]
    most = (ends[1:] - ends[:-1]).max()
    entry_place, entry_keep = np.empty(most, np.int64), np.empty(most)
    entry_of = np.full(places, -1)
    seen = np.empty(places, np.int64)
    is_seen = np.zeros(places, np.bool_)
    for c in range(len(classes)):
        row = classes[c] * experts
        if places <= DENSE:
            _keep_rows(experts, start, place, fraction, row, keep)
            for s in range(sets):
                first = keep[ids[s, 0]]
                for p in range(places):
                    miss[p] = first[p]
                for j in range(1, k):
                    factor = keep[ids[s, j]]
                    for p in range(places):
                        miss[p] *= factor[p]
                for w in range(windows):
                    if weight[w, s] == 0.0:
                        continue
                    for p in range(places):
                        out[c, w, p] += weight[w, s] * (1.0 - miss[p])
            continue
        _keep_entries(experts, start, place, fraction, row, first_entry, entry_place, entry_keep, entry_of)
        for s in range(sets):
            n_seen = 0
            for j in range(k):
                e = ids[s, j]
                for i in range(first_entry[e], first_entry[e + 1]):
                    p = entry_place[i]
                    if not is_seen[p]:
                        is_seen[p] = True
                        seen[n_seen] = p
                        n_seen += 1
                        miss[p] = 1.0
                    miss[p] *= entry_keep[i]
            for i in range(n_seen):
                p = seen[i]
                is_seen[p] = False
                for w in range(windows):
                    out[c, w, p] += weight[w, s] * (1.0 - miss[p])
    return out
