"""CP-SAT as a layer solver."""

from __future__ import annotations

from placement.cost.layer.score import objective_value
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.cpsat import run_cpsat
from solvers.experts.cpsat.backend import CpSatBackend
from solvers.experts.exact.model import EXACT, LayerModel
from solvers.result import Result, Status
from solvers.stop import Stop

#: Deterministic seconds of the default budget (OR-Tools' machine-independent measure of work).
DETERMINISTIC_SECONDS = 4.0

#: Relative distance of an answer from its bound that rounding accounts for.
ROUNDING = 1e-6


class CpSatSolver:
    """Exact: proves optimality on small layers, and a bound on what it cannot finish."""

    name = "cpsat"
    features = EXACT

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.solve_from(problem, None, stop, seed)

    def solve_from(self, problem: LayerProblem, start: IntArray | None, stop: Stop, seed: int) -> Result:
        """As `solve`, with a placement to start from.

        Raises:
            UnsupportedError: see solvers.experts.exact.coefficients.coefficients_of.
            RuntimeError: CP-SAT calls the model invalid (a bug).
        """
        backend = CpSatBackend()
        model = LayerModel(problem, backend)
        if start is not None:
            model.add_start(start)
        run = run_cpsat(backend.model, stop, seed, DETERMINISTIC_SECONDS * stop.work)
        status, slots = run.status, model.placement(run.value) if run.found else None
        bound = max(0.0, model.bound(run.bound)) if status is not Status.INFEASIBLE else 0.0
        if status is Status.OPTIMAL and not model.units.exact and slots is not None:
            # Optimal for shares of the tail that were rounded: only the bound can say whether it is for the true ones.
            met = objective_value(problem, slots) <= bound * (1 + ROUNDING)
            status = Status.OPTIMAL if met else Status.FEASIBLE
        return Result(slots, status, run.termination, bound=bound, bound_source="CP-SAT", iterations=run.branches)
