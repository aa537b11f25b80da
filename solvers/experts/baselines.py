"""The baselines' placements of one layer, for solvers that must be no worse than any of them."""

from __future__ import annotations

from placement.check.layer import check_layer
from placement.errors import InputError
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError, unsupported
from solvers.experts.candidates import Candidate, candidate
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.registry import BASELINES, get_solver
from solvers.stop import Stop


def baseline_placements(problem: LayerProblem) -> list[IntArray]:
    """[slots] placements of the baselines that keep the problem's rules, each once; `eplb` with all its variants.

    Which variant `eplb` takes hangs on the dispatch; whoever is no worse than both is no worse than it.
    """
    found: dict[bytes, IntArray] = {}
    for name in BASELINES:
        if unsupported(get_solver(name).features, problem):
            continue
        for slots in EplbSolver().variants(problem) if name == EplbSolver.name else _placed(name, problem):
            if not check_layer(problem, slots):
                found.setdefault(slots.tobytes(), slots)
    return list(found.values())


def baseline_candidates(problem: LayerProblem) -> tuple[Candidate, ...]:
    """The same with their scores; `planned` dispatch is not solved here."""
    return tuple(candidate(problem, slots) for slots in baseline_placements(problem))


def _placed(name: str, problem: LayerProblem) -> list[IntArray]:
    """The placement of a baseline that has one alone; none where it does not know what the problem asks."""
    try:
        slots = get_solver(name).solve(problem, Stop(), 0).slots
    except (UnsupportedError, InputError):
        return []
    return [] if slots is None else [slots]
