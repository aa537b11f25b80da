"""Experts in the order of a hash of their index: placement that looks at nothing."""

import numpy as np

from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import wrapped


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
