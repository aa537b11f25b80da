"""Brute force over all placements of a small layer, each scored by placement.cost."""

from itertools import combinations, product

import numpy as np

from placement.cost.moe_layer import LayerScore, score_layer
from placement.problem import LayerProblem


def placements(problem: LayerProblem):
    """Every valid [slots] placement (experts ascend on each GPU), by the words of LayerProblem alone."""
    gpus, m = problem.topology.gpus, problem.topology.gpus_per_node
    choices = list(combinations(range(problem.experts), problem.slots_per_gpu))
    for held in product(choices, repeat=gpus):
        if len(set().union(*held)) < problem.experts:
            continue
        if problem.group is not None:
            nodes: dict[int, set[int]] = {}
            for g, experts in enumerate(held):
                for e in experts:
                    nodes.setdefault(int(problem.group[e]), set()).add(g // m)
            if any(len(n) > 1 for n in nodes.values()):
                continue
        if problem.max_moves is not None:
            before = problem.current.reshape(gpus, -1)
            if sum(len(set(h) - set(b.tolist())) for h, b in zip(held, before, strict=True)) > problem.max_moves:
                continue
        yield np.array(held, dtype=np.int64).reshape(-1)


def brute_force(problem: LayerProblem) -> LayerScore | None:
    """The best score of any placement, or None if there is no placement."""
    best = None
    for slots in placements(problem):
        score = score_layer(problem, slots)
        if problem.max_load is not None and score.pooled_imbalance > problem.max_load * (1 + 1e-9):
            continue
        if best is None or score.objective < best.objective:
            best = score
    return best
