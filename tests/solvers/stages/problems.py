"""Random small stage problems, and the best answer by trying every cut and every choice."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import accumulate, combinations, pairwise, product

from placement.problem.stages import (
    LayerKind,
    LayerOption,
    Member,
    Part,
    StageCut,
    StageProblem,
)


@dataclass(frozen=True)
class CutScore:
    """What a cut costs.

    Attributes:
        objective: as StageProblem states it; pace_s: seconds from one microbatch to the next.
        over_bytes: by how much the fullest rank exceeds its budget (0 or less: it fits); over_rank: which rank it is.
    """

    objective: float
    pace_s: float
    over_bytes: float
    over_rank: int


def score_cut(problem: StageProblem, answer: StageCut) -> CutScore:
    """The objective and the fullest rank of an answer, summed up layer by layer."""
    seconds, forward, relief, held = [], [], [], []
    for piece, end in enumerate(accumulate(answer.cut)):
        span = range(end - answer.cut[piece], end)
        kinds = [problem.kinds[problem.layers[i]] for i in span]
        options = [kind.options[answer.options[i]] for kind, i in zip(kinds, span, strict=True)]
        seconds.append(problem.end_s[piece] + sum(option.seconds for option in options))
        forward.append(problem.end_forward_s[piece] + sum(option.forward_s for option in options))
        relief.append(problem.end_relief_s[piece] + sum(kind.relief_s for kind in kinds))
        kept = problem.in_flight[piece] * sum(option.kept_bytes for option in options)
        held.append(problem.end_bytes[piece] + sum(kind.fixed_bytes for kind in kinds) + kept)
    parts = {
        "all": seconds,
        "forward": forward,
        "backward": [whole - part for whole, part in zip(seconds, forward, strict=True)],
    }
    pace = sum(max(sum(parts[part][piece] for piece, part in member) for member in turn) for turn in problem.turns)
    over = [
        sum(held[piece] for piece in pieces) - budget
        for pieces, budget in zip(problem.ranks, problem.budget_bytes, strict=True)
    ]
    total = sum(seconds) - sum(relief)
    objective = problem.slowest_weight * pace + problem.total_weight * total
    return CutScore(objective, pace, max(over), over.index(max(over)))


def random_problem(seed: int, schedule: str = "single", layers: int = 6) -> StageProblem:
    """Whole seconds and bytes, so that no solver rounds. `schedule`: "single", "mirrored" or "interleaved" pieces."""
    draw = random.Random(seed)
    kinds = []
    for index in range(draw.randint(1, 3)):
        seconds, kept = draw.randint(5, 40), draw.randint(2, 30)
        options = [LayerOption("none", seconds, seconds // 3, kept)]
        if draw.random() < 0.8:
            options.append(LayerOption("selective", seconds + draw.randint(1, 6), seconds // 3, kept // 2))
        if draw.random() < 0.8:
            options.append(LayerOption("full", seconds + draw.randint(4, 15), seconds // 3, 1.0))
        kinds.append(LayerKind(f"kind {index}", draw.randint(1, 40), draw.randint(0, 4), tuple(options)))
    ranks = draw.randint(2, 3)
    pieces = {"single": ranks, "mirrored": 2 * (ranks // 2 or 1), "interleaved": 2 * ranks}[schedule]
    pieces = min(pieces, layers)
    if schedule == "single":
        held = tuple((rank,) for rank in range(pieces))
    elif schedule == "mirrored":
        held = tuple(tuple(sorted((rank, pieces - 1 - rank))) for rank in range(pieces))
    else:
        held = tuple((rank, rank + pieces // 2) for rank in range(pieces // 2))
    scale = layers / pieces * max(len(row) for row in held)
    budget = draw.uniform(0.6, 2.5) * scale * (20 + 15 * pieces / 2)
    return StageProblem(
        kinds=tuple(kinds),
        layers=tuple(draw.randrange(len(kinds)) for _ in range(layers)),
        ranks=held,
        turns=turns_of(schedule, held),
        in_flight=tuple(pieces - piece for piece in range(pieces)),
        budget_bytes=tuple(float(round(budget)) for _ in held),
        end_bytes=tuple(float(draw.randint(0, 30)) if piece in (0, pieces - 1) else 0.0 for piece in range(pieces)),
        end_s=tuple(float(draw.randint(0, 20)) if piece == pieces - 1 else 1.0 for piece in range(pieces)),
        end_forward_s=(0.0,) * pieces,
        end_relief_s=tuple(float(draw.randint(0, 1)) for _ in range(pieces)),
        slowest_weight=float(draw.randint(0, 20)),
        total_weight=float(draw.randint(0, 3)),
    )


def turns_of(schedule: str, held: tuple[tuple[int, ...], ...]) -> tuple[tuple[Member, ...], ...]:
    """The turns of ranks that hold these pieces."""
    if schedule == "mirrored":
        ways: tuple[tuple[Part, Part], ...] = (("forward", "backward"), ("backward", "forward"))
        return tuple(tuple(((row[0], one), (row[-1], other)) for row in held) for one, other in ways)
    return tuple(tuple(((row[i], "all"),) for row in held) for i in range(len(held[0])))


def best_by_trying(problem: StageProblem) -> tuple[StageCut, CutScore] | None:
    """The best cut and choice over all; None where none fits."""
    n = len(problem.layers)
    best: tuple[StageCut, CutScore] | None = None
    ways = [range(len(problem.kinds[layer].options)) for layer in problem.layers]
    for inner in combinations(range(1, n), problem.pieces - 1):
        bounds = (0, *inner, n)
        cut = tuple(end - first for first, end in pairwise(bounds))
        for options in product(*ways):
            answer = StageCut(cut, options)
            score = score_cut(problem, answer)
            if score.over_bytes <= 0 and (best is None or score.objective < best[1].objective):
                best = (answer, score)
    return best


def least_excess_by_trying(problem: StageProblem) -> float:
    """The least number of bytes by which the fullest rank exceeds its budget."""
    n = len(problem.layers)
    options = []
    for layer in problem.layers:
        kept = [option.kept_bytes for option in problem.kinds[layer].options]
        options.append(kept.index(min(kept)))
    least = float("inf")
    for inner in combinations(range(1, n), problem.pieces - 1):
        bounds = (0, *inner, n)
        cut = tuple(end - first for first, end in pairwise(bounds))
        least = min(least, score_cut(problem, StageCut(cut, tuple(options))).over_bytes)
    return least
