"""The stage cut as a CP-SAT model. docs/formulation.md, "Stage cut", states each family under the name of its method.

Seconds are rounded to the nearest unit, bytes against the cut, so that an answer fits whatever rounding did.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from ortools.sat.python import cp_model

from placement.problem.stages import Part, StageCut, StageProblem
from solvers.cpsat import run_cpsat
from solvers.result import Status
from solvers.stages.answer import StageAnswer, spread_options
from solvers.stop import Stop

#: Integer units of all seconds of a microbatch, and of the largest budget. Products with the weights below stay under
#: 1e12, what OR-Tools was seen to add up without loss.
SECOND_UNITS = 10**7
BYTE_UNITS = 10**8
#: Units of the weights of the objective, where they are no whole numbers.
WEIGHT_UNITS = 1000
#: Deterministic seconds of the default budget (OR-Tools' machine-independent measure of work).
DETERMINISTIC_SECONDS = 4.0

Linear: TypeAlias = Any  # OR-Tools' expressions, variables and numbers mix freely


def units(largest: float, most: int, values: Sequence[float]) -> float:
    """Units of one, so that `largest` has at most `most`: 1 where all values are whole already."""
    if largest <= most and all(float(value).is_integer() for value in values):
        return 1.0
    return most / max(largest, 1e-300)


class StageModel:
    """Variables, constraints and objective of one stage problem."""

    def __init__(self, problem: StageProblem) -> None:
        self.problem = problem
        self.model = cp_model.CpModel()
        slow = sum(max(option.seconds for option in problem.kinds[layer].options) for layer in problem.layers)
        options = [option for kind in problem.kinds for option in kind.options]
        seconds = [
            *problem.end_s,
            *problem.end_relief_s,
            *(o.seconds for o in options),
            *(kind.relief_s for kind in problem.kinds),
        ]
        held = [*problem.end_bytes, *(o.kept_bytes for o in options), *(kind.fixed_bytes for kind in problem.kinds)]
        self.second = units(slow + sum(problem.end_s), SECOND_UNITS, seconds)
        self.byte = units(max(0.0, *problem.budget_bytes), BYTE_UNITS, [*held, *problem.budget_bytes])
        self._add_variables()
        self._add_contiguous_pieces()
        self._add_layers_of_each_kind()
        self._add_every_layer_runs()
        self._add_memory()
        self._add_objective()

    # Variables

    def _add_variables(self) -> None:
        problem, model = self.problem, self.model
        n, pieces = len(problem.layers), problem.pieces
        #: First layer of each piece, and the end.
        self.start = [model.new_int_var(0, n, f"start_{p}") for p in range(pieces + 1)]
        #: Layers of each kind before each piece.
        self.before = [
            [model.new_int_var(0, problem.layers.count(k), f"before_{p}_{k}") for k in range(len(problem.kinds))]
            for p in range(pieces + 1)
        ]
        #: Layers of piece p and kind k that take option o.
        self.taken = [
            [
                [model.new_int_var(0, problem.layers.count(k), f"taken_{p}_{k}_{o}") for o in range(len(kind.options))]
                for k, kind in enumerate(problem.kinds)
            ]
            for p in range(pieces)
        ]

    # Constraints

    def _add_contiguous_pieces(self) -> None:
        self.model.add(self.start[0] == 0)
        self.model.add(self.start[-1] == len(self.problem.layers))
        for p in range(self.problem.pieces):
            self.model.add(self.start[p + 1] >= self.start[p] + 1)

    def _add_layers_of_each_kind(self) -> None:
        for k in range(len(self.problem.kinds)):
            counts = list(accumulate((int(layer == k) for layer in self.problem.layers), initial=0))
            for p, start in enumerate(self.start):
                self.model.add_element(start, counts, self.before[p][k])

    def _add_every_layer_runs(self) -> None:
        for p, kinds in enumerate(self.taken):
            for k, taken in enumerate(kinds):
                self.model.add(sum(taken) == self.before[p + 1][k] - self.before[p][k])

    def _add_memory(self) -> None:
        problem = self.problem
        for pieces, budget in zip(problem.ranks, problem.budget_bytes, strict=True):
            held: list[Linear] = []
            for p in pieces:
                held.append(math.ceil(problem.end_bytes[p] * self.byte))
                for k, kind in enumerate(problem.kinds):
                    for o, option in enumerate(kind.options):
                        each = kind.fixed_bytes + problem.in_flight[p] * option.kept_bytes
                        held.append(math.ceil(each * self.byte) * self.taken[p][k][o])
            self.model.add(sum(held) <= math.floor(budget * self.byte))

    # Objective

    def _add_objective(self) -> None:
        problem, model = self.problem, self.model
        slowest = [model.new_int_var(0, 2 * SECOND_UNITS, f"slowest_{i}") for i in range(len(problem.turns))]
        for turn, most in zip(problem.turns, slowest, strict=True):
            for member in turn:
                model.add(sum(self._seconds(p, part) for p, part in member) <= most)
        filling = [self._seconds(p, "filling") for p in range(problem.pieces)]
        weights = (problem.slowest_weight, problem.total_weight)
        self.weight = 1 if all(float(weight).is_integer() for weight in weights) else WEIGHT_UNITS
        slow, total = (round(weight * self.weight) for weight in weights)
        model.minimize(slow * sum(slowest) + total * sum(filling))

    def _seconds(self, p: int, part: Part | Literal["filling"]) -> Linear:
        """Seconds of passes of a piece in units; "filling": of all, less relief."""
        problem = self.problem

        def units_of(whole: float, forward: float, relief: float) -> int:
            by_part = {"all": whole, "forward": forward, "backward": whole - forward, "filling": whole - relief}
            return round(by_part[part] * self.second)

        terms: list[Linear] = [units_of(problem.end_s[p], problem.end_forward_s[p], problem.end_relief_s[p])]
        for k, kind in enumerate(problem.kinds):
            for o, option in enumerate(kind.options):
                terms.append(units_of(option.seconds, option.forward_s, kind.relief_s) * self.taken[p][k][o])
        return sum(terms)

    # Answers

    def answer(self, value: Callable[[Linear], int]) -> StageCut:
        """The cut of an answer."""
        starts = [value(start) for start in self.start]
        cut = [starts[p + 1] - starts[p] for p in range(self.problem.pieces)]
        choices = [[[value(count) for count in taken] for taken in kinds] for kinds in self.taken]
        return spread_options(self.problem, cut, choices)

    def bound(self, best_bound: float) -> float:
        """The solver's bound in seconds; valid up to the rounding of seconds to units."""
        return best_bound / (self.second * self.weight)


def cut_by_cpsat(problem: StageProblem, stop: Stop | None = None) -> StageAnswer | None:
    """The best cut found; None where none fits, or none was found within the stop criterion.

    `optimal` is of the integer model, whose seconds and bytes are rounded.

    Raises:
        RuntimeError: CP-SAT calls the model invalid (a bug).
    """
    until, model = stop or Stop(), StageModel(problem)
    run = run_cpsat(model.model, until, 0, DETERMINISTIC_SECONDS * until.work)
    if not run.found:
        return None
    return StageAnswer(model.answer(run.value), model.bound(run.bound), run.status is Status.OPTIMAL, "CP-SAT")
