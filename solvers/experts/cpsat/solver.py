"""CP-SAT as a layer solver."""

from __future__ import annotations

import time

from ortools.sat.python import cp_model

from placement.cost.layer.score import objective_value
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.base import Features
from solvers.experts.cpsat.model import CpSatModel
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: Deterministic seconds of the default budget (OR-Tools' machine-independent measure of work).
DETERMINISTIC_SECONDS = 4.0

#: Relative distance of an answer from its bound that rounding accounts for.
ROUNDING = 1e-6

#: Solver status -> (what is known, whether it ended by itself).
STATUS = {
    cp_model.OPTIMAL: (Status.OPTIMAL, True),
    cp_model.FEASIBLE: (Status.FEASIBLE, False),
    cp_model.INFEASIBLE: (Status.INFEASIBLE, True),
    cp_model.UNKNOWN: (Status.UNKNOWN, False),
}


class CpSatSolver:
    """Exact: proves optimality on small layers, and a bound on what it cannot finish."""

    name = "cpsat"
    features = Features(
        traffic=True, groups=True, moves=True, proves=True,
        note="replicas under even dispatch only; unlike GPUs, homes, fixed experts and tails",
    )  # fmt: skip

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve."""
        return self.solve_from(problem, None, stop, seed)

    def solve_from(self, problem: LayerProblem, start: IntArray | None, stop: Stop, seed: int) -> Result:
        """As `solve`, with a placement to start from.

        Raises:
            UnsupportedError: see solvers.experts.exact.coefficients.coefficients_of.
            RuntimeError: CP-SAT calls the model invalid (a bug).
        """
        began = time.perf_counter()
        model = CpSatModel(problem)
        if start is not None:
            model.add_start(start)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed % 2**31
        solver.parameters.max_deterministic_time = DETERMINISTIC_SECONDS * stop.work
        left = stop.seconds_left()
        if left is not None:
            solver.parameters.max_time_in_seconds = max(left, 0.01)
        code = solver.solve(model.model)
        if code not in STATUS:
            raise RuntimeError(f"CP-SAT says {solver.status_name(code)}: {model.model.validate()}")
        status, finished = STATUS[code]
        # The work budget counts in deterministic seconds; a run that stopped short of it was stopped by the clock.
        spent = solver.response_proto.deterministic_time >= 0.99 * solver.parameters.max_deterministic_time
        by_clock = left is not None and not spent
        termination = Termination.FINISHED if finished else Termination.TIME if by_clock else Termination.WORK
        found = status in (Status.OPTIMAL, Status.FEASIBLE)
        slots = model.placement(solver) if found else None
        bound = max(0.0, model.bound(solver.best_objective_bound)) if status is not Status.INFEASIBLE else 0.0
        if status is Status.OPTIMAL and not model.exact and slots is not None:
            # Optimal for shares of the tail that were rounded: only the bound can say whether it is for the true ones.
            met = objective_value(problem, slots) <= bound * (1 + ROUNDING)
            status = Status.OPTIMAL if met else Status.FEASIBLE
        return Result(
            slots, status, termination, bound=bound, bound_source="CP-SAT",
            seconds=time.perf_counter() - began, iterations=int(solver.num_branches),
        )  # fmt: skip
