"""Names of layer solvers. Each is imported when it is asked for, so that listing them costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from placement.errors import ParameterError
from placement.problem.layer import LayerProblem
from solvers.base import Features, LayerSolver, RivalSolver, SettlingSolver, UnsupportedError, unsupported
from solvers.result import Result
from solvers.stop import Stop
from specs.validation import suggestion

if TYPE_CHECKING:
    from solvers.bounds.layer import LayerBounds
    from solvers.experts.candidates import Candidate

#: name -> (module, class)
SOLVERS: dict[str, tuple[str, str]] = {
    "hash": ("solvers.experts.heuristics.in_order", "HashSolver"),
    "linear": ("solvers.experts.heuristics.in_order", "LinearSolver"),
    "round_robin": ("solvers.experts.heuristics.in_order", "RoundRobinSolver"),
    "greedy": ("solvers.experts.heuristics.greedy", "GreedySolver"),
    "eplb": ("solvers.experts.heuristics.eplb", "EplbSolver"),
    "search": ("solvers.experts.search.solver", "SearchSolver"),
    "cpsat": ("solvers.experts.cpsat.solver", "CpSatSolver"),
    "milp": ("solvers.experts.milp.solver", "MilpSolver"),
    "partition": ("solvers.experts.partition.solver", "PartitionSolver"),
    "auto": ("solvers.experts.auto", "AutoSolver"),
}
BASELINES = ("hash", "linear", "round_robin", "greedy", "eplb")
#: The load balancer that engines run: it places experts where milliseconds count, and plans are held against it.
BALANCER = "eplb"


#: Entry points by which other packages add solvers, each a class without arguments (docs/commands.md).
GROUP = "placement.solvers"


@dataclass(frozen=True)
class Gated:
    """A solver that is not asked what its features lack."""

    solver: LayerSolver

    @property
    def name(self) -> str:
        return self.solver.name

    @property
    def features(self) -> Features:
        return self.solver.features

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve.

        Raises:
            UnsupportedError: the problem needs what the features lack, or what the solver can't do besides.
        """
        self._refuse(problem)
        return self.solver.solve(problem, stop, seed)

    def solve_against(self, problem: LayerProblem, rivals: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """See RivalSolver.solve_against; a solver that takes no rivals solves without them."""
        self._refuse(problem)
        if isinstance(self.solver, RivalSolver):
            return self.solver.solve_against(problem, rivals, stop, seed)
        return self.solver.solve(problem, stop, seed)

    @property
    def settles(self) -> bool:
        """Whether it takes a baseline that is proven near enough."""
        return isinstance(self.solver, SettlingSolver)

    def settle(
        self, problem: LayerProblem, rivals: Sequence[Candidate], bounds: LayerBounds, stop: Stop
    ) -> Result | None:
        """See SettlingSolver.settle; a solver that settles for nothing gives None."""
        self._refuse(problem)
        return self.solver.settle(problem, rivals, bounds, stop) if isinstance(self.solver, SettlingSolver) else None

    def _refuse(self, problem: LayerProblem) -> None:
        lacking = unsupported(self.features, problem)
        if lacking:
            raise UnsupportedError(f"does not support {lacking}")


def solver_names() -> list[str]:
    """Names of all solvers: this package's, then those that other packages add, in alphabetical order."""
    return [*SOLVERS, *sorted(set(entry_points(group=GROUP).names) - set(SOLVERS))]


def get_solver(name: str) -> Gated:
    """The solver called `name`; a name of this package's own can't be taken by another.

    Raises:
        ParameterError: no solver has that name, or another package's can't be loaded.
    """
    if name in SOLVERS:
        module, attribute = SOLVERS[name]
        return Gated(getattr(importlib.import_module(module), attribute)())
    added = entry_points(group=GROUP, name=name)
    if not added:
        names = solver_names()
        raise ParameterError("strategy", f"unknown strategy {name!r}", suggestion(name, list(names)))
    (point, *_) = added
    package = "another package" if point.dist is None else f"the package {point.dist.name}"
    try:
        solver = point.load()()
        if not (isinstance(solver.features, Features) and callable(solver.solve)):
            raise TypeError(f"{point.value} is no solver")
    except Exception as error:  # whatever a foreign module does, the others can be used
        told = " ".join(f"{type(error).__name__}: {error}".split())
        raise ParameterError("strategy", f"{name} of {package}: {told}", "mend or remove that package") from None
    return Gated(solver)
