"""The fronts of all layers, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.migration.front import LayerFront, Point, layer_front
from solvers.parallel import Backend, Carried, carry, map_layers
from solvers.stop import Stop


@dataclass(frozen=True)
class Fronts:
    """The fronts of all layers, and the full re-solves' answers that they end in (with their bounds)."""

    layers: tuple[LayerFront, ...]
    full: tuple[LayerAnswer, ...]


def layer_fronts(
    problems: Sequence[LayerProblem],
    running: Sequence[FloatArray | None],
    stop: Stop,
    seed: int = 0,
    workers: int = 1,
    backend: Backend | None = None,
    on_solved: Callable[[int], None] | None = None,
    on_front: Callable[[int], None] | None = None,
) -> Fronts:
    """Each layer solved anew by `auto`, and its front from the running placement to that; the same for any workers.

    Args:
        problems: with `current`. running: the fractions that run now, for `planned` dispatch.
        stop: half of the time of a deadline is for solving anew.
        on_solved, on_front: called with a layer's position when that part of it is done.

    Raises:
        InfeasibleError, NothingFoundError: see layer_front and solvers.experts.layers.plan_layers.
    """
    # Only fixed experts bind the full re-solve to the running placement.
    free = [problem if problem.rules.fixed is not None else problem.with_rules(current=None) for problem in problems]
    full = plan_layers(free, "auto", stop.share_of_time(0.5), seed, workers, on_solved, backend=backend)
    seeds = [int(np.random.SeedSequence([seed, i, 1]).generate_state(1)[0] >> 1) for i in range(len(problems))]
    tasks = []
    for i, (problem, part, answer) in enumerate(zip(problems, running, full, strict=True)):
        end = Point(0, answer.slots, answer.fractions, answer.score)
        rounds = -(-(len(problems) - i) // max(1, workers))
        tasks.append(_Task(problem, part, end, carry(stop), seeds[i], rounds))
    layers = map_layers(_front, tasks, max(1, workers), backend or "processes", on_front)
    return Fronts(layers, full)


@dataclass(frozen=True)
class _Task:
    """One layer, fit to be sent to another process; `rounds`: layers that its worker has still to do."""

    problem: LayerProblem
    running: FloatArray | None
    full: Point
    stop: Carried
    seed: int
    rounds: int


def _front(task: _Task) -> LayerFront:
    stop = task.stop.here().share_of_time(1 / task.rounds)
    return layer_front(task.problem, task.running, task.full, stop, task.seed)
