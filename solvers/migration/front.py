"""One layer's front: the least objective that each number of moves away from the running placement allows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.check.layer import check_layer
from placement.cost.layer.score import LayerScore, score_layer
from placement.errors import NothingFoundError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from solvers.dispatch import needs_fractions, target_fractions
from solvers.experts.candidates import candidate
from solvers.experts.merit import merit
from solvers.experts.relabel import renaming
from solvers.experts.search.arrays import SetRows
from solvers.experts.search.run import Schedule, run_annealing
from solvers.experts.search.start import mend
from solvers.stop import Stop

#: Budgets of moves, beyond what is forced, that a front is sought at.
BUDGETS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
#: Under a small budget most proposals end before they are priced, so that it gets more of them for its time.
STEPS, FROM = 600_000, 8
#: From the running placement anew, and on from the answer of the next smaller budget.
ANEW = Schedule(STEPS, 0.01, 0.0003, 3.0, 0.3)
ONWARD = Schedule(60_000, 0.003, 0.0002, 1.0, 0.3)
#: Few moves make a rugged landscape, where to change a move is to take it back first: the steps of a budget of n moves
#: are cut into RESTARTS // n runs, MOST_RESTARTS at most, their first temperatures in turn that of ANEW times these.
RESTARTS, MOST_RESTARTS, HEATS = 24, 12, (1.0, 3.0, 10.0)
#: With fewer experts each weighs more, and so does every move: temperatures rise in proportion.
EXPERTS, MOST_HEAT = 64, 10.0


@dataclass(frozen=True)
class Point:
    """A placement [slots] and its fractions [nodes, slots], `moves` away from the running one, with its score."""

    moves: int
    slots: IntArray
    fractions: FloatArray | None
    score: LayerScore


@dataclass(frozen=True)
class LayerFront:
    """Points of one layer.

    Attributes:
        before: the running placement's score with the dispatch it runs with; None where it can't go on as it is.
        points: more moves and a lower objective from each to the next. The first has only the moves that failed GPUs
            force, and a dispatch planned anew; the last is the full re-solve, if that is the best.
    """

    before: LayerScore | None
    points: tuple[Point, ...]


def layer_front(
    problem: LayerProblem, running: FloatArray | None, full: Point | None, stop: Stop, seed: int
) -> LayerFront:
    """The front of a layer.

    Args:
        problem: with `current`, the running placement, and without `max_moves`; failed GPUs have capacity 0.
        running: [nodes, slots] the fractions that run now, for `planned` dispatch.
        full: the full re-solve, or None; its moves are counted here, once its GPUs have the names that save most.
        stop: `work` scales the search.

    Raises:
        NothingFoundError: the running placement can't be mended.
    """
    start = standing(problem)
    current, before = np.asarray(problem.rules.current), None
    if start is current and (running is not None or not needs_fractions(problem)):
        before = score_layer(problem, current, running if needs_fractions(problem) else None)
    forced = moves_between(current, start, problem.hardware.slots_per_gpu)
    given = running if start is current else None
    base = candidate(problem, start, given, thorough=True)
    points = [Point(forced, base.slots, base.fractions, base.score)]
    if full is not None:
        full = _renamed(problem, full)
        scores = [score for score in (before, base.score, full.score) if score is not None]
        problem = _no_less_balanced(problem, scores)
    most = problem.hardware.usable_slots if full is None else full.moves
    points += _limited(problem, start, forced, most, stop, seed)
    if full is not None:
        points.append(full)
    return LayerFront(before, _best(points))


def standing(problem: LayerProblem) -> IntArray:
    """The running placement [slots], mended with the fewest moves where it is not valid.

    Raises:
        NothingFoundError: it can't be mended.
    """
    if problem.rules.current is None:
        raise ValueError("the problem has no running placement")
    if not check_layer(problem, problem.rules.current):
        return problem.rules.current
    start = mend(problem)
    if start is None or check_layer(problem, start):
        raise NothingFoundError("the running placement could not be made valid with few moves")
    return start


def _no_less_balanced(problem: LayerProblem, scores: list[LayerScore]) -> LayerProblem:
    """The problem with a cap on the load: no point is less balanced than the ends of the front (see experts.floor)."""
    if problem.objective.kind == "load" or problem.data.sets is None or problem.rules.max_load is not None:
        return problem
    return problem.with_rules(max_load=max(score.pooled_imbalance for score in scores) * (1 + 1e-9))


def _limited(problem: LayerProblem, start: IntArray, forced: int, most: int, stop: Stop, seed: int) -> list[Point]:
    """The best points found under budgets below `most` moves; `start` is `forced` moves away."""
    rows = None
    if problem.data.sets is not None and problem.objective.kind != "load":
        rows = SetRows.of(problem.data.sets, problem.experts, problem.windows)
    scale = float(np.clip(EXPERTS / problem.experts, 1.0, MOST_HEAT))
    onward = replace(ONWARD, hot=ONWARD.hot * scale).scaled(stop.work)
    extras = [extra for extra in BUDGETS if forced + extra < most]
    points: list[Point] = []
    slots, target = start, None
    for i, extra in enumerate(extras):
        if stop.expired:
            break
        limited = problem.with_rules(max_moves=forced + extra)
        restarts = int(np.clip(RESTARTS // extra, 1, MOST_RESTARTS))
        work = stop.work * FROM / max(FROM, extra) / restarts
        plans: list[tuple[IntArray, IntArray | None, Schedule]] = [
            (start, None, replace(ANEW, hot=ANEW.hot * scale * HEATS[r % len(HEATS)]).scaled(work))
            for r in range(restarts)
        ]
        plans.append((slots, target, onward))
        share = stop.share_of_time(1 / (len(extras) - i))
        best, least = None, np.inf
        for r, (origin, aim, schedule) in enumerate(plans):
            until = share.share_of_time(1 / (len(plans) - r))
            run = run_annealing(limited, origin, aim, schedule, until, seed + r, rows)
            fractions = None
            if needs_fractions(problem) and run.target is not None:
                fractions = target_fractions(problem, run.slots, run.target)
            found = candidate(problem, run.slots, fractions)
            excess, objective = merit(problem, found.score)
            if excess == 0.0 and objective < least:
                best, least, slots, target = found, objective, run.slots, run.target
        if best is not None:
            moves = moves_between(np.asarray(problem.rules.current), best.slots, problem.hardware.slots_per_gpu)
            points.append(Point(moves, best.slots, best.fractions, best.score))
    return points


def _best(points: list[Point]) -> tuple[Point, ...]:
    """Those that no point with as few moves is as good as."""
    kept: list[Point] = []
    for point in sorted(points, key=lambda point: (point.moves, point.score.objective)):
        if not kept or point.score.objective < kept[-1].score.objective:
            kept.append(point)
    return tuple(kept)


def _renamed(problem: LayerProblem, full: Point) -> Point:
    """The full re-solve under the GPU names that need the fewest moves, where GPUs are alike."""
    current, per_gpu = np.asarray(problem.rules.current), problem.hardware.slots_per_gpu
    counted = replace(full, moves=moves_between(current, full.slots, per_gpu))
    alike = all(
        part is None
        for part in (problem.hardware.capacity, problem.hardware.speed, problem.hardware.home, problem.rules.fixed)
    )
    if not alike:
        return counted
    topology = problem.topology
    renamed = renaming(full.slots, current, problem.experts, topology.nodes, topology.gpus)
    slots = renamed.slots(full.slots)
    fractions = None if full.fractions is None else renamed.fractions(full.fractions)
    score = score_layer(problem, slots, fractions)
    # Where GPUs of a node share NICs in trays, another order can cost time.
    if score.objective > full.score.objective * (1 + 1e-9):
        return counted
    return Point(moves_between(current, slots, per_gpu), slots, fractions, score)
