from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from placement.cost.layer.score import objective_value, score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from solvers.dispatch import near_fractions, plan_fractions, target_fractions
from solvers.dispatch.marginals import marginals
from solvers.dispatch.sequential import _Linear, _Shape, refine
from solvers.experts.heuristics.eplb import EplbSolver
from solvers.experts.merit import merit
from tests.layers import changed, layer_problem
from tests.solvers.problems import RATES, mixed, random_placement, random_problem, running_problem

#: Links inside a node are left out of the LP; here they never decide.
SLOW = replace(RATES, fast_bytes_per_s=1e15, tokens_per_gpu=2000.0)


def random_plan(problem: LayerProblem, slots: np.ndarray, seed: int) -> np.ndarray:
    """[nodes, slots] shares drawn at random."""
    raw = np.random.default_rng([seed, 3]).random((problem.topology.nodes, problem.slots)) * (slots >= 0) + 1e-3
    sums = np.stack([np.bincount(slots[slots >= 0], row[slots >= 0], minlength=problem.experts) for row in raw])
    return np.where(slots >= 0, raw / sums[:, slots], 0.0)


def bounds_at(model: _Linear) -> np.ndarray:
    """[variables, 2] bounds that leave an LP its own plan alone."""
    fixed = np.concatenate([model.start, np.zeros(model.upper.shape[1] - len(model.start))])
    return np.stack([fixed, np.where(np.arange(len(fixed)) < len(model.start), fixed, np.inf)], axis=1)


def merit_of(problem: LayerProblem, slots: np.ndarray, plan: np.ndarray) -> tuple[float, float]:
    return merit(problem, score_layer(problem, slots, plan))


def test_slopes_are_those_of_the_touch_chance() -> None:
    rng = np.random.default_rng(1)
    ids = np.sort(rng.permuted(np.tile(np.arange(7), (9, 1)), axis=1)[:, :3], axis=1).astype(np.int32)
    weight, keep = rng.dirichlet(np.ones(9), size=2), rng.random((2, 7, 3))
    keep[0, 2, 1] = 0.0
    touched, slope = marginals(ids, weight, keep)
    for h, w, b in product(range(2), range(2), range(3)):
        chance = 1.0 - keep[h][ids, b].prod(axis=1)
        assert touched[h, w, b] == pytest.approx(weight[w] @ chance)
        for e in range(7):
            gone = keep.copy()
            gone[h, e, b] = 0.0
            all_there = marginals(ids, weight, gone)[0][h, w, b]
            gone[h, e, b] = 1.0
            assert slope[h, w, e, b] == pytest.approx(all_there - marginals(ids, weight, gone)[0][h, w, b])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    rule=st.sampled_from(["per_node", "per_rank", "per_expert"]),
    objective=st.sampled_from(["time", "load", "traffic"]),
    two=st.booleans(),
    kinds=st.booleans(),
    tail=st.sampled_from([0.0, 0.4, 1.0]),
)
def test_the_lp_prices_its_own_plan_as_the_scorer_does(
    seed: int, rule: str, objective: str, two: bool, kinds: bool, tail: float
) -> None:
    problem = random_problem(
        seed, slots_per_gpu=6, windows=3, message=rule, dispatch="planned", tail=tail, rates=SLOW,
        objective=objective,
    )  # fmt: skip
    if two:
        problem = changed(problem, rates=replace(SLOW, overlap="two_batch"))
    if kinds:
        problem = changed(problem, rates=mixed(problem.hardware.rates))
    slots = random_placement(problem, seed)
    plan = random_plan(problem, slots, seed)
    shape = _Shape.of(problem, slots)
    model = _Linear.near(problem, shape, slots, plan)
    answer = linprog(model.price, A_ub=model.upper, b_ub=model.limit, bounds=bounds_at(model))
    # HiGHS keeps rows to 1e-7, here seconds; with kinds a window's are several.
    assert answer.fun == pytest.approx(objective_value(problem, slots, plan), rel=1e-5 if kinds else 1e-9)


@pytest.mark.parametrize("rule", ["per_node", "per_rank", "per_expert", "dense"])
@pytest.mark.parametrize("capacity", [[6, 0, 0, 6, 6, 6, 6, 6], [0, 6, 6, 6, 6, 6, 0, 0]])
def test_the_lp_prices_what_failed_gpus_leave_to_others(rule: str, capacity: list[int]) -> None:
    problem = random_problem(
        2, gpus_per_node=4, slots_per_gpu=6, experts=20, message=rule, dispatch="planned", rates=SLOW, capacity=capacity
    )
    slots = random_placement(problem, 2)
    plan = random_plan(problem, slots, 2)
    model = _Linear.near(problem, _Shape.of(problem, slots), slots, plan)
    answer = linprog(model.price, A_ub=model.upper, b_ub=model.limit, bounds=bounds_at(model))
    assert answer.fun == pytest.approx(objective_value(problem, slots, plan), rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rates", [SLOW, mixed(SLOW)], ids=["alike", "kinds"])
def test_a_small_step_costs_what_the_lp_says(seed: int, rates: LayerRates) -> None:
    problem = random_problem(seed, slots_per_gpu=6, windows=2, dispatch="planned", rates=rates)
    slots = random_placement(problem, seed)
    plan = random_plan(problem, slots, seed)
    model = _Linear.near(problem, _Shape.of(problem, slots), slots, plan)
    before, box = objective_value(problem, slots, plan), 1e-3
    stepped = model.solve(box)
    assert stepped is not None
    assert np.abs(stepped - plan).max() <= box * (1 + 1e-6)
    gain = before - objective_value(problem, slots, stepped)
    half = model.solve(box / 2)
    assert half is not None
    assert gain > 0
    assert before - objective_value(problem, slots, half) == pytest.approx(gain / 2, rel=0.2)


def explicit_optimum(problem: LayerProblem, slots: np.ndarray) -> float:
    """Seconds of the best plan where messages are copies and time is linear, as an LP written down once more."""
    nodes, m, spg = problem.topology.nodes, problem.topology.gpus_per_node, problem.hardware.slots_per_gpu
    rates, load = problem.hardware.rates, problem.data.mean_load
    both = (rates.dispatch_bytes + rates.combine_bytes) / rates.slow_bytes_per_s
    count = nodes * problem.slots
    upper = []
    for gpu in range(problem.topology.gpus):
        row = np.zeros(count + 2)
        for h, s in product(range(nodes), range(gpu * spg, gpu * spg + spg)):
            row[h * problem.slots + s] = rates.token_s * rates.tokens_per_gpu * m * load[slots[s]]
        row[count] = -1
        upper.append(row)
        # A GPU's own NIC takes what other nodes' GPUs send it, a copy each.
        into = np.zeros(count + 2)
        for h, s in product(range(nodes), range(gpu * spg, gpu * spg + spg)):
            into[h * problem.slots + s] = both * rates.tokens_per_gpu * m * load[slots[s]] * (h != gpu // m)
        into[count + 1] = -1
        upper.append(into)
    for node in range(nodes):
        out = np.zeros(count + 2)
        for s in range(problem.slots):
            out[node * problem.slots + s] = both * rates.tokens_per_gpu * load[slots[s]] * (s // spg // m != node)
        out[count + 1] = -1
        upper.append(out)
    limit = np.zeros(len(upper))
    equal = np.zeros((nodes * problem.experts, count + 2))
    for h, s in product(range(nodes), range(problem.slots)):
        equal[h * problem.experts + slots[s], h * problem.slots + s] = 1
    price = np.zeros(count + 2)
    price[count:] = 1
    answer = linprog(price, A_ub=np.array(upper), b_ub=limit, A_eq=equal, b_eq=np.ones(len(equal)))
    assert answer.status == 0
    return float(answer.fun) + 2 * tariff_of(problem).latency_s


@pytest.mark.parametrize("seed", range(6))
def test_without_token_sets_the_plan_is_optimal(seed: int) -> None:
    problem = random_problem(
        seed, experts=10, gpus=4, gpus_per_node=2, slots_per_gpu=4, with_sets=False, message="per_expert",
        dispatch="planned", rates=replace(SLOW, weight_s=0.0),
    )  # fmt: skip
    slots = random_placement(problem, seed)
    best = explicit_optimum(problem, slots)
    assert objective_value(problem, slots, plan_fractions(problem, slots)) == pytest.approx(best, rel=1e-6)


def test_without_token_sets_no_plan_of_quarters_is_better() -> None:
    load = np.array([0.9, 0.7, 0.4])
    problem = layer_problem(
        load, Topology(2, 1), 2, replace(SLOW, weight_s=0.0), message="per_expert", dispatch="planned"
    )
    slots = np.array([0, 1, 0, 2])
    best = objective_value(problem, slots, plan_fractions(problem, slots))
    quarters = np.arange(5) / 4
    for a, b in product(quarters, quarters):
        plan = np.array([[a, 1, 1 - a, 1], [b, 1, 1 - b, 1]])
        assert best <= objective_value(problem, slots, plan) * (1 + 1e-9)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), rule=st.sampled_from(["per_node", "per_rank"]))
def test_with_token_sets_never_worse_than_any_other_plan(seed: int, rule: str) -> None:
    problem = running_problem(seed, experts=16, gpus=8, slots_per_gpu=4, k=3, tokens=200, windows=2)
    problem = changed(problem, message=rule, dispatch="planned", max_load=1.4 if seed % 2 else None)
    slots = random_placement(problem, seed)
    own = random_plan(problem, slots, seed)
    found = plan_fractions(problem, slots, own)
    value = merit_of(problem, slots, found)
    for plan in (near_fractions(problem, slots), own):
        assert value <= merit_of(problem, slots, plan)
    for expert in range(problem.experts):
        assert found[:, slots == expert].sum(axis=1) == pytest.approx(1.0)


def test_refining_gains_on_a_balancers_placement_and_repeats_itself() -> None:
    problem = random_problem(4, experts=32, slots_per_gpu=6, tokens=2000, dispatch="planned", rates=SLOW)
    slots = EplbSolver().place(problem, 0)
    near = near_fractions(problem, slots)
    before = merit_of(problem, slots, near)
    plan, value = refine(problem, slots, near, 12, before)
    assert value == merit_of(problem, slots, plan)
    assert value[1] < 0.97 * before[1]
    assert np.array_equal(plan, refine(problem, slots, near, 12, before)[0])


def test_a_cap_on_loads_is_kept() -> None:
    problem = random_problem(4, experts=32, slots_per_gpu=6, tokens=2000, dispatch="planned", rates=SLOW)
    slots = EplbSolver().place(problem, 0)
    near = near_fractions(problem, slots)
    free, _ = refine(problem, slots, near, 12, merit_of(problem, slots, near))
    loose = score_layer(problem, slots, free).pooled_imbalance
    capped = changed(problem, max_load=(1.0 + loose) / 2)
    found, _ = refine(capped, slots, near, 12, merit_of(capped, slots, near))
    assert score_layer(capped, slots, found).pooled_imbalance <= capped.rules.max_load * (1 + 1e-8) < loose


def test_shares_of_failed_gpus_stay_none() -> None:
    problem = running_problem(3, experts=16, gpus=8, slots_per_gpu=4, k=3, dispatch="planned")
    assert (problem.hardware.capacities == 0).any()
    slots = random_placement(problem, 3)
    found = plan_fractions(problem, slots)
    assert (found[:, slots < 0] == 0).all()


def test_targets_refined_stay_valid() -> None:
    problem = random_problem(6, slots_per_gpu=6, dispatch="planned", rates=SLOW)
    slots = EplbSolver().place(problem, 0)
    node = problem.hardware.gpu_of_slot // problem.topology.gpus_per_node
    target = np.stack([[node[slots == e].max() for e in range(problem.experts)]] * problem.topology.nodes)
    start = target_fractions(problem, slots, target)
    plan, value = refine(problem, slots, start, 4, merit_of(problem, slots, start))
    assert value[1] < objective_value(problem, slots, start)
    assert (plan >= 0).all()
