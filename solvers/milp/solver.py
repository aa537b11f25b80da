"""The PuLP model solved by CBC, as a layer solver."""

from __future__ import annotations

import time

import pulp

from placement.problem import LayerProblem
from placement.result import Result, Status, Termination
from solvers.base import Features
from solvers.milp.model import MilpModel
from solvers.stop import Stop

#: Branch-and-bound nodes of the default budget: the machine-independent measure of CBC's work.
NODES = 20_000
#: CBC's tolerances let a proven optimum be this much (relative) above the true one.
SLACK = 1e-6

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
    features = Features(
        traffic=True, groups=True, moves=True, proves=True, note="replicas with traffic under even dispatch only"
    )

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """See LayerSolver.solve.

        Raises:
            UnsupportedError: see solvers.exact.coefficients.coefficients_of.
        """
        began = time.perf_counter()
        model = MilpModel(problem)
        model.model.solve(self._cbc(stop, seed))
        status = STATUS[model.model.sol_status]
        if model.model.status == pulp.LpStatusInfeasible:
            status = Status.INFEASIBLE
        bound, source = 0.0, ""
        if status is Status.OPTIMAL:
            value = float(pulp.value(model.model.objective))
            bound, source = model.bound(value - SLACK * max(1.0, abs(value))), "CBC"
        elif status is not Status.INFEASIBLE:
            bound, source = self._relaxed(problem, stop), "LP relaxation"
        found = status in (Status.OPTIMAL, Status.FEASIBLE)
        slots = model.placement() if found else None
        finished = status in (Status.OPTIMAL, Status.INFEASIBLE)
        termination = Termination.FINISHED if finished else Termination.TIME if stop.expired else Termination.WORK
        return Result(
            slots, status, termination, bound=max(0.0, bound), bound_source=source, seconds=time.perf_counter() - began
        )

    def _cbc(self, stop: Stop, seed: int) -> pulp.PULP_CBC_CMD:
        options = [
            "ratioGap 0", "allowableGap 0", "integerTolerance 1e-8", "primalTolerance 1e-9", "dualTolerance 1e-9",
            f"randomSeed {seed % 2**31}", f"randomCbcSeed {seed % 2**31}",
        ]  # fmt: skip
        left = stop.seconds_left()
        return pulp.PULP_CBC_CMD(
            msg=False, threads=1, maxNodes=max(1, int(NODES * stop.work)),
            timeLimit=None if left is None else max(left, 0.01), options=options,
        )  # fmt: skip

    def _relaxed(self, problem: LayerProblem, stop: Stop) -> float:
        """The bound of the linear relaxation, for runs that were cut: PuLP hands on no bound of CBC's."""
        model = MilpModel(problem)
        for variable in model.model.variables():
            variable.cat = pulp.LpContinuous
        model.model.solve(pulp.PULP_CBC_CMD(msg=False, threads=1))
        if model.model.sol_status != pulp.LpSolutionOptimal:
            return 0.0
        value = float(pulp.value(model.model.objective))
        return model.bound(value - SLACK * max(1.0, abs(value)))
