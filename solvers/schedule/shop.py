"""The job shop as a CP-SAT model. docs/notes/schedules.md states each family under the name of its method.

Seconds are rounded down to units, so that the solver's bound holds for the true ones; bytes are rounded against the
order, so that an answer fits. An answer is an order: what it takes is the simulation's word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from ortools.sat.python import cp_model

from placement.cost.training.schedule.order import Action, Kind, Order, order_of
from placement.cost.training.schedule.simulate import Run
from solvers.cpsat import run_cpsat
from solvers.result import Status
from solvers.schedule.problem import ShopProblem
from solvers.stop import Stop

#: Integer units of the makespan that is to be beaten, and of the largest room.
SECOND_UNITS = 10**5
BYTE_UNITS = 10**6
#: Deterministic seconds of the default budget (OR-Tools' machine-independent measure of work).
DETERMINISTIC_SECONDS = 2.0
#: Passes of a model that is built; the search gains nothing on larger ones in that budget.
MOST_PASSES = 800

Linear: TypeAlias = Any  # OR-Tools' expressions, variables and numbers mix freely
Key = tuple[Kind, int, int]


@dataclass(frozen=True)
class ShopAnswer:
    """What CP-SAT found.

    Attributes:
        order: The best order; None where it found none.
        bound_s: No order without pairs takes less on these devices (of whole units of bytes).
        optimal: Whether the solver says that nothing is better.
    """

    order: Order | None
    bound_s: float
    optimal: bool


class ShopModel:
    """Variables, constraints and objective of one job shop."""

    def __init__(self, problem: ShopProblem, limit_s: float) -> None:
        """`limit_s`: seconds of an order that is known; better ones are sought."""
        self.problem, self.model = problem, cp_model.CpModel()
        self.unit = SECOND_UNITS / limit_s
        self.horizon = SECOND_UNITS
        self.link = [self._units(seconds) for seconds in problem.seconds.link_s]
        self.start: dict[Key, Linear] = {}
        self.size: dict[Key, int] = {}
        #: [pieces] whether its devices' memory may bind, and then whether a backward pass runs whole.
        self.tight = [device for device in range(problem.devices) if self._may_bind(device)]
        self.whole: dict[tuple[int, int], Linear] = {}
        self._add_variables()
        self._add_passes_after_what_they_need()
        self._add_microbatches_in_turn()
        self._add_one_pass_at_a_time()
        self._add_one_transfer_at_a_time()
        self._add_memory()
        self._add_objective()

    def _units(self, seconds: float) -> int:
        return math.floor(seconds * self.unit)

    def _may_bind(self, device: int) -> bool:
        pipe, problem = self.problem.pipe, self.problem
        most = sum(max(pipe.kept_bytes[p], pipe.operand_bytes[p]) for p in problem.pieces_of(device))
        return most * problem.microbatches > problem.room_bytes[device]

    def _each(self) -> list[tuple[int, int]]:
        """(piece, microbatch) of all."""
        problem = self.problem
        return [(piece, i) for piece in range(problem.pipe.pieces) for i in range(problem.microbatches)]

    # Variables

    def _add_variables(self) -> None:
        kinds: tuple[Kind, ...] = ("F", "I", "W")
        for piece, i in self._each():
            for kind in kinds:
                size = self._units(self.problem.seconds.alone(kind, piece))
                self.size[kind, piece, i] = size
                self.start[kind, piece, i] = self.model.new_int_var(0, self.horizon - size, f"{piece}{kind}{i}")
            if self.problem.homes[piece] in self.tight:
                self.whole[piece, i] = self.model.new_bool_var(f"whole_{piece}_{i}")

    def _end(self, kind: Kind, piece: int, i: int) -> Linear:
        return self.start[kind, piece, i] + self.size[kind, piece, i]

    # Constraints

    def _add_passes_after_what_they_need(self) -> None:
        model, last = self.model, self.problem.pipe.pieces - 1
        for piece, i in self._each():
            if piece:
                model.add(self.start["F", piece, i] >= self._end("F", piece - 1, i) + self.link[piece - 1])
            before = self._end("F", piece, i)
            if piece < last:
                before = self._end("I", piece + 1, i) + self.link[piece]
                if (piece + 1, i) in self.whole:
                    whole = self._end("W", piece + 1, i) + self.link[piece]
                    model.add(self.start["I", piece, i] >= whole).only_enforce_if(self.whole[piece + 1, i])
            model.add(self.start["I", piece, i] >= before)
            model.add(self.start["W", piece, i] >= self._end("I", piece, i))
            if (piece, i) in self.whole:
                at_once = self.start["W", piece, i] == self._end("I", piece, i)
                model.add(at_once).only_enforce_if(self.whole[piece, i])

    def _add_microbatches_in_turn(self) -> None:
        for (kind, piece, i), start in self.start.items():
            if i:
                self.model.add(start >= self._end(kind, piece, i - 1))

    def _add_one_pass_at_a_time(self) -> None:
        for device in range(self.problem.devices):
            pieces = self.problem.pieces_of(device)
            self.model.add_no_overlap(
                [
                    self.model.new_fixed_size_interval_var(start, self.size[key], f"run_{key}")
                    for key, start in self.start.items()
                    if key[1] in pieces
                ]
            )

    def _add_one_transfer_at_a_time(self) -> None:
        links: dict[tuple[int, int], list[Linear]] = {}
        homes = self.problem.homes
        for piece, i in self._each():
            if piece == self.problem.pipe.pieces - 1 or not self.link[piece]:
                continue
            back: Linear = self._end("I", piece + 1, i)
            if (piece + 1, i) in self.whole:
                # A whole pass sends at its end.
                back = self.model.new_int_var(0, self.horizon, f"back_{piece}_{i}")
                self.model.add(back >= self._end("I", piece + 1, i))
                self.model.add(back >= self._end("W", piece + 1, i)).only_enforce_if(self.whole[piece + 1, i])
            sends = (
                (homes[piece], homes[piece + 1], self._end("F", piece, i), self.start["F", piece + 1, i]),
                (homes[piece + 1], homes[piece], back, self.start["I", piece, i]),
            )
            for source, target, ready, needed in sends:
                begin = self.model.new_int_var(0, self.horizon, f"send_{source}_{piece}_{i}")
                self.model.add(begin >= ready)
                self.model.add(needed >= begin + self.link[piece])
                links.setdefault((source, target), []).append(
                    self.model.new_fixed_size_interval_var(begin, self.link[piece], f"link_{source}_{piece}_{i}")
                )
        for intervals in links.values():
            self.model.add_no_overlap(intervals)

    def _add_memory(self) -> None:
        """A reservoir for each device, as stays of microbatches: what a stay takes is given back at its end."""
        pipe, model = self.problem.pipe, self.model
        for device in self.tight:
            room = self.problem.room_bytes[device]
            unit = BYTE_UNITS / max(room, 1e-300)
            stays, sizes = [], []
            for piece, i in self._each():
                if self.problem.homes[piece] != device:
                    continue
                begin, end = self.start["F", piece, i], self._end("I", piece, i)
                until = model.new_int_var(0, self.horizon, f"kept_until_{piece}_{i}")
                whole = self.whole[piece, i]
                model.add(until == end).only_enforce_if(~whole)
                model.add(until == self._end("W", piece, i)).only_enforce_if(whole)
                length = model.new_int_var(0, self.horizon, f"kept_for_{piece}_{i}")
                stays.append(model.new_interval_var(begin, length, until, f"kept_{piece}_{i}"))
                sizes.append(math.ceil(pipe.kept_bytes[piece] * unit))
                length = model.new_int_var(0, self.horizon, f"operands_for_{piece}_{i}")
                stays.append(
                    model.new_optional_interval_var(
                        end, length, self._end("W", piece, i), ~whole, f"operands_{piece}_{i}"
                    )
                )
                sizes.append(math.ceil(pipe.operand_bytes[piece] * unit))
            model.add_cumulative(stays, sizes, BYTE_UNITS)

    # Objective

    def _add_objective(self) -> None:
        self.makespan = self.model.new_int_var(self._units(self.problem.floor_s()), self.horizon, "makespan")
        last = self.problem.microbatches - 1
        for piece in range(self.problem.pipe.pieces):
            self.model.add(self.makespan >= self._end("W", piece, last))
        self.model.minimize(self.makespan)

    # Answers

    def hint(self, run: Run) -> None:
        """Start from a known run of passes by themselves.

        Raises:
            ValueError: passes of it run in pairs.
        """
        if run.order.pairs:
            raise ValueError("passes in pairs are no passes of the job shop")
        for events in run.events:
            for event in events:
                piece, kind, i = event.step[0]
                at = self._units(event.start_s)
                if kind == "B":
                    self.model.add_hint(self.start["I", piece, i], at)
                    at += self.size["I", piece, i]
                self.model.add_hint(self.start["W" if kind == "B" else kind, piece, i], at)
                if (piece, i) in self.whole and kind in ("B", "I"):
                    self.model.add_hint(self.whole[piece, i], kind == "B")

    def order(self, value: Callable[[Linear], int]) -> Order:
        """The order of an answer: of each device its passes by their start."""
        problem = self.problem
        whole = {key for key, literal in self.whole.items() if value(literal)}
        timed: list[list[tuple[int, int, Action]]] = [[] for _ in range(problem.devices)]
        for place, (key, start) in enumerate(self.start.items()):
            kind, piece, i = key
            if (piece, i) in whole:
                if kind == "W":
                    continue
                kind = "B" if kind == "I" else kind
            timed[problem.homes[piece]].append((value(start), place, Action(piece, kind, i)))
        steps = [[(action,) for _, _, action in sorted(each)] for each in timed]
        return order_of("cpsat", problem.pipe.pieces, problem.microbatches, steps)


def passes_of(problem: ShopProblem) -> int:
    """Passes of the model."""
    return 3 * problem.pipe.pieces * problem.microbatches


def solve_shop(problem: ShopProblem, known: Run, stop: Stop | None = None, seed: int = 0) -> ShopAnswer:
    """The best order that CP-SAT finds, from a run that is known.

    Args:
        problem: The job shop.
        known: A run on the same pipe and devices that fits memory; its passes may run in pairs, then it is no hint.
        stop: Its work and deadline.
        seed: Of the solver's random choices.

    Raises:
        RuntimeError: CP-SAT calls the model invalid (a bug).
    """
    until, model = stop or Stop(), ShopModel(problem, known.makespan_s)
    if not known.order.pairs and known.order.device_of_piece() == problem.homes:
        model.hint(known)
    run = run_cpsat(model.model, until, seed, DETERMINISTIC_SECONDS * until.work)
    bound = problem.floor_s()
    if run.status is Status.INFEASIBLE:
        # Nothing is faster than what is known, in whole units.
        return ShopAnswer(None, known.makespan_s * (1 - 1 / SECOND_UNITS), True)
    bound = max(bound, run.bound / model.unit)
    return ShopAnswer(model.order(run.value) if run.found else None, bound, run.status is Status.OPTIMAL)
