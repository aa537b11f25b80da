"""Placements for loads that will be others: what is minimized, what must not change, and what it is good for."""

from itertools import permutations

import numpy as np
import pytest

from placement.check.layer import check_layer
from placement.problem.arrays import IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.candidates import candidate
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.search import steady as module
from solvers.experts.search.solver import SearchSolver
from solvers.experts.search.steady import ALIKE, DRIFT, KEPT, SPREAD, UNSEEN, steady
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import random_problem


def _problem(seed: int, experts: int, gpus: int, slots_per_gpu: int, windows: int = 2) -> LayerProblem:
    """Loads that vary from stretch to stretch, of experts that rise together."""
    problem = random_problem(
        seed, experts=experts, gpus=gpus, gpus_per_node=gpus, slots_per_gpu=slots_per_gpu, k=2, windows=windows,
        objective="load",
    )  # fmt: skip
    away = np.random.default_rng(seed).normal(0, 0.3, (5, experts)) * problem.data.mean_load
    drift = away.T @ away
    deviation = np.sqrt(np.diag(drift))
    weight = np.arange(windows, 0, -1) / np.arange(windows + 1).sum()
    return changed(problem, window_weight=weight, drift=drift, comovement=drift / np.outer(deviation, deviation))


def _value(problem: LayerProblem, slots: IntArray, caution: float) -> float:
    """Mean of the 16-norms of GPU loads and deviations, in the windows and on a domain that nobody gave."""
    data, gpus = problem.data, problem.topology.gpus
    share = problem.held(slots) / np.bincount(slots, minlength=problem.experts)
    mean = data.mean_load.sum() / gpus
    kept = KEPT * data.mean_load + (1 - KEPT) * data.mean_load.mean()
    rows = np.array([*(load * mean / (load.sum() / gpus) for load in data.load), kept]) / mean
    assert data.drift is not None
    assert data.comovement is not None
    covariance = [data.drift * (caution * DRIFT) ** 2] * problem.windows
    covariance.append(data.comovement * (SPREAD * data.mean_load.mean()) ** 2)
    alike = caution * ALIKE
    weight = [*((1 - alike) * data.window_weight + alike / problem.windows), caution * UNSEEN]
    value = 0.0
    for load, spread, part in zip(rows, covariance, weight, strict=True):
        deviation = np.sqrt(np.einsum("ge,ef,gf->g", share, spread, share)) / mean
        value += part * (((share @ load + deviation) ** 16).mean()) ** (1 / 16) / sum(weight)
    return value


@pytest.mark.parametrize("caution", [1.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_of_all_orders(seed: int, caution: float) -> None:
    problem = _problem(seed, 6, 3, 2)
    best = min(_value(problem, np.array(order), caution) for order in permutations(range(6)))
    found = steady(problem, np.arange(6), caution, seed)
    assert _value(problem, found, caution) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_best_copies(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So few placements lie far apart: hot enough, it comes to all of them."""
    monkeypatch.setattr(module, "HOT", 1.0)
    problem = _problem(seed, 4, 3, 2)
    best = min(_value(problem, np.array(slots), 1.0) for slots in placements(problem))
    found = steady(problem, EplbSolver().variants(problem)[0], 1.0, seed)
    assert check_layer(problem, found) == ()
    assert _value(problem, found, 1.0) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize("slots_per_gpu", [4, 6])
def test_it_is_valid_and_the_same_again(slots_per_gpu: int) -> None:
    problem = _problem(1, 32, 8, slots_per_gpu)
    start = EplbSolver().variants(problem)[0]
    found = steady(problem, start, 1.0, 0)
    assert check_layer(problem, found) == ()
    assert np.array_equal(found, steady(problem, start, 1.0, 0))
    assert _value(problem, found, 1.0) < _value(problem, start, 1.0)
    assert np.array_equal(start, steady(problem, start, 1.0, 0, Stop(deadline=0.0)))


def test_experts_that_rise_together_are_parted() -> None:
    problem = random_problem(0, experts=8, gpus=4, gpus_per_node=4, slots_per_gpu=2, k=2)
    topic = np.arange(8) // 2
    problem = changed(
        problem, load=np.full((1, 8), 0.25), sets=None, objective="load",
        comovement=(topic[:, None] == topic[None, :]).astype(float),
    )  # fmt: skip
    parted = topic[steady(problem, np.arange(8), 1.0, 0).reshape(4, 2)]
    assert (parted[:, 0] != parted[:, 1]).all()


@pytest.mark.parametrize("slots_per_gpu", [4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_where_balance_is_all_the_balancer_is_never_better_on_what_was_given(seed: int, slots_per_gpu: int) -> None:
    problem = changed(_problem(seed, 32, 8, slots_per_gpu, windows=3), message="dense", dispatch="token_hash")
    rival = get_solver("eplb").solve(problem, Stop(), 0).slots
    known = [candidate(problem, rival)]
    found = SearchSolver().improve(problem, known, Stop(0.1), 0)
    assert found.slots is not None
    assert candidate(problem, found.slots).score.objective <= known[0].score.objective
