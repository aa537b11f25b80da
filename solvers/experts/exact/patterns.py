"""Every way in which an expert's copies may lie, and what the scorer's dispatch makes of each: where homes differ."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import policy_of
from placement.cost.layer.tariff import LEVELS, BinLevel, LinkRow, Tariff
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class Patterns:
    """The sets of GPUs that may hold an expert's copies, the same for all experts.

    A place is a home and a bin that messages are priced for; homes and bins that every pattern serves alike are one.

    Attributes:
        holds: [patterns, gpus] GPUs that hold a copy.
        served: [patterns, gpus] share of the expert's tokens that each GPU serves, mean over homes.
        shares: [patterns, places] share of the home's tokens for the expert that go to the bin, by level.
        links: rows whose prices are [places] of their level.
    """

    holds: BoolArray
    served: FloatArray
    shares: dict[BinLevel, FloatArray]
    links: tuple[LinkRow, ...]

    def by_share(self, level: BinLevel) -> list[dict[Fraction, IntArray]]:
        """For each place the patterns by their shares that are not 0."""
        most = int(self.holds.sum(axis=1).max())
        found = []
        for place in self.shares[level].T:
            part = np.array([Fraction(share).limit_denominator(most) for share in place.tolist()])
            found.append({each: np.flatnonzero(part == each) for each in sorted(set(part[part > 0]))})
        return found

    def pattern_of(self, holds: BoolArray) -> int:
        """The pattern of an expert's [gpus] copies."""
        return int(np.argmax((self.holds == holds).all(axis=1)))


def count_patterns(problem: LayerProblem, most_copies: int) -> int:
    """How many there are."""
    gpus = int(problem.hardware.alive.sum())
    return sum(comb(gpus, r) for r in range(1, most_copies + 1))


def patterns_of(tariff: Tariff) -> Patterns:
    """The patterns of a layer whose dispatch needs no plan."""
    problem = tariff.problem
    topology, width = problem.topology, problem.hardware.slots_per_gpu
    alive = np.flatnonzero(problem.hardware.alive).tolist()
    sets = [gpus for r in range(1, tariff.most_copies + 1) for gpus in combinations(alive, r)]
    copies, count = np.zeros((len(sets), tariff.most_copies), dtype=np.int64), np.array([len(gpus) for gpus in sets])
    for row, gpus in zip(copies, sets, strict=True):
        row[: len(gpus)] = np.array(gpus) * width
    found = policy_of(problem).shares(topology, width, copies, count, None)
    # Rows of the shares are home classes, and of each the patterns.
    row = np.repeat(np.arange(len(found.start) - 1), np.diff(found.start))
    by_class = np.zeros((found.classes, len(sets), topology.gpus))
    np.add.at(by_class, (row // len(sets), row % len(sets), found.slot // width), found.fraction)
    by_home = by_class[found.class_of_gpu].transpose(1, 0, 2)
    holds = np.zeros((len(sets), topology.gpus), dtype=bool)
    holds[np.repeat(np.arange(len(sets)), count), np.concatenate([np.array(gpus) for gpus in sets])] = True
    served = np.asarray(weighted_sum(problem.hardware.homes, by_home.transpose(1, 0, 2)))
    bins = {"gpu": by_home, "node": by_home.reshape(*by_home.shape[:2], topology.nodes, -1).sum(axis=3)}
    shares: dict[BinLevel, FloatArray] = {}
    links: list[LinkRow] = []
    for level in LEVELS:
        rows = [row.price.reshape(-1) for row in tariff.home_links if row.level == level]
        priced = np.flatnonzero(np.any(rows, axis=0)) if rows else np.zeros(0, dtype=np.int64)
        each = bins[level].reshape(len(sets), -1)[:, priced]
        _, first, place = np.unique(np.round(each, 12), axis=1, return_index=True, return_inverse=True)
        shares[level], place = each[:, first], place.reshape(-1)
        for price in rows:
            summed = np.bincount(place, price[priced], minlength=len(first)).astype(np.float64)
            links.append(LinkRow(level, summed))
    return Patterns(holds, served, shares, tuple(links))
