"""Common frame of the heuristics: build slots, honour groups where asked."""

from __future__ import annotations

from typing import ClassVar

from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.base import Features
from solvers.result import Result, Status, Termination
from solvers.stop import Stop


class Heuristic:
    """A baseline: `place` maps a problem to slots. Keeps capacities, ignores traffic."""

    name: ClassVar[str]
    features: ClassVar[Features] = Features(uneven=True, baseline=True, note="ignores traffic")

    def place(self, problem: LayerProblem, seed: int) -> IntArray:
        """[slots] logical expert of each slot."""
        raise NotImplementedError

    def dispatched(self, problem: LayerProblem, seed: int) -> tuple[IntArray, FloatArray | None]:
        """`place`'s slots, and the [nodes, slots] fractions that they were chosen with, if any were solved."""
        return self.place(problem, seed), None

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        slots, fractions = self.dispatched(problem, seed)
        return Result(slots, Status.FEASIBLE, Termination.FINISHED, fractions=fractions)
