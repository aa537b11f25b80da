"""Greedy replication of the hottest experts, then longest processing time onto GPUs."""

from placement.problem import IntArray, LayerProblem
from solvers.heuristics.base import Heuristic
from solvers.heuristics.packing import distinct_packing


class GreedySolver(Heuristic):
    """Longest processing time (Graham 1969) with a bound on items per GPU and copies on distinct GPUs."""

    name = "greedy"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts, hottest copies first onto the GPU that is done with them first."""
        return distinct_packing(
            problem.mean_load, problem.topology.gpus, problem.slots_per_gpu, problem.capacities, problem.relative_speed
        )
