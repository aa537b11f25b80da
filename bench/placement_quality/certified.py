"""How far from optimal solved placements can be, on the routing solved on: gaps to the proven bounds."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.placement_quality.gains import Tell
from bench.placement_quality.measure import SOLVED, Solves
from bench.placement_quality.protocol import Setting, problems
from bench.placement_quality.result import Part
from placement.problem.layer import LayerProblem, Objective
from solvers.bounds import layer_bound
from solvers.parallel import map_layers
from solvers.stop import Stop
from specs.engine import Dispatch

#: Efforts of the bounds, over the default of a plan.
EFFORTS = (1.0, 16.0)
OBJECTIVES: tuple[Objective, ...] = ("traffic", "time")
#: Dispatch and share of extra slots. Without extra slots every dispatch is the same.
CASES: tuple[tuple[Dispatch, float], ...] = (
    ("planned", 0.0), ("planned", 0.25), ("planned", 0.5), ("planned", 1.0), ("nearest", 0.5), ("even", 0.5),
)  # fmt: skip


@dataclass(frozen=True)
class Certified:
    """Gaps to the bound, objective / bound - 1, over layers and domains.

    Attributes:
        effort: of the bound. mean, least, largest: gaps. above: mean gap of the load balancer's placements.
    """

    objective: Objective
    dispatch: Dispatch
    extra: float
    effort: float
    mean: float
    least: float
    largest: float
    above: float


@dataclass(frozen=True)
class _Task:
    problem: LayerProblem
    known: float
    effort: float


def _bound(task: _Task) -> float:
    return layer_bound(task.problem, task.known, stop=Stop(task.effort)).value


def bounds_part(solves: Solves, tell: Tell) -> Part:
    """Solved in-domain, prefill: the mean gap by dispatch, extra slots and the bound's effort."""
    found = []
    for objective, (dispatch, extra) in product(OBJECTIVES, CASES):
        setting = Setting(dispatch=dispatch, extra=extra, objective=objective)
        posed: list[LayerProblem] = []
        solved: list[float] = []
        rival: list[float] = []
        for case in solves.recorded.cases("in-domain"):
            posed += problems(case.train, setting, solves.recorded.experts)
            solved += [answer.score.objective for answer in solves.answers("in-domain", case, setting, SOLVED)]
            rival += [answer.score.objective for answer in solves.answers("in-domain", case, setting, "eplb")]
        for effort in EFFORTS:
            tell(f"bounds: {objective}, {dispatch}, {extra:.0%} extra, effort {effort:g}")
            tasks = [_Task(problem, known, effort) for problem, known in zip(posed, solved, strict=True)]
            bounds = np.array(map_layers(_bound, tasks, solves.workers))
            gaps, above = np.array(solved) / bounds - 1, np.array(rival) / bounds - 1
            found.append(
                Certified(
                    objective, dispatch, extra, effort, float(gaps.mean()), float(gaps.min()), float(gaps.max()),
                    float(above.mean()),
                )
            )  # fmt: skip
    header = ("objective", "dispatch", "extra slots", "bound's effort", "mean gap", "least", "largest", "eplb's")
    rows = tuple(
        (
            c.objective, c.dispatch if c.extra else "any", f"{c.extra:.0%}", f"{c.effort:g}", f"{c.mean:.1%}",
            f"{c.least:.1%}", f"{c.largest:.1%}", f"{c.above:.1%}",
        )
        for c in found
    )  # fmt: skip
    return Part("bounds", "Gap to the proven bound, in-domain, on the routing solved on, prefill", header, rows, found)
