"""Greedy replication of the hottest experts, then longest processing time onto GPUs."""

from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.heuristics.base import Heuristic
from solvers.experts.heuristics.packing import distinct_packing


class GreedySolver(Heuristic):
    """Longest processing time (Graham 1969) with a bound on items per GPU and copies on distinct GPUs."""

    name = "greedy"

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] experts, hottest copies first onto the GPU that is done with them first."""
        return distinct_packing(
            problem.data.mean_load,
            problem.topology.gpus,
            problem.hardware.slots_per_gpu,
            problem.hardware.capacities,
            problem.hardware.relative_speed,
        )
