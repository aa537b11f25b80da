"""Experts dealt out like cards: expert e to GPU e modulo the GPUs."""

import numpy as np

from placement.problem import IntArray, LayerProblem
from solvers.heuristics.base import Heuristic
from solvers.heuristics.packing import separate


class RoundRobinSolver(Heuristic):
    """Physical expert i (logical i modulo the experts) goes to GPU i modulo the GPUs."""

    name = "round_robin"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts dealt out; a second copy that comes to a GPU that has the first is swapped away."""
        physical = np.arange(problem.slots, dtype=np.int64).reshape(problem.slots_per_gpu, problem.topology.gpus)
        slots = np.ascontiguousarray(physical.T.reshape(-1) % problem.experts)
        separate(slots, problem.slots_per_gpu, problem.mean_load, problem.slots)
        return slots
