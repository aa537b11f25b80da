"""How many tokens reach each GPU and each node: the chance that a token touches it, by home class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch import Shares
from placement.cost.layer.residues import touched_together
from placement.kernels import lean_kernel
from placement.problem.arrays import FloatArray, IntArray
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

    Where the draws of different experts are independent, a token with experts K touches a GPU with chance
    1 - prod over e in K of (1 - share of e that goes there). Where they are not: placement.cost.layer.residues.
    """
    topology, classes = problem.topology, shares.classes
    gpu, homes = shares.slot // problem.hardware.slots_per_gpu, homes_of_classes(problem, shares)
    load = np.zeros((classes, problem.windows, topology.gpus))
    slot_load = np.zeros((problem.windows, problem.slots))
    for c in range(classes):
        first = shares.start[c * problem.experts : (c + 1) * problem.experts + 1]
        add_loads(problem.data.load, first, shares.slot, gpu, shares.fraction, float(homes[c]), load[c], slot_load)
    if problem.data.sets is None:
        node = load.reshape(classes, problem.windows, topology.nodes, -1).sum(axis=3)
        return Touch(load, load, node, slot_load)
    node_of = topology.node_of_gpu
    by_gpu = _touched(problem, shares, gpu, np.arange(classes), topology.gpus)
    # Of classes that share out alike over nodes one is enough.
    by_node = _touched(problem, shares, node_of[gpu], np.arange(0, classes, shares.alike), topology.nodes)
    return Touch(load, by_gpu, by_node[np.arange(classes) // shares.alike], slot_load)


def homes_of_classes(problem: LayerProblem, shares: Shares) -> FloatArray:
    """[classes] share of the tokens whose home is of the class."""
    if problem.hardware.uniform_home:
        return np.asarray(np.bincount(shares.class_of_gpu, minlength=shares.classes) / problem.topology.gpus)
    return np.bincount(shares.class_of_gpu, weights=problem.hardware.homes, minlength=shares.classes).astype(np.float64)


@lean_kernel
def add_loads(
    load: NDArray[np.float64], start: NDArray[np.int64], slot: NDArray[np.int64], gpu: NDArray[np.int64],
    fraction: NDArray[np.float64], home: float, by_gpu: NDArray[np.float64], by_slot: NDArray[np.float64],
) -> None:  # fmt: skip
    """Adds the loads of one class of homes, a share `home` of all, to by_gpu [windows, gpus] and by_slot [windows,
    slots]; start: [experts + 1] its rows of the shares."""
    windows, experts = load.shape
    for e in range(experts):
        for i in range(start[e], start[e + 1]):
            for w in range(windows):
                part = fraction[i] * load[w, e]
                by_gpu[w, gpu[i]] += part
                by_slot[w, slot[i]] += home * part


#: With up to so many places a set's chances are worked out for all of them, as vectors; else for those it may reach.
DENSE = 64
#: Elementary steps of one compiled call: between them an interrupt is heard.
PART = 100_000_000


def _touched(problem: LayerProblem, shares: Shares, place: IntArray, classes: IntArray, places: int) -> FloatArray:
    """[classes, windows, places] chance of touching each place ([entries] of the shares), for some of the classes."""
    out = np.zeros((len(classes), problem.windows, places))
    sets = problem.data.sets
    if sets is None:
        return out
    if shares.together:
        out[0] = touched_together(sets, shares, place, places, problem.experts)
        return out
    ids, weight, experts = sets.ids, sets.weight, problem.experts
    part = max(1, PART // (ids.shape[1] * places * problem.windows))
    for c, row in zip(range(len(classes)), classes * experts, strict=True):
        start = shares.start[row : row + experts + 1]
        if places <= DENSE:
            keep, miss = np.ones((experts, places)), np.ones(places)
            keep_rows(start, place, shares.fraction, keep)
            for first in range(0, len(ids), part):
                add_touched(ids, weight, keep, miss, out[c], first, min(first + part, len(ids)))
            continue
        entries = _Entries.of_class(start, place, shares.fraction, places)
        for first in range(0, len(ids), part):
            _add_entries(ids, weight, entries, out[c], first, min(first + part, len(ids)))
    return out


@lean_kernel
def keep_rows(
    start: NDArray[np.int64], place: NDArray[np.int64], fraction: NDArray[np.float64], keep: NDArray[np.float64]
) -> None:
    """Fills keep [experts, places], all 1, with the chance that a token does not send an expert's copy to a place."""
    for e in range(len(keep)):
        for i in range(start[e], start[e + 1]):
            keep[e, place[i]] -= fraction[i]
        for i in range(start[e], start[e + 1]):
            keep[e, place[i]] = max(0.0, keep[e, place[i]])


@lean_kernel
def add_touched(
    ids: NDArray[np.int32], weight: NDArray[np.float64], keep: NDArray[np.float64], miss: NDArray[np.float64],
    out: NDArray[np.float64], first: int, last: int,
) -> None:  # fmt: skip
    """Adds the chances of the sets `first` to `last` to out [windows, places]; miss: [places] scratch."""
    windows, places = out.shape
    for s in range(first, last):
        row = keep[ids[s, 0]]
        for p in range(places):
            miss[p] = row[p]
        for j in range(1, ids.shape[1]):
            row = keep[ids[s, j]]
            for p in range(places):
                miss[p] *= row[p]
        for w in range(windows):
            if weight[w, s] == 0.0:
                continue
            for p in range(places):
                out[w, p] += weight[w, s] * (1.0 - miss[p])


class _Entries(NamedTuple):
    """The same chances in compressed rows, one entry for each expert and place that a copy may go to.

    Attributes:
        first: [experts + 1] row starts. place, keep: [entries].
        seen, of, miss: [places] scratch; `of` is -1 everywhere, before and after.
    """

    first: NDArray[np.int64]
    place: NDArray[np.int64]
    keep: NDArray[np.float64]
    seen: NDArray[np.int64]
    of: NDArray[np.int64]
    miss: NDArray[np.float64]

    @classmethod
    def of_class(cls, start: IntArray, place: IntArray, fraction: FloatArray, places: int) -> _Entries:
        """The entries of one class; start: [experts + 1] its rows of the shares."""
        most = int(start[-1] - start[0])
        entries = cls(
            np.zeros(len(start), dtype=np.int64), np.empty(most, dtype=np.int64), np.empty(most),
            np.empty(places, dtype=np.int64), np.full(places, -1, dtype=np.int64), np.ones(places),
        )  # fmt: skip
        _fill_entries(start, place, fraction, entries)
        return entries


@lean_kernel
def _fill_entries(
    start: NDArray[np.int64], place: NDArray[np.int64], fraction: NDArray[np.float64], entries: _Entries
) -> None:
    first, at, keep, _, of, _ = entries
    used = 0
    for e in range(len(start) - 1):
        for i in range(start[e], start[e + 1]):
            p = place[i]
            if of[p] < 0:
                of[p] = used
                at[used] = p
                keep[used] = 1.0
                used += 1
            keep[of[p]] -= fraction[i]
        for i in range(first[e], used):
            keep[i] = max(0.0, keep[i])
            of[at[i]] = -1
        first[e + 1] = used


@lean_kernel
def _add_entries(
    ids: NDArray[np.int32], weight: NDArray[np.float64], entries: _Entries, out: NDArray[np.float64], first: int,
    last: int,
) -> None:  # fmt: skip
    """As `add_touched`, for the places that a set may reach alone."""
    start, place, keep, seen, of, miss = entries
    for s in range(first, last):
        n = 0
        for j in range(ids.shape[1]):
            e = ids[s, j]
            for i in range(start[e], start[e + 1]):
                p = place[i]
                if of[p] < 0:
                    of[p] = n
                    seen[n] = p
                    n += 1
                    miss[p] = 1.0
                miss[p] *= keep[i]
        for i in range(n):
            p = seen[i]
            of[p] = -1
            for w in range(out.shape[0]):
                out[w, p] += weight[w, s] * (1.0 - miss[p])
