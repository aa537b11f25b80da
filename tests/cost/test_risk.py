"""The mean of the worst windows, against its definition as a minimum over thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.layer.risk import tail_mean
from tests.solvers.reference import worst_mean


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 7))
    values = draw(st.lists(st.floats(0, 1e3), min_size=count, max_size=count))
    weight = np.array(draw(st.lists(st.integers(0, 5), min_size=count, max_size=count)), dtype=float)
    weight[draw(st.integers(0, count - 1))] += 1
    return np.array(values), weight / weight.sum()


@settings(max_examples=150, deadline=None)
@given(windows(), st.floats(1e-3, 1))
def test_equals_the_least_threshold_form(case: tuple[np.ndarray, np.ndarray], tail: float) -> None:
    values, weight = case
    expected = worst_mean(values.tolist(), weight.tolist(), tail)
    assert tail_mean(values, weight, tail) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(windows(), st.floats(0, 1), st.floats(0, 1))
def test_falls_from_the_worst_to_the_mean(case: tuple[np.ndarray, np.ndarray], a: float, b: float) -> None:
    values, weight = case
    low, high = tail_mean(values, weight, max(a, b)), tail_mean(values, weight, min(a, b))
    assert low <= high + 1e-9
    assert tail_mean(values, weight, 1.0) == float((weight * values).sum())
    assert tail_mean(values, weight, 0.0) == values[weight > 0].max()


def test_part_of_a_window_counts() -> None:
    values, weight = np.array([1.0, 4.0, 2.0]), np.array([0.5, 0.25, 0.25])
    assert tail_mean(values, weight, 0.25) == 4.0
    assert tail_mean(values, weight, 0.375) == pytest.approx((4 * 0.25 + 2 * 0.125) / 0.375)
    assert tail_mean(values, weight, 0.75) == pytest.approx((4 * 0.25 + 2 * 0.25 + 1 * 0.25) / 0.75)
    assert tail_mean(np.array([9.0, 1.0]), np.array([0.0, 1.0]), 0.0) == 1.0
