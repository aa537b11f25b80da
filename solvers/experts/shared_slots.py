"""Shares slots among layers: each takes as many as it gains most from, of a number that they have together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def share_slots(costs: Sequence[Sequence[float]], budget: int) -> tuple[int, ...]:
    """[layers] slots that each layer takes, of least cost together; of equal ones the earlier layers take fewer.

    Exact, by dynamic programming over layers and slots left: costs need not be convex, as one slot more may serve
    nobody and two may.

    Args:
        costs: [layers][slots] cost of a layer that takes 0, 1, 2 ... slots; layers may differ in how many they can.
        budget: Slots of all together, which need not all be taken.
    """
    # The least cost of the layers from i on, and what the i-th takes, by the slots that they have.
    least, takes = np.zeros(budget + 1), []
    for cost in reversed(costs):
        most = min(len(cost), budget + 1)
        table = np.full((most, budget + 1), np.inf)
        for taken in range(most):
            table[taken, taken:] = cost[taken] + least[: budget + 1 - taken]
        takes.append(table.argmin(axis=0))
        least = table.min(axis=0)
    left, found = budget, []
    for take in reversed(takes):
        found.append(int(take[left]))
        left -= found[-1]
    return tuple(found)
