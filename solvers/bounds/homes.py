"""A lower bound on the bins beside its home that a token reaches, where homes dispatch apart to copies of their own.

The relaxation by l, L and R (chances that experts are served at home, both are, or share another bin; C experts fit a
bin): docs/formulation.md, "Messages, by co-location".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

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
    rising_inner,
    row_step,
    to_matrix,
    to_pairs,
    without,
)
from solvers.stop import DEFAULT, Stop

if TYPE_CHECKING:
    from solvers.bounds.evenness import NodeWork


def remote_bins(
    ids: IntArray, weight: FloatArray, experts: int, homes: FloatArray, most: int, stop: Stop = DEFAULT,
    enough: Enough = never, work: NodeWork | None = None,
) -> Reached:  # fmt: skip
    """A lower bound on the mean number of bins other than its home that a token reaches.

    Args:
        ids: [sets, k] experts, k at most MOST_IN_SET. weight: [sets] share of the tokens; sums to 1. experts: how many.
        homes: [bins] share of the tokens whose home a bin is; sums to 1. most: experts that one bin can hold.
        stop: when to return the best bound so far; its work scales the steps. enough: ends them, too.
        work: that of bins, where homes with a copy serve it, others draw one, and all are alike; None: of no matter.
    """
    k, count = ids.shape[1], pair_count(experts)
    if len(homes) == 1 or most >= experts:
        return Reached(0.0)
    place = pair_places(experts)

    def variables(ids: IntArray) -> IntArray:
        pairs = [place[ids[:, i], ids[:, j]] for i in range(k) for j in range(i)]
        alone = [2 * count + ids[:, i] for i in range(k)]
        return np.stack([*pairs, *(count + column for column in pairs), *alone], axis=1)

    penalty = max(1, pair_count(k)) / count
    alone = 2 * k / experts / penalty
    if work is None:
        relaxation = Homes(experts, homes, most, penalty, alone)
    else:
        from solvers.bounds.evenness import EFFORT, EvenHomes

        relaxation, stop = EvenHomes(experts, homes, most, penalty, alone, work), stop.scaled(EFFORT)
    return least_in_parts(ids, weight, Token(variables, True, most), relaxation, 0.0, stop, enough)


class Asked(NamedTuple):
    """What limits of each expert's row ask for beside what is: `rows` copies of every pair's R and of every l are held
    by them in the mean."""

    rows: int
    away: Floats | float
    at_home: Floats | float


class Limits(NamedTuple):
    """What the prices of limits, and of empty slots, add to the least.

    Attributes:
        away: [experts, experts] to each expert's half of a pair elsewhere. at_home: [experts] to l. number: to all.
        empty: [experts] of an empty slot beside an expert at home. each_empty: of an empty slot. most_empty: slots of a
            bin that may be empty.
    """

    away: Floats | float
    at_home: Floats | float
    number: float
    empty: Floats
    each_empty: float
    most_empty: float


class Homes:
    """The chances R, L and l in one vector, with the state of the method of multipliers (solvers.bounds.consensus)."""

    def __init__(self, experts: int, homes: FloatArray, most: int, penalty: float, alone: float) -> None:
        """Without prices; `penalty`: of a squared distance from the spectral sets, over that of the tokens; `alone`:
        weight of l in it, which many more tokens hold on to than to a pair."""
        self.experts, self.bins, self.most, self.penalty, self.alone = experts, len(homes), most, penalty, alone
        self.spectra = (experts + 1, experts)
        self._low = max(0.0, float(homes.min()))
        self._ratio = (1.0 - self._low) / self._low if self._low > 0 else np.inf
        # s is scaled by `_root` in its first entry, which weighs l and keeps the cone.
        self._root = float(np.sqrt(alone))
        null = np.concatenate([[most / self._root], -np.ones(experts)])
        self._null = null / np.sqrt((null * null).sum())
        self._home_price, self._away_price = np.zeros((experts + 1, experts + 1)), np.zeros((experts, experts))
        self._ratio_price, self._row_price = np.zeros(pair_count(experts)), np.zeros(experts)

    def start(self) -> Floats:
        """See Relaxation."""
        share, both, count = self.most / self.experts, (self.most - 1) / (self.experts - 1), pair_count(self.experts)
        away, near = np.full(count, (1 - share) * both), np.full(count, share * both)
        return np.concatenate([away, near, np.full(self.experts, share)])

    def agree(self, shared: Floats, pull: Floats, weight: Floats) -> Floats:
        """See Relaxation."""
        away, near, at_home = self._parts(shared)
        pull_away, pull_near, pull_home = self._parts(pull)
        weight_away, weight_near, weight_home = self._parts(weight)
        home, elsewhere = self._home_step(near, at_home), self._away_step(away, at_home)
        row, limits = self._row_step(away, at_home), self._limit_step(away, at_home)
        c, own = self.penalty, slice(1, self.experts + 1)
        strong_away, strong_near = (4 + 2 * limits.rows) * c + weight_away, 2 * c + weight_near
        asked = 2 * to_pairs(elsewhere) + 2 * away + to_pairs(row[:, None] + row[None, :]) + limits.away
        away = (c * asked + pull_away) / strong_away
        near = (2 * c * to_pairs(home[own, own]) + pull_near) / strong_near
        away, near = self._ratio_step(away, near, strong_away, strong_near)
        # l is in the first row and column of one matrix, on both diagonals, and in its row.
        asked = 2 * self._root * home[0, own] + np.diag(home)[own] + 1.0 - np.diag(elsewhere)
        asked += at_home + (self.most - 1) * row + limits.at_home
        at_home = (c * asked + pull_home) / ((2 * self.alone + 3 + limits.rows) * c + weight_home)
        return np.concatenate([np.clip(away, 0.0, 1.0), np.clip(near, 0.0, 1.0), np.clip(at_home, self._low, 1.0)])

    def _parts(self, vector: Floats) -> tuple[Floats, Floats, Floats]:
        """R, L and l."""
        count = pair_count(self.experts)
        return vector[:count], vector[count : 2 * count], vector[2 * count :]

    def _home_step(self, near: Floats, at_home: Floats) -> Floats:
        """What the spectral set of L and l asks for; its prices are brought up to date."""
        matrix = np.empty_like(self._home_price)
        matrix[0, 0], matrix[0, 1:], matrix[1:, 0] = self.alone, self._root * at_home, self._root * at_home
        matrix[1:, 1:] = to_matrix(near, at_home)
        found = cone(without(matrix - self._home_price, self._null), self.alone + self.most)
        self._home_price += found - matrix
        return found + self._home_price

    def _away_step(self, away: Floats, at_home: Floats) -> Floats:
        """What the spectral set of R asks for; its prices are brought up to date."""
        matrix = to_matrix(away, 1.0 - at_home)
        found = cone(matrix - self._away_price, self.most)
        self._away_price += found - matrix
        return found + self._away_price

    def _row_step(self, away: Floats, at_home: Floats) -> Floats:
        """[experts] what rows ask for beside what is: sum of R[e, f] over f != e + (C - 1) l[e] is at most C - 1."""
        most = self.most - 1
        over = to_matrix(away, 0.0).sum(axis=1) - most * (1.0 - at_home)
        self._row_price, asked = row_step(self._row_price, over, self.experts - 1 + most**2)
        return asked

    def _limit_step(self, away: Floats, at_home: Floats) -> Asked:
        """What further limits of each expert's row ask for."""
        return Asked(0, 0.0, 0.0)

    def _ratio_step(
        self, away: Floats, near: Floats, strong_away: Floats, strong_near: Floats
    ) -> tuple[Floats, Floats]:
        """The nearest R and L with R <= ratio * L; the prices are the multipliers of it."""
        if np.isinf(self._ratio):
            return away, near
        ratio = self._ratio
        line = (strong_near * near + ratio * strong_away * away) / (strong_near + ratio * ratio * strong_away)
        over = away > ratio * near
        self._ratio_price = np.where(over, strong_away * (away - ratio * line), 0.0)
        return np.where(over, ratio * line, away), np.where(over, line, near)

    def prices(self, penalty: float) -> Tables:
        """See Relaxation."""
        scale = -0.5 * penalty * self.penalty
        both = (scale * (price + price.T) for price in (self._home_price, self._away_price))
        lower = [matrix[np.tril_indices(len(matrix))] for matrix in both]
        rows = penalty * self.penalty * self._row_price
        return Tables.of((*lower, penalty * self._ratio_price), rows, self.alone)

    def _limits(self, prices: Tables, y_home: Floats) -> Limits:
        """What such prices add, `y_home` among them; every bin is full here."""
        return Limits(0.0, 0.0, 0.0, np.full(self.experts, np.inf), 0.0, 0.0)

    def least(self, slope: Floats, prices: Tables) -> float:
        """See Relaxation."""
        experts, most, own = self.experts, self.most, slice(1, self.experts + 1)
        y_home, y_away, ratio_price = prices.matrix(0), prices.matrix(1), prices.table(2)
        rows = prices.rows[:experts]
        slope_away, slope_near, slope_home = self._parts(slope)
        if np.isfinite(self._ratio):
            slope_away, slope_near = slope_away + ratio_price, slope_near - self._ratio * ratio_price
        away = y_away + to_matrix(0.5 * slope_away, np.inf)
        near = y_home[own, own] + to_matrix(0.5 * slope_near, np.inf)
        # A pair counts half in either row, and may be shared out otherwise: by what the rows' own prices are.
        away += moved_over(rows)
        limits = self._limits(prices, y_home)
        away += limits.away
        # An expert away shares its bin with at most C - 1 others, one at home with just so many.
        if_away = np.minimum(np.sort(away, axis=1)[:, : most - 1], 0.0).sum(axis=1) + np.diag(y_away)
        beside = np.sort(near, axis=1)[:, : most - 1]
        if_home = beside.sum(axis=1) + np.diag(y_home)[own]
        if_home += 2 * self._root * y_home[0, own] + slope_home + limits.at_home
        gain = np.sort(if_home - if_away)
        # Beside each expert at home there are at most as many empty slots as there are, in place of the dearest others.
        each_empty = limits.each_empty - np.maximum(beside.max(axis=1, initial=-np.inf) - limits.empty, 0.0).sum()
        left = 1.0 - self._low
        top, rise = rising_inner(y_away, self.bins - 1, most, experts - most)
        top += largest_inner(without(y_home, self._null), 1, self.alone + most, self.alone + most)
        # Convex in the empty slots, with a kink wherever another expert is never at home beyond the least.
        room = most - experts * self._low
        empty = np.append(np.clip(room - left * np.arange(experts), 0.0, limits.most_empty), 0.0)[:, None]
        share = np.clip(room - empty - left * np.arange(experts), 0.0, left)
        varying = float(((gain * share).sum(axis=1) + (each_empty - rise) * empty[:, 0]).min())
        box = float(self.alone * y_home[0, 0] + if_away.sum() + self._low * gain.sum()) + limits.number + varying
        largest = np.abs(y_home).max() + np.abs(y_away).max() + np.abs(slope_away).max() + np.abs(slope_near).max()
        largest += np.abs(slope_home).max()
        largest += prices.rows.max()
        return box - top - ROUNDING * float(largest) * (1 + self._root) * experts * (most + self.alone)
