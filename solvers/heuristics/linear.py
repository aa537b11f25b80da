"""Experts in order of their index: contiguous blocks per GPU, as engines place them by default."""

import numpy as np

from placement.problem import IntArray, LayerProblem
from solvers.heuristics.base import Heuristic
from solvers.heuristics.packing import wrapped


class LinearSolver(Heuristic):
    """Usable slot i holds expert i modulo the experts."""

    name = "linear"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts in order, wrapped."""
        return wrapped(np.arange(problem.experts, dtype=np.int64), problem.usable)
