import numpy as np
import pytest

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value, score_layer
from solvers.bounds import layer_bound
from solvers.dispatch import fractions_for
from solvers.experts.baselines import baseline_candidates
from solvers.experts.candidates import choose
from solvers.experts.floor import balance_floor
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.layers import plan_layers
from solvers.experts.search.solver import SearchSolver
from solvers.registry import BASELINES, get_solver
from solvers.result import Status
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import random_problem, real_shape_loads

RULES = ("per_node", "per_rank", "per_expert")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", ["even", "nearest", "token_hash"])
@pytest.mark.parametrize("slots_per_gpu", [4, 6])
def test_auto_is_valid_and_never_worse_than_any_baseline(rule: str, dispatch: str, slots_per_gpu: int) -> None:
    problem = random_problem(7, slots_per_gpu=slots_per_gpu, message=rule, dispatch=dispatch)
    found = get_solver("auto").solve(problem, Stop(0.2), 1)
    assert check_layer(problem, found.slots) == ()
    for name in BASELINES:
        slots = get_solver(name).solve(problem, Stop(), 0).slots
        assert objective_value(problem, found.slots) <= objective_value(problem, slots) * (1 + 1e-12)


def test_search_finds_placements_that_touch_fewer_nodes() -> None:
    problem = random_problem(2, message="per_node")
    start = min(score_layer(problem, s).nodes_per_token for s in EplbSolver().variants(problem))
    found = get_solver("search").solve(balance_floor(problem), Stop(), 1)
    score = score_layer(problem, found.slots)
    assert score.nodes_per_token < 0.9 * start


@pytest.mark.parametrize(
    ("experts", "gpus", "gpus_per_node", "most"), [(128, 32, 32, 0.985), (256, 64, 64, 0.99), (256, 64, 8, 0.89)]
)
def test_many_experts_are_searched_as_coolly_as_their_moves_are_small(
    experts: int, gpus: int, gpus_per_node: int, most: float
) -> None:
    """At the temperatures of 64 experts nothing is found inside one node, and 3% less time is lost across nodes."""
    problem = random_problem(
        0, experts=experts, gpus=gpus, gpus_per_node=gpus_per_node, slots_per_gpu=experts // gpus + 1, tokens=1500, k=8
    )
    known = baseline_candidates(problem)
    found = SearchSolver().improve(problem, known, Stop(), 1)
    assert found.slots is not None
    assert score_layer(problem, found.slots).objective < most * choose(problem, known).score.objective


def test_balance_floor_is_kept() -> None:
    problem = balance_floor(random_problem(4))
    answer = plan_layers([random_problem(4)], "auto", Stop(), 1)[0]
    assert answer.score.pooled_imbalance <= problem.rules.max_load * (1 + 1e-9)


def test_workers_and_repeats_do_not_change_the_plan() -> None:
    problems = [random_problem(seed) for seed in range(4)]
    one = plan_layers(problems, "auto", Stop(0.1), 5, workers=1)
    two = plan_layers(problems, "auto", Stop(0.1), 5, workers=2)
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.slots, b.slots)
    other = plan_layers(problems, "auto", Stop(0.1), 6, workers=2)
    assert any(not np.array_equal(a.slots, b.slots) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("gpus", "limit"), [(32, 0.01), (72, 0.01)])
def test_deepseek_r1_shape_from_counts_is_near_its_bound(gpus: int, limit: float) -> None:
    loads = real_shape_loads(1, 58, 256, 8)
    problems = [
        random_problem(
            0, load=row[None], sets=None, objective="load", gpus=gpus, gpus_per_node=8, slots_per_gpu=288 // gpus
        )
        for row in loads
    ]
    answers = plan_layers(problems, "auto", Stop(), 1, workers=2)
    assert np.mean([a.gap for a in answers]) <= limit
    assert min(a.gap for a in answers) >= -1e-9


@pytest.mark.parametrize("objective", ["time", "load", "traffic"])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", ["even", "nearest", "token_hash"])
def test_bound_never_exceeds_any_placement(objective: str, rule: str, dispatch: str) -> None:
    for seed in range(15):
        problem = random_problem(
            seed, experts=8, gpus=4, gpus_per_node=2 if seed % 2 or objective == "traffic" else 4,
            slots_per_gpu=2 + seed % 3, k=2, tokens=60, objective=objective, message=rule, dispatch=dispatch,
            windows=1 + seed % 2,
        )  # fmt: skip
        found = get_solver("search").solve(problem, Stop(0.1), seed)
        assert layer_bound(problem).value <= objective_value(problem, found.slots) * (1 + 1e-9)


def test_planned_fractions_beat_even_dispatch() -> None:
    problem = random_problem(6, slots_per_gpu=6, dispatch="planned")
    slots = get_solver("eplb").solve(problem, Stop(), 0).slots
    planned = score_layer(problem, slots, fractions_for(problem, slots)).time_s
    assert planned < score_layer(changed(problem, dispatch="even"), slots).time_s


def test_status_is_optimal_only_at_the_bound() -> None:
    problem = random_problem(
        0, experts=8, gpus=8, slots_per_gpu=1, k=2, load=np.full((1, 8), 0.25), sets=None, objective="load"
    )
    answer = plan_layers([problem], "auto", Stop(), 0)[0]
    assert answer.status is Status.OPTIMAL
    assert answer.score.objective == pytest.approx(1.0)


@pytest.mark.parametrize("dispatch", ["even", "nearest", "token_hash"])
def test_bound_holds_where_a_gpu_can_serve_itself(dispatch: str) -> None:
    """Everything on every GPU: with `nearest` no message is sent, and the bound must know."""
    problem = random_problem(0, experts=2, gpus=2, gpus_per_node=2, slots_per_gpu=2, k=2, tokens=10, dispatch=dispatch)
    assert layer_bound(problem).value <= objective_value(problem, np.array([0, 1, 0, 1])) * (1 + 1e-12)


def test_floor_leaves_a_budget_of_moves_feasible() -> None:
    problem = random_problem(
        0, experts=6, gpus=3, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=12, current=np.arange(6), max_moves=0
    )
    answer = plan_layers([problem], "cpsat", Stop(), 0)[0]
    assert answer.slots.reshape(3, 2).tolist() == [[0, 1], [2, 3], [4, 5]]


def test_a_bound_of_the_floored_problem_is_not_claimed_for_the_free_one() -> None:
    free = random_problem(3, experts=6, gpus=3, gpus_per_node=1, slots_per_gpu=2, k=2, tokens=12)
    for floor in (True, False):
        answer = plan_layers([free], "auto", Stop(), 0, floor=floor)[0]
        best = plan_layers([free], "cpsat", Stop(10.0), 0, floor=False)[0]
        assert answer.bound <= best.score.objective * (1 + 1e-9)
