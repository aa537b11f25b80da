"""The published baselines built again in a few plain lines, without the solvers' code."""

from __future__ import annotations

import numpy as np

from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem

_BITS = 2**64 - 1


def hash_order(experts: int) -> IntArray:
    """[experts] ascending by the SplitMix64 finalizer (Steele, Lea and Flood 2014) of their index."""

    def mixed(z: int) -> int:
        z = z + 0x9E3779B97F4A7C15 & _BITS
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & _BITS
        z = (z ^ z >> 27) * 0x94D049BB133111EB & _BITS
        return z ^ z >> 31

    return np.array(sorted(range(experts), key=mixed))


def in_turn(order: IntArray, capacity: IntArray, width: int) -> IntArray:
    """[slots] experts in `order`, over and over, in the usable slots.

    Args:
        capacity: [gpus] usable slots, the first ones of a GPU's `width`.
    """
    usable = (np.arange(width) < capacity[:, None]).reshape(-1)
    slots = np.full(len(usable), EMPTY)
    slots[usable] = np.resize(order, usable.sum())
    return slots


def round_robin(problem: LayerProblem) -> IntArray:
    """[slots] physical experts dealt out to the GPUs, a full GPU passed over, then clashes swapped apart."""
    width, order = problem.hardware.slots_per_gpu, np.arange(problem.experts)
    dealt = (np.arange(width)[:, None] < problem.hardware.capacities).T
    slots = np.full(dealt.shape, EMPTY)
    slots.T[dealt.T] = np.resize(order, dealt.sum())
    return _apart(slots, problem.data.mean_load, in_turn(order, problem.hardware.capacities, width))


def greedy(problem: LayerProblem) -> IntArray:
    """[slots] copies for the largest load per copy, then longest processing time (Graham 1969), then swapped apart."""
    load, room, speed = problem.data.mean_load, problem.hardware.capacities, problem.hardware.relative_speed
    unlike = float((speed != speed[0]).any())
    count, total = np.ones(problem.experts, dtype=np.int64), np.zeros(len(room))
    for _ in range(problem.hardware.usable_slots - problem.experts):
        count[np.where(count < (room > 0).sum(), load / count, -1.0).argmax()] += 1
    slots, used = np.full((len(room), problem.hardware.slots_per_gpu), EMPTY), np.zeros(len(room), dtype=np.int64)
    for expert in np.repeat(order := np.argsort(-(load / count), kind="stable"), count[order]):
        free = used < room
        apart = free & ~(slots == expert).any(axis=1)
        # Where only GPUs that hold it have room, the first of them takes it.
        # Equal GPUs: the least loaded one. Unequal ones: the one that would be done with it first.
        done = (total + unlike * load[expert] / count[expert]) / speed
        gpu = np.where(apart, done, np.inf).argmin() if apart.any() else free.argmax()
        slots[gpu, used[gpu]] = expert
        used[gpu] += 1
        total[gpu] += load[expert] / count[expert]
    hottest = in_turn(np.argsort(-load, kind="stable"), room, problem.hardware.slots_per_gpu)
    return _apart(slots, load / count, hottest)


def _apart(slots: IntArray, weight: FloatArray, otherwise: IntArray) -> IntArray:
    """[slots] second copies on a GPU ([gpus, width] `slots`) swapped away, each with the copy of the nearest weight
    that makes no new clash; `otherwise` where one can't be."""
    clean = True
    for gpu, place in np.ndindex(slots.shape):
        row, expert = slots[gpu], slots[gpu, place]
        if expert == EMPTY or (row == expert).sum() < 2:
            continue
        free = (slots != EMPTY) & ~np.isin(slots, row) & ~(slots == expert).any(axis=1, keepdims=True)
        clean &= bool(free.any())
        if free.any():
            other = np.unravel_index(np.where(free, abs(weight[slots] - weight[expert]), np.inf).argmin(), free.shape)
            slots[gpu, place], slots[other] = slots[other], expert
    return slots.reshape(-1) if clean else otherwise
