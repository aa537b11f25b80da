"""A lower bound on the bins that a token reaches, over all placements, where all homes dispatch alike.

The argument, and why it does not rest on convergence: docs/formulation.md, "Messages, by co-location".
"""

from __future__ import annotations

import numpy as np

from placement.problem.arrays import FloatArray, IntArray
from placement.records.witness import Tables
from solvers.bounds.consensus import Enough, Reached, Token, least_in_parts, never
from solvers.bounds.subsets import Floats
from solvers.bounds.symmetric import (
    ROUNDING,
    cone,
    largest_inner,
    moved_over,
    pair_count,
    pair_places,
    row_step,
    to_matrix,
    to_pairs,
    without,
)
from solvers.stop import DEFAULT, Stop


def distinct_bins(
    ids: IntArray, weight: FloatArray, experts: int, bins: int, most: int, stop: Stop = DEFAULT, enough: Enough = never
) -> Reached:
    """A lower bound on the mean number of bins that a token reaches.

    Args:
        ids: [sets, k] experts, k at most MOST_IN_SET. weight: [sets] share of the tokens; sums to 1.
        experts, bins: how many. most: experts that one bin can hold. If bins * most = experts, every bin is taken to
            hold exactly so many and every expert to have one copy; else copies may be anywhere.
        stop: when to return the best bound so far; its work scales the steps. enough: ends them, too.
    """
    k = ids.shape[1]
    least = float(-(-k // most))
    if k == 1 or bins == 1 or most == 1 or most >= experts:
        return Reached(least)
    place, features = pair_places(experts), pair_count(k)

    def variables(ids: IntArray) -> IntArray:
        return np.stack([place[ids[:, i], ids[:, j]] for i in range(k) for j in range(i)], axis=1)

    relaxation = Colocation(experts, bins, most, features / pair_count(experts))
    return least_in_parts(ids, weight, Token(variables, False, most), relaxation, least, stop, enough)


class Colocation:
    """The chances of pairs to share a bin, with the state of the method of multipliers (solvers.bounds.consensus)."""

    def __init__(self, experts: int, bins: int, most: int, penalty: float) -> None:
        """Without prices; `penalty`: of a squared distance from the spectral set, over that of the tokens."""
        self.experts, self.bins, self.most, self.penalty = experts, bins, most, penalty
        self.full = bins * most == experts
        self.spectra = (experts,)
        self._ones = np.full(experts, 1.0 / np.sqrt(experts))
        self._price, self._row_price = np.zeros((experts, experts)), np.zeros(experts)

    def start(self) -> Floats:
        """See Relaxation."""
        return np.full(pair_count(self.experts), (self.most - 1) / (self.experts - 1))

    def agree(self, shared: Floats, pull: Floats, weight: Floats) -> Floats:
        """See Relaxation."""
        matrix = to_matrix(shared, 1.0)
        target = matrix - self._price
        mean = 1.0 / self.bins
        near = cone(without(target, self._ones) if self.full else target - mean, self.most) + mean
        self._price += near - matrix
        strength, asked = 2 * self.penalty, 2 * self.penalty * to_pairs(near + self._price)
        if not self.full:
            over = matrix.sum(axis=1) - self.most
            self._row_price, row = row_step(self._row_price, over, self.experts - 1)
            asked += self.penalty * (2 * shared + to_pairs(row[:, None] + row[None, :]))
            strength *= 2
        return np.clip((asked + pull) / (strength + weight), 0.0, 1.0)

    def prices(self, penalty: float) -> Tables:
        """See Relaxation."""
        y = -0.5 * penalty * self.penalty * (self._price + self._price.T)
        return Tables.of((y[np.tril_indices(self.experts)],), penalty * self.penalty * self._row_price)

    def least(self, slope: Floats, prices: Tables) -> float:
        """See Relaxation."""
        experts, most, y = self.experts, self.most, prices.matrix(0)
        # A pair counts half in either row, and may be shared out otherwise.
        gain = y + to_matrix(0.5 * slope, np.inf) + moved_over(prices.rows)
        row = np.sort(gain, axis=1)[:, : most - 1]
        box = float((row if self.full else np.minimum(row, 0.0)).sum() + np.trace(y))
        # Projected off the ones Y has an eigenvalue 0 beside its own; counting it can only raise the sum.
        spectrum = without(y, self._ones) if self.full else y
        trace = experts * (1 - 1 / self.bins)
        top = largest_inner(spectrum, self.bins - 1, most, trace) + float(y.sum()) / self.bins
        largest = np.abs(y).max() + np.abs(slope).max() + prices.rows.max()
        return box - top - ROUNDING * experts * most * float(largest)
