"""CP-SAT as a stage solver: for every schedule, also where a rank has several pieces."""

from __future__ import annotations

from ortools.sat.python import cp_model

from placement.problem.stages import StageCut, StageProblem
from solvers.stages.answer import StageAnswer
from solvers.stages.model import StageModel
from solvers.stop import Stop

#: Deterministic seconds of the default budget (OR-Tools' machine-independent measure of work).
DETERMINISTIC_SECONDS = 4.0


def cut_by_cpsat(
    problem: StageProblem, stop: Stop | None = None, seed: int = 0, start: StageCut | None = None
) -> StageAnswer | None:
    """The best cut found; None where none fits, or none was found within the stop criterion.

    `optimal` is of the integer model, whose seconds and bytes are rounded.

    Raises:
        RuntimeError: CP-SAT calls the model invalid (a bug).
    """
    until = stop or Stop()
    model = StageModel(problem)
    if start is not None:
        model.add_start(start)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed % 2**31
    solver.parameters.max_deterministic_time = DETERMINISTIC_SECONDS * until.work
    left = until.seconds_left()
    if left is not None:
        solver.parameters.max_time_in_seconds = max(left, 0.01)
    code = solver.solve(model.model)
    if code == cp_model.MODEL_INVALID:
        raise RuntimeError(f"CP-SAT says the model is invalid: {model.model.validate()}")
    if code not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    bound = model.bound(solver.best_objective_bound)
    return StageAnswer.of(problem, model.answer(solver), bound, "CP-SAT", code == cp_model.OPTIMAL)
