"""Drift: which experts grow busy together, from one short stretch of a sequence to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import matrix_product, weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.routing.trace import Trace

#: Tokens of a stretch. From 16 to 128 the placements made with it are alike on held-out routing.
STRETCH = 64


@dataclass(frozen=True)
class Stretches:
    """Traces cut into stretches of about STRETCH tokens of one sequence.

    Attributes:
        sizes: [stretches] tokens, in the order of the traces. weight: [stretches] share of the traffic; sums to 1.
    """

    sizes: IntArray
    weight: FloatArray

    @classmethod
    def of(cls, sources: Sequence[Trace], share: FloatArray) -> Stretches:
        """The stretches of `sources`, of which each is `share` [sources] of the traffic."""
        sizes: list[IntArray] = []
        weights: list[FloatArray] = []
        for trace, part in zip(sources, share, strict=True):
            for tokens in map(int, trace.seq_lens):
                edges = np.linspace(0, tokens, max(1, round(tokens / STRETCH)) + 1).astype(np.int64)
                sizes.append(np.diff(edges))
                weights.append(np.asarray(sizes[-1] * (float(part) / trace.tokens), dtype=np.float64))
        return cls(np.concatenate(sizes), np.concatenate(weights))

    def covariance(self, ids: NDArray[Any], experts: int) -> FloatArray | None:
        """[experts, experts] covariance of the loads of stretches; None of a single one.

        Args:
            ids: [tokens, k] experts of each token of the traces, in one layer.
        """
        if len(self.sizes) < 2:
            return None
        row = np.repeat(np.arange(len(self.sizes)) * experts, self.sizes * ids.shape[1])
        count = np.bincount(row + ids.ravel(), minlength=len(self.sizes) * experts)
        load = count.reshape(-1, experts) / self.sizes[:, None]
        away = (load - weighted_sum(self.weight, load)) * np.sqrt(self.weight)[:, None]
        return matrix_product(away.T, away)
