"""The exact models in PuLP. Numbers are floating-point, the objective is scaled so that its size is about 1."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count

import pulp

from placement.arithmetic import weighted_sum
from placement.problem.layer import LayerProblem
from solvers.experts.exact.backend import Linear, Units
from solvers.experts.exact.coefficients import Coefficients, tail_shares


class MilpBackend:
    """See solvers.experts.exact.backend.Backend."""

    product_slack = 0

    def __init__(self) -> None:
        self.model = pulp.LpProblem("layer", pulp.LpMinimize)
        self._numbers = count()

    def units(self, problem: LayerProblem, data: Coefficients) -> Units:
        """A GPU's mean work and a link's mean messages count as 1."""
        dearest = data.dearest_work.sum(axis=(0, 2))
        mean = float(weighted_sum(problem.data.window_weight, dearest)) / problem.topology.gpus
        speed = float(data.tariff.speeds[problem.hardware.alive].mean())
        unit = 1.0 / max(mean / speed + data.dearest_link / problem.topology.gpus, 1e-300)
        if problem.objective.tail >= 1.0:
            return Units(unit, float("inf"), 1, 1.0, problem.data.window_weight.tolist(), 1.0, True)
        shares, worst = tail_shares(problem)
        return Units(unit, float("inf"), 1, 1.0, shares.tolist(), 0.0 if worst else 1.0, True)

    def boolean(self, name: str) -> pulp.LpVariable:
        return pulp.LpVariable(self._named(name), cat="Binary")

    def implied(self, name: str) -> pulp.LpVariable:
        return self.amount(name, 1.0)

    def amount(self, name: str, most: float, least: float = 0.0) -> pulp.LpVariable:
        return pulp.LpVariable(self._named(name), least, None if most == float("inf") else most)

    def constant(self, value: int) -> int:
        return value

    def total(self, terms: Iterable[Linear]) -> Linear:
        return pulp.lpSum(terms)

    def down(self, value: float) -> float:
        return value

    def up(self, value: float) -> float:
        return value

    def add(self, constraint: Linear) -> None:
        self.model += constraint

    def exactly_one(self, variables: Iterable[pulp.LpVariable]) -> None:
        self.model += pulp.lpSum(variables) == 1

    def implies_any(self, one: pulp.LpVariable, others: Iterable[pulp.LpVariable]) -> None:
        self.model += one <= pulp.lpSum(others)

    def minimize(self, objective: Linear) -> None:
        self.model.setObjective(objective)

    def hint(self, variable: pulp.LpVariable, value: int) -> None:
        variable.setInitialValue(value)

    def _named(self, name: str) -> str:
        # PuLP knows variables by their names.
        return f"{name}_{next(self._numbers)}"
