"""Placements that a search starts from: the heuristics', or the one that runs now, with what it lost put back."""

from __future__ import annotations

import numpy as np

from placement.check.layer import check_layer
from placement.problem.arrays import EMPTY, BoolArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.heuristics.greedy import GreedySolver
from solvers.experts.search.groups import group_starts


def starts(problem: LayerProblem, seed: int) -> list[IntArray]:
    """Valid placements to start from: the mended current one under a budget of moves, else the heuristics' as well."""
    found: list[IntArray] = []
    if problem.rules.current is not None:
        mended = mend(problem)
        if mended is not None:
            found.append(mended)
    if problem.rules.max_moves is None:
        found += [*group_starts(problem), *EplbSolver().variants(problem)]
        if problem.rules.group is None:
            found.append(GreedySolver().place(problem, seed))
    return [slots for slots in found if not check_layer(problem, slots)]


def mend(problem: LayerProblem) -> IntArray | None:
    """[slots] the current placement made valid by few moves, or None where this greedy way finds none.

    A GPU over its capacity drops what has most other copies, coldest first. Lost experts, hottest first, go to the GPU
    with the least load that has room, or replace the coldest spare copy; free slots take the largest load per copy.
    """
    if problem.rules.current is None:
        raise UnsupportedError("no current placement to start from")
    load, capacity = problem.data.mean_load, problem.hardware.capacities
    holds = problem.held(problem.rules.current)
    pinned = np.zeros_like(holds)
    if problem.rules.fixed is not None:
        pinned[problem.fixed_pairs] = True
    node = problem.topology.node_of_gpu
    for g in np.flatnonzero(holds.sum(axis=1) > capacity):
        over = int(holds[g].sum() - capacity[g])
        mine = np.flatnonzero(holds[g] & ~pinned[g])
        order = np.lexsort((load[mine], -holds[:, mine].sum(axis=0)))
        holds[g, mine[order[:over]]] = False
    allowed = _allowed(problem, holds)
    for e in np.argsort(-load, kind="stable"):
        if holds[:, e].any():
            continue
        room = _room(problem, holds, allowed[node, e])
        if room is None:
            spare = holds & ~pinned & (holds.sum(axis=0) > 1)[None, :] & np.asarray(allowed[node, e])[:, None]
            if not spare.any():
                return None
            gpu, old = np.nonzero(spare)
            coldest = int(np.argmin(load[old] / holds[:, old].sum(axis=0)))
            room = int(gpu[coldest])
            holds[room, old[coldest]] = False
        holds[room, e] = True
    for g in np.flatnonzero(holds.sum(axis=1) < capacity):
        while holds[g].sum() < capacity[g]:
            free = ~holds[g] & allowed[node[g]]
            if not free.any():
                return None
            holds[g, np.argmax(np.where(free, load / np.maximum(holds.sum(axis=0), 1), -1.0))] = True
    return _as_slots(problem, holds)


def _allowed(problem: LayerProblem, holds: BoolArray) -> BoolArray:
    """[nodes, experts] where groups let an expert lie; a group that lies nowhere may go anywhere."""
    nodes = problem.topology.nodes
    if problem.rules.group is None:
        return np.ones((nodes, problem.experts), dtype=bool)
    by_node = np.asarray(holds.reshape(nodes, -1, problem.experts).any(axis=1))
    here = np.zeros((nodes, int(problem.rules.group.max()) + 1), dtype=bool)
    for n in range(nodes):
        here[n, problem.rules.group[by_node[n]]] = True
    here[:, ~here.any(axis=0)] = True
    return np.asarray(here[:, problem.rules.group])


def _room(problem: LayerProblem, holds: BoolArray, allowed: BoolArray) -> int | None:
    """The least loaded GPU with a free slot."""
    free = (holds.sum(axis=1) < problem.hardware.capacities) & allowed
    if not free.any():
        return None
    work = (holds * (problem.data.mean_load / np.maximum(holds.sum(axis=0), 1))[None, :]).sum(axis=1)
    return int(np.argmin(np.where(free, work / problem.hardware.relative_speed, np.inf)))


def _as_slots(problem: LayerProblem, holds: BoolArray) -> IntArray:
    """[slots] from [gpus, experts]; experts stay in the slots that `current` has them in, where they can."""
    per_gpu = problem.hardware.slots_per_gpu
    out = np.full((problem.topology.gpus, per_gpu), EMPTY, dtype=np.int64)
    before = np.asarray(problem.rules.current).reshape(out.shape)
    for g, capacity in enumerate(problem.hardware.capacities):
        stay = [i for i in range(capacity) if before[g, i] != EMPTY and holds[g, before[g, i]]]
        out[g, stay] = before[g, stay]
        rest = np.setdiff1d(np.flatnonzero(holds[g]), out[g, stay])
        out[g, [i for i in range(capacity) if i not in stay]] = rest
    return out.reshape(-1)
