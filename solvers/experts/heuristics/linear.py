"""Experts in order of their index: contiguous blocks per GPU, as engines place them by default."""

import numpy as np

from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import wrapped


class LinearSolver(Heuristic):
    """Usable slot i holds expert i modulo the experts."""

    name = "linear"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts in order, wrapped."""
        return wrapped(np.arange(problem.experts, dtype=np.int64), problem.hardware.usable)
