"""The master problem as a MILP, solved by HiGHS; docs/formulation.md, "Deployment"."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from placement.errors import InfeasibleError, NothingFoundError
from solvers.deploy.nodes import steps_of
from solvers.deploy.problem import Column, Deployment, MasterProblem
from solvers.stop import Stop

#: HiGHS' tolerances let an optimum be this much (relative) off.
SLACK = 1e-7
#: The objective's scale: HiGHS ends at an absolute gap of 1e-6, whatever relative one is asked.
SCALE = 1e4
#: Nodes of branch and bound that a proven optimum may take. Real clusters take a few hundred at most.
NODES = 20_000
#: Where it would take more: an answer may be this share below its bound by default.
GAP = 1e-3
#: Seconds for a master problem by default; one of a real cluster takes well under one.
TIME_LIMIT_S = 30.0

#: scipy's status of a run that was cut short, and of a model that has no answer.
LIMIT, INFEASIBLE = 1, 2


@dataclass(frozen=True)
class _Term:
    """Coefficients of a row: variable and factor."""

    variable: int
    factor: float


class MasterMilp:
    """Variables, constraints and objective; rates are scaled so that the largest column's is 1."""

    def __init__(self, problem: MasterProblem) -> None:
        self.problem = problem
        self.scale = max((column.point.requests_per_s for column in problem.columns), default=1.0) or 1.0
        self.most: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[tuple[list[_Term], float]] = []
        self.count = [self._variable(problem.most_instances(column)) for column in problem.columns]
        self.halves = self._variable(np.inf, whole=False)
        for index in range(len(problem.pools)):
            self._add_instances_packed(index)
        self._add_halves_matched()
        self._add_kinds_bounded()
        self.cost = self._objective()

    def solve(self, options: Mapping[str, float], relaxed: bool = False) -> OptimizeResult:
        """HiGHS' answer; `relaxed`: of the linear relaxation."""
        width = len(self.most)
        rows = LinearConstraint(_matrix([terms for terms, _ in self.rows], width), ub=[b for _, b in self.rows])
        cost = np.zeros(width)
        for term in self.cost:
            cost[term.variable] += term.factor
        return milp(
            cost * (SCALE if self.problem.goal == "rate" else 1.0),
            integrality=np.zeros(width) if relaxed else np.array(self.whole, float),
            bounds=Bounds(0, np.array(self.most)),
            constraints=rows,
            options=dict(options),
        )

    def counts(self, answer: OptimizeResult) -> tuple[int, ...]:
        """[columns] instances of each."""
        return tuple(round(float(answer.x[n])) for n in self.count)

    def value(self, objective: float) -> float:
        """An objective of HiGHS as requests/s, or GPUs."""
        return -objective * self.scale / SCALE if self.problem.goal == "rate" else objective

    def _variable(self, most: float, whole: bool = True) -> int:
        self.most.append(most)
        self.whole.append(whole)
        return len(self.most) - 1

    def _at_most(self, terms: Sequence[_Term], bound: float) -> None:
        self.rows.append((list(terms), bound))

    def _add_instances_packed(self, index: int) -> None:
        """Nodes filled whole, and nodes that are paths over their GPUs, a step for a piece."""
        problem, pool = self.problem, self.problem.pools[index]
        mine = [(c, n) for c, n in zip(problem.columns, self.count, strict=True) if c.pool == index]
        filled = [_Term(n, problem.whole(column)) for column, n in mine if problem.whole(column)]
        sizes = sorted({problem.piece(column) for column, _ in mine} - {0}, reverse=True)
        steps = steps_of(sizes, pool.gpus_per_node)
        flow = {step: self._variable(pool.nodes) for step in steps}
        for size in sizes:
            pieces = [_Term(n, 1.0) for column, n in mine if problem.piece(column) == size]
            room = [_Term(flow[step], -1.0) for step in steps if step[1] == size]
            self._at_most([*pieces, *room], 0.0)
        out, into = defaultdict[int, list[_Term]](list), defaultdict[int, list[_Term]](list)
        for step in steps:
            out[step[0]].append(_Term(flow[step], 1.0))
            into[sum(step)].append(_Term(flow[step], -1.0))
        for start in sorted(out.keys() - {0}):
            # Paths end anywhere, so no more leave a place than come to it.
            self._at_most([*out[start], *into[start]], 0.0)
        self._at_most([*filled, *out[0]], pool.nodes)
        gpus = [_Term(n, column.gpus) for column, n in mine]
        if gpus:
            self._at_most(gpus, pool.gpus)

    def _add_halves_matched(self) -> None:
        """Requests in two halves are as many as prefill, decode and the links of each carry."""
        problem = self.problem
        for role in ("prefill", "decode"):
            mine = [(c, n) for c, n in zip(problem.columns, self.count, strict=True) if c.role == role]
            self._at_most([_Term(self.halves, 1.0), *(_Term(n, -self._rate(c)) for c, n in mine)], 0.0)
            if problem.kv_bytes > 0:
                links = [
                    _Term(n, -c.gpus * problem.pools[c.pool].nic_bytes_per_s / problem.kv_bytes / self.scale)
                    for c, n in mine
                ]
                self._at_most([_Term(self.halves, 1.0), *links], 0.0)

    def _add_kinds_bounded(self) -> None:
        """At most so many columns in use, and of each role."""
        problem = self.problem
        if problem.max_kinds is None or problem.max_kinds_per_role is None:
            return
        used = [self._variable(1.0) for _ in problem.columns]
        for column, n, at in zip(problem.columns, self.count, used, strict=True):
            self._at_most([_Term(n, 1.0), _Term(at, -problem.most_instances(column))], 0.0)
        self._at_most([_Term(at, 1.0) for at in used], problem.max_kinds)
        for role in sorted({column.role for column in problem.columns}):
            mine = [_Term(at, 1.0) for c, at in zip(problem.columns, used, strict=True) if c.role == role]
            self._at_most(mine, problem.max_kinds_per_role)

    def _objective(self) -> list[_Term]:
        """What is minimized: the rate, negated, or GPUs of a deployment that reaches the target."""
        problem = self.problem
        mine = list(zip(problem.columns, self.count, strict=True))
        rate = [_Term(self.halves, -1.0), *(_Term(n, -self._rate(c)) for c, n in mine if c.role == "aggregated")]
        if problem.goal == "rate":
            return rate
        self._at_most(rate, -problem.target / self.scale * (1 - SLACK))
        return [_Term(n, c.gpus) for c, n in mine]

    def _rate(self, column: Column) -> float:
        return column.point.requests_per_s / self.scale


def _matrix(rows: Sequence[Sequence[_Term]], width: int) -> csr_array:
    entries = [(i, term.variable, term.factor) for i, row in enumerate(rows) for term in row]
    at = ([i for i, _, _ in entries], [j for _, j, _ in entries])
    return csr_array(([factor for _, _, factor in entries], at), shape=(len(rows), width))


def solve_milp(problem: MasterProblem, time_limit: float | None = None, gap: float = GAP) -> Deployment:
    """The best deployment with HiGHS' bound: proven within NODES nodes, else within `gap`.

    Args:
        time_limit: seconds; None for TIME_LIMIT_S.
        gap: relative distance from the bound that will do where the proof is long.

    Raises:
        InfeasibleError: the target can't be reached. NothingFoundError: nothing found within the limit.
    """
    master = MasterMilp(problem)
    stop = Stop.after(TIME_LIMIT_S if time_limit is None else time_limit)
    answer = master.solve({"mip_rel_gap": 0.0, "node_limit": NODES, "time_limit": stop.seconds_left() or 0.0})
    if answer.status == LIMIT and not stop.expired and not (answer.x is not None and answer.mip_gap <= gap):
        answer = master.solve({"mip_rel_gap": gap, "time_limit": stop.seconds_left() or 0.0})
    if answer.status == INFEASIBLE:
        raise InfeasibleError(f"no deployment serves {problem.target:.4g} requests/s")
    if answer.x is None:
        raise NothingFoundError("no deployment found within the limit; raise `time_limit`")
    # Without columns nothing is whole, and HiGHS tells no bound of a linear program but its optimum.
    bound = answer.fun if answer.mip_dual_bound is None else answer.mip_dual_bound
    return _deployment(problem, master.counts(answer), master.value(float(bound)))


def _deployment(problem: MasterProblem, counts: tuple[int, ...], bound: float) -> Deployment:
    """The answer, scored by placement.cost."""
    rate, gpus = problem.requests_per_s(counts), problem.gpus(counts)
    value = rate if problem.goal == "rate" else float(gpus)
    if problem.goal == "gpus":
        bound = _whole(bound)
    met = abs(value - bound) <= SLACK * abs(bound)
    return Deployment(problem.goal, counts, rate, gpus, value if met else bound, met, "HiGHS")


def _whole(gpus: float) -> float:
    """A bound on GPUs, rounded up to a whole number."""
    near = round(gpus)
    return float(near if abs(gpus - near) < 1e-6 * max(1.0, gpus) else int(gpus) + 1)


def relaxation(problem: MasterProblem) -> float:
    """The bound of the linear relaxation: requests/s, or GPUs rounded up."""
    master = MasterMilp(problem)
    value = master.value(float(master.solve({}, relaxed=True).fun))
    return value * (1 + SLACK) if problem.goal == "rate" else _whole(value)
