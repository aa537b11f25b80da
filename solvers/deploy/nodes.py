"""Packing pieces of instances into nodes that are all alike, as a flow over a node's GPUs.

Nodes are alike, and so are many ways to fill one. In an arc flow (Valerio de Carvalho 1999) a filled node is a path
over its GPUs, largest piece first, and only the number of nodes that take each step is decided. It is as tight as a
variable for each way to fill a node, without listing the ways.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp

#: A place among a node's GPUs, and the size of the piece that begins there.
Step = tuple[int, int]


def steps_of(sizes: Sequence[int], room: int) -> list[Step]:
    """Every step of a path over a node of `room` GPUs whose pieces never grow.

    Args:
        sizes: distinct, descending.
    """
    places = {0}
    found = []
    for size in sizes:
        for place in range(room - size + 1):
            if place in places:
                found.append((place, size))
                places.add(place + size)
    return found


def fill_nodes(pieces: Sequence[tuple[int, int]], nodes: int, room: int) -> list[list[int]] | None:
    """Sizes in each used node; None where `nodes` of `room` GPUs do not hold all pieces.

    Args:
        pieces: size and how many, sizes distinct and descending.
    """
    wanted = dict(pieces)
    steps = steps_of(list(wanted), room)
    if not wanted:
        return []
    if wanted.keys() != {size for _, size in steps}:
        return None
    starts = np.array([float(place == 0) for place, _ in steps])
    of_size = np.array([[float(size == each) for _, size in steps] for each in wanted])
    inner = sorted({place for place, _ in steps} - {0})
    kept = [[float(sum(step) == place) - float(step[0] == place) for step in steps] for place in inner]
    rows = [LinearConstraint(starts[None, :], ub=nodes), LinearConstraint(of_size, lb=list(wanted.values()))]
    if kept:
        rows.append(LinearConstraint(np.array(kept), lb=0))
    answer = milp(np.zeros(len(steps)), integrality=np.ones(len(steps)), bounds=Bounds(0, nodes), constraints=rows)
    if answer.x is None:
        return None
    return _paths({step: round(float(x)) for step, x in zip(steps, answer.x, strict=True)}, wanted)


def _paths(flow: dict[Step, int], wanted: dict[int, int]) -> list[list[int]]:
    """The flow as nodes, less the pieces that it has beyond those wanted."""
    bins = []
    left = dict(wanted)
    while any(left.values()):
        place, held = 0, []
        while True:
            step = next((each for each, count in flow.items() if each[0] == place and count), None)
            if step is None:
                break
            flow[step] -= 1
            place += step[1]
            if left[step[1]]:
                left[step[1]] -= 1
                held.append(step[1])
        if held:
            bins.append(held)
    return bins
