"""Slots shared among layers: as brute force shares them, whatever the costs look like."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from solvers.experts.shared_slots import share_slots


@pytest.mark.parametrize("seed", range(12))
def test_no_sharing_costs_less(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [rng.integers(0, 9, rng.integers(1, 5)).astype(float).tolist() for _ in range(rng.integers(1, 6))]
    budget = int(rng.integers(0, 9))
    found = share_slots(costs, budget)
    allowed = [each for each in product(*(range(len(cost)) for cost in costs)) if sum(each) <= budget]

    def total(taken: tuple[int, ...]) -> float:
        return sum(cost[n] for cost, n in zip(costs, taken, strict=True))

    assert found in allowed
    assert total(found) == min(map(total, allowed))
    # Of equal ones the first in order, on any machine.
    assert found == min(each for each in allowed if total(each) == total(found))


def test_two_slots_may_pay_where_one_does_not() -> None:
    assert share_slots([[5.0, 5.0, 1.0], [5.0, 4.0, 3.5]], 2) == (2, 0)


def test_nothing_is_taken_that_gains_nothing() -> None:
    assert share_slots([[1.0, 1.0], [2.0, 3.0]], 5) == (0, 0)
