"""What came next: the best answer that does without one of the chosen kinds, rivals' layouts included."""

from __future__ import annotations

from dataclasses import replace

from placement.planning.choose import _runner_up
from solvers.deploy.problem import Column, MasterProblem, Pool
from solvers.deploy.rivals.rate import Rival
from tests.solvers.deploy.problems import column

POOL = Pool("p", 2, 8, 1e9)


def runner_up(kept: Column, rival: Column) -> tuple[str, float]:
    """Beside an answer of two instances of 8 GPUs at 10 requests/s; one output token a request."""
    chosen = column(0, "aggregated", 8, 10.0)
    problem = MasterProblem((POOL,), (chosen, kept), 0.0)
    found = _runner_up(problem, [chosen], 1, None, [Rival("r", "s", ((rival, 2),), 19.0, 16)])
    assert found is not None
    return found.kinds, found.tokens_per_s


def test_a_recipe_that_does_without_a_chosen_kind_is_no_better() -> None:
    """The search drops what the chosen kinds rule out: next to a recipe at 95% what was left came to 40%."""
    small, recipe = column(0, "aggregated", 4, 2.0), column(0, "aggregated", 8, 9.5)
    shared = replace(recipe, split=replace(recipe.split, tp=2, dp=4))
    assert runner_up(small, shared) == ("2 aggregated TP2 DP4", 19.0)


def test_a_chosen_kind_at_another_batch_did_not_come_next() -> None:
    small, again = column(0, "aggregated", 4, 2.0), column(0, "aggregated", 8, 9.5)
    assert runner_up(small, replace(again, split=replace(again.split, batch=2))) == ("4 aggregated DP4", 8.0)
