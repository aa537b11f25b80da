"""Every layer of a plan: solved in parallel, scored by placement.cost, checked by placement.cli.verify, bounded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from placement.check.layer import check_layer
from placement.cost.layer.dispatch import alike_homes
from placement.cost.layer.score import LayerScore, score_layer
from placement.errors import InfeasibleError, NothingFoundError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.records.witness import LayerWitness
from solvers.bounds.layer import Bound, LayerBounds
from solvers.dispatch import fractions_for, needs_fractions
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import Candidate, choose
from solvers.experts.floor import balance_floor, raised_floor
from solvers.parallel import Backend, Carried, carry, each_layer, map_layers
from solvers.registry import BASELINES, get_solver
from solvers.result import Result, Status, Termination
from solvers.stop import Stop

#: With less time left threads do: processes take seconds to start.
LEAST_FOR_PROCESSES_S = 10.0
#: Share of a layer's time that its solver has; its bound has the rest.
SOLVING = 0.8
#: An objective within this relative distance of its bound counts as optimal.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class LayerAnswer:
    """One layer's placement with its score and the best bound known.

    Attributes:
        slots: [slots] logical expert of each slot. fractions: [nodes, slots] for `planned` dispatch, else None.
        score: by placement.cost, on the problem that was solved.
        bound, bound_source: a proven lower bound of the objective. witness: the prices that prove it, if any do.
        status, termination: of the solver; OPTIMAL only where the score meets the bound.
    """

    slots: IntArray
    fractions: FloatArray | None
    score: LayerScore
    status: Status
    termination: Termination
    bound: float
    bound_source: str
    witness: LayerWitness | None = None

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

    workers, floor = max(1, workers), floor and strategy not in BASELINES
    bounds = [LayerBounds(problem) for problem in problems]

    def tasks(layers: Sequence[int], until: Stop) -> list[_Task]:
        carried, rounds = carry(until), [-(-left // workers) for left in range(len(layers), 0, -1)]
        return [
            _Task(i, problems[i], strategy, carried, seeds[i], floor, certify, turns, bounds[i])
            for i, turns in zip(layers, rounds, strict=True)
        ]

    answers: dict[int, LayerAnswer] = {}
    if stop.gap > 0 and get_solver(strategy).settles:
        # In threads: most of it needs no interpreter, and where all layers are settled no process has to be started.
        def settle(task: _Task) -> None:
            if (answer := _settled_layer(task)) is not None:
                answers[task.index] = answer

        def tell(layer: int) -> None:
            if on_layer is not None and layer in answers:
                on_layer(layer)

        with stop.search():
            map_layers(settle, tasks(range(len(problems)), stop.share_of_time(1 - SOLVING)), workers, "threads", tell)

    def solve(backend: Backend) -> None:
        rest = [i for i in range(len(problems)) if i not in answers]
        with closing(each_layer(_plan_layer, tasks(rest, stop), workers, backend)) as found:
            for i, answer in zip(rest, found, strict=True):
                answers[i] = answer
                if on_layer is not None:
                    on_layer(i)

    if backend is None:
        # Starting processes takes longer than heuristics do, or kernels that need no interpreter.
        left = stop.seconds_left()
        heavy = strategy not in BASELINES
        heavy = heavy and any(problem.data.sets is not None for i, problem in enumerate(problems) if i not in answers)
        heavy = heavy and (left is None or left > LEAST_FOR_PROCESSES_S)
        backend = "processes" if heavy else "threads"
    if strategy in BASELINES:
        solve(backend)
    else:
        with stop.search():
            solve(backend)
        solve("threads")  # what an interrupt has left, in no time
    return tuple(answers[i] for i in range(len(problems)))


@dataclass(frozen=True)
class _Task:
    """One layer to plan, fit to be sent to another process.

    Attributes:
        rounds: layers that its worker has still to do. bounds: with what has been found of them.
    """

    index: int
    problem: LayerProblem
    strategy: str
    stop: Carried
    seed: int
    floor: bool
    certify: bool
    rounds: int
    bounds: LayerBounds


#: The answer to a problem against its baselines, or None.
_Find = Callable[[LayerProblem, Sequence[Candidate], Stop], Result | None]


def _plan_layer(task: _Task) -> LayerAnswer:
    solver = get_solver(task.strategy)

    def find(problem: LayerProblem, baselines: Sequence[Candidate], stop: Stop) -> Result:
        if stop.expired and baselines:
            # The layer's time has gone before its search began.
            best = choose(problem, baselines)
            ended = Termination.INTERRUPTED if stop.interrupted else Termination.TIME
            return Result(best.slots, Status.FEASIBLE, ended, fractions=best.fractions)
        return solver.solve_against(problem, baselines, stop, task.seed)

    answer = _layer(task, find)
    if answer is None:
        raise RuntimeError(f"layer {task.index}: {task.strategy} gave no result")
    return answer


def _settled_layer(task: _Task) -> LayerAnswer | None:
    """A baseline where that is proven near enough, else None; `task.bounds` keep what was found."""
    solver = get_solver(task.strategy)
    return _layer(task, lambda problem, baselines, stop: solver.settle(problem, baselines, task.bounds, stop))


def _layer(task: _Task, find: _Find) -> LayerAnswer | None:
    whole = task.stop.here().share_of_time(1 / task.rounds)
    stop = whole.share_of_time(SOLVING)
    target = balance_floor(task.problem, stop.params) if task.floor else task.problem
    # Scored once: what a solver must be no worse than, and what may raise the floor.
    baselines = () if task.strategy in BASELINES else baseline_candidates(task.problem)
    if target is task.problem or target.rules.max_load is None:
        return _answer(task, find(target, baselines, stop), whole, proves=True)

    def within(max_load: float) -> LayerAnswer | None:
        return _answer(task, find(task.problem.with_rules(max_load=max_load), baselines, stop), whole, proves=False)

    answer = within(target.rules.max_load)
    if answer is None:
        return None
    # A load balancer's placement over the floor may take less time than anything under it; then that one counts.
    needed = raised_floor(task.problem, baselines, target.rules.max_load, answer.score.objective, stop.params)
    return answer if needed is None else within(needed)


def _answer(task: _Task, found: Result | None, stop: Stop, proves: bool) -> LayerAnswer | None:
    if found is None:
        return None
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
    if found.bound_holds:
        bound = Bound(found.bound, found.bound_source, found.witness)
    else:
        bound = task.bounds.best(score.objective, quick=not task.certify or stop.expired, stop=stop)
        # A solver's bound for the problem with the balance floor, or with another policy, says nothing of this one.
        if found.bound > bound.value and proves and alike_homes(problem):
            bound = Bound(found.bound, found.bound_source)
    optimal = score.objective <= bound.value * (1 + TOLERANCE)
    status = Status.OPTIMAL if optimal else Status.FEASIBLE
    return LayerAnswer(
        found.slots, fractions, score, status, found.termination, bound.value, bound.source, bound.witness
    )  # fmt: skip
