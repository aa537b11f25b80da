"""Runs the compiled annealing on a layer problem."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from placement.problem.arrays import EMPTY, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.search.anneal import Plan, anneal
from solvers.experts.search.arrays import SetRows, by_home, search_data
from solvers.experts.search.state import empty_state
from solvers.experts.search.traffic import empty_scratch
from solvers.params import DEFAULTS, SearchParams
from solvers.result import Termination
from solvers.stop import Stop


@dataclass(frozen=True)
class Schedule:
    """Temperatures as shares of the starting objective, weights of the guide's smooth part, first and last.

    `most_price` is the largest weight of an excess over the balance cap: where it is small, the cap is a wish. `even`:
    the best is kept by the guide's last form, smooth part and all, rather than by the objective alone.
    """

    steps: int
    hot: float
    cold: float
    first_smooth: float
    last_smooth: float
    most_price: float = 300.0
    even: bool = False

    def scaled(self, work: float, params: SearchParams = DEFAULTS, cool: float = 1.0) -> Schedule:
        """The same with `work` times the steps, and `cool` times the temperatures that the parameters ask for."""
        steps = max(1, int(self.steps * work))
        return replace(self, steps=steps, hot=self.hot * params.hot * cool, cold=self.cold * params.cold * cool)

    def plan(self, steps: int, redirect_only: bool = False) -> Plan:
        """The plan of an anneal of so many steps."""
        return Plan(
            self.first_smooth, self.last_smooth, self.hot, self.cold, self.most_price,
            self.last_smooth if self.even else 0.0, steps, redirect_only,
        )  # fmt: skip


@dataclass(frozen=True)
class Annealed:
    """A placement [slots], the node [nodes, experts] that serves each home's tokens (None where homes don't differ),
    and how the run ended. `over`: what the largest load exceeds the balance cap by."""

    slots: IntArray
    target: IntArray | None
    steps: int
    termination: Termination
    over: float = 0.0


#: Steps that tell how fast a step is, where a deadline must be kept.
PROBE_STEPS = 2000


def run_annealing(
    problem: LayerProblem,
    start: IntArray,
    target: IntArray | None,
    schedule: Schedule,
    stop: Stop,
    seed: int,
    rows: SetRows | None = None,
    least_copies: IntArray | None = None,
) -> Annealed:
    """Anneals `start` [slots]; the steps are cut to what a deadline leaves.

    Args:
        target: [nodes, experts] the start's dispatch targets, or None.
        rows, least_copies: see search_data.
    """
    data = search_data(problem, start, rows, least_copies)
    state = empty_state(data, start[problem.hardware.usable])
    given = state.layout.target
    targets = target is not None and target.shape == given.shape
    if target is not None and targets:
        given[:] = target
    scratch = empty_scratch(state)
    steps, termination = schedule.steps, Termination.WORK
    left = stop.seconds_left()
    if left is not None:
        if left <= 0.0:
            return Annealed(start, target, 0, Termination.TIME)
        probe = empty_state(data, start[problem.hardware.usable])
        probe.layout.target[:] = given
        began = time.perf_counter()
        plan = Plan(1.0, 1.0, schedule.hot, schedule.cold, 1.0, 0.0, PROBE_STEPS, False)
        probed = anneal(data, probe, scratch, targets, plan, seed, stop)
        spent = time.perf_counter() - began
        affordable = int(0.7 * probed.steps * max(0.0, left - spent) / max(spent, 1e-6))
        if affordable < steps:
            steps, termination = affordable, Termination.TIME
    if steps < 1:
        return Annealed(start, target, 0, termination)
    best = anneal(data, state, scratch, targets, schedule.plan(steps), seed, stop)
    if best.steps < steps:
        termination = Termination.TIME
    slots = np.full(problem.slots, EMPTY, dtype=np.int64)
    slots[problem.hardware.usable] = best.slots
    return Annealed(slots, best.target if by_home(problem) else None, best.steps, termination, best.excess)


#: Proposals of `redirect` for each expert and home, and its temperatures.
REDIRECTS = 40
COOL = Schedule(0, 1e-3, 1e-5, 0.1, 0.01)


def redirect(problem: LayerProblem, slots: IntArray) -> IntArray:
    """[nodes, experts] the node that serves each home's tokens, by local search; copies stay where they are."""
    data = search_data(problem, slots)
    state = empty_state(data, slots[problem.hardware.usable])
    steps = REDIRECTS * problem.experts * problem.topology.nodes
    return anneal(data, state, empty_scratch(state), False, COOL.plan(steps, True), 1, Stop()).target
