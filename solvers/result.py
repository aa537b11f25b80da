"""What a solver gives back. `status` says what is known of the answer, `termination` why the search stopped."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from placement.problem.arrays import FloatArray, IntArray
from placement.records.witness import LayerWitness


class Status(StrEnum):
    OPTIMAL = "optimal"  # the bound meets the objective
    FEASIBLE = "feasible"  # an answer, not proven optimal
    INFEASIBLE = "infeasible"  # proven: there is no answer
    UNKNOWN = "unknown"  # nothing found, nothing proven


class Termination(StrEnum):
    FINISHED = "finished"  # the method ran to its own end
    WORK = "work"  # iterations or deterministic time used up
    TIME = "time"  # the wall-clock limit
    INTERRUPTED = "interrupted"
    PROVEN = "proven"  # nothing was searched: a heuristic is proven as near the optimum as counts


@dataclass(frozen=True)
class Result:
    """One layer's answer.

    Attributes:
        slots: [slots] logical expert of each slot, or None when nothing was found.
        bound: a proven lower bound on the problem's objective, in its unit (0 where the solver proves none). Solvers
            report it in the scorer's own unit; the objective itself is never a solver's word: placement.cost scores it.
        bound_source: what proves the bound. witness: the prices that prove it, beside what loads tell.
        bound_holds: whether the bound is of the problem as it stands, its own dispatch included, with and without its
            balance cap; one that is not may be of a relative of it.
        fractions: [nodes, slots] the solver's dispatch plan for `planned`, or None for one made afterwards.
    """

    slots: IntArray | None
    status: Status
    termination: Termination
    bound: float = 0.0
    bound_source: str = ""
    bound_holds: bool = False
    iterations: int = 0
    notes: tuple[str, ...] = field(default_factory=tuple)
    fractions: FloatArray | None = None
    witness: LayerWitness | None = None
