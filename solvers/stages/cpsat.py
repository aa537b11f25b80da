"""CP-SAT as a stage solver: for every schedule, also where a rank has several pieces."""

from __future__ import annotations

from placement.problem.stages import StageCut, StageProblem
from solvers.cpsat import run_cpsat
from solvers.result import Status
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
    run = run_cpsat(model.model, until, seed, DETERMINISTIC_SECONDS * until.work)
    if not run.found:
        return None
    bound = model.bound(run.bound)
    return StageAnswer.of(problem, model.answer(run.value), bound, "CP-SAT", run.status is Status.OPTIMAL)
