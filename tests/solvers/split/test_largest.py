"""The largest batch by interpolation is that of trying all, in few trials."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers.split.largest import Tried, largest_batch

MOST = st.integers(1, 400)
SLOPE = st.floats(0.0, 3.0)


def hbm(capacity: float, each: float) -> Any:
    """A memory model that stores `each` bytes a sequence."""
    return cast(Any, SimpleNamespace(capacity_bytes=capacity, total_bytes=lambda batch: batch * each))


@given(MOST, SLOPE, SLOPE, st.integers(1, 400), st.floats(1.0, 400.0), st.floats(1.0, 800.0), st.floats(0.0, 1.2))
def test_it_is_the_largest_of_all(
    most: int, flat: float, steep: float, kink: int, limit: float, capacity: float, worst: float
) -> None:
    def at(batch: int) -> Tried:
        seconds = 1.0 + flat * (batch - 1) + steep * max(0, batch - kink)
        return Tried.of(batch / (batch + 10), (seconds, limit))

    memory = hbm(capacity, 1.0)
    within = [n for n in range(1, most + 1) if at(n).over <= 0 and n <= capacity]
    best = max(within)
    expected = None if best < most and at(best + 1).rate < worst else best
    assert largest_batch(at, at(1), memory, most, worst) == expected


@pytest.mark.parametrize("limit", [2.0, 7.5, 500.0])
def test_few_batches_are_priced(limit: float) -> None:
    tried = []

    def at(batch: int) -> Tried:
        tried.append(batch)
        return Tried.of(float(batch), (max(1.5, 0.02 * batch), limit))

    assert largest_batch(at, at(1), hbm(1e9, 1.0), 100_000, 0.0) == 50 * limit
    assert len(tried) <= 12
