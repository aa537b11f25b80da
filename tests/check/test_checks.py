"""What the verifier derives without the solvers' code: the baselines' placements, and bounds from loads alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from placement.check.baselines import greedy, hash_order, in_turn, round_robin
from placement.check.bounds import least_objective
from placement.cost.layer.score import score_layer
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.bounds import layer_bound
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.oracle import brute_force
from tests.solvers.problems import RATES, mixed, random_placement, random_problem, running_problem


def problems() -> list[LayerProblem]:
    """Layers with few and many replicas, equal loads, clashes that must be swapped apart, and failed GPUs."""
    found = []
    for seed in range(24):
        experts, gpus, width = ((8, 4, 3), (6, 4, 5), (12, 6, 2), (5, 3, 4))[seed % 4]
        one = random_problem(seed, experts=experts, gpus=gpus, gpus_per_node=gpus // 2, slots_per_gpu=width, k=2)
        if seed % 3 == 0:
            one = changed(one, load=np.round(one.data.load * 4) + 1)
        if seed % 5 == 0 and (gpus - 1) * width >= experts:
            one = changed(one, capacity=np.where(np.arange(gpus) == seed % gpus, 0, width))
        found.append(one)
    return found


@pytest.mark.parametrize("problem", problems())
def test_baselines_are_built_again(problem: LayerProblem) -> None:
    experts, capacity, width = problem.experts, problem.hardware.capacities, problem.hardware.slots_per_gpu
    built = {
        "hash": in_turn(hash_order(experts), capacity, width),
        "linear": in_turn(np.arange(experts), capacity, width),
        "round_robin": round_robin(problem),
        "greedy": greedy(problem),
    }
    for name, slots in built.items():
        assert slots.tolist() == get_solver(name).solve(problem, Stop(), 0).slots.tolist(), name


@pytest.mark.parametrize("objective", ["time", "load", "traffic"])
@pytest.mark.parametrize("dispatch", ["even", "nearest"])
@pytest.mark.parametrize("seed", range(8))
def test_no_placement_is_below_what_loads_prove(seed: int, dispatch: str, objective: str) -> None:
    changes = {"dispatch": dispatch, "objective": objective, "tail": (1.0, 0.4)[seed % 2], "speed": None}
    rates = mixed(RATES) if seed % 3 else replace(RATES, overlap="two_batch")
    problem = changed(running_problem(seed, windows=1 + seed % 3, with_sets=seed % 2 == 0), rates=rates, **changes)
    least = least_objective(problem)
    assert least >= 0
    for draw in range(10):
        assert score_layer(problem, random_placement(problem, draw)).objective >= least
    # The solvers know more.
    assert layer_bound(problem, stop=Stop(work=0.05)).value >= least * (1 - 1e-9)


def test_bounds_of_loads_by_hand() -> None:
    """A slot for each expert: the hottest has its own GPU. With six slots it is halved, and the mean load counts."""
    layer = layer_problem(np.array([[5.0, 1.0, 1.0, 1.0]]), Topology(2, 1), 2, RATES, objective="load")
    assert least_objective(layer) == pytest.approx(5 / 4)
    assert brute_force(layer).objective == pytest.approx(6 / 4)
    more = changed(layer, slots_per_gpu=3)
    assert least_objective(more) == pytest.approx(1.0)
    assert brute_force(more).objective == pytest.approx(1.0)
    timed = changed(layer, objective="time", rates=replace(RATES, weight_s=0.0))
    moved = 2 * (RATES.slow_latency_s)
    computed = moved + 5 * 2 * RATES.tokens_per_gpu * RATES.token_s
    # Beside what is computed, some messages cross.
    assert computed * (1 - 1e-9) <= least_objective(timed) <= brute_force(timed).objective
