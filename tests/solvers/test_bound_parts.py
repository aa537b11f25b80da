"""Bounds of many sets, taken in parts: never above the best placement, and nearly as strong as of all at once."""

from collections.abc import Iterator, Sequence
from itertools import combinations, product

import numpy as np
import pytest

from solvers.bounds import consensus, layer_bound
from solvers.bounds.colocation import distinct_bins
from solvers.bounds.homes import remote_bins
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import random_problem
from tests.solvers.test_colocation import cover


def in_parts(monkeypatch: pytest.MonkeyPatch, ids: np.ndarray, parts: int) -> None:
    """Sets of so many parts from here on."""
    monkeypatch.setattr(consensus, "MOST_IDS", -(-ids.size // parts))


def routing(rng: np.random.Generator, experts: int, k: int, sets: int) -> tuple[np.ndarray, np.ndarray]:
    """([sets, k] distinct sets of experts in order, their shares)."""
    found = {tuple(sorted(rng.permutation(experts)[:k].tolist())) for _ in range(sets)}
    return np.array(sorted(found)), rng.dirichlet(np.full(len(found), 0.7))


def full_bins(experts: Sequence[int], most: int) -> Iterator[list[frozenset[int]]]:
    """Every way to fill bins with so many experts each, one copy of each expert."""
    if not experts:
        yield []
        return
    for mates in combinations(experts[1:], most - 1):
        left = [e for e in experts[1:] if e not in mates]
        for others in full_bins(left, most):
            yield [frozenset((experts[0], *mates)), *others]


@pytest.mark.parametrize("seed", range(100))
def test_no_placement_of_one_copy_beats_the_parts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([seed, 0])
    ids, weight = routing(rng, 6, int(rng.integers(2, 4)), 8)
    best = min(
        sum(w * sum(bool(set(row) & b) for b in bins) for w, row in zip(weight, ids.tolist(), strict=True))
        for bins in full_bins(range(6), 2)
    )
    in_parts(monkeypatch, ids, int(rng.integers(2, 5)))
    assert distinct_bins(ids, weight, 6, 3, 2).bins <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(100))
def test_no_placement_with_copies_beats_the_parts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([seed, 1])
    ids, weight = routing(rng, 5, int(rng.integers(2, 4)), 8)
    # Homes that dispatch alike serve an expert from one copy, or from a mixture of such choices.
    best = min(
        sum(w * len({bin_of[e] for e in row}) for w, row in zip(weight, ids.tolist(), strict=True))
        for bin_of in product(range(2), repeat=5) if max(bin_of.count(0), bin_of.count(1)) <= 3
    )  # fmt: skip
    in_parts(monkeypatch, ids, int(rng.integers(2, 5)))
    assert distinct_bins(ids, weight, 5, 2, 3).bins <= best * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(100))
def test_no_placement_has_fewer_remote_bins_than_the_parts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng([seed, 2])
    ids, weight = routing(rng, 5, int(rng.integers(2, 4)), 8)
    homes = rng.dirichlet(np.ones(2))
    contents = [frozenset(some) for some in combinations(range(5), 3)]
    best = min(
        sum(w * share * cover(row, h, held)
            for w, row in zip(weight, ids.tolist(), strict=True) for h, share in enumerate(homes))
        for held in product(contents, repeat=2) if len(frozenset().union(*held)) == 5
    )  # fmt: skip
    in_parts(monkeypatch, ids, int(rng.integers(2, 5)))
    assert remote_bins(ids, weight, 5, homes, 3).bins <= best * (1 + 1e-9)


@pytest.mark.parametrize("dispatch", ["even", "planned"])
def test_parts_are_nearly_as_strong_as_the_whole(dispatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = random_problem(1, 16, 4, 1, 5, k=3, tokens=3000, objective="traffic", dispatch=dispatch)
    assert problem.data.sets is not None
    whole, counted = layer_bound(problem).value, layer_bound(problem, quick=True).value
    in_parts(monkeypatch, problem.data.sets.ids, 4)
    parts = layer_bound(problem).value
    assert whole - 0.2 * (whole - counted) < parts <= whole * 1.01
    assert parts == layer_bound(problem).value


def test_parts_end_when_their_sum_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    ids, weight = routing(np.random.default_rng(0), 16, 4, 400)
    in_parts(monkeypatch, ids, 3)
    asked: list[float] = []

    def enough(value: float) -> bool:
        asked.append(value)
        return value > 2.4

    found = distinct_bins(ids, weight, 16, 4, 4, Stop(), enough).bins
    assert 2.4 < asked[-1] <= found * (1 + 1e-9)
    assert max(asked[:-1]) <= 2.4


def test_no_number_of_experts_or_tokens_ends_the_bound() -> None:
    """Where layers of 320 experts and 400,000 ids had one, larger ones have, too."""
    problem = random_problem(2, 336, 8, 2, 42, k=6, tokens=2000, objective="traffic")
    assert layer_bound(problem, stop=Stop(0.02)).source == "co-location"
    assert layer_bound(changed(problem, objective="time"), stop=Stop(0.02)).source.endswith("co-location")
