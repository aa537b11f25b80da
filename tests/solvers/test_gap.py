"""The bound first: nothing is searched where a heuristic is proven near enough; what is searched stays as it was."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from placement.problem.layer import LayerProblem
from solvers.bounds.layer import LayerBounds, layer_bound
from solvers.experts.auto import AutoSolver
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.experts.noise import least_gain
from solvers.params import DEFAULTS, SearchParams
from solvers.registry import get_solver
from solvers.result import Termination
from solvers.stop import Stop
from tests.layers import changed
from tests.solvers.problems import RATES, random_problem

#: Experts take long beside messages, so that loads decide.
WORK = replace(RATES, token_s=1e-6)
#: All on one node, as where expert placement matters little; over nodes, where it does; with replicas; load alone.
CASES: tuple[dict[str, Any], ...] = (
    {"gpus": 2, "gpus_per_node": 2, "slots_per_gpu": 16, "rates": WORK},
    {"gpus": 4, "gpus_per_node": 4, "slots_per_gpu": 8, "windows": 3, "rates": WORK},
    {"gpus": 8, "gpus_per_node": 2, "slots_per_gpu": 4},
    {"gpus": 4, "gpus_per_node": 4, "slots_per_gpu": 10, "dispatch": "planned", "rates": WORK},
    {"gpus": 8, "gpus_per_node": 8, "slots_per_gpu": 5, "objective": "load"},
    {"gpus": 4, "gpus_per_node": 2, "slots_per_gpu": 8, "objective": "traffic"},
    {"experts": 8, "gpus": 2, "gpus_per_node": 2, "slots_per_gpu": 4, "k": 2, "tokens": 40},
)
PROBLEMS = [random_problem(seed, **case) for case in CASES for seed in range(2)]
QUICK = Stop(0.05)
STATED = replace(QUICK, gap=0.01)


def same(one: LayerAnswer, other: LayerAnswer) -> bool:
    """Whether two answers are the same, to the bit."""
    fractions = one.fractions is other.fractions or np.array_equal(one.fractions, other.fractions)  # type: ignore[arg-type]
    proven = (one.bound, one.bound_source) == (other.bound, other.bound_source)
    return bool(fractions and proven and np.array_equal(one.slots, other.slots) and one.status is other.status)


@pytest.fixture(scope="module")
def answers() -> list[tuple[LayerProblem, LayerAnswer, LayerAnswer]]:
    """Problems with their answers with a gap and without."""
    stated, whole = (plan_layers(PROBLEMS, "auto", stop, 3) for stop in (STATED, QUICK))
    return list(zip(PROBLEMS, stated, whole, strict=True))


def test_a_settled_layer_is_near_enough_and_a_searched_one_as_without_a_gap(
    answers: list[tuple[LayerProblem, LayerAnswer, LayerAnswer]],
) -> None:
    settled = [one.termination is Termination.PROVEN for _, one, _ in answers]
    assert 3 <= sum(settled) < len(settled)
    for problem, one, whole in answers:
        if one.termination is not Termination.PROVEN:
            assert same(one, whole)
            continue
        gain = 0.0 if problem.objective.kind == "load" else least_gain(problem, DEFAULTS)
        assert one.gap <= max(STATED.gap, 1 / (1 - gain) - 1) + 1e-12
        assert one.bound <= whole.score.objective * (1 + 1e-9)
        if one.gap > STATED.gap and problem.rules.dispatch != "planned":
            # By the noise rule alone: the search is kept only where it gains more.
            np.testing.assert_array_equal(one.slots, whole.slots)


def test_where_all_is_settled_nothing_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(*_: object) -> None:
        raise AssertionError("a search began")

    monkeypatch.setattr(AutoSolver, "solve_against", searched)
    one_node = [random_problem(seed, **CASES[0]) for seed in range(3)]
    told: list[int] = []
    found = plan_layers(one_node, "auto", STATED, 3, workers=2, on_layer=told.append)
    assert {answer.termination for answer in found} == {Termination.PROVEN}
    assert sorted(told) == [0, 1, 2]
    with pytest.raises(AssertionError, match="a search began"):
        plan_layers(one_node, "auto", QUICK, 3)


def test_workers_and_backends_change_nothing() -> None:
    some = PROBLEMS[::3]
    one = plan_layers(some, "auto", STATED, 3)
    for workers, backend in ((2, "threads"), (2, "processes"), (1, "sequential")):
        other = plan_layers(some, "auto", STATED, 3, workers, backend=backend)  # type: ignore[arg-type]
        assert all(same(a, b) and a.termination is b.termination for a, b in zip(one, other, strict=True))


def test_what_counts_as_a_gain_settles_no_layer_that_is_proven_exactly() -> None:
    """Of small layers the exact answer is kept, however little it gains: there the gap alone settles."""
    small = random_problem(0, **(CASES[-1] | {"rates": WORK}))
    for asked, settled in ((SearchParams(), False), (SearchParams(exact_binaries=0, most_placements=0), True)):
        (answer,) = plan_layers([small], "auto", replace(QUICK, gap=1e-9, params=asked), 3)
        assert (answer.termination is Termination.PROVEN) is settled
        assert answer.gap > 1e-9 or not settled


def test_no_noise_rule_leaves_the_gap_alone() -> None:
    problem = random_problem(0, **CASES[0])
    loose = replace(STATED, params=SearchParams(least_gain=0.5))
    strict = replace(STATED, gap=1e-6, params=SearchParams(least_gain=0.0))
    assert plan_layers([problem], "auto", loose, 3)[0].termination is Termination.PROVEN
    assert plan_layers([problem], "auto", strict, 3)[0].termination is not Termination.PROVEN


@pytest.mark.parametrize("objective", ["time", "traffic", "load"])
def test_a_bound_that_is_enough_ends_the_work_and_holds(objective: str) -> None:
    problem = changed(random_problem(2, gpus=8, gpus_per_node=2), objective=objective)
    whole, quick = layer_bound(problem).value, layer_bound(problem, quick=True).value
    for share in (0.0, 0.5, 1.0):
        enough = quick + share * (whole - quick)
        found = LayerBounds(problem).best(enough=enough).value
        assert enough <= found <= whole * (1 + 1e-12)
    assert LayerBounds(problem).best(enough=whole * 1.01).value == whole


def test_bounds_asked_twice_are_the_same() -> None:
    problem = PROBLEMS[4]
    bounds = LayerBounds(problem)
    assert bounds.best() == bounds.best() == layer_bound(problem)
    assert bounds.best(1e9) == layer_bound(problem, 1e9)


def test_only_auto_settles() -> None:
    assert get_solver("auto").settles
    assert not any(get_solver(name).settles for name in ("search", "cpsat", "milp", "eplb"))
