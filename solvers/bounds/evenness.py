"""As solvers.bounds.homes, where homes draw what they do not hold and nodes' work is limited: it is where copies are.

Bins may have empty slots here: to fill them up would move work. The argument: docs/formulation.md, "Messages and work".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import Tables
from solvers.bounds.consensus import PENALTY
from solvers.bounds.homes import Asked, Homes, Limits
from solvers.bounds.subsets import Floats
from solvers.bounds.symmetric import cone, row_step, to_matrix, to_pairs, without

#: Steps over those without prices of work: twice as many prove 1% more, 16 times as many no more than that.
EFFORT = 2.0


@dataclass(frozen=True)
class NodeWork:
    """How work limits what a node serves.

    Attributes:
        share: [experts] of all work, if each had one copy; sums to 1.
        limit: of the busiest node's work, over the mean.
        worth: remote bins in the mean that take as long as 1 more of `limit`. Prices of limits are at most so high, so
            that more work saves no time.
    """

    share: FloatArray
    limit: float
    worth: float


def node_work(problem: LayerProblem, least: FloatArray, slope: float) -> NodeWork | None:
    """What messages and work of one layer say of its nodes; None where nodes may differ, or work follows no copies.

    Args:
        least: [kinds] proven seconds of the busiest GPU, in the mean over the windows.
        slope: seconds that one remote node per token adds.
    """
    hardware, tariff, rates = problem.hardware, tariff_of(problem), problem.hardware.rates
    alike = hardware.uniform_home and bool((hardware.capacities == hardware.slots_per_gpu).all())
    alike = alike and bool((tariff.speeds == tariff.speeds[0]).all())
    if not _served_at_home(problem) or tariff.alike or problem.topology.nodes == 1 or not alike:
        return None
    if not tariff.timed or rates.overlap != "none":
        return None
    cost = weighted_sum(problem.data.window_weight, tariff.copy_costs[1])
    total = float(cost.sum())
    if slope <= 0.0 or total <= 0.0:
        return None
    mean = total / float(tariff.speeds.sum())
    return NodeWork(cost / total, max(1.0, float(least.sum()) / mean), mean / slope * (1 - 1e-9))


def _served_at_home(problem: LayerProblem) -> bool:
    """Whether a home serves what its node holds, and draws one of all copies else."""
    rule, topology = problem.rules.dispatch, problem.topology
    on_node = topology.os_gpus == topology.gpus_per_node
    return rule == "nearest" or (on_node and rule in ("sglang_static", "sglang_dynamic"))


def own_work(share: FloatArray, bins: int) -> tuple[FloatArray, FloatArray]:
    """([experts], [experts]) a and b with: share (1 - l) / l is at least a - b l where l is 1, 2 ... bins over bins.

    Of less loaded experts the line through the first two, of others one through the last but one and the last.
    """
    few = share < 1.0 / len(share)
    return (
        share * np.where(few, 1.5 * bins - 1.0, bins / (bins - 1.0)),
        share * np.where(few, 0.5 * bins**2, bins / (bins - 1.0)),
    )


class EvenHomes(Homes):
    """Homes, with a price on each expert's row of work, and empty slots as one more row of the home's matrix."""

    def __init__(
        self, experts: int, homes: FloatArray, most: int, penalty: float, alone: float, work: NodeWork
    ) -> None:
        """See Homes."""
        super().__init__(experts, homes, most, penalty, alone)
        self.spectra = (experts + 2, experts)
        # Empty slots are scaled so that their part of the trace is at most their number.
        null = np.concatenate([[most / self._root], -np.ones(experts), [-np.sqrt(most)]])
        self._null = null / np.sqrt((null * null).sum())
        self._home_price, self._empty = np.zeros((experts + 2, experts + 2)), np.zeros(experts + 2)
        # A price of l is paid at most for what is away: 1 - 1 / B.
        self._work_price, self._dearest = np.zeros(experts), work.worth / (1.0 - 1.0 / self.bins) / (PENALTY * penalty)
        bins = self.bins
        self._of_pair = bins * work.share
        own, falls = own_work(work.share, bins)
        self._room, self._slope = work.limit - own, work.limit - falls
        self._doubled = float((bins - 2) ** 2 / bins * work.share.max())

    def _home_step(self, near: Floats, at_home: Floats) -> Floats:
        """See Homes; the row of empty slots is brought up to date, too."""
        matrix = np.empty_like(self._home_price)
        matrix[0, 0], matrix[0, 1:-1], matrix[1:-1, 0] = self.alone, self._root * at_home, self._root * at_home
        matrix[1:-1, 1:-1] = to_matrix(near, at_home)
        matrix[-1], matrix[:, -1] = self._empty, self._empty
        found = cone(without(matrix - self._home_price, self._null), self.alone + self.most)
        self._home_price += found - matrix
        asked = found + self._home_price
        self._empty = np.maximum(asked[-1], 0.0)
        return asked

    def _limit_step(self, away: Floats, at_home: Floats) -> Asked:
        """See Homes: sum over f != e of B share[f] R[e, f] + slope[e] l[e] is at most room[e], if no slot is empty."""
        of_pair, slope = self._of_pair, self._slope
        over = (to_matrix(away, 0.0) * of_pair).sum(axis=1) + slope * at_home - self._room
        over += self._doubled * (at_home.sum() - self.most)
        norm = (of_pair**2).sum() - of_pair**2 + slope**2 + self.experts * self._doubled**2
        before, (price, _) = self._work_price, row_step(self._work_price, over, norm)
        self._work_price = price * min(1.0, self._dearest / max(float(price.sum()), 1e-300))
        asked = before - 2 * self._work_price
        pairs = asked[:, None] * of_pair
        return Asked(1, 2 * away + to_pairs(pairs + pairs.T), at_home + slope * asked + self._doubled * asked.sum())

    def prices(self, penalty: float) -> Tables:
        """See Relaxation: rows are followed by the prices of work."""
        found, price = super().prices(penalty), penalty * self.penalty * self._work_price
        return replace(found, rows=np.concatenate([found.rows, price]))

    def _limits(self, prices: Tables, y_home: Floats) -> Limits:
        """See Homes."""
        price, most = prices.rows[self.experts :], self.most
        total, root, pairs = float(price.sum()), float(np.sqrt(most)), price[:, None] * self._of_pair
        return Limits(
            0.5 * (pairs + pairs.T),
            price * self._slope + self._doubled * total,
            -float((price * self._room).sum()) - self._doubled * most * total,
            2 / root * y_home[1:-1, -1],
            float(2 * self._root / root * y_home[0, -1] + min(0.0, y_home[-1, -1])),
            most - self.experts * self._low,
        )
