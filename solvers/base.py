"""The contract of a layer solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from placement.problem.layer import LayerProblem
from solvers.result import Result
from solvers.stop import Stop

if TYPE_CHECKING:
    from solvers.experts.candidates import Candidate


@dataclass(frozen=True)
class Features:
    """What a solver can take into account; what it cannot, it refuses or ignores as `note` says.

    Attributes:
        replicas: places redundant experts.
        traffic: optimizes the traffic terms (else only loads).
        dispatch: the dispatch policies it models exactly.
        groups, moves: honours `group` and `max_moves`.
        proves: its bound can prove optimality.
        baseline: counts as a baseline in comparisons.
    """

    replicas: bool = True
    traffic: bool = False
    dispatch: tuple[str, ...] = ("even",)
    groups: bool = False
    moves: bool = False
    proves: bool = False
    baseline: bool = False
    note: str = ""


class LayerSolver(Protocol):
    """Places one layer's experts. Implementations hold no state between calls and are deterministic in `seed`."""

    @property
    def name(self) -> str: ...

    @property
    def features(self) -> Features: ...

    def solve(self, problem: LayerProblem, stop: Stop, seed: int) -> Result:
        """An answer for `problem`.

        Args:
            problem: the layer.
            stop: when to stop; by default a budget of work, so that the answer does not depend on the machine's speed.
            seed: of every random choice.

        Raises:
            UnsupportedError: the problem asks for what `features` does not have.
        """
        ...


@runtime_checkable
class RivalSolver(LayerSolver, Protocol):
    """A solver that is no worse than the baselines, and takes them as given where they have been scored before."""

    def solve_against(self, problem: LayerProblem, rivals: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """The answer of `solve`; `rivals` are the baselines, scored on `problem` or on it without its `max_load`."""
        ...


class UnsupportedError(ValueError):
    """The solver does not have a feature that the problem needs."""
