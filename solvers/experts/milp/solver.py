"""The PuLP model solved by CBC, as a layer solver."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import pulp

from placement.problem.layer import LayerProblem
from solvers.experts.exact.model import EXACT, LayerModel
from solvers.experts.milp.backend import MilpBackend
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: Branch-and-bound nodes of the default budget: the machine-independent measure of CBC's work.
NODES = 20_000
#: CBC ignores a larger limit.
MOST_NODES = 2**31 - 1
#: CBC's tolerances let a proven optimum be this much (relative) above the true one.
SLACK = 1e-6
#: CBC writes 1e+50 for a bound that it does not have.
UNBOUNDED = 1e40

#: PuLP's sol_status -> what is known. `status` says Optimal for a truncated run too, so it is read for Infeasible only.
STATUS = {
    pulp.LpSolutionOptimal: Status.OPTIMAL,
    pulp.LpSolutionIntegerFeasible: Status.FEASIBLE,
    pulp.LpSolutionInfeasible: Status.INFEASIBLE,
    pulp.LpSolutionUnbounded: Status.UNKNOWN,
    pulp.LpSolutionNoSolutionFound: Status.UNKNOWN,
}


class MilpSolver:
    """Exact on small layers; a second opinion beside CP-SAT."""

    name = "milp"
    features = EXACT

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve.

        Raises:
            UnsupportedError: see solvers.experts.exact.coefficients.coefficients_of.
        """
        backend = MilpBackend()
        model, program = LayerModel(problem, backend), backend.model
        log = self._run(program, stop, seed)
        status = STATUS[program.sol_status]
        if program.status == pulp.LpStatusInfeasible:
            status = Status.INFEASIBLE
        if status is Status.INFEASIBLE and stop.expired:
            # CBC's cut generators call a model infeasible when the clock stops them.
            status = Status.UNKNOWN
        found = status in (Status.OPTIMAL, Status.FEASIBLE)
        slots = model.placement(lambda x: x.value() or 0.0) if found else None
        bound, source = 0.0, ""
        if status is Status.OPTIMAL:
            bound, source = model.bound(_less_slack(float(pulp.value(program.objective)))), "CBC"
        elif status is not Status.INFEASIBLE:
            bound, source = self._cut_bound(model, program, log, stop)
        finished = status in (Status.OPTIMAL, Status.INFEASIBLE)
        termination = Termination.FINISHED if finished else _reason(log, stop)
        return Result(slots, status, termination, bound=max(0.0, bound), bound_source=source)

    def _run(self, program: pulp.LpProblem, stop: Stop, seed: int) -> str:
        """Solves the model; CBC's log, which alone says why a run stopped and what it had proven by then."""
        options = [
            "ratioGap 0", "allowableGap 0", "integerTolerance 1e-8", "primalTolerance 1e-9", "dualTolerance 1e-9",
            f"randomSeed {seed % 2**31}", f"randomCbcSeed {seed % 2**31}",
        ]  # fmt: skip
        left = stop.seconds_left()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "cbc.log"
            program.solve(
                pulp.PULP_CBC_CMD(
                    msg=False, threads=1, maxNodes=int(min(max(NODES * stop.work, 1), MOST_NODES)), logPath=str(path),
                    timeLimit=None if left is None else max(left, 0.01), options=options,
                )
            )  # fmt: skip
            return path.read_text(errors="replace") if path.exists() else ""

    def _cut_bound(
        self, model: LayerModel[MilpBackend], program: pulp.LpProblem, log: str, stop: Stop
    ) -> tuple[float, str]:
        """The bound of a run that was cut, from CBC's log; else, while there is time, that of the linear relaxation."""
        stated = re.findall(r"best possible ([-+.\de]+)", log)
        if stated and abs(float(stated[-1])) < UNBOUNDED:
            return model.bound(_less_slack(float(stated[-1]))), "CBC"
        if stop.expired:
            return 0.0, ""
        for variable in program.variables():
            variable.cat = pulp.LpContinuous
        program.solve(pulp.PULP_CBC_CMD(msg=False, threads=1, timeLimit=stop.seconds_left()))
        if program.sol_status != pulp.LpSolutionOptimal:
            return 0.0, ""
        return model.bound(_less_slack(float(pulp.value(program.objective)))), "LP relaxation"


def _less_slack(value: float) -> float:
    return value - SLACK * max(1.0, abs(value))


def _reason(log: str, stop: Stop) -> Termination:
    """Why CBC stopped before its end."""
    by_clock = stop.expired or "Stopped on time limit" in log or "Exiting on maximum time" in log
    return Termination.TIME if by_clock else Termination.WORK
