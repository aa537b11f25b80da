from dataclasses import replace

import numpy as np
import pytest

from placement.cost.layer.score import score_layer
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import candidate, choose
from solvers.experts.floor import balance_floor, raised_floor
from solvers.experts.layers import plan_layers
from solvers.experts.noise import UNKNOWN
from solvers.experts.search.solver import SearchSolver
from solvers.params import DEFAULTS
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, random_problem


def _blocks(share: tuple[float, ...]) -> LayerProblem:
    """Tokens that use four neighbouring experts each; block b gets share[b] of them. Links are very slow."""
    ids = np.arange(16).reshape(4, 4)
    load = np.repeat(np.array(share), 4)[None]
    rates = replace(RATES, slow_bytes_per_s=1e8)
    return layer_problem(load, Topology(4, 1), 4, rates, sets=TokenSets(ids, np.array([share])))


def test_floor_is_the_balancers_own_or_the_noise() -> None:
    problem = random_problem(4)
    best = min(
        score_layer(problem, get_solver(name).solve(problem, Stop(), 0).slots).pooled_imbalance
        for name in ("eplb", "greedy")
    )
    floored = balance_floor(problem).rules.max_load
    assert floored is not None
    assert 1 + UNKNOWN <= floored <= max(best, 1 + UNKNOWN) * (1 + 1e-6)
    assert balance_floor(changed(problem, max_load=2.0)).rules.max_load == 2.0


def test_a_baseline_over_the_floor_that_takes_less_time_raises_it() -> None:
    problem = _blocks((0.4, 0.3, 0.2, 0.1))
    floor = balance_floor(problem).rules.max_load
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


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned", "token_hash", "sglang_static"])
def test_search_saves_traffic_under_a_cap_that_is_hard_to_keep(dispatch: str) -> None:
    problem = random_problem(3, experts=64, gpus=16, gpus_per_node=4, slots_per_gpu=6, k=6, dispatch=dispatch)
    balancer = score_layer(changed(problem, dispatch="even"), get_solver("eplb").solve(problem, Stop(), 0).slots)
    found = SearchSolver().solve(changed(problem, max_load=1.006), Stop(), 1)
    score = score_layer(problem, found.slots, found.fractions)
    assert score.pooled_imbalance <= 1.006 * (1 + 1e-9)
    assert score.remote_nodes_per_token < 0.85 * balancer.remote_nodes_per_token


def _drifting(hot: float) -> LayerProblem:
    """Two windows, each with four hot experts of its own among 16 of load 0.2; 8 GPUs x 2 slots."""
    load = np.full((2, 16), 0.2)
    load[0, :4], load[1, 4:8] = hot, hot
    sets = TokenSets(np.arange(16).reshape(4, 4), np.full((2, 4), 0.25))
    return layer_problem(load, Topology(8, 1), 2, RATES, sets=sets, window_weight=np.full(2, 0.5))


@pytest.mark.parametrize(("hot", "floor"), [(0.2, 1 + UNKNOWN), (0.24, 0.44 / 0.42), (0.4, DEFAULTS.most_floor)])
def test_the_floor_asks_no_more_of_the_mean_than_windows_have(hot: float, floor: float) -> None:
    """A hot expert beside a cold one is the best balance, of the mean and of each window."""
    assert balance_floor(_drifting(hot)).rules.max_load == pytest.approx(floor, rel=1e-6)


def test_least_bytes_keep_the_floor_and_so_does_a_baselines_dispatch() -> None:
    problem = random_problem(
        5, experts=32, gpus=8, gpus_per_node=2, slots_per_gpu=6, dispatch="planned", objective="traffic", windows=2
    )
    floor = balance_floor(problem).rules.max_load
    assert floor is not None
    solved = plan_layers([problem], "auto", Stop(0.3), 0)[0].score
    rival = plan_layers([problem], "eplb", Stop(), 0)[0].score
    free = plan_layers([problem], "eplb", Stop(), 0, floor=False)[0].score
    assert solved.pooled_imbalance <= floor
    assert solved.objective < rival.objective
    assert rival.pooled_imbalance < free.pooled_imbalance
    assert free.objective <= rival.objective


def test_of_alike_bytes_the_one_of_less_time_is_taken() -> None:
    problem = changed(random_problem(2, slots_per_gpu=4), objective="traffic")
    found = [candidate(problem, get_solver(name).solve(problem, Stop(), 0).slots) for name in ("greedy", "hash")]
    best = choose(problem, found)
    assert best.score.objective == min(each.score.objective for each in found)
    # Copies on the GPUs of a node may change places without a byte more.
    swapped = found[0].slots.copy()
    swapped[[0, 4]] = swapped[[4, 0]]
    pair = [candidate(problem, swapped), found[0]]
    assert pair[0].score.objective == pytest.approx(pair[1].score.objective)
    assert pair[0].score.time_s != pytest.approx(pair[1].score.time_s)
    assert choose(problem, pair).score.time_s == min(each.score.time_s for each in pair)


def test_fewer_bytes_are_no_reason_to_leave_the_floor() -> None:
    problem = changed(_blocks((0.4, 0.3, 0.2, 0.1)), objective="traffic")
    floor = balance_floor(problem).rules.max_load
    linear = score_layer(problem, np.arange(16))
    answer = plan_layers([problem], "auto", Stop(), 0)[0].score
    assert floor is not None
    assert linear.pooled_imbalance > floor
    assert linear.objective < answer.objective
    assert answer.pooled_imbalance <= floor


def test_a_plan_of_least_bytes_has_fewer_than_one_of_least_time() -> None:
    problem = random_problem(7, experts=64, gpus=16, gpus_per_node=4, slots_per_gpu=6, k=6, dispatch="planned")
    least = {}
    for objective in ("time", "traffic"):
        answer = plan_layers([changed(problem, objective=objective)], "auto", Stop(), 0)[0]
        least[objective] = answer.score.cross_node_bytes_per_token
    assert least["traffic"] < 0.98 * least["time"]
