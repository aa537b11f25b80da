"""`python -m bench run recipe_gain`: every scenario is in the table, and no recipe beats the planner."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
from click.testing import CliRunner

from bench.recipe_gain import measure
from bench.recipe_gain.cases import CASES, catalog_cases
from bench.recipe_gain.main import command
from bench.recipe_gain.measure import Row
from specs.loading import load_scenario

QUICK = "gpt_oss_120b_one_h100_node"


@pytest.fixture(scope="module")
def row() -> Row:
    """The quickest scenario, measured once."""
    case = next(case for case in CASES if case.name == QUICK)
    return measure.measure(case.name, case.kind, case.scenarios())


@pytest.fixture
def shown(row: Row, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What the command prints of that scenario."""
    monkeypatch.setattr(measure, "measure", lambda name, kind, pools: row)

    def show(*args: str) -> str:
        outcome = CliRunner().invoke(command, ("--scenario", QUICK, *args), catch_exceptions=False)
        assert outcome.exit_code == 0
        return outcome.stdout

    return show


def test_the_scenarios_are_forty_and_more_and_apart() -> None:
    names = [*catalog_cases(), *(case.name for case in CASES)]
    assert len(names) == len(set(names)) >= 40
    assert all(load_scenario(name).workload.kind == "serving" for name in catalog_cases())
    kinds = {case.kind for case in CASES}
    assert {"tight limits", "unequal pools", "few GPUs", "odd node count", "bound by HBM"} <= kinds
    for case in CASES:
        pools = case.scenarios()
        assert [pool.cluster.nodes for pool in pools] == [nodes for _, nodes in case.pools]
        assert len({pool.workload for pool in pools}) == 1


def test_every_recipe_is_told_and_none_beats_the_planner(shown: Callable[..., str]) -> None:
    (told,) = json.loads(shown("--json"))
    assert told["scenario"] == QUICK
    for answer in (told["two_kinds"], told["any_kinds"]):
        assert answer["gain"] >= 1 - 1e-9
        rates = [each["tokens_per_s"] for each in answer["recipes"] if each["tokens_per_s"] is not None]
        assert answer["tokens_per_s"] / max(rates) == pytest.approx(answer["gain"])
        assert all(bool(each["why_not"]) == (each["tokens_per_s"] is None) for each in answer["recipes"])
        assert answer["why"]
    assert len(told["two_kinds"]["how"].split(", ")) <= 2


def test_a_scenario_that_no_recipe_serves_is_told(row: Row) -> None:
    refused = tuple(replace(rival, kinds=(), requests_per_s=0.0, why="exceeds HBM") for rival in row.few.rivals)
    alone = replace(row.few, rivals=refused)
    assert alone.gain is None
    assert measure.reason(alone) == "no recipe is feasible: exceeds HBM"


def test_the_tables(shown: Callable[..., str]) -> None:
    text = shown("--markdown")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == 3
    assert {line.count("|") for line in lines} == {9}
    assert "1 scenarios; a recipe serves 1." in text
    assert QUICK in shown()


def test_an_unknown_scenario_is_refused() -> None:
    outcome = CliRunner().invoke(command, ("--scenario", "nothing"))
    assert outcome.exit_code == 2
    assert "no scenario nothing" in outcome.output
