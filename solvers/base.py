"""The contract of a layer solver."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, get_args, runtime_checkable

from placement.problem.layer import LayerProblem, Objective
from solvers.result import Result
from solvers.stop import Stop
from specs.engine import Dispatch

if TYPE_CHECKING:
    from solvers.bounds.layer import LayerBounds
    from solvers.experts.candidates import Candidate


EVERY_DISPATCH: tuple[Dispatch, ...] = get_args(Dispatch)


@dataclass(frozen=True)
class Features:
    """What a solver can take into account. It is not asked what it lacks (see `unsupported`); `note` says the rest.

    Attributes:
        replicas: places redundant experts.
        traffic: prices the objective, traffic and all. One that looks at loads alone places alike whatever `dispatch`,
            `windows` and `tails` say, and is not held to them.
        dispatch: the policies under which it places replicas.
        objectives, sets: the kinds of objective that it takes; whether it needs token sets.
        groups, moves, fixed: honours `group`, `max_moves` and `fixed` of LayerRules.
        uneven: GPUs of unlike capacity, speed or share of tokens.
        windows, tails: several load windows; the worst share of them.
        proves: its bound can prove optimality.
        baseline: counts as a baseline in comparisons.
    """

    replicas: bool = True
    traffic: bool = False
    dispatch: tuple[Dispatch, ...] = ("even",)
    objectives: tuple[Objective, ...] = get_args(Objective)
    sets: bool = False
    groups: bool = False
    moves: bool = False
    fixed: bool = False
    uneven: bool = False
    windows: bool = False
    tails: bool = False
    proves: bool = False
    baseline: bool = False
    note: str = ""


def unsupported(features: Features, problem: LayerProblem) -> str:
    """What the problem needs that a solver of these features lacks, as words; empty where there is nothing."""
    rules, hardware, kind = problem.rules, problem.hardware, problem.objective.kind
    replicas = hardware.usable_slots > problem.experts
    unlike = any(part is not None for part in (hardware.capacity, hardware.speed, hardware.home))
    served = rules.dispatch in features.dispatch
    lacks = {
        "redundant experts": replicas and not features.replicas,
        f"objective {kind}": kind not in features.objectives,
        "routing without token sets": problem.data.sets is None and features.sets,
        "expert groups": rules.group is not None and not features.groups,
        "a budget of moves": rules.max_moves is not None and not features.moves,
        "fixed experts": rules.fixed is not None and not features.fixed,
        "GPUs of unlike capacity, speed or share of tokens": unlike and not features.uneven,
        f"redundant experts under {rules.dispatch} dispatch": features.traffic and replicas and not served,
        "several load windows": features.traffic and problem.windows > 1 and not features.windows,
        "a tail of load windows": features.traffic and problem.objective.tail < 1.0 and not features.tails,
    }
    return ", ".join(what for what, lacking in lacks.items() if lacking)


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
            UnsupportedError: it can't answer this problem, for a reason that `features` does not tell.
        """
        ...


@runtime_checkable
class RivalSolver(LayerSolver, Protocol):
    """A solver that is no worse than the baselines, and takes them as given where they have been scored before."""

    def solve_against(self, problem: LayerProblem, rivals: Sequence[Candidate], stop: Stop, seed: int) -> Result:
        """The answer of `solve`; `rivals` are the baselines, scored on `problem` or on it without its `max_load`."""
        ...


@runtime_checkable
class SettlingSolver(RivalSolver, Protocol):
    """A solver that takes the best baseline, and searches nothing, where a bound proves that one near enough."""

    def settle(
        self, problem: LayerProblem, rivals: Sequence[Candidate], bounds: LayerBounds, stop: Stop
    ) -> Result | None:
        """The answer with its bound, or None where nothing proves it; all of a few placements may be tried.

        Args:
            problem, rivals, stop: as in `solve_against`; `stop.gap` is how near is near enough.
            bounds: of `problem`, or of it without its `max_load`.
        """
        ...


class UnsupportedError(ValueError):
    """The solver does not have a feature that the problem needs."""
