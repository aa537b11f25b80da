"""The master problem in CP-SAT, node by node: a second opinion that shares no packing with the MILP.

docs/formulation.md, "Deployment".
"""

from __future__ import annotations

from ortools.sat.python import cp_model

from placement.errors import InfeasibleError, NothingFoundError
from solvers.cpsat import run_cpsat
from solvers.deploy.problem import Deployment, MasterProblem
from solvers.result import Status
from solvers.stop import Stop

#: Rates are counted in this many parts of the largest column's.
UNITS = 10_000_000


class MasterCpSat:
    """Variables, constraints and objective: x[column, node] pieces of instances on every node."""

    def __init__(self, problem: MasterProblem) -> None:
        self.problem, self.model = problem, cp_model.CpModel()
        largest = max((column.point.requests_per_s for column in problem.columns), default=1.0) or 1.0
        self.unit = largest / UNITS
        self._add_variables()
        for index in range(len(problem.pools)):
            self._add_instances_on_nodes(index)
        self._add_halves_matched()
        self._add_objective()

    def _add_variables(self) -> None:
        problem = self.problem
        self.count = [
            self.model.new_int_var(0, problem.pools[c.pool].gpus // c.gpus, f"n_{i}")
            for i, c in enumerate(problem.columns)
        ]
        most = sum(self._rate(i) * (problem.pools[c.pool].gpus // c.gpus) for i, c in enumerate(problem.columns))
        self.halves = self.model.new_int_var(0, max(1, most), "halves")

    def _add_instances_on_nodes(self, index: int) -> None:
        problem, pool = self.problem, self.problem.pools[index]
        mine = [i for i, column in enumerate(problem.columns) if column.pool == index]
        whole = sum(problem.whole(problem.columns[i]) * self.count[i] for i in mine)
        pieces = [i for i in mine if problem.piece(problem.columns[i])]
        free = []
        before = None
        on: dict[int, list[cp_model.IntVar]] = {i: [] for i in pieces}
        for node in range(pool.nodes):
            taken = self.model.new_bool_var(f"whole_{index}_{node}")
            free.append(taken)
            used = 0
            for i in pieces:
                size = problem.piece(problem.columns[i])
                x = self.model.new_int_var(0, pool.gpus_per_node // size, f"x_{i}_{node}")
                on[i].append(x)
                used = used + size * x
            self.model.add(used + pool.gpus_per_node * taken <= pool.gpus_per_node)
            # Nodes are alike: order them by the GPUs that pieces use.
            if before is not None:
                self.model.add(used <= before)
            before = used
        self.model.add(sum(free) >= whole)
        for i in pieces:
            self.model.add(sum(on[i]) == self.count[i])

    def _add_halves_matched(self) -> None:
        problem = self.problem
        for role in ("prefill", "decode"):
            mine = [i for i, column in enumerate(problem.columns) if column.role == role]
            self.model.add(self.halves <= sum(self._rate(i) * self.count[i] for i in mine))
            if problem.kv_bytes > 0:
                links = [
                    int(
                        problem.columns[i].gpus
                        * problem.pools[problem.columns[i].pool].nic_bytes_per_s
                        / problem.kv_bytes
                        / self.unit
                    )
                    for i in mine
                ]
                self.model.add(self.halves <= sum(link * self.count[i] for link, i in zip(links, mine, strict=True)))

    def _add_objective(self) -> None:
        problem = self.problem
        whole = [i for i, column in enumerate(problem.columns) if column.role == "aggregated"]
        rate = self.halves + sum(self._rate(i) * self.count[i] for i in whole)
        if problem.goal == "rate":
            self.model.maximize(rate)
        else:
            # Rates are rounded down by less than one unit an instance; the target gives way by as much.
            slack = sum(problem.pools[c.pool].gpus // c.gpus for c in problem.columns)
            self.model.add(rate >= int(problem.target / self.unit) - slack)
            self.model.minimize(sum(c.gpus * n for c, n in zip(problem.columns, self.count, strict=True)))

    def _rate(self, index: int) -> int:
        return int(self.problem.columns[index].point.requests_per_s / self.unit)


def solve_cpsat(problem: MasterProblem, time_limit: float | None = None, seed: int = 0, workers: int = 1) -> Deployment:
    """The best deployment by CP-SAT, with its bound (rates to 1e-7 of the largest column's).

    Raises:
        InfeasibleError: the target can't be reached. NothingFoundError: nothing found within the limit.
    """
    master = MasterCpSat(problem)
    run = run_cpsat(master.model, Stop.after(time_limit), seed, workers=workers)
    if run.status is Status.INFEASIBLE:
        raise InfeasibleError(f"no deployment serves {problem.target:.4g} requests/s")
    if not run.found:
        raise NothingFoundError("no deployment found within the limit; raise `time_limit`")
    counts = tuple(run.value(n) for n in master.count)
    rate, gpus = problem.requests_per_s(counts), problem.gpus(counts)
    proven = run.status is Status.OPTIMAL
    if problem.goal == "rate":
        # What rounding took from every instance counts for the bound.
        lost = sum(problem.pools[c.pool].gpus // c.gpus for c in problem.columns)
        bound = (run.bound + lost) * master.unit
        bound = rate if proven else bound
    else:
        bound = float(gpus) if proven else run.bound
    return Deployment(problem.goal, counts, rate, gpus, bound, proven, "CP-SAT")
