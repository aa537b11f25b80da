"""What the exact models ask of a modelling language, and what one counts as in their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from placement.problem.layer import LayerProblem
from solvers.experts.exact.coefficients import Coefficients

#: Variables, linear expressions and numbers mix freely in both languages, as do `+`, `*`, `<=`, `>=` and `==` of them.
Linear: TypeAlias = Any
Variable: TypeAlias = Any


@dataclass(frozen=True)
class Units:
    """What one counts as.

    Attributes:
        objective: Of the objective, in the scorer's unit.
        top: The most that a window's work, or its messages, may be.
        chance: Of a touch chance.
        load: Of a GPU load over the mean.
        shares: [windows] weight of each window's excess over the tail's threshold.
        whole: Weight of that threshold; 0: the worst window alone decides, and shares say which windows count.
        exact: Whether the shares are the problem's own.
    """

    objective: float
    top: float
    chance: int
    load: float
    shares: list[float]
    whole: float
    exact: bool


class Backend(Protocol):
    """A modelling language. Variables are not negative; names may repeat.

    Attributes:
        product_slack: 1 where products with a share are rounded up, else 0.
        units: the units of a whole layer's model. total: a sum of terms. minimize: states the objective.
        boolean: a variable that is 0 or 1. implied: one that is so by itself once the booleans are.
        amount: a variable between two numbers. constant: a variable that is `value`, or the number itself.
        down: a coefficient that must not exceed `value`. up: a limit that must not fall below it.
        add: states a linear constraint. exactly_one: that one of the booleans is 1. implies_any: that some of the
            others is 1 if `one` is. hint: a value to start from.
    """

    product_slack: int

    def units(self, problem: LayerProblem, data: Coefficients) -> Units: ...
    def boolean(self, name: str) -> Variable: ...
    def implied(self, name: str) -> Variable: ...
    def amount(self, name: str, most: float, least: float = 0.0) -> Variable: ...
    def constant(self, value: int) -> Variable: ...
    def total(self, terms: Iterable[Linear]) -> Linear: ...
    def down(self, value: float) -> float: ...
    def up(self, value: float) -> float: ...
    def add(self, constraint: Linear) -> None: ...
    def exactly_one(self, variables: Iterable[Variable]) -> None: ...
    def implies_any(self, one: Variable, others: Iterable[Variable]) -> None: ...
    def minimize(self, objective: Linear) -> None: ...
    def hint(self, variable: Variable, value: int) -> None: ...


#: The value of a variable in an answer.
Value: TypeAlias = Callable[[Variable], float]
