"""Columns priced closely: every layer placed by the load balancer, at the largest batch that this placement holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.cost.figures import Placement
from placement.cost.own_batch import BatchFit, Operation
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch
from placement.cost.step.roles import InstancePoint
from placement.errors import InputError
from placement.problem.data import LayerData
from solvers.base import UnsupportedError
from solvers.deploy.problem import Column, Deployment, MasterProblem
from solvers.deploy.solve import solve_master
from solvers.dispatch import fractions_for
from solvers.registry import BALANCER, get_solver
from solvers.stop import DEFAULT, Stop
from specs.scenario import Scenario
from specs.workload import PlannedPhase

#: How the MoE layers in a close price were timed.
CLOSE = "scored placement"
#: Most times that the master problem is solved again with prices that its last answer asked for.
MOST_ROUNDS = 12
#: Seconds of a master problem at least, where no time is left.
LEAST_S = 1.0


class ClosePrices:
    """Close prices of columns, remembered: the master problem asks for those that its answers use."""

    def __init__(self, pools: Sequence[Scenario], statistics: tuple[LayerData, ...], stop: Stop = DEFAULT) -> None:
        """Close prices on one routing.

        Args:
            pools: the scenario on each pool's cluster.
            statistics: of every MoE layer.
            stop: after its deadline columns stay as they are.
        """
        self.pools, self.statistics, self.stop = tuple(pools), statistics, stop
        self._close: dict[Column, Column | None] = {}
        self._made: set[Column] = set()

    def has(self, column: Column) -> bool:
        """Whether a column's price is a close one."""
        return column in self._made

    def __call__(self, column: Column) -> Column | None:
        """The column at its close price; None where no batch meets the limits. As it is where time is up."""
        if column in self._made or (column not in self._close and self.stop.expired):
            return column
        if column not in self._close:
            self._close[column] = close = self._priced(column)
            if close is not None:
                self._made.add(close)
        return self._close[column]

    def _priced(self, column: Column) -> Column | None:
        scenario = self.pools[column.pool].of_role(column.role)
        placement = self._placement(scenario, column)
        if placement is None:
            return replace(column, moe_source=f"{column.moe_source}; no load balancer's placement")
        fit = BatchFit(scenario, column.role, column.split, self.statistics, cp=column.cp)
        operation = fit.fit(placement, column.split.batch)
        workload = scenario.workload
        if workload.kind != "serving" or (column.role != "prefill" and fit.broken(placement, operation.batch)):
            return None
        point = _point(fit, placement, operation)
        if not point.requests_per_s > 0:
            return None
        return replace(column, split=at_batch(column.split, operation.batch), point=point, moe_source=CLOSE)

    def _placement(self, scenario: Scenario, column: Column) -> Placement | None:
        phase: PlannedPhase = "serving" if column.role == "aggregated" else column.role
        slots, fractions = [], []
        try:
            for problem in layer_problems(scenario, column.split, phase, self.statistics):
                found = get_solver(BALANCER).solve(problem, Stop(), 0).slots
                if found is None:
                    return None
                slots.append(found)
                fractions.append(fractions_for(problem, found))
        except (UnsupportedError, InputError):
            return None
        return Placement(tuple(slots), tuple(fractions))


def _point(fit: BatchFit, placement: Placement, operation: Operation) -> InstancePoint:
    """What an instance yields."""
    made = fit.operated(placement, operation).prediction
    workload = fit.scenario.workload
    osl = workload.osl if workload.kind == "serving" else 1
    return InstancePoint(made.tokens_per_s / osl / fit.split.instances, made.ttft_s, made.tpot_s)


@dataclass(frozen=True)
class Settled:
    """An answer of the master problem whose columns are priced closely, and the problem with these prices."""

    problem: MasterProblem
    answer: Deployment


def settle(
    problem: MasterProblem, close: ClosePrices | None, time_limit: float | None = None, rounds: int = MOST_ROUNDS
) -> Settled:
    """Solves the master problem, prices what its answer uses closely, and solves again until all of that is.

    Args:
        close: None: quick prices stand.
        time_limit: seconds of each master problem; None for the default.
        rounds: most times that it is solved again.

    Raises:
        InfeasibleError, NothingFoundError: see solve_master.
    """
    answer = solve_master(problem, time_limit)
    for _ in range(rounds if close is not None else 0):
        used = {i for i, count in enumerate(answer.counts) if count}
        if close is None or close.stop.expired or all(close.has(problem.columns[i]) for i in used):
            break
        priced = [close(column) if i in used else column for i, column in enumerate(problem.columns)]
        closer = replace(problem, columns=tuple(column for column in priced if column is not None))
        if not closer.serves:
            break  # the load balancer's placement misses a limit everywhere; a better one may not
        problem, answer = closer, solve_master(closer, time_limit)
    return Settled(problem, answer)
