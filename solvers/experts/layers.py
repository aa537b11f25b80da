"""Every layer of a plan: solved in parallel, scored by placement.cost, checked by placement.cli.verify, bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from placement.check.layer import check_layer
from placement.cost.layer.dispatch import alike_homes
from placement.cost.layer.score import LayerScore, score_layer
from placement.errors import InfeasibleError, NothingFoundError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.bounds import layer_bound
from solvers.dispatch import fractions_for, needs_fractions
from solvers.experts.baselines import baseline_candidates
from solvers.experts.floor import balance_floor, raised_floor
from solvers.parallel import Backend, Carried, carry, map_layers
from solvers.registry import BASELINES, get_solver
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: An objective within this relative distance of its bound counts as optimal.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class LayerAnswer:
    """One layer's placement with its score and the best bound known.

    Attributes:
        slots: [slots] logical expert of each slot. fractions: [nodes, slots] for `planned` dispatch, else None.
        score: by placement.cost, on the problem that was solved.
        bound, bound_source: a proven lower bound of the objective.
        status, termination: of the solver; OPTIMAL only where the score meets the bound.
    """

    slots: IntArray
    fractions: FloatArray | None
    score: LayerScore
    status: Status
    termination: Termination
    bound: float
    bound_source: str

    @property
    def gap(self) -> float:
        """(objective - bound) / bound; infinite without a bound."""
        return self.score.objective / self.bound - 1.0 if self.bound > 0 else float("inf")


def plan_layers(
    problems: Sequence[LayerProblem],
    strategy: str,
    stop: Stop,
    seed: int,
    workers: int = 1,
    on_layer: Callable[[int], None] | None = None,
    floor: bool = True,
    backend: Backend | None = None,
    certify: bool = True,
) -> tuple[LayerAnswer, ...]:
    """Places every layer; the same answer for any number of workers and on every backend.

    Args:
        problems: one a layer. strategy: a solver's name. seed: layer i uses a stream of its own of it.
        workers: processes or threads.
        on_layer: called with a layer's position when it is done, from the calling thread.
        floor: whether solved layers keep the balance floor (see `balance_floor`). Of baselines only the dispatch does,
            where bytes alone count ("traffic").
        backend: what workers are (solvers.parallel); None: processes, but threads where little is to do.
        certify: whether answers carry the best bound known, else one that takes no time, as who only compares needs.

    Raises:
        InfeasibleError: a layer is proven to have no answer. NothingFoundError: none was found.
        UnsupportedError: the solver lacks what a problem needs.
        RuntimeError: a solver returned an invalid placement (a bug).
    """
    if not get_solver(strategy).features.groups and strategy in BASELINES:
        # A baseline that knows no groups is shown as what it is.
        problems = [problem.with_rules(group=None) for problem in problems]
    if strategy in BASELINES and floor:
        # Least bytes without a cap would be any balance: a baseline's dispatch keeps what a solved plan must keep.
        problems = [balance_floor(one, stop.params) if one.objective.kind == "traffic" else one for one in problems]
    seeds = [int(np.random.SeedSequence([seed, i]).generate_state(1)[0] >> 1) for i in range(len(problems))]

    workers = max(1, workers)
    floor = floor and strategy not in BASELINES
    tasks = [
        _Task(i, problem, strategy, carry(stop), seeds[i], floor, certify, -(-(len(problems) - i) // workers))
        for i, problem in enumerate(problems)
    ]
    if backend is None:
        # Starting processes takes longer than heuristics do, or kernels that need no interpreter.
        heavy = strategy not in BASELINES and any(problem.data.sets is not None for problem in problems)
        backend = "processes" if heavy else "threads"
    return map_layers(_plan_layer, tasks, workers, backend, on_layer)


@dataclass(frozen=True)
class _Task:
    """One layer to plan, fit to be sent to another process; `rounds`: layers that its worker has still to do."""

    index: int
    problem: LayerProblem
    strategy: str
    stop: Carried
    seed: int
    floor: bool
    certify: bool
    rounds: int


def _plan_layer(task: _Task) -> LayerAnswer:
    stop = task.stop.here().share_of_time(1 / task.rounds)
    solver = get_solver(task.strategy)
    target = balance_floor(task.problem, stop.params) if task.floor else task.problem
    if target is task.problem or target.rules.max_load is None:
        return _answer(task, solver.solve(target, stop, task.seed), proves=True)
    # Scored once: what a solver must be no worse than, and what may raise the floor.
    baselines = baseline_candidates(task.problem)

    def within(max_load: float) -> LayerAnswer:
        posed = task.problem.with_rules(max_load=max_load)
        return _answer(task, solver.solve_against(posed, baselines, stop, task.seed), proves=False)

    answer = within(target.rules.max_load)
    # A load balancer's placement over the floor may take less time than anything under it; then that one counts.
    needed = raised_floor(task.problem, baselines, target.rules.max_load, answer.score.objective, stop.params)
    return answer if needed is None else within(needed)


def _answer(task: _Task, found: Result, proves: bool) -> LayerAnswer:
    index, problem = task.index, task.problem
    if found.status is Status.INFEASIBLE:
        raise InfeasibleError(f"layer {index}: no placement satisfies its constraints ({'; '.join(found.notes)})")
    if found.slots is None:
        raise NothingFoundError(f"layer {index}: nothing found within the limit; raise `work` or `time_limit`")
    faults = check_layer(problem, found.slots)
    if faults:
        raise RuntimeError(f"layer {index}: the solver returned an invalid placement: {'; '.join(faults)}")
    fractions = found.fractions if needs_fractions(problem) else None
    if fractions is None:
        fractions = fractions_for(problem, found.slots)
    score = score_layer(problem, found.slots, fractions)
    bound = layer_bound(problem, score.objective, quick=not task.certify, stop=task.stop.here())
    value, source = bound.value, bound.source
    # A solver's bound for the problem with the balance floor, or with another policy, says nothing of this one.
    comparable = proves and alike_homes(problem)
    if found.bound > value and comparable:
        value, source = found.bound, found.bound_source
    optimal = score.objective <= value * (1 + TOLERANCE)
    status = Status.OPTIMAL if optimal else Status.FEASIBLE
    return LayerAnswer(found.slots, fractions, score, status, found.termination, value, source)
