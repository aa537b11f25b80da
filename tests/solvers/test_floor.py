from dataclasses import replace

import numpy as np
import pytest

from placement.cost.moe_layer import score_layer
from placement.problem import LayerProblem, TokenSets, Topology
from solvers.baselines import baseline_candidates
from solvers.floor import LEAST_FLOOR, balance_floor, raised_floor
from solvers.planner import plan_layers
from solvers.registry import get_solver
from solvers.search.solver import SearchSolver
from solvers.stop import Stop
from tests.solvers.problems import RATES, random_problem


def _blocks(share: tuple[float, ...]) -> LayerProblem:
    """Tokens that use four neighbouring experts each; block b gets share[b] of them. Links are very slow."""
    ids = np.arange(16).reshape(4, 4)
    load = np.repeat(np.array(share), 4)[None]
    rates = replace(RATES, slow_bytes_per_s=1e8)
    return LayerProblem(load, Topology(4, 1), 4, rates, sets=TokenSets(ids, np.array([share])))


def test_floor_is_the_balancers_own_or_the_noise() -> None:
    problem = random_problem(4)
    best = min(
        score_layer(problem, get_solver(name).solve(problem, Stop(), 0).slots).pooled_imbalance
        for name in ("eplb", "greedy")
    )
    floored = balance_floor(problem).max_load
    assert floored is not None
    assert LEAST_FLOOR <= floored <= max(best, LEAST_FLOOR) * (1 + 1e-6)
    assert balance_floor(replace(problem, max_load=2.0)).max_load == 2.0


def test_a_baseline_over_the_floor_that_takes_less_time_raises_it() -> None:
    problem = _blocks((0.4, 0.3, 0.2, 0.1))
    floor = balance_floor(problem).max_load
    linear = score_layer(problem, np.arange(16))
    assert floor is not None
    assert linear.pooled_imbalance > floor
    under = get_solver("auto").solve(balance_floor(problem), Stop(), 0)
    reached = score_layer(problem, under.slots).objective
    assert linear.objective < reached
    baselines = baseline_candidates(problem)
    raised = raised_floor(problem, baselines, floor, reached)
    assert raised is not None
    assert abs(raised - linear.pooled_imbalance) < 1e-6
    assert raised_floor(problem, baselines, floor, linear.objective) is None
    answer = plan_layers([problem], "auto", Stop(), 0)[0]
    assert answer.score.objective <= linear.objective * (1 + 1e-12)


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
def test_search_saves_traffic_under_a_cap_that_is_hard_to_keep(dispatch: str) -> None:
    problem = random_problem(3, experts=64, gpus=16, gpus_per_node=4, slots_per_gpu=6, k=6, dispatch=dispatch)
    balancer = score_layer(replace(problem, dispatch="even"), get_solver("eplb").solve(problem, Stop(), 0).slots)
    found = SearchSolver().solve(replace(problem, max_load=1.006), Stop(), 1)
    score = score_layer(problem, found.slots, found.fractions)
    assert score.pooled_imbalance <= 1.006 * (1 + 1e-9)
    assert score.remote_nodes_per_token < 0.85 * balancer.remote_nodes_per_token
