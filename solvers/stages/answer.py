"""What a stage solver gives back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.problem.stages import StageCut, StageProblem


@dataclass(frozen=True)
class StageAnswer:
    """An answer.

    Attributes:
        bound: proven lower bound of the objective; optimal: the solver says that nothing is better.
        source: which solver it is from.
    """

    answer: StageCut
    bound: float
    optimal: bool
    source: str


def spread_options(problem: StageProblem, cut: Sequence[int], choices: Sequence[Sequence[Sequence[int]]]) -> StageCut:
    """The answer in which, of each piece and kind, so many layers take each option (the later options come first).

    Args:
        choices: [pieces][kinds][options] layers.
    """
    options, first = [], 0
    for layers, choice in zip(cut, choices, strict=True):
        left = [list(counts) for counts in choice]
        for layer in range(first, first + layers):
            counts = left[problem.layers[layer]]
            option = max(i for i, count in enumerate(counts) if count > 0)
            counts[option] -= 1
            options.append(option)
        first += layers
    return StageCut(tuple(cut), tuple(options))
