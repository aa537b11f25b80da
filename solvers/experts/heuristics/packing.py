"""What the heuristics share: greedy replication, packing into bins, and keeping copies on distinct GPUs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import descending, kernel, lean
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray


def replicate(load: FloatArray, slots: int, most: int) -> IntArray:
    """[experts] copies of each expert: each further slot goes to the expert with the largest load per copy.

    This minimizes the largest load per copy. Ties go to the lower index; no expert gets more than `most` copies.
    """
    return np.bincount(physical_experts(np.ascontiguousarray(load), slots, most), minlength=len(load))


@kernel
def physical_experts(load: NDArray[np.float64], slots: int, most: int) -> NDArray[np.int64]:
    """[slots] experts in the order in which copies are made: one of each, then the hottest per copy.

    No expert gets more than `most` copies. Ties go to the lower index.
    """
    experts = len(load)
    made = np.empty(slots, np.int64)
    count = np.empty(experts, np.int64)
    count[:] = 1
    share = load.copy()
    for i in range(slots):
        if i < experts:
            made[i] = i
            continue
        best = -1
        for e in range(experts):
            if count[e] < most and (best < 0 or share[e] > share[best]):
                best = e
        made[i] = best
        count[best] += 1
        share[best] = load[best] / count[best]
    return made


@kernel
def pack(weight: NDArray[np.float64], bins: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Longest processing time into `bins` bins of equally many items: ([items] bin, [items] rank in the bin).

    Items go in descending weight (ties: lower index first) to the lightest bin with room (ties: lower index).
    """
    items = len(weight)
    room = items // bins
    bin_of = np.empty(items, np.int64)
    rank = np.empty(items, np.int64)
    if room == 1:
        for i in range(items):
            bin_of[i], rank[i] = i, 0
        return bin_of, rank
    total, used = np.empty(bins), np.empty(bins, np.int64)
    total[:] = 0.0
    used[:] = 0
    for i in descending(weight):
        best = -1
        for b in range(bins):
            if used[b] < room and (best < 0 or total[b] < total[best]):
                best = b
        bin_of[i], rank[i] = best, used[best]
        used[best] += 1
        total[best] += weight[i]
    return bin_of, rank


@kernel
def pack_uneven(
    weight: NDArray[np.float64], size: NDArray[np.int64], room: NDArray[np.int64], speed: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[items] bin of each item, or -1 where no bin has room: longest processing time on unlike machines.

    Items go in descending weight (ties: lower index first) to the bin with room that would be done with it first, its
    weight over its speed (Graham 1969; on machines of unlike speed Gonzalez, Ibarra and Sahni 1977).

    Args:
        weight, size: [items] load and places taken. room, speed: [bins] places, and load per unit of time.
    """
    bins = len(room)
    bin_of = np.empty(len(weight), np.int64)
    bin_of[:] = -1
    total = np.zeros(bins)
    left = room.copy()
    for i in descending(weight):
        best = -1
        for b in range(bins):
            if left[b] >= size[i] and (
                best < 0 or (total[b] + weight[i]) / speed[b] < (total[best] + weight[i]) / speed[best]
            ):
                best = b
        if best >= 0:
            bin_of[i] = best
            left[best] -= size[i]
            total[best] += weight[i]
    return bin_of


@kernel
def separate(slots: NDArray[np.int64], slots_per_gpu: int, weight: NDArray[np.float64], span: int) -> bool:
    """Swaps second copies away from GPUs that hold an expert twice, in place, with the least load; False if one can't
    be.

    Args:
        slots: [slots] experts, or EMPTY, which stays. weight: [experts] load of one copy.
        span: slots within which a copy may move (a node's, or all).
    """
    total = len(slots)
    clean = True
    for i in range(total):
        gpu = i // slots_per_gpu
        if slots[i] < 0 or not _holds(slots, gpu, slots_per_gpu, slots[i], i):
            continue
        first, none = i // span * span, -1 - i
        best, value = -1, np.inf
        for j in range(first, min(first + span, total)):
            other = j // slots_per_gpu
            if other == gpu or slots[j] < 0 or slots[j] == slots[i]:
                continue
            if _holds(slots, other, slots_per_gpu, slots[i], none) or _holds(slots, gpu, slots_per_gpu, slots[j], none):
                continue
            change = abs(weight[slots[j]] - weight[slots[i]])
            if change < value:
                best, value = j, change
        if best < 0:
            clean = False
        else:
            slots[i], slots[best] = slots[best], slots[i]
    return clean


@lean
def _holds(slots: NDArray[np.int64], gpu: int, slots_per_gpu: int, expert: int, skip: int) -> bool:
    for j in range(gpu * slots_per_gpu, (gpu + 1) * slots_per_gpu):
        if j != skip and slots[j] == expert:
            return True
    return False


@kernel
def longest_first(
    load: NDArray[np.float64],
    count: NDArray[np.int64],
    capacity: NDArray[np.int64],
    speed: NDArray[np.float64],
    slots_per_gpu: int,
) -> NDArray[np.int64]:
    """[slots] longest processing time over all copies; a GPU takes an expert once. Slots beyond capacity stay EMPTY.

    Where speeds differ a copy goes to the GPU that would be done with it first, else to the least loaded one.
    """
    experts, gpus = len(load), len(capacity)
    share = np.empty(experts)
    for e in range(experts):
        share[e] = load[e] / count[e]
    slots = np.empty(gpus * slots_per_gpu, np.int64)
    slots[:] = EMPTY
    total = np.zeros(gpus)
    used = np.zeros(gpus, np.int64)
    holds = np.zeros((gpus, experts), np.bool_)
    unlike = False
    for g in range(gpus):
        unlike = unlike or speed[g] != speed[0]
    for e in descending(share):
        part = share[e]
        added = part if unlike else 0.0
        for _ in range(count[e]):
            best = -1
            for g in range(gpus):
                if used[g] >= capacity[g] or holds[g, e]:
                    continue
                if best < 0 or (total[g] + added) / speed[g] < (total[best] + added) / speed[best]:
                    best = g
            if best < 0:
                # Only GPUs that hold it have room: leave the clash to `separate`.
                for g in range(gpus):
                    if used[g] < capacity[g]:
                        best = g
                        break
            slots[best * slots_per_gpu + used[best]] = e
            used[best] += 1
            total[best] += part
            holds[best, e] = True
    return slots


def distinct_packing(
    load: FloatArray,
    gpus: int,
    slots_per_gpu: int,
    capacity: IntArray | None = None,
    speed: FloatArray | None = None,
) -> IntArray:
    """[slots] greedy replication, at most one copy a GPU, then longest processing time onto distinct GPUs.

    Falls back on experts in turn where the last items can't be kept apart.

    Args:
        load: [experts]. capacity, speed: [gpus] usable slots and rates of work, or None where all are alike.
    """
    slots = gpus * slots_per_gpu
    room = np.full(gpus, slots_per_gpu, dtype=np.int64) if capacity is None else np.asarray(capacity)
    rate = np.ones(gpus) if speed is None else np.asarray(speed)
    count = replicate(load, int(room.sum()), int((room > 0).sum()))
    packed = longest_first(load, count, room, rate, slots_per_gpu)
    if not separate(packed, slots_per_gpu, load / count, slots):
        usable = (np.arange(slots_per_gpu)[None, :] < room[:, None]).reshape(-1)
        return wrapped(np.argsort(-load, kind="stable").astype(np.int64), usable)
    return np.asarray(packed, dtype=np.int64)


def wrapped(order: IntArray, usable: BoolArray) -> IntArray:
    """[slots] experts in `order` in the `usable` slots ([slots], the others EMPTY), again from its start when it ends.

    Neighbours are always distinct experts, so no GPU holds one twice.
    """
    slots = np.full(len(usable), EMPTY, dtype=np.int64)
    slots[usable] = order[np.arange(int(usable.sum())) % len(order)]
    return slots
