"""Close prices: what answers use is priced with every layer placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from placement.cost.step.roles import kv_bytes_per_request
from placement.planning.solve import plan_scenario
from placement.problem.data import LayerData
from placement.records.plan import Plan
from placement.routing.holdout import routing_of, synthetic_source
from solvers.deploy.close import CLOSE, ClosePrices, settle
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.rivals.rate import Rival, settle_with
from solvers.deploy.solve import solve_master
from solvers.stop import Stop
from specs.scenario import Scenario
from tests.cost import scenarios as s
from tests.solvers.deploy.problems import all_counts, random_problem


def small() -> Scenario:
    """A small model on 2 x 4 GPUs."""
    return s.scenario(workload=s.serving(isl=1024, osl=128, ttft_ms=60.0, tpot_ms=4.0))


class Scaled(ClosePrices):
    """Close prices that are a share of the quick ones; none for some columns."""

    def __init__(self, problem: MasterProblem, seed: int) -> None:
        super().__init__((), ())
        rng = np.random.default_rng(seed)
        self.shares = {column: float(share) for column, share in zip(
            problem.columns, rng.uniform(0.6, 1.2, len(problem.columns)), strict=True
        )}  # fmt: skip
        self.gone = {column for column in problem.columns if rng.random() < 0.2}

    def _priced(self, column: Column) -> Column | None:
        if column in self.gone:
            return None
        rate = column.point.requests_per_s * self.shares[column]
        return replace(column, point=replace(column.point, requests_per_s=rate), moe_source=CLOSE)


@pytest.mark.parametrize("seed", range(40))
def test_an_answer_uses_close_prices_alone_and_is_the_best_of_its_problem(seed: int) -> None:
    problem = random_problem(seed)
    close = Scaled(problem, seed)
    settled = settle(problem, close)
    used = [c for c, n in zip(settled.problem.columns, settled.answer.counts, strict=True) if n]
    if all(close.has(column) for column in used):
        best = max(settled.problem.requests_per_s(counts) for counts in all_counts(settled.problem))
        assert settled.answer.requests_per_s == pytest.approx(best, rel=1e-6)
    else:
        # Where nothing with a close price serves, quick prices stand.
        assert close.gone & set(used) or not problem.serves


def test_without_close_prices_the_master_answers_at_once() -> None:
    problem = random_problem(3)
    assert settle(problem, None).answer == solve_master(problem)
    late = Scaled(problem, 3)
    late.stop = Stop.after(0.0)
    assert settle(problem, late).answer == solve_master(problem)


def rated(plan: Plan) -> tuple[float, float]:
    choice = plan.choice
    assert choice is not None
    return choice.priced_tokens_per_s, plan.predicted.tokens_per_s.value


def test_the_price_of_the_choice_is_the_figure_of_the_plan() -> None:
    """Judged on the routing that it is solved on, the load balancer's plan yields what its choice was priced at."""
    priced, yields = rated(plan_scenario(small(), strategy="eplb", holdout=False, windows=1))
    assert yields == pytest.approx(priced, rel=1e-9)


def statistics_of(scenario: Scenario) -> Sequence[LayerData]:
    source = synthetic_source(scenario, 0)
    return routing_of((source,), scenario.model.moe.computed_top_k, windows=1, mixture=False).solved_on


def test_columns_keep_their_limits_at_close_prices() -> None:
    case = small()
    workload = case.workload
    assert workload.kind == "serving"
    close = ClosePrices([case], tuple(statistics_of(case)))
    columns = list_columns([case], ("aggregated", "prefill", "decode"), case.pins, None).columns
    problem = MasterProblem((pool_of(case),), columns, kv_bytes_per_request(case))
    for column in problem.columns[:12]:
        priced = close(column)
        if priced is not None:
            assert close.has(priced)
            assert close(priced) == priced
            # Prefill is planned up to its limit, as far as rounding goes.
            assert (priced.point.ttft_s or 0.0) <= workload.ttft_ms * 1e-3 * (1 + 1e-12)
            assert (priced.point.tpot_s or 0.0) <= workload.tpot_ms * 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_an_answer_is_no_worse_than_the_best_rival(seed: int) -> None:
    problem = random_problem(seed)
    settled = settle(problem, None)
    best = max(problem.columns, key=lambda c: c.point.requests_per_s)
    rate = best.point.requests_per_s * 3
    better = replace(best, role="aggregated", point=replace(best.point, requests_per_s=rate))
    alone = solve_master(replace(problem, columns=(better,)))
    rival = Rival("r", "s", ((better, alone.counts[0]),), alone.requests_per_s, alone.gpus, (better,))
    again = settle_with(settled, [rival], None)
    assert again.answer.requests_per_s >= max(settled.answer.requests_per_s, rival.requests_per_s) * (1 - 1e-6)
