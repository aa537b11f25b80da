"""Brute force over all placements of a small layer, each scored by placement.cost."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from placement.cost.layer.score import LayerScore, score_layer
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem


def placements(problem: LayerProblem):
    """Every valid [slots] placement (experts ascend on each GPU), by the words of LayerProblem alone."""
    gpus, m, per_gpu = problem.topology.gpus, problem.topology.gpus_per_node, problem.hardware.slots_per_gpu
    room = [per_gpu] * gpus if problem.hardware.capacity is None else problem.hardware.capacity.tolist()
    stay: list[set[int]] = [set() for _ in range(gpus)]
    if problem.rules.fixed is not None:
        for slot, expert in enumerate(problem.rules.current.tolist()):
            if problem.rules.fixed[slot] and expert != EMPTY:
                stay[slot // per_gpu].add(expert)
    choices = [
        [c for c in combinations(range(problem.experts), r) if s <= set(c)] for r, s in zip(room, stay, strict=True)
    ]
    for held in _covering(choices, frozenset(range(problem.experts))):
        if problem.rules.group is not None:
            nodes: dict[int, set[int]] = {}
            for g, experts in enumerate(held):
                for e in experts:
                    nodes.setdefault(int(problem.rules.group[e]), set()).add(g // m)
            if any(len(n) > 1 for n in nodes.values()):
                continue
        if problem.rules.max_moves is not None:
            before = problem.rules.current.reshape(gpus, -1)
            if sum(len(set(h) - set(b.tolist())) for h, b in zip(held, before, strict=True)) > problem.rules.max_moves:
                continue
        yield np.array([e for h in held for e in (*h, *[EMPTY] * (per_gpu - len(h)))], dtype=np.int64)


def _covering(
    choices: Sequence[list[tuple[int, ...]]], missing: frozenset[int]
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Every product of the choices that holds what is missing; none is begun whose rest has no room for it."""
    if not choices:
        yield ()
        return
    room = sum(len(each[0]) for each in choices[1:])
    for first in choices[0]:
        left = missing.difference(first)
        if len(left) <= room:
            for rest in _covering(choices[1:], left):
                yield (first, *rest)


def brute_force(problem: LayerProblem) -> LayerScore | None:
    """The best score of any placement, or None if there is no placement."""
    best = None
    for slots in placements(problem):
        score = score_layer(problem, slots)
        if problem.rules.max_load is not None and score.pooled_imbalance > problem.rules.max_load * (1 + 1e-9):
            continue
        if best is None or score.objective < best.objective:
            best = score
    return best
