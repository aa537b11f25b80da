"""Placements that a search starts from: the heuristics', or the one that runs now, with what it lost put back."""

from __future__ import annotations

import numpy as np

from placement.problem import EMPTY, BoolArray, IntArray, LayerProblem
from placement.verify import check_layer
from solvers.base import UnsupportedError
from solvers.heuristics.eplb import EplbSolver
from solvers.heuristics.greedy import GreedySolver
from solvers.search.groups import group_starts


def starts(problem: LayerProblem, seed: int) -> list[IntArray]:
    """Valid placements to start from: the mended current one under a budget of moves, else the heuristics' as well."""
    found: list[IntArray] = []
    if problem.current is not None:
        mended = mend(problem)
        if mended is not None:
            found.append(mended)
    if problem.max_moves is None:
        found += [*group_starts(problem), *EplbSolver().variants(problem)]
        if problem.group is None:
            found.append(GreedySolver().place(problem, seed))
    return [slots for slots in found if not check_layer(problem, slots)]


def mend(problem: LayerProblem) -> IntArray | None:
    """[slots] the current placement made valid by few moves, or None where this greedy way finds none.

    A GPU over its capacity drops the experts that have most other copies, coldest first. Lost experts go first, the
    hottest first, to the GPU with the least load that has a free slot; without one they replace the coldest spare copy.
    Slots left free take the expert with the largest load per copy.
    """
    if problem.current is None:
        raise UnsupportedError("no current placement to start from")
    gpus, experts = problem.topology.gpus, problem.experts
    load, capacity = problem.mean_load, problem.capacities
    holds = np.zeros((gpus, experts), dtype=bool)
    kept = problem.current != EMPTY
    holds[problem.gpu_of_slot[kept], problem.current[kept]] = True
    pinned = np.zeros_like(holds)
    if problem.fixed is not None:
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
    if problem.group is None:
        return np.ones((nodes, problem.experts), dtype=bool)
    by_node = np.asarray(holds.reshape(nodes, -1, problem.experts).any(axis=1))
    here = np.zeros((nodes, int(problem.group.max()) + 1), dtype=bool)
    for n in range(nodes):
        here[n, problem.group[by_node[n]]] = True
    here[:, ~here.any(axis=0)] = True
    return np.asarray(here[:, problem.group])


def _room(problem: LayerProblem, holds: BoolArray, allowed: BoolArray) -> int | None:
    """The least loaded GPU with a free slot."""
    free = (holds.sum(axis=1) < problem.capacities) & allowed
    if not free.any():
        return None
    work = (holds * (problem.mean_load / np.maximum(holds.sum(axis=0), 1))[None, :]).sum(axis=1)
    return int(np.argmin(np.where(free, work / problem.relative_speed, np.inf)))


def _as_slots(problem: LayerProblem, holds: BoolArray) -> IntArray:
    """[slots] from [gpus, experts]; experts stay in the slots that `current` has them in, where they can."""
    per_gpu = problem.slots_per_gpu
    out = np.full((problem.topology.gpus, per_gpu), EMPTY, dtype=np.int64)
    before = np.asarray(problem.current).reshape(out.shape)
    for g, capacity in enumerate(problem.capacities):
        stay = [i for i in range(capacity) if before[g, i] != EMPTY and holds[g, before[g, i]]]
        out[g, stay] = before[g, stay]
        rest = np.setdiff1d(np.flatnonzero(holds[g]), out[g, stay])
        out[g, [i for i in range(capacity) if i not in stay]] = rest
    return out.reshape(-1)
