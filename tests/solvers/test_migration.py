import time
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import score_layer
from placement.cost.layer.transfer import transfer
from placement.errors import NothingFoundError
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from solvers.experts.layers import plan_layers
from solvers.migration.allocate import allocate, transfer_seconds, within_seconds
from solvers.migration.front import LayerFront, Point, layer_front
from solvers.migration.run import layer_fronts
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.oracle import placements
from tests.solvers.problems import random_problem

#: Random layers with 7 experts on 4 GPUs of 2 slots.
SMALL = {"experts": 7, "gpus": 4, "gpus_per_node": 2, "slots_per_gpu": 2, "k": 3, "tokens": 40}


def _running(problem: LayerProblem) -> LayerProblem:
    """The problem with `greedy`'s placement as the one that runs."""
    return changed(problem, current=get_solver("greedy").solve(problem, Stop(), 0).slots)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dispatch", ["even", "nearest"])
def test_fronts_of_small_layers_are_the_best_there_are(seed: int, dispatch: str) -> None:
    small = random_problem(seed, dispatch=dispatch, **SMALL)
    # The search prices slow links; here they decide.
    problem = _running(changed(small, rates=replace(small.hardware.rates, fast_bytes_per_s=1e15)))
    front = layer_front(problem, None, None, Stop(0.5), seed)
    best = np.full(9, np.inf)
    for slots in placements(problem):
        moves = moves_between(problem.rules.current, slots, 2)
        if moves <= 4:
            best[moves] = min(best[moves], score_layer(problem, slots).objective)
    for budget in range(1, 5):
        found = min(point.score.objective for point in front.points if point.moves <= budget)
        assert found == pytest.approx(best[: budget + 1].min(), rel=1e-9)


@pytest.mark.parametrize("seed", [7, 19, 20, 21])
def test_two_moves_are_the_best_swap(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With one copy each two moves are one swap, and all swaps can be tried; each is a local optimum of the budget."""
    monkeypatch.setattr("solvers.migration.front.BUDGETS", (1, 2))
    found = random_problem(seed, experts=32, gpus=8, gpus_per_node=4, slots_per_gpu=4, k=4)
    problem = _running(changed(found, rates=replace(found.hardware.rates, fast_bytes_per_s=1e15)))
    assert problem.rules.current is not None
    best = score_layer(problem, problem.rules.current).objective
    for i, j in combinations(range(32), 2):
        slots = problem.rules.current.copy()
        slots[[i, j]] = slots[[j, i]]
        best = min(best, score_layer(problem, slots).objective)
    front = layer_front(problem, None, None, Stop(), seed)
    assert min(p.score.objective for p in front.points if p.moves <= 2) == pytest.approx(best, rel=1e-9)


@pytest.mark.parametrize(("dispatch", "slots", "seed"), [("nearest", 6, 1), ("nearest", 6, 5), ("even", 4, 1)])
def test_no_point_is_less_balanced_than_both_ends(dispatch: str, slots: int, seed: int) -> None:
    """Loads that drifted a little, where time could be bought with balance on the way."""
    sizes = {"experts": 32, "gpus": 8, "gpus_per_node": 4, "slots_per_gpu": slots, "k": 4}
    old = random_problem(seed, dispatch=dispatch, **sizes)
    ran = plan_layers([old], "auto", Stop(0.2), 0)[0]
    new = changed(old, load=old.data.load * np.random.default_rng(1).uniform(0.9, 1.1, old.data.load.shape))
    full = plan_layers([new], "auto", Stop(0.2), 0)[0]
    end = Point(0, full.slots, full.fractions, full.score)
    front = layer_front(changed(new, current=ran.slots), ran.fractions, end, Stop(0.2), 0)
    assert front.before is not None
    assert len(front.points) > 2
    ends = max(front.before.pooled_imbalance, full.score.pooled_imbalance)
    assert max(point.score.pooled_imbalance for point in front.points) <= ends * (1 + 1e-6)


def test_a_deadline_leaves_time_for_the_front() -> None:
    problem = _running(random_problem(2, experts=32, gpus=8, gpus_per_node=4, slots_per_gpu=6, dispatch="nearest"))
    layer_fronts([problem], [None], Stop(0.01))
    began = time.monotonic()
    front = layer_fronts([problem], [None], Stop.after(2.0, 1000.0)).layers[0]
    # Without a deadline this takes minutes; a busy machine may be late by seconds.
    assert time.monotonic() - began < 30.0
    assert len(front.points) > 1


@pytest.mark.parametrize("dispatch", ["even", "nearest", "planned"])
def test_points_are_what_they_say(dispatch: str) -> None:
    old, new = (
        random_problem(seed, experts=32, gpus=8, gpus_per_node=4, slots_per_gpu=6, dispatch=dispatch) for seed in (1, 2)
    )
    ran = plan_layers([old], "auto", Stop(0.1), 0)[0]
    problem = changed(new, current=ran.slots)
    full = plan_layers([new], "auto", Stop(0.2), 0)[0]
    point = Point(0, full.slots, full.fractions, full.score)
    front = layer_front(problem, ran.fractions, point, Stop(0.1), 3)
    assert front.before is not None
    assert front.before.objective == score_layer(new, ran.slots, ran.fractions).objective
    assert front.points[0].score.objective <= front.before.objective * (1 + 1e-9)
    last = front.points[-1]
    assert last.score.objective <= full.score.objective * (1 + 1e-9)
    assert last.moves < moves_between(ran.slots, full.slots, 6)
    for i, each in enumerate(front.points):
        assert check_layer(problem, each.slots) == ()
        assert each.moves == moves_between(ran.slots, each.slots, 6)
        assert each.score.objective == score_layer(new, each.slots, each.fractions).objective
        if i:
            before = front.points[i - 1]
            assert each.moves > before.moves
            assert each.score.objective < before.score.objective


def test_a_failed_gpu_costs_no_more_moves_than_it_must() -> None:
    problem = _running(random_problem(3, experts=30, gpus=8, gpus_per_node=4, slots_per_gpu=6, dispatch="nearest"))
    alive = np.arange(8) != 2
    lost = set(problem.rules.current[12:18].tolist()) - set(np.delete(problem.rules.current, np.s_[12:18]).tolist())
    hurt = changed(problem, capacity=np.where(alive, 6, 0), home=alive / alive.sum())
    front = layer_front(hurt, None, None, Stop(0.05), 0)
    assert front.before is None
    assert front.points[0].moves == len(lost)
    for point in front.points:
        assert check_layer(hurt, point.slots) == ()
        assert (point.slots[12:18] == EMPTY).all()


def test_a_running_placement_that_cannot_be_mended_is_told() -> None:
    """Two groups of four experts on two nodes of four slots, but each holds a part of each group."""
    problem = random_problem(1, experts=8, gpus=4, gpus_per_node=2, slots_per_gpu=2, group=np.repeat([0, 1], 4))
    with pytest.raises(NothingFoundError, match="made valid"):
        layer_front(changed(problem, current=np.array([0, 1, 4, 5, 2, 3, 6, 7])), None, None, Stop(0.05), 0)


def test_fixed_gpus_keep_their_experts() -> None:
    problem = _running(random_problem(5, experts=32, gpus=8, gpus_per_node=4, slots_per_gpu=6))
    fixed = np.arange(48) < 12
    fronts = layer_fronts([changed(problem, fixed=fixed)], [None], Stop(0.1))
    for point in fronts.layers[0].points:
        for gpu in range(2):
            mine = slice(6 * gpu, 6 * gpu + 6)
            assert set(point.slots[mine].tolist()) == set(problem.rules.current[mine].tolist())


def _front(moves: list[int], values: list[float], problem: LayerProblem) -> LayerFront:
    score = score_layer(problem, problem.rules.current)
    return LayerFront(
        score,
        tuple(
            Point(m, problem.rules.current, None, replace(score, objective=v))
            for m, v in zip(moves, values, strict=True)
        ),
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 5)), max_size=4), min_size=1, max_size=4))
def test_moves_are_shared_out_as_brute_force_does(steps: list[list[tuple[int, float]]]) -> None:
    problem = _running(random_problem(1, **SMALL))
    fronts = []
    for layer in steps:
        moves, values = [layer[0][0] - 1 if layer else 0], [100.0]
        for extra, gain in layer:
            moves.append(moves[-1] + extra)
            values.append(values[-1] - gain)
        fronts.append(_front(moves, values, problem))
    found = allocate(fronts)
    for total in range(found.least + len(found.value) + 2):
        best = None
        for picks in product(*(range(len(front.points)) for front in fronts)):
            chosen = [front.points[i] for front, i in zip(fronts, picks, strict=True)]
            if sum(point.moves for point in chosen) <= total:
                value = sum(point.score.objective for point in chosen)
                best = value if best is None else min(best, value)
        points = found.points(total)
        if best is None:
            assert points is None
            continue
        assert points is not None
        chosen = [front.points[i] for front, i in zip(fronts, points, strict=True)]
        assert sum(point.moves for point in chosen) <= total
        assert sum(point.score.objective for point in chosen) == pytest.approx(best, rel=1e-12)


def test_a_limit_of_transfer_time_is_kept_and_used() -> None:
    problems = [_running(random_problem(seed, dispatch="nearest", slots_per_gpu=6)) for seed in range(4)]
    fronts = layer_fronts(problems, [None] * 4, Stop(0.1), workers=2, backend="threads").layers
    transfers = [
        [transfer(p.topology, p.rules.current, point.slots, 6, 1e7, p.hardware.rates) for point in front.points]
        for p, front in zip(problems, fronts, strict=True)
    ]
    allocation, stages = allocate(fronts), (0, 0, 1, 1)
    everything = tuple(len(front.points) - 1 for front in fronts)
    most = transfer_seconds(transfers, stages, everything)
    by_stage = [transfer_seconds([transfers[i]], (0,), (everything[i],)) for i in range(4)]
    assert max(by_stage) < most < sum(by_stage)
    values = []
    for limit in (0.0, 0.2 * most, 0.5 * most, most):
        points = within_seconds(fronts, allocation, transfers, stages, limit)
        assert points is not None
        assert transfer_seconds(transfers, stages, points) <= limit
        values.append(sum(front.points[i].score.objective for front, i in zip(fronts, points, strict=True)))
    assert values[0] > values[1] > values[2] > values[3]
    assert points == everything
    assert within_seconds(fronts, allocation, transfers, stages, -1.0) is None
