"""Every placement of a layer that has few, counted again: what an enumeration claims is held against it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, islice

import numpy as np

from placement.cost.layer.many import score_many
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from specs.engine import Dispatch

#: Placements of the largest layer that is counted, and steps that counting takes at most.
MOST, STEPS = 20_000, 400_000
#: Policies that don't ask which of a node's GPUs, or of the nodes, holds a copy.
NAMELESS: frozenset[Dispatch] = frozenset({"even", "nearest", "planned"})
#: Relative allowance for rounding: a bound must not lie above what it bounds.
ROUNDING = 1e-9


def least_of_all(problem: LayerProblem) -> float:
    """The least objective of all placements of a layer without rules; 0 where they are too many to count."""
    replicas = problem.hardware.usable_slots > problem.experts
    if problem.rules.dispatch == "planned" and replicas:
        return 0.0
    steps = iter(range(STEPS))
    found = list(islice(_placements(problem, steps), MOST + 1))
    if not 0 < len(found) <= MOST or next(steps, None) is None:
        return 0.0
    return float(score_many(problem, np.array(found))[0].min()) * (1 - ROUNDING)


def _placements(problem: LayerProblem, steps: Iterator[int]) -> Iterator[list[int]]:
    """Slots of all placements, GPU by GPU: what it takes of the experts that have no copy, then of the others.

    GPUs of a node that are alike come in the order of what they hold, and so do the nodes.
    """
    hardware, width, per_node = problem.hardware, problem.hardware.slots_per_gpu, problem.topology.gpus_per_node
    gpus, room = problem.topology.gpus, problem.hardware.capacities.tolist()
    nameless = problem.rules.dispatch in NAMELESS or hardware.usable_slots == problem.experts
    uniform = all(part is None for part in (hardware.capacity, hardware.speed, hardware.home)) and nameless
    inside = uniform and problem.topology.gpus_per_tray == 1

    def fill(held: list[tuple[int, ...]], missing: frozenset[int]) -> Iterator[list[int]]:
        g = len(held)
        if g == gpus:
            yield list(chain.from_iterable([*row, *[EMPTY] * (width - len(row))] for row in held))
            return
        absent, present = sorted(missing), sorted(frozenset(range(problem.experts)) - missing)
        needed = max(0, len(missing) - sum(room[g + 1 :]))
        # Nothing that comes later holds less than this one's first expert.
        first = inside and (g % per_node == 0 or g >= gpus - per_node)
        for new in range(needed, min(room[g], len(absent)) + 1):
            for taken in combinations(absent, new):
                for again in combinations(present, room[g] - new):
                    if next(steps, None) is None:
                        return
                    row = tuple(sorted(taken + again))
                    if inside and g % per_node and row < held[-1]:
                        continue
                    if first and absent and row[0] > absent[0]:
                        continue
                    rows = [*held, row]
                    done = uniform and (g + 1) % per_node == 0 and g >= per_node
                    if done and rows[-per_node:] < rows[-2 * per_node : -per_node]:
                        continue
                    yield from fill(rows, missing - set(taken))

    yield from fill([], frozenset(range(problem.experts)))
