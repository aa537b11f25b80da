"""The master problem as a MILP in PuLP, over the patterns in which pieces of instances fill a node.

docs/formulation.md, "Deployment", also for what is done where there are too many patterns.
"""

from __future__ import annotations

from dataclasses import replace

import pulp

from placement.errors import InfeasibleError, NothingFoundError
from solvers.base import UnsupportedError
from solvers.deploy.layout import layout
from solvers.deploy.problem import Deployment, MasterProblem, patterns
from solvers.stop import Stop

#: CBC's tolerances let an optimum be this much (relative) off.
SLACK = 1e-7
#: CBC's integer preprocessing calls wrong answers optimal (tests/deploy/test_master.py has one: 9 GPUs where 7 do).
OPTIONS = ["preprocess off"]
#: Columns of the highest rate per GPU that are tried beside those of the relaxation, where patterns are many.
FALLBACK = 8


class MasterMilp:
    """Variables, constraints and objective; rates are scaled so that the largest column's is 1."""

    def __init__(self, problem: MasterProblem, heap: bool = False) -> None:
        """`heap`: let instances lie across nodes, a relaxation."""
        self.problem = problem
        self.scale = max((column.point.requests_per_s for column in problem.columns), default=1.0) or 1.0
        sense = pulp.LpMaximize if problem.goal == "rate" else pulp.LpMinimize
        self.model = pulp.LpProblem("deployment", sense)
        self._add_variables()
        for index in range(len(problem.pools)):
            if heap:
                self._add_gpus_shared(index)
            else:
                self._add_instances_packed(index)
        self._add_halves_matched()
        if problem.max_kinds is not None:
            self._add_kinds_limited(problem.max_kinds)
        self._add_objective()

    def _add_variables(self) -> None:
        problem = self.problem
        self.count = []
        for i, column in enumerate(problem.columns):
            room = problem.pools[column.pool].gpus // column.gpus
            self.count.append(pulp.LpVariable(f"n_{i}", 0, room, cat="Integer"))
        self.halves = pulp.LpVariable("halves", 0)

    def _add_instances_packed(self, index: int) -> None:
        """Nodes filled whole, and nodes filled by a pattern of pieces."""
        problem, pool = self.problem, self.problem.pools[index]
        mine = [(c, n) for c, n in zip(problem.columns, self.count, strict=True) if c.pool == index]
        sizes = sorted({problem.piece(column) for column, _ in mine} - {0})
        ways = patterns(sizes, pool.gpus_per_node)
        nodes = [pulp.LpVariable(f"z_{index}_{i}", 0, pool.nodes, cat="Integer") for i in range(len(ways))]
        whole = pulp.lpSum(problem.whole(column) * n for column, n in mine)
        self.model += whole + pulp.lpSum(nodes) <= pool.nodes
        for j, size in enumerate(sizes):
            pieces = pulp.lpSum(n for column, n in mine if problem.piece(column) == size)
            self.model += pieces <= pulp.lpSum(way[j] * z for way, z in zip(ways, nodes, strict=True))

    def _add_gpus_shared(self, index: int) -> None:
        """No more GPUs than the pool has, and of pieces of more than half a node one in each."""
        problem, pool = self.problem, self.problem.pools[index]
        mine = [(c, n) for c, n in zip(problem.columns, self.count, strict=True) if c.pool == index]
        self.model += pulp.lpSum(column.gpus * n for column, n in mine) <= pool.gpus
        large = pulp.lpSum(n for column, n in mine if 2 * problem.piece(column) > pool.gpus_per_node)
        self.model += large + pulp.lpSum(problem.whole(column) * n for column, n in mine) <= pool.nodes

    def _add_halves_matched(self) -> None:
        """Requests in two halves are as many as prefill, decode and the links of each carry."""
        problem = self.problem
        for role in ("prefill", "decode"):
            mine = [(c, n) for c, n in zip(problem.columns, self.count, strict=True) if c.role == role]
            rate = pulp.lpSum(c.point.requests_per_s / self.scale * n for c, n in mine)
            self.model += self.halves <= rate
            if problem.kv_bytes > 0:
                links = pulp.lpSum(
                    c.gpus * problem.pools[c.pool].nic_bytes_per_s / problem.kv_bytes / self.scale * n for c, n in mine
                )
                self.model += self.halves <= links

    def _add_kinds_limited(self, most: int) -> None:
        """At most so many columns are used, of a role one less, and one."""
        used = [pulp.LpVariable(f"u_{i}", cat="Binary") for i in range(len(self.count))]
        for n, u in zip(self.count, used, strict=True):
            self.model += n <= n.upBound * u
        self.model += pulp.lpSum(used) <= most
        for role in sorted({column.role for column in self.problem.columns}):
            mine = [u for column, u in zip(self.problem.columns, used, strict=True) if column.role == role]
            self.model += pulp.lpSum(mine) <= max(1, most - 1)

    def _add_objective(self) -> None:
        problem = self.problem
        rate = self.halves + pulp.lpSum(
            c.point.requests_per_s / self.scale * n
            for c, n in zip(problem.columns, self.count, strict=True)
            if c.role == "aggregated"
        )
        if problem.goal == "rate":
            self.model.setObjective(rate)
        else:
            self.model += rate >= problem.target / self.scale * (1 - SLACK)
            self.model.setObjective(pulp.lpSum(c.gpus * n for c, n in zip(problem.columns, self.count, strict=True)))


def solve_milp(problem: MasterProblem, time_limit: float | None = None) -> Deployment:
    """The best deployment, proven by CBC or with a bound.

    Raises:
        InfeasibleError: the target can't be reached. NothingFoundError: nothing found within the limit.
    """
    try:
        master = MasterMilp(problem)
    except UnsupportedError:
        return _by_relaxation(problem, time_limit)
    counts, proven = _solved(master, time_limit)
    return _deployment(problem, counts, None if proven else relaxation(problem))


def _by_relaxation(problem: MasterProblem, time_limit: float | None) -> Deployment:
    """Instances anywhere first; if they don't fit the nodes, patterns of the sizes that it used and a few others."""
    heap = MasterMilp(problem, heap=True)
    counts, proven = _solved(heap, time_limit)
    bound = _value(problem, counts) if proven else relaxation(problem, heap=True)
    if layout(problem, counts, exact=False) is not None:
        return _deployment(problem, counts, None if proven else bound)
    used = {column.gpus for column, n in zip(problem.columns, counts, strict=True) if n}
    by_rate = sorted(problem.columns, key=lambda column: -column.point.requests_per_s / column.gpus)
    kept = [c for c in by_rate if c.gpus in used or c in by_rate[:FALLBACK]]
    while True:
        fewer = replace(problem, columns=tuple(kept))
        try:
            master = MasterMilp(fewer)
            break
        except UnsupportedError:
            kept.pop()
    chosen, _ = _solved(master, time_limit)
    at = {id(column): n for column, n in zip(kept, chosen, strict=True)}
    return _deployment(problem, tuple(at.get(id(column), 0) for column in problem.columns), bound)


def _solved(master: MasterMilp, time_limit: float | None) -> tuple[tuple[int, ...], bool]:
    """Counts, and whether CBC proved them best."""
    stop = Stop.after(time_limit)
    solver = pulp.PULP_CBC_CMD(msg=False, timeLimit=time_limit, gapRel=0.0, gapAbs=0.0, threads=1, options=OPTIONS)
    master.model.solve(solver)
    # CBC's cut generators call a model infeasible when the clock stops them.
    if master.model.status == pulp.LpStatusInfeasible and not stop.expired:
        raise InfeasibleError(f"no deployment serves {master.problem.target:.4g} requests/s")
    # sol_status tells a proven optimum from the best of a run that was cut short; status says Optimal for both.
    if master.model.sol_status not in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible):
        raise NothingFoundError("no deployment found within the limit; raise `time_limit`")
    counts = tuple(round(n.value() or 0) for n in master.count)
    return counts, master.model.sol_status == pulp.LpSolutionOptimal


def _value(problem: MasterProblem, counts: tuple[int, ...]) -> float:
    return problem.requests_per_s(counts) if problem.goal == "rate" else float(problem.gpus(counts))


def _deployment(problem: MasterProblem, counts: tuple[int, ...], bound: float | None) -> Deployment:
    """The answer, scored by placement.cost; `bound` None where it is proven best."""
    value = _value(problem, counts)
    met = bound is None or abs(value - bound) <= 1e-9 * abs(bound)
    rate, gpus = problem.requests_per_s(counts), problem.gpus(counts)
    return Deployment(problem.goal, counts, rate, gpus, value if bound is None else bound, met, "CBC")


def relaxation(problem: MasterProblem, heap: bool = False) -> float:
    """The bound of the linear relaxation: requests/s, or GPUs rounded up."""
    master = MasterMilp(problem, heap)
    for variable in master.model.variables():
        variable.cat = pulp.LpContinuous
    master.model.solve(pulp.PULP_CBC_CMD(msg=False, threads=1))
    value = float(pulp.value(master.model.objective))
    if problem.goal == "rate":
        return value * master.scale * (1 + SLACK)
    whole = round(value)
    return float(whole if abs(value - whole) < 1e-6 else int(value) + 1)
