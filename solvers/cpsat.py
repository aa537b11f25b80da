"""One run of CP-SAT: parameters, limits, and what its status means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ortools.sat.python import cp_model

from solvers.result import Status, Termination
from solvers.stop import Stop

#: Status of the solver -> what is known. Any other says that the model is wrong.
STATUS = {
    cp_model.OPTIMAL: Status.OPTIMAL,
    cp_model.FEASIBLE: Status.FEASIBLE,
    cp_model.INFEASIBLE: Status.INFEASIBLE,
    cp_model.UNKNOWN: Status.UNKNOWN,
}


@dataclass(frozen=True)
class CpSatRun:
    """What a run found.

    Attributes:
        status: What is known of the answer.
        termination: Why the run ended.
        bound: The solver's bound on the model's objective; says nothing where the model is infeasible.
        value: The value of a variable or an expression in the answer.
        branches: Branches of the search.
    """

    status: Status
    termination: Termination
    bound: float
    value: Callable[[Any], int]
    branches: int

    @property
    def found(self) -> bool:
        """Whether there is an answer."""
        return self.status in (Status.OPTIMAL, Status.FEASIBLE)


def run_cpsat(model: cp_model.CpModel, stop: Stop, seed: int, work: float) -> CpSatRun:
    """Solve a model on one thread.

    Args:
        model: The model.
        stop: Its deadline ends the run.
        seed: Of the solver's random choices.
        work: Deterministic seconds after which the run ends (OR-Tools' machine-independent measure).

    Raises:
        RuntimeError: The solver calls the model invalid (a bug).
    """
    solver = cp_model.CpSolver()
    chosen = {"num_workers": 1, "random_seed": seed % 2**31, "max_deterministic_time": work}
    left = stop.seconds_left()
    if left is not None:
        chosen["max_time_in_seconds"] = max(left, 0.01)
    for name, value in chosen.items():
        setattr(solver.parameters, name, value)
    code = solver.solve(model)
    if code not in STATUS:
        raise RuntimeError(f"CP-SAT says {solver.status_name(code)}: {model.validate()}")
    status = STATUS[code]
    if status in (Status.OPTIMAL, Status.INFEASIBLE):
        termination = Termination.FINISHED
    else:
        # A run that stopped short of its work was stopped by the clock.
        by_clock = left is not None and solver.response_proto.deterministic_time < 0.99 * work
        termination = Termination.TIME if by_clock else Termination.WORK
    return CpSatRun(status, termination, float(solver.best_objective_bound), solver.value, int(solver.num_branches))
