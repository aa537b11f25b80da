"""The compiled search for loads alone against brute force, closed forms and bounds."""

from itertools import combinations_with_replacement, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.check.layer import check_layer
from placement.cost.layer.score import objective_value
from placement.problem.arrays import EMPTY
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from solvers.bounds.work import work_bounds
from solvers.experts.heuristics.eplb import eplb_layer
from solvers.experts.heuristics.packing import distinct_packing, pack, replicate
from solvers.experts.layers import plan_layers
from solvers.experts.loads.layer import (
    Work,
    busiest,
    cost_table,
    mend_layer,
    physical_experts,
    place_layer,
    place_layers,
)
from solvers.experts.loads.local import improve, improve_rows
from solvers.experts.loads.pairs import best_copies, paired, single_copies
from solvers.experts.search.balance import balance
from solvers.stop import Stop
from tests.layers import layer_problem
from tests.solvers.oracle import brute_force
from tests.solvers.problems import RATES, random_problem


def load_problem(load: np.ndarray, gpus: int, width: int, **changes: object) -> LayerProblem:
    return layer_problem(load, Topology(gpus, gpus), width, RATES, objective="load", **changes)


def heaviest(slots: np.ndarray, width: int, cost: np.ndarray) -> float:
    """Largest summed cost of a GPU; cost: [copies + 1, experts]."""
    rows = np.asarray(slots).reshape(-1, width).tolist()
    flat = [e for row in rows for e in row if e >= 0]
    return max(sum(cost[flat.count(e), e] for e in row if e >= 0) for row in rows)


def best_pairing(size: list[float], expert: list[int]) -> float:
    """The least largest pair over all pairings without two items of one expert, by recursion."""
    if not size:
        return 0.0
    best = np.inf
    for j in range(1, len(size)):
        if expert[j] != expert[0]:
            rest = [i for i in range(1, len(size)) if i != j]
            below = best_pairing([size[i] for i in rest], [expert[i] for i in rest])
            best = min(best, max(size[0] + size[j], below))
    return best


@pytest.mark.parametrize(("experts", "gpus", "width"), [(4, 3, 2), (5, 3, 2), (5, 3, 3), (4, 4, 2), (5, 3, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_loads_are_balanced_as_well_as_brute_force_can(experts: int, gpus: int, width: int, seed: int) -> None:
    load = np.exp(np.random.default_rng(seed).normal(0, 1.0, experts))
    problem = load_problem(load, gpus, width)
    slots, _ = place_layer(load, gpus * width, 1, 1, gpus, 1.0, Work(4000), seed)
    assert check_layer(problem, slots) == ()
    assert objective_value(problem, slots) == pytest.approx(brute_force(problem).objective, rel=1e-9)


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_pairing_is_the_best_for_its_copies(seed: int, experts: int, gpus: int) -> None:
    """Against all pairings. Where the heaviest-lightest rule would pair an expert with itself, it may lose a little."""
    rng = np.random.default_rng(seed)
    slots = 2 * max(gpus, -(-experts // 2))
    count = np.bincount(np.concatenate([np.arange(experts), rng.integers(0, experts, slots - experts)]))
    load = np.exp(rng.normal(0, 0.8, experts))
    cost = cost_table(load, slots)
    expert = np.repeat(np.arange(experts), count).tolist()
    best = best_pairing([load[e] / count[e] for e in expert], expert)
    found = paired(cost, count)
    if len(found) == 0:
        assert count.max() * 2 > slots  # an expert with more copies than GPUs
        return
    assert (np.sort(found) == expert).all()
    assert (found[::2] != found[1::2]).all()
    reached = heaviest(found, 2, cost)
    assert reached >= best * (1 - 1e-12)
    order = np.sort([load[e] / count[e] for e in expert])
    if reached > best * (1 + 1e-12):
        # Only then: the rule's own pairs hold an expert twice.
        ranked = sorted(expert, key=lambda e: (load[e] / count[e], e))
        assert any(ranked[i] == ranked[-1 - i] for i in range(slots // 2))
    else:
        assert reached >= (order + order[::-1]).max() * (1 - 1e-12)


def test_search_over_copies_finds_the_best_of_all_replications() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        load = np.exp(rng.normal(0, 1.0, 6))
        cost = cost_table(load, 5)
        best = np.inf
        for extra in combinations_with_replacement(range(6), 4):
            count = 1 + np.bincount(extra, minlength=6)
            found = paired(cost, count)
            if len(found):
                best = min(best, heaviest(found, 2, cost))
        start = replicate(load, 10, 5)
        copies, reached, _ = best_copies(cost, start, 0.0, 5000, seed)
        assert reached == pytest.approx(best, rel=1e-12)
        assert heaviest(paired(cost, copies), 2, cost) == pytest.approx(reached, rel=1e-12)
        assert copies.sum() == 10
        assert copies.min() >= 1


def test_one_slot_per_gpu_is_optimal() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        load = np.exp(rng.normal(0, 1.0, 5))
        cost = cost_table(load, 9)
        best = min(
            max(load[e] / r for e, r in enumerate(count)) for count in product(range(1, 6), repeat=5) if sum(count) == 9
        )
        assert heaviest(single_copies(cost, 9), 1, cost) == pytest.approx(best)


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(2, 6), st.integers(1, 4), st.booleans(), st.booleans()
)
@settings(max_examples=100, deadline=None)
def test_balance_is_valid_and_never_worse_than_its_start(
    seed: int, experts: int, gpus: int, width: int, timed: bool, gaps: bool
) -> None:
    width = min(experts, max(width, -(-experts // gpus)))
    rng = np.random.default_rng(seed)
    capacity = np.full(gpus, width)
    if gaps and gpus * width > experts:
        capacity[rng.integers(gpus)] -= 1
    windows = int(rng.integers(1, 3))
    load = np.exp(rng.normal(0, 1.0, (windows, experts)))
    problem = load_problem(load, gpus, width, capacity=capacity if gaps else None)
    start = distinct_packing(problem.data.mean_load, gpus, width, capacity)
    most = max(1, min(gpus, problem.hardware.usable_slots - experts + 1))
    cost = np.stack([load / max(r, 1) for r in range(most + 1)])
    if timed:
        # Costs that fall slower than 1 / copies, as weight reads make them.
        cost = np.sqrt(cost) + 0.3
    slots, value, _ = balance(start, width, gpus, cost, problem.data.window_weight, 0.0, 30, seed % 1000)
    assert check_layer(problem, slots) == ()
    assert ((slots == EMPTY) == (start == EMPTY)).all()

    def mean(placed: np.ndarray) -> float:
        return float(sum(w * heaviest(placed, width, cost[:, i]) for i, w in enumerate(problem.data.window_weight)))

    assert value == pytest.approx(mean(slots), rel=1e-9)
    assert value <= mean(start) * (1 + 1e-12)
    again, _, _ = balance(start, width, gpus, cost, problem.data.window_weight, 0.0, 30, seed % 1000)
    assert np.array_equal(slots, again)


def test_undone_kicks_leave_sums_exact() -> None:
    """After thousands of kicks, most of them undone, the reported value is that of the placement."""
    load = np.exp(np.random.default_rng(5).normal(0, 0.8, 40))
    start = distinct_packing(load, 12, 4)
    slots, value, _ = improve(start, 4, cost_table(load, 9), 0.0, 3000, 1)
    assert value == pytest.approx(busiest(slots, 4, load), rel=1e-12)
    assert value <= busiest(start, 4, load)


def test_start_is_the_balancers_replication() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        load = rng.integers(1, 50, 12).astype(float)
        slots = eplb_layer(load, 20, 1, 1, 5)
        assert (np.bincount(physical_experts(load, 20, 20)) == np.bincount(slots)).all()


def test_groups_are_packed_better_than_the_balancer_where_that_pays() -> None:
    """Longest processing time puts these group loads on two nodes as 20 and 18; 19 and 19 is possible."""
    groups = np.array([5, 6, 9, 7, 6, 5.0])
    load = np.repeat(groups / 4, 4)
    theirs = eplb_layer(load, 24, 6, 2, 4)
    slots, value = place_layer(load, 24, 6, 2, 4, 1.0, Work(200), 0)
    assert value == pytest.approx(9.5)
    assert busiest(theirs, 6, load) >= 10.0
    node = np.arange(24) // 12
    assert all(len(set(node[slots // 4 == group])) == 1 for group in range(6))


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_two_groups_a_node_need_no_search(seed: int, nodes: int, most: int) -> None:
    """Longest processing time is optimal with two in a bin, ties and zeros too."""
    weight = np.random.default_rng(seed).integers(0, most, 2 * nodes).astype(float)
    node, _ = pack(weight, nodes)
    assert np.bincount(node, weight).max() == best_pairing(list(weight), list(range(2 * nodes)))


@pytest.mark.parametrize(
    "counts", [(24, 1, 1, 12), (32, 1, 1, 8), (32, 2, 2, 8), (36, 4, 2, 6), (32, 12, 2, 4), (24, 1, 1, 4)]
)
def test_layers_together_are_placed_as_each_alone_however_work_is_sliced(
    counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    slots, groups, nodes, gpus = counts
    load = np.exp(np.random.default_rng(4).normal(0, 0.8, (7, 24 if groups != 1 or slots > 24 else 20)))
    load[2] = 1.0
    arguments = slots, groups, nodes, gpus, 1.01, Work(20)
    placed, value = place_layers(load, *arguments, 2**63 - 3)
    for i in range(len(load)):
        alone, reached = place_layer(load[i], *arguments, 2**63 - 3 + i)
        assert np.array_equal(placed[i], alone)
        assert value[i] == reached
    monkeypatch.setattr("solvers.experts.loads.local.SLICE", 1)
    monkeypatch.setattr("solvers.experts.loads.layer.TABLES", 1000)
    assert np.array_equal(place_layers(load, *arguments, 2**63 - 3)[0], placed)


def test_copies_that_no_swap_sets_apart_are_packed_anew() -> None:
    load = np.array([1.1, 2.0, 0.7, 24.6, 2.0])
    together = eplb_layer(load, 16, 1, 1, 4).reshape(4, 4)
    assert any(len(set(gpu)) < 4 for gpu in together.tolist())
    slots, _ = place_layer(load, 16, 1, 1, 4, 1.0, Work(0), 0)
    assert all(len(set(gpu)) == 4 for gpu in slots.reshape(4, 4).tolist())
    assert set(slots.tolist()) == set(range(5))


def test_rows_that_no_time_is_left_for_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    load = np.exp(np.random.default_rng(4).normal(0, 0.8, (3, 24)))
    start = np.stack([distinct_packing(row, 8, 4) for row in load])
    monkeypatch.setattr("solvers.experts.loads.local.SLICE", 1)
    best, value, kicks = improve_rows(start, 4, cost_table(load, 8), np.zeros(3), 9, np.arange(3), Stop(deadline=0.0))
    assert np.array_equal(best[1:], start[1:])
    assert value[0] == busiest(best[0], 4, load[0])
    assert np.isinf(value[1:]).all()
    assert kicks.tolist() == [0, 0, 0]


def test_mending_stops_at_its_target_and_refuses_what_breaks_rules() -> None:
    load = np.exp(np.random.default_rng(2).normal(0, 0.8, 24))
    old = np.arange(32) % 24
    new, value = place_layer(load, 32, 1, 1, 8, 1.0, Work(200), 0)
    mended = mend_layer(load, old, 1, 1, 8, value * 1.05, Work(200), 0)
    assert busiest(mended, 4, load) <= value * 1.05
    assert (mended != old).sum() < (new != old).sum()
    assert mend_layer(load, old, 1, 1, 8, value * 0.5, Work(50), 0) is None
    for broken in (np.arange(32) % 23, np.zeros(32, dtype=np.int64), np.where(old == 3, -1, old)):
        assert mend_layer(load, broken, 1, 1, 8, np.inf, Work(50), 0) is None
    # Groups of 12 on two nodes: expert 0 of `old` is on both.
    assert mend_layer(load, old, 2, 2, 8, np.inf, Work(50), 0) is None


@pytest.mark.parametrize(("experts", "gpus"), [(96, 64), (128, 72), (256, 144)])
def test_two_slots_per_gpu_come_near_the_bound(experts: int, gpus: int) -> None:
    """Within 2% of the packing bound; greedy packing of the same copies is not."""
    for seed in range(2):
        load = np.exp(np.random.default_rng(seed).normal(0, 0.8, experts))
        problem = load_problem(load, gpus, 2)
        slots, _ = place_layer(load, 2 * gpus, 1, 1, gpus, 1.0, Work(200), seed)
        value = objective_value(problem, slots)
        bound = float(work_bounds(problem, value).values[0])
        assert bound * (1 - 1e-9) <= value <= bound * 1.02
        assert check_layer(problem, slots) == ()


def test_cpsat_finds_nothing_better_on_small_layers() -> None:
    from solvers.experts.cpsat.solver import CpSatSolver

    for seed in range(3):
        load = np.exp(np.random.default_rng(seed).normal(0, 0.8, 9))
        problem = load_problem(load, 6, 2)
        slots, _ = place_layer(load, 12, 1, 1, 6, 1.0, Work(200), seed)
        proof = CpSatSolver().solve_from(problem, slots, Stop(1.0), 0)
        assert objective_value(problem, slots) <= objective_value(problem, proof.slots) * (1 + 1e-6)


def test_a_thousand_gpus_are_planned_from_counts() -> None:
    problems = [
        random_problem(
            0, load=np.exp(np.random.default_rng(s).normal(0, 0.8, (1, 512))), sets=None, objective="load", gpus=1024,
            gpus_per_node=8, slots_per_gpu=2,
        )
        for s in range(2)
    ]  # fmt: skip
    answers = plan_layers(problems, "auto", Stop(), 1, workers=2)
    assert max(answer.gap for answer in answers) < 0.015
