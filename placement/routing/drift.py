"""Drift: which experts grow busy together, from one short stretch of a sequence to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.arithmetic import matrix_product, weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.routing.parts import domain_edges
from placement.routing.trace import Trace

#: Tokens of a stretch. From 16 to 128 the placements made with it are alike on held-out routing.
STRETCH = 64
#: A load that varies less than this never does: it is of an expert without tokens, or with all.
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Stretches:
    """Traces cut into stretches of about STRETCH tokens of one sequence.

    Attributes:
        sizes: [stretches] tokens, in the order of the traces. weight: [stretches] share of the traffic; sums to 1.
        domain: [stretches] number of the domain of each: of its trace, or of a part of it (parts.domain_edges).
    """

    sizes: IntArray
    weight: FloatArray
    domain: IntArray

    @classmethod
    def of(cls, sources: Sequence[Trace], share: FloatArray) -> Stretches:
        """The stretches of `sources`, of which each is `share` [sources] of the traffic."""
        sizes: list[IntArray] = []
        weights: list[FloatArray] = []
        domains: list[IntArray] = []
        first = 0
        for trace, part in zip(sources, share, strict=True):
            ends = domain_edges(trace)[1:]
            for number, tokens in enumerate(map(int, trace.seq_lens)):
                edges = np.linspace(0, tokens, max(1, round(tokens / STRETCH)) + 1).astype(np.int64)
                sizes.append(np.diff(edges))
                weights.append(np.asarray(sizes[-1] * (float(part) / trace.tokens), dtype=np.float64))
                domain = first + int(np.searchsorted(ends, number, side="right"))
                domains.append(np.full(len(sizes[-1]), domain, dtype=np.int64))
            first += len(ends)
        return cls(np.concatenate(sizes), np.concatenate(weights), np.concatenate(domains))

    def covariance(self, ids: NDArray[Any], experts: int) -> FloatArray | None:
        """[experts, experts] covariance of the loads of stretches; None of a single one.

        Args:
            ids: [tokens, k] experts of each token of the traces, in one layer.
        """
        if len(self.sizes) < 2:
            return None
        return _covariance(self._loads(ids, experts), self.weight)

    def correlation(self, ids: NDArray[Any], experts: int) -> FloatArray | None:
        """[experts, experts] correlation of the loads of stretches inside a domain, weighted mean over the domains;
        None if each is a single stretch.

        How much loads vary is each domain's own affair, and so are the means between which domains differ: of domains
        that were not seen, correlations tell more than covariances over all do (docs/notes/dispatch.md).

        Args:
            ids: see `covariance`.
        """
        loads, total, share = self._loads(ids, experts), np.zeros((experts, experts)), 0.0
        for number in range(int(self.domain.max()) + 1):
            own = self.domain == number
            if own.sum() < 2:
                continue
            part = float(self.weight[own].sum())
            covariance = _covariance(loads[own], self.weight[own] / part)
            deviation = np.sqrt(np.maximum(np.diag(covariance), LEAST_VARIANCE))
            total += part * covariance / (deviation[:, None] * deviation)
            share += part
        if share == 0.0:
            return None
        found = total / share
        np.fill_diagonal(found, 1.0)
        return found

    def _loads(self, ids: NDArray[Any], experts: int) -> FloatArray:
        """[stretches, experts] copies of a token that go to each expert."""
        row = np.repeat(np.arange(len(self.sizes)) * experts, self.sizes * ids.shape[1])
        count = np.bincount(row + ids.ravel(), minlength=len(self.sizes) * experts)
        return np.asarray(count.reshape(-1, experts) / self.sizes[:, None])


def _covariance(loads: FloatArray, weight: FloatArray) -> FloatArray:
    """[experts, experts] covariance of [stretches, experts] loads; weight: [stretches], sums to 1."""
    away = (loads - weighted_sum(weight, loads)) * np.sqrt(weight)[:, None]
    return matrix_product(away.T, away)
