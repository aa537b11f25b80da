"""Scenarios side by side come to what they come to one after another; routing is made once a scenario."""

from dataclasses import replace
from typing import Any

import pytest

from bench.lab.discover import targets
from bench.lab.harness import Asked
from bench.lab.planner import Planner
from bench.lab.sweep import Share, pairs
from bench.lab.target import PairResult
from placement.planning import case as cases
from placement.planning.solve import solve
from specs.scenario import Scenario

TARGETS = {target.name: target for target in targets()}


def shares(scenarios: dict[str, Scenario], asked: Asked) -> list[Share]:
    return [Share(scenarios[name], asked.targets, asked) for name in ("gpt_oss", "training", "deepseek_r1")]


def test_side_by_side_is_as_one_after_another(scenarios: dict[str, Scenario]) -> None:
    asked = Asked((TARGETS["alltoall_tuning"],), workers=1)
    alone = list(pairs(shares(scenarios, asked), asked))
    told: list[tuple[int, int]] = []
    beside = list(
        pairs(shares(scenarios, asked), replace(asked, workers=2), lambda at: told.append((at.done, at.total)))
    )
    assert [type(each) for each in alone].count(PairResult) == 2
    assert beside == alone
    assert told == [(done, 3) for done in range(4)]


def test_synthetic_routing_is_made_once_a_scenario(
    scenarios: dict[str, Scenario], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    real = cases.synthetic_source

    def counted(scenario: Scenario, *given: Any) -> Any:
        made.append(scenario.name)
        return real(scenario, *given)

    planner, scenario = Planner(workers=1), scenarios["training"]
    anew = solve(replace(planner.case(scenario), sources=(), told=False, certify=False)).plan
    monkeypatch.setattr(cases, "synthetic_source", counted)
    planner = Planner(workers=1)
    plan = planner.plan(scenario)
    judged = planner.routing(scenario)
    assert planner.routing(plan.scenario.spec) is judged
    planner.routing(scenario, 4)
    assert made == [scenario.name]
    assert plan == anew
