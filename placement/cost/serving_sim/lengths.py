"""Lengths of requests, and the few of them that passes are priced at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from placement.problem.arrays import FloatArray, IntArray

#: Lengths that passes are priced at where requests differ; between them they are interpolated.
PRICED = 7


@dataclass(frozen=True)
class Lengths:
    """Lengths that passes are priced at.

    Attributes:
        prompts: ascending tokens of a prompt.
        contexts: (input, output) tokens of requests whose mean context, input + output / 2, ascends.
    """

    prompts: tuple[int, ...]
    contexts: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, isl: IntArray, osl: IntArray) -> Lengths:
        """Of requests of such input and output tokens: all there are if they are alike, else a geometric grid."""
        alike = (isl == isl[0]).all() and (osl == osl[0]).all()
        contexts = context_of(isl, osl)
        return cls(
            prompts=_grid(int(isl.min()), int(isl.max())),
            contexts=((int(isl[0]), int(osl[0])),)
            if alike
            # One output token: the context is half a token more than the prompt.
            else tuple((tokens, 1) for tokens in _grid(max(1, int(contexts.min())), int(contexts.max()) + 1)),
        )

    @property
    def mean_contexts(self) -> Sequence[float]:
        """Of `contexts`."""
        return [isl + osl / 2 for isl, osl in self.contexts]


def context_of(isl: IntArray, osl: IntArray) -> FloatArray:
    """Mean stored tokens of requests while they decode."""
    return isl + osl / 2


def _grid(least: int, most: int) -> tuple[int, ...]:
    """Whole numbers from `least` to `most`, each about as many times the one before."""
    ratio = (most / least) ** (1 / (PRICED - 1))
    return tuple(sorted({least, most, *(min(most, round(least * ratio**i)) for i in range(PRICED))}))
