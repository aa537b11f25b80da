"""How strong and how quick bounds are, by experts and by tokens: nowhere may there be a step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.placement_speed.tokens import layer_problem
from placement.routing.statistics import layer_statistics
from placement.routing.synthesize import synthesize

#: Experts, GPUs, top-k, and the tokens of one synthetic layer that are taken, which are samples of the most.
SHAPES = (
    (256, 64, 8, (12_000, 24_000, 48_000, 52_000, 104_000)),
    (320, 64, 8, (20_000,)),
    (384, 64, 8, (20_000,)),
    (512, 128, 10, (20_000,)),
)


@dataclass(frozen=True)
class Bounded:
    """One layer's bound.

    Attributes:
        bound: seconds. gap, heuristic_gap: of the search's answer (None: not searched), and of the best heuristic's.
        seconds, search_seconds: CPU seconds of the bound, and of the search.
    """

    experts: int
    gpus: int
    top_k: int
    tokens: int
    source: str
    bound: float
    gap: float | None
    heuristic_gap: float
    seconds: float
    search_seconds: float | None


def by_tokens(seed: int, shapes: Sequence[tuple[int, int, int, tuple[int, ...]]] = SHAPES) -> tuple[Bounded, ...]:
    """Every shape; layers of one size only are searched, too."""
    from solvers.bounds.layer import LayerBounds
    from solvers.experts.baselines import baseline_candidates
    from solvers.experts.candidates import candidate, choose
    from solvers.experts.search.solver import SearchSolver
    from solvers.stop import Stop

    found = []
    for experts, gpus, top_k, sizes in shapes:
        trace = synthesize(
            layers=1, experts=experts, top_k=top_k, tokens=max(sizes), sequences=16, skew=4.5, coactivation=1.0,
            seed=seed,
        )  # fmt: skip
        order = np.random.default_rng(seed).permutation(trace.tokens)
        for tokens in sizes:
            part = replace(trace, topk_ids=trace.topk_ids[:, order[:tokens]], seq_lens=np.array([tokens]))
            problem = layer_problem(layer_statistics([part])[0], gpus, -(-experts // gpus), "even")
            rivals = baseline_candidates(problem)
            rival, best, search_s = choose(problem, rivals).score.objective, None, None
            if len(sizes) == 1:
                began = time.process_time()
                slots = SearchSolver().improve(problem, rivals, Stop(), seed).slots
                search_s = time.process_time() - began
                best = rival if slots is None else min(rival, candidate(problem, slots).score.objective)
            began = time.process_time()
            bound = LayerBounds(problem).best(rival)
            seconds = time.process_time() - began
            gap = None if best is None else best / bound.value - 1
            found.append(
                Bounded(
                    experts, gpus, top_k, tokens, bound.source, bound.value, gap, rival / bound.value - 1, seconds,
                    search_s,
                )
            )  # fmt: skip
    return tuple(found)
