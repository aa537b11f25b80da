"""The compiled search prices placements and moves as placement.cost does."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from placement.check.layer import check_layer
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.dispatch import near_fractions, plan_fractions, rounded_fractions, target_fractions
from solvers.experts.search import guide, solver
from solvers.experts.search.anneal import Plan, anneal
from solvers.experts.search.arrays import SetRows, search_data
from solvers.experts.search.guide import empty_slopes, evaluate
from solvers.experts.search.layout import load_state
from solvers.experts.search.multilevel import (
    copies_needed,
    copy_loads,
    has_levels,
    node_level,
    onto_gpus,
)
from solvers.experts.search.run import Annealed, Schedule, redirect, run_annealing
from solvers.experts.search.solver import steps_ratio
from solvers.experts.search.start import mend, starts
from solvers.experts.search.state import Busy, Data, State, Sums, empty_state
from solvers.experts.search.traffic import empty_scratch
from solvers.registry import get_solver
from solvers.result import Termination
from solvers.stop import Stop
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, mixed, random_problem

RULES = ("per_node", "per_rank", "per_expert")
POLICIES = ("even", "nearest", "planned", "token_hash", "sglang_static")
#: Constant part of the layer's time: one hop of each kind, twice.
LATENCY = 2 * (3e-6 + 8e-6)
SHORT = Schedule(4000, 0.01, 0.0005, 3.0, 0.3)


def _callable(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that only compiled functions call, as Python can call it."""
    return njit(lambda *args: step(*args))


least_guide, set_slopes = _callable(guide.least_guide), _callable(guide.set_slopes)
worst_mean = _callable(guide.worst_mean)


def _slow(**changes: object) -> LayerProblem:
    """A layer whose slow links decide, so that the kernel's objective is the scorer's."""
    problem = random_problem(5, **({"slots_per_gpu": 6} | changes))  # type: ignore[arg-type]
    return changed(problem, rates=replace(problem.hardware.rates, fast_bytes_per_s=1e15))


def _scored(problem: LayerProblem, slots: np.ndarray, target: np.ndarray | None) -> float:
    fractions = None
    if problem.rules.dispatch == "planned" and target is not None and len(target) == problem.topology.nodes:
        fractions = target_fractions(problem, slots, target)
    score = score_layer(problem, slots, fractions)
    # What no placement changes is left out: latency, and messages of `dense`.
    fixed = LATENCY if problem.objective.kind == "time" else 0.0
    return score.objective - fixed - tariff_of(problem).least_link


def price_state(d: Data, s: State, targets: bool) -> float:
    """The objective without constants of a state's slots, made anew."""
    load_state(d, s, targets)
    return evaluate(d.goal, s.busy, s.sums, np.zeros((2, len(d.goal.window_weight))), 0.0, 0.0)[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", POLICIES)
@pytest.mark.parametrize("windows", [1, 3])
def test_prices_placements_as_the_scorer_does(rule: str, dispatch: str, windows: int) -> None:
    for objective, tail in product(("time", "load", "traffic"), (1.0, 0.5)):
        rates = RATES if windows == 1 else mixed(RATES)
        problem = _slow(message=rule, dispatch=dispatch, windows=windows, objective=objective, tail=tail, rates=rates)
        slots = get_solver("hash").solve(changed(problem, dispatch="even"), Stop(), 0).slots
        data = search_data(problem, slots)
        state = empty_state(data, slots)
        value = price_state(data, state, False)
        assert value == pytest.approx(_scored(problem, slots, state.layout.target), rel=2e-6)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", POLICIES)
def test_increments_stay_exact_over_a_whole_anneal(rule: str, dispatch: str) -> None:
    """What the kernel says of its best answer is what the scorer says of it."""
    for slots_per_gpu, windows, objective, rates in (
        (4, 1, "time", RATES), (6, 2, "time", RATES), (6, 2, "time", mixed(RATES)), (6, 2, "traffic", mixed(RATES)),
    ):  # fmt: skip
        problem = _slow(
            message=rule, dispatch=dispatch, windows=windows, slots_per_gpu=slots_per_gpu, max_load=1.2,
            objective=objective, rates=rates,
        )  # fmt: skip
        slots = get_solver("linear").solve(changed(problem, dispatch="even"), Stop(), 0).slots
        data = search_data(problem, slots)
        state = empty_state(data, slots)
        before = price_state(data, state, False)
        plan = Plan(3.0, 0.3, 0.01, 0.0005, 300.0, 0.0, 20_000, False)
        best, target, value, excess, _ = anneal(data, state, empty_scratch(state), False, plan, 3, Stop())
        assert check_layer(problem, best) == ()
        # Classes of a token's number tell copies apart whose count divides them.
        known = dispatch != "token_hash" or set(np.bincount(best).tolist()) <= {1, 2, 3, 4, 6}
        assert value == pytest.approx(_scored(problem, best, target), rel=2e-6 if known else 0.02)
        fractions = target_fractions(problem, best, target) if dispatch == "planned" and slots_per_gpu == 6 else None
        score = score_layer(problem, best, fractions)
        assert excess == pytest.approx(max(0.0, score.pooled_imbalance - 1.2), abs=1e-9)
        assert value < before


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", POLICIES)
def test_the_guide_adds_norms_of_links_and_gpus(rule: str, dispatch: str) -> None:
    problem = _slow(message=rule, dispatch=dispatch, windows=3, tail=0.5)
    slots = get_solver("hash").solve(changed(problem, dispatch="even"), Stop(), 0).slots
    data = search_data(problem, slots)
    state = empty_state(data, slots)
    value = price_state(data, state, False)
    sums = state.sums
    guide, objective, _, smooth = evaluate(data.goal, state.busy, sums, np.zeros((2, 3)), 0.7, 0.0)
    assert objective == value
    assert guide == pytest.approx(value + 0.7 * smooth, rel=1e-12)

    def norm(values: np.ndarray) -> np.ndarray:
        return (values**16).mean(axis=1) ** (1 / 16)

    weight, out = data.goal.window_weight, sums.outs
    if data.goal.classes == 1:
        out = sums.total[:, None] - out
    links = np.concatenate([sums.ins, data.goal.out_rate * out], axis=1)
    expected = weight @ (data.goal.reach_scale * sums.total + norm(state.busy.cost) + norm(links))
    assert smooth == pytest.approx(float(expected), rel=1e-9)


def test_prices_unequal_gpus_as_the_scorer_does() -> None:
    rng = np.random.default_rng(0)
    capacity = np.array([6, 5, 6, 6, 4, 6, 6, 5])
    home = rng.dirichlet(np.ones(4)).repeat(2) / 2
    for dispatch, objective in product(POLICIES, ("time", "load", "traffic")):
        problem = _slow(
            dispatch=dispatch, objective=objective, capacity=capacity, speed=rng.uniform(0.5, 2, 8), home=home
        )
        slots = get_solver("greedy").solve(changed(problem, dispatch="even"), Stop(), 0).slots
        found = run_annealing(problem, slots, None, SHORT, Stop(), 1)
        assert check_layer(problem, found.slots) == ()
        data = search_data(problem, found.slots)
        state = empty_state(data, found.slots[problem.hardware.usable])
        if found.target is not None:
            state.layout.target[:] = found.target
        value = price_state(data, state, found.target is not None)
        assert value == pytest.approx(_scored(problem, found.slots, found.target), rel=2e-6)


@pytest.mark.parametrize("lost", [(1, 2), (0, 3, 5), (4, 5, 6)])
def test_prices_what_failed_gpus_leave_to_others_as_the_scorer_does(lost: tuple[int, ...]) -> None:
    capacity = np.full(8, 7)
    capacity[list(lost)] = 0
    for rule, dispatch, objective in product((*RULES, "dense"), POLICIES, ("time", "traffic")):
        problem = _slow(
            gpus_per_node=4, slots_per_gpu=7, capacity=capacity, message=rule, dispatch=dispatch, objective=objective,
            experts=20,
        )  # fmt: skip
        slots = get_solver("greedy").solve(changed(problem, dispatch="even"), Stop(), 0).slots
        found = run_annealing(problem, slots, None, SHORT, Stop(), 1)
        data = search_data(problem, found.slots)
        state = empty_state(data, found.slots[problem.hardware.usable])
        if found.target is not None:
            state.layout.target[:] = found.target
        value = price_state(data, state, found.target is not None)
        assert value == pytest.approx(_scored(problem, found.slots, found.target), rel=2e-6), (rule, dispatch)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(0.1, 9.0), min_size=1, max_size=6),
    st.floats(0.0, 1.0),
    st.integers(0, 2**31),
)
def test_worst_mean_is_the_tail_mean(values: list[float], tail: float, seed: int) -> None:
    weight = np.random.default_rng(seed).dirichlet(np.ones(len(values)))
    parts = np.zeros((2, len(values)))
    parts[0] = values
    assert worst_mean(parts, weight, tail) == pytest.approx(tail_mean(np.array(values), weight, tail), rel=1e-9)


def _current(seed: int = 3) -> tuple[LayerProblem, np.ndarray]:
    problem = _slow()
    return problem, get_solver("greedy").solve(problem, Stop(), seed).slots


def test_a_budget_of_moves_is_kept_and_used() -> None:
    problem, current = _current()
    objective = []
    for most in (0, 2, 8, 48):
        bounded = changed(problem, current=current, max_moves=most)
        found = get_solver("search").solve(bounded, Stop(0.2), 1)
        assert check_layer(bounded, found.slots) == ()
        objective.append(score_layer(bounded, found.slots).objective)
    assert objective[0] == pytest.approx(score_layer(problem, current).objective)
    assert all(b <= a for a, b in pairwise(objective))
    assert objective[1] < objective[0]


def test_fixed_experts_stay() -> None:
    problem, current = _current()
    fixed = np.arange(problem.slots) % 2 == 0
    bounded = changed(problem, current=current, fixed=fixed)
    found = get_solver("search").solve(bounded, Stop(0.2), 1)
    assert check_layer(bounded, found.slots) == ()
    assert score_layer(problem, found.slots).objective < score_layer(problem, current).objective


@pytest.mark.parametrize("lost", [(0,), (2, 5)])
def test_what_failed_gpus_held_is_placed_again_with_the_fewest_moves(lost: tuple[int, ...]) -> None:
    problem, current = _current()
    capacity = np.full(8, 6)
    capacity[list(lost)] = 0
    failed = changed(problem, current=current, capacity=capacity)
    mended = mend(failed)
    assert check_layer(failed, mended) == ()
    alive = ~np.isin(np.arange(48) // 6, lost)
    gone = np.setdiff1d(np.arange(32), current[alive])
    assert (mended[alive] != current[alive]).sum() == len(gone)
    # One move fewer is impossible: every expert that is gone needs one.
    if len(gone):
        assert check_layer(changed(failed, max_moves=len(gone) - 1), mended) != ()
    found = get_solver("search").solve(changed(failed, max_moves=len(gone)), Stop(0.2), 1)
    assert check_layer(changed(failed, max_moves=len(gone)), found.slots) == ()


def test_groups_stay_on_one_node() -> None:
    group = np.arange(32) // 4
    problem = _slow(group=group)
    found = get_solver("search").solve(problem, Stop(0.2), 1)
    assert check_layer(problem, found.slots) == ()
    rival = min(score_layer(problem, s).objective for s in starts(problem, 0))
    assert score_layer(problem, found.slots).objective <= rival


@pytest.mark.parametrize("dispatch", POLICIES)
def test_the_node_level_has_the_same_traffic(dispatch: str) -> None:
    problem = _slow(dispatch=dispatch)
    assert has_levels(problem)
    coarse = node_level(problem)
    by_node = get_solver("greedy").solve(changed(coarse, dispatch="even"), Stop(), 0).slots
    data = search_data(coarse, by_node)
    state = empty_state(data, by_node)
    price_state(data, state, False)
    target = state.layout.target if dispatch == "planned" else None
    loads = copy_loads(problem, by_node, target)
    assert loads.sum() == pytest.approx(problem.data.mean_load.sum())
    slots = onto_gpus(problem, by_node, loads)
    assert check_layer(problem, slots) == ()
    wide = None if target is None else target_fractions(coarse, by_node, target)
    narrow = None if target is None else target_fractions(problem, slots, target)
    a, b = score_layer(coarse, by_node, wide), score_layer(problem, slots, narrow)
    assert a.cross_node_bytes_per_token == pytest.approx(b.cross_node_bytes_per_token)
    assert a.remote_nodes_per_token == pytest.approx(b.remote_nodes_per_token)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dispatch", POLICIES)
def test_the_guide_is_nowhere_below_its_tangent(rule: str, dispatch: str) -> None:
    side_by_side = replace(RATES, overlap="two_batch", token_s=1e-7)
    for objective, rates in (
        ("time", RATES), ("traffic", RATES), ("time", side_by_side), ("time", mixed(RATES)),
        ("time", mixed(side_by_side)),
    ):  # fmt: skip
        problem = _slow(message=rule, dispatch=dispatch, windows=2, objective=objective, rates=rates)
        placements = [
            get_solver(name).solve(changed(problem, dispatch="even"), Stop(), 0).slots
            for name in ("linear", "greedy", "eplb")
        ]
        states = []
        for slots in placements:
            data = search_data(problem, slots)
            states.append(empty_state(data, slots))
            price_state(data, states[-1], False)
        parts = np.zeros((2, problem.windows))
        guides = [evaluate(data.goal, s.busy, s.sums, parts, 0.7, 0.0)[0] for s in states]
        for i, at in enumerate(states):
            slopes = empty_slopes(at)
            set_slopes(data.goal, at.busy.cost, at.sums, slopes, 0.7)
            assert least_guide(at.busy.cost, at.sums, slopes) == pytest.approx(guides[i], rel=1e-12)
            for j, s in enumerate(states):
                least = least_guide(s.busy.cost, s.sums, slopes)
                assert least <= guides[j] * (1 + 1e-12)
                # Close placements: the tangent says nearly all.
                near = at.busy.cost + 1e-6 * (s.busy.cost - at.busy.cost)
                sums = Sums(*(x + 1e-6 * (y - x) for x, y in zip(at.sums, s.sums, strict=True)))
                moved = evaluate(data.goal, Busy(near, s.busy.load), sums, parts, 0.7, 0.0)[0]
                assert least_guide(near, sums, slopes) == pytest.approx(moved, rel=1e-9)


def test_both_levels_count_and_a_deadline_on_either_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = _slow()
    assert has_levels(problem)
    real, level_steps = solver.run_annealing, []

    def cut(posed: LayerProblem, *args: object, **kwargs: object) -> Annealed:
        run = real(posed, *args, **kwargs)  # type: ignore[arg-type]
        level_steps.append(run.steps)
        return replace(run, termination=Termination.TIME) if posed.topology.gpus_per_node == 1 else run

    plain = get_solver("search").solve(problem, Stop(0.1), 1)
    monkeypatch.setattr(solver, "run_annealing", cut)
    told = get_solver("search").solve(problem, Stop(0.1), 1)
    assert len(set(level_steps)) == 2
    assert plain.iterations == told.iterations == sum(level_steps)
    assert (plain.termination, told.termination) == (Termination.WORK, Termination.TIME)


def test_steps_fall_where_many_nodes_make_each_dearer() -> None:
    def times(nodes: int, dispatch: str, objective: str = "time") -> float:
        problem = random_problem(3, experts=64, gpus=4 * nodes, gpus_per_node=4, slots_per_gpu=24 // nodes)
        coarse = node_level(changed(problem, dispatch=dispatch, objective=objective))
        return steps_ratio(coarse, SetRows.of(problem.data.sets, problem.experts, problem.windows))

    # Homes of 8 nodes that dispatch each in its own way are 64 cells, of 4 nodes 16; alike they are 8 and 4.
    assert times(8, "nearest") == pytest.approx(times(8, "even") / 2**0.5)
    assert times(4, "nearest") == times(4, "even") == times(8, "even")
    # Of bytes, too, whatever the token sets.
    assert times(8, "nearest", "traffic") == pytest.approx(0.5**0.5)
    assert times(4, "nearest", "traffic") == 1.0


def test_redirected_dispatch_beats_fair_shares() -> None:
    problem = _slow(dispatch="planned", tokens=1500)
    slots = get_solver("eplb").solve(changed(problem, dispatch="nearest"), Stop(), 0).slots
    fair = score_layer(problem, slots, near_fractions(problem, slots))
    directed = score_layer(problem, slots, target_fractions(problem, slots, redirect(problem, slots)))
    assert directed.cross_node_bytes_per_token < fair.cross_node_bytes_per_token
    best = score_layer(problem, slots, plan_fractions(problem, slots))
    assert best.objective <= min(fair.objective, directed.objective)


@pytest.mark.parametrize("levels", [1, 4, 16])
def test_rounded_fractions_are_whole_weights_that_sum_to_one(levels: int) -> None:
    problem = _slow(dispatch="planned")
    slots = get_solver("eplb").solve(changed(problem, dispatch="nearest"), Stop(), 0).slots
    rounded = rounded_fractions(plan_fractions(problem, slots), slots, levels)
    assert np.allclose(rounded * levels, np.round(rounded * levels))
    for home in rounded:
        assert np.allclose(np.bincount(slots, home), 1.0)
    assert score_layer(problem, slots, rounded).objective > 0


def test_a_deadline_in_the_past_returns_the_start() -> None:
    problem, current = _current()
    found = run_annealing(problem, current, None, SHORT, Stop.after(0.0), 1)
    assert found.steps == 0
    assert np.array_equal(found.slots, current)


def test_copies_that_a_cap_needs() -> None:
    """Loads over the mean GPU of 1.5, 1.0 and cold ones: beside its coldest neighbour no GPU may be over 1.1."""
    load = np.array([1.5, 1.0, 0.5, 0.4, 0.3, 0.3])
    problem = layer_problem(load, Topology(4, 2), 2, RATES, dispatch="even", max_load=1.1)
    needed = copies_needed(problem)
    assert needed is not None
    assert needed.tolist() == [2, 2, 1, 1, 1, 1]
    assert copies_needed(changed(problem, max_load=1.3)).tolist() == [2, 1, 1, 1, 1, 1]
    assert copies_needed(changed(problem, max_load=None)) is None
    # Shares that a dispatch may plan are no matter of copies alone.
    assert copies_needed(changed(problem, dispatch="planned")) is None
