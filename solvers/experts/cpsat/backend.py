"""The exact models in CP-SAT, whose numbers are integers: every rounding favours the solver."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from ortools.sat.python import cp_model

from placement.problem.layer import LayerProblem
from solvers.experts.exact.backend import Linear, Units
from solvers.experts.exact.coefficients import Coefficients, tail_shares

#: Integer units of the objective's scale. Not more: with coefficients of 1e10 and beyond OR-Tools 9.15 was seen to
#: call worse answers optimal (tests/solvers/test_exact.py holds 200 layers against brute force).
OBJECTIVE_UNITS = 10**9
#: Most units of a chance; fewer where they make every product of shares a whole number.
CHANCE_UNITS = 10**4
#: Most units of a window's share of the tail; fewer where they make every share a whole number.
TAIL_UNITS = 1000
#: Units of a GPU load in the balance cap.
LOAD_UNITS = 10**7


class CpSatBackend:
    """See solvers.experts.exact.backend.Backend."""

    product_slack = 1

    def __init__(self) -> None:
        self.model = cp_model.CpModel()

    def units(self, problem: LayerProblem, data: Coefficients) -> Units:
        """No placement of a layer costs more than all its work on one GPU and all its messages on one link."""
        width = 1 if problem.data.sets is None else problem.data.sets.ids.shape[1]
        slowest = float(data.tariff.speeds[problem.hardware.alive].min())
        largest = float(data.dearest_work.sum(axis=(0, 2)).max()) / slowest
        largest += data.dearest_link * float(problem.data.load.sum(axis=1).max())
        chance = min(CHANCE_UNITS, math.lcm(*range(1, data.tariff.most_copies + 1)) ** min(width, 16))
        return units_of(problem, OBJECTIVE_UNITS / max(largest, 1e-300), 4 * OBJECTIVE_UNITS, chance)

    def boolean(self, name: str) -> cp_model.IntVar:
        return self.model.new_bool_var(name)

    implied = boolean

    def amount(self, name: str, most: float, least: float = 0.0) -> cp_model.IntVar:
        return self.model.new_int_var(int(least), int(most), name)

    def constant(self, value: int) -> cp_model.IntVar:
        return self.model.new_constant(value)

    def total(self, terms: Iterable[Linear]) -> Linear:
        return sum(terms)

    def down(self, value: float) -> int:
        return math.floor(value)

    def up(self, value: float) -> int:
        return math.ceil(value)

    def add(self, constraint: Linear) -> None:
        self.model.add(constraint)

    def exactly_one(self, variables: Iterable[cp_model.IntVar]) -> None:
        self.model.add_exactly_one(variables)

    def implies_any(self, one: cp_model.IntVar, others: Iterable[cp_model.IntVar]) -> None:
        self.model.add_bool_or([one.negated(), *others])

    def minimize(self, objective: Linear) -> None:
        self.model.minimize(objective)

    def hint(self, variable: cp_model.IntVar, value: int) -> None:
        self.model.add_hint(variable, value)


def units_of(problem: LayerProblem, objective: float, top: float, chance: int) -> Units:
    """Integer units; `objective` is what one of the scorer's counts as where the mean over the windows is sought.

    Shares of a tail are rounded down, so that the integer objective never exceeds the true one. `whole` units of the
    objective stand for one of a window's value: both are to stay small.
    """
    if problem.objective.tail >= 1.0:
        weights = problem.data.window_weight.tolist()
        return Units(objective, top, chance, LOAD_UNITS, weights, 1, True)
    shares, worst = tail_shares(problem)
    if worst:
        return Units(objective, top, chance, LOAD_UNITS, [int(share > 0) for share in shares], 0, True)
    near = [Fraction(float(share)).limit_denominator(TAIL_UNITS) for share in shares]
    whole = math.lcm(*(f.denominator for f in near))
    exact = whole <= TAIL_UNITS and all(abs(f - share) < 1e-12 for f, share in zip(near, shares, strict=True))
    whole = whole if exact else TAIL_UNITS
    whole_shares: list[float] = [int(f * whole) for f in near] if exact else [math.floor(s * whole) for s in shares]
    return Units(objective / max(1.0, whole / 10), top, chance, LOAD_UNITS, whole_shares, whole, exact)
