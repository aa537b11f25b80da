"""Experts in an order that looks at no load: of their hash, of their index, or dealt out in turn."""

import numpy as np

from placement.problem.arrays import EMPTY, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import separate, wrapped


def splitmix64(values: IntArray) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """The SplitMix64 finalizer (Steele, Lea and Flood 2014) of each value."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


class HashSolver(Heuristic):
    """Blocks of experts in hash order, so that every GPU is filled evenly."""

    name = "hash"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts in hash order, wrapped."""
        order = np.argsort(splitmix64(np.arange(problem.experts, dtype=np.int64)), kind="stable")
        return wrapped(order.astype(np.int64), problem.hardware.usable)


class LinearSolver(Heuristic):
    """Usable slot i holds expert i modulo the experts: contiguous blocks, as engines place them by default."""

    name = "linear"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts in order, wrapped."""
        return wrapped(np.arange(problem.experts, dtype=np.int64), problem.hardware.usable)


class RoundRobinSolver(Heuristic):
    """Physical expert i (logical i modulo the experts) goes to GPU i modulo the GPUs; a full GPU is passed over."""

    name = "round_robin"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts dealt out; a second copy that comes to a GPU that has the first is swapped away."""
        # Slots in the order in which they are dealt: a first one on every GPU, then a second one on every GPU.
        dealt = np.arange(problem.slots, dtype=np.int64).reshape(problem.topology.gpus, -1).T.reshape(-1)
        dealt = dealt[problem.hardware.usable[dealt]]
        slots = np.full(problem.slots, EMPTY, dtype=np.int64)
        slots[dealt] = np.arange(len(dealt)) % problem.experts
        if not separate(slots, problem.hardware.slots_per_gpu, problem.data.mean_load, problem.slots):
            return wrapped(np.arange(problem.experts, dtype=np.int64), problem.hardware.usable)
        return slots
