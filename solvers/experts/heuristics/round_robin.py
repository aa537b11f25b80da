"""Experts dealt out like cards: expert e to GPU e modulo the GPUs."""

import numpy as np

from placement.problem.arrays import EMPTY, IntArray, plain
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import separate, wrapped


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
        if not separate(slots, problem.hardware.slots_per_gpu, plain(problem.data.mean_load), problem.slots):
            return wrapped(np.arange(problem.experts, dtype=np.int64), problem.hardware.usable)
        return slots
