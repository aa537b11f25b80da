"""Layer problems refuse bad fields in one line that names the field, and count moves by GPU."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.errors import InputError
from placement.problem.arrays import EMPTY
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from tests.layers import layer_problem

RATES = LayerRates(10.0, 1e-6, 1e-7, 100.0, 200.0, 1e9, 1e8, 1e-6, 1e-6)
CURRENT = np.array([0, 1, 2, 3, 0, EMPTY])


def problem(**changes: Any) -> LayerProblem:
    """Four experts on 3 GPUs of 2 slots, one GPU a node."""
    return layer_problem(np.ones((1, 4)), Topology(3, 1), 2, RATES, **changes)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"tail": 1.5}, "tail", "1.5 is no share"),
        ({"tail": float("nan")}, "tail", "nan is no share"),
        ({"capacity": [2, 2]}, "capacity", "3 GPUs"),
        ({"capacity": [2, 2, 3]}, "capacity", "GPU 2 has capacity 3 of 2 slots"),
        ({"capacity": [2, -1, 2]}, "capacity", "GPU 1 has capacity -1"),
        ({"capacity": [2.0, 2.0, 2.0]}, "capacity", "whole numbers"),
        ({"capacity": [2, 0, 1]}, "capacity", "3 usable slots cannot hold 4 experts, 1 too few"),
        ({"speed": [1.0, 2.0]}, "speed", "3 GPUs"),
        ({"speed": [1.0, 0.0, 1.0]}, "speed", "GPU 1 has speed 0"),
        ({"speed": [1.0, 1.0, float("inf")]}, "speed", "GPU 2 has speed inf"),
        ({"home": [0.5, 0.5]}, "home", "3 GPUs"),
        ({"home": [0.5, 0.2, 0.2]}, "home", "sum to 0.9"),
        ({"home": [1.5, -0.5, 0.0]}, "home", "not negative"),
        ({"home": [0.5, 0.5, 0.0], "capacity": [2, 0, 2]}, "home", "GPU 1 has home 0.5 but no capacity"),
        ({"drift": np.zeros((4, 3))}, "drift", "4 experts"),
        ({"drift": np.full((4, 4), np.nan)}, "drift", "finite"),
        ({"fixed": np.zeros(6, dtype=bool)}, "fixed", "needs a current placement"),
        ({"max_moves": 1}, "max_moves", "needs a current placement"),
        ({"current": CURRENT[:5]}, "current", "one entry a slot"),
        ({"current": [0, 1, 2, 3, 0, 4]}, "current", "beyond 0 to 3"),
        ({"current": [0, 1, 2, 3, 0, -2]}, "current", "beyond 0 to 3"),
        ({"current": CURRENT, "fixed": [True] * 5}, "fixed", "one entry a slot"),
        ({"current": CURRENT, "fixed": [0, 1, 2]}, "fixed", "True and False"),
        ({"current": CURRENT, "fixed": [True] * 6, "capacity": [2, 1, 2]}, "fixed", "GPU 1 is to keep 1 more"),
        ({"current": [0, 1, 0, 1, 2, 3], "fixed": [True] * 4 + [False] * 2, "capacity": [2, 2, 1]}, "fixed", "1 slots"),
    ],
)
def test_bad_fields_are_named_in_one_line(changes: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        problem(**changes)
    assert caught.value.field == field
    assert "\n" not in str(caught.value)


def test_what_fields_mean_where_they_are_left_out() -> None:
    plain = problem()
    assert plain.hardware.capacities.tolist() == [2, 2, 2]
    assert (plain.slots, plain.hardware.usable_slots) == (6, 6)
    assert plain.hardware.homes.tolist() == pytest.approx([1 / 3] * 3)
    assert plain.hardware.home_tokens.tolist() == [10.0] * 3
    assert plain.hardware.relative_speed.tolist() == [1.0] * 3
    failed = problem(capacity=[2, 0, 2], speed=[1.0, 9.0, 3.0])
    assert (failed.slots, failed.hardware.usable_slots) == (6, 4)
    assert failed.hardware.usable.tolist() == [True, True, False, False, True, True]
    assert failed.hardware.homes.tolist() == [0.5, 0.0, 0.5]
    assert failed.hardware.home_tokens.tolist() == [15.0, 0.0, 15.0]
    assert failed.hardware.relative_speed[[0, 2]].tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match="read-only"):
        failed.hardware.capacities[0] = 1


def test_fixed_experts_are_pairs_of_gpu_and_expert() -> None:
    gpu, expert = problem(current=CURRENT, fixed=[False, True, False, False, True, True]).fixed_pairs
    assert list(zip(gpu.tolist(), expert.tolist(), strict=True)) == [(0, 1), (2, 0)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5)), min_size=6, max_size=6),
    st.sampled_from([1, 2, 3, 6]),
)
def test_moves_are_experts_that_a_gpu_did_not_hold(pairs: list[tuple[int, int]], per_gpu: int) -> None:
    before, after = (np.array(row) for row in zip(*pairs, strict=True))
    expected = 0
    for g in range(6 // per_gpu):
        part = slice(g * per_gpu, (g + 1) * per_gpu)
        expected += len(set(after[part].tolist()) - set(before[part].tolist()) - {EMPTY})
    assert moves_between(before, after, per_gpu) == expected


def test_moves_need_placements_of_one_length() -> None:
    with pytest.raises(InputError, match="same slots"):
        moves_between(np.array([0, 1]), np.array([0, 1, 2]), 1)


@pytest.mark.parametrize(
    ("ids", "weight", "words"),
    [
        ([[0, 4]], [[1.0]], "hold expert 4 of 4"),
        ([[-1, 1]], [[1.0]], "negative or not ascending"),
        ([[1, 1]], [[1.0]], "negative or not ascending"),
        ([[0, 1]], [[-1.0]], "not negative"),
        ([[0, 1]], [[0.5]], "sum to 0.5"),
        ([[0, 1]], [[0.5, 0.5]], r"weights of \(1, 2\)"),
    ],
)
def test_token_sets_that_would_index_beyond_the_experts_or_are_no_shares_are_refused(
    ids: list[list[int]], weight: list[list[float]], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        problem(sets=TokenSets(np.array(ids), np.array(weight)))
    assert caught.value.field == "sets"


@pytest.mark.parametrize(
    ("weight", "words"), [([0.5, 0.5], r"shape \(2,\) for 1 windows"), ([-1.0], "not negative"), ([0.5], "sum to 0.5")]
)
def test_window_weights_are_shares_of_the_windows(weight: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        problem(window_weight=np.array(weight))
    assert caught.value.field == "window_weight"


def test_derived_arrays_are_worked_out_once_and_stay_as_they_are() -> None:
    plain = problem(capacity=[2, 1, 2])
    assert plain.hardware.homes is plain.hardware.homes
    again = pickle.loads(pickle.dumps(plain))
    for each in (plain, again):
        for name in ("capacities", "usable", "alive", "homes", "home_tokens", "relative_speed", "gpu_of_slot"):
            assert not getattr(each.hardware, name).flags.writeable
    assert "homes" not in plain.hardware.__getstate__()
