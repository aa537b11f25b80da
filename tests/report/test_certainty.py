"""What screens and pages say of how sure figures are."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from placement.check.plan import verify_plan
from placement.planning.solve import plan_scenario
from placement.records.convert import tokens_per_s
from placement.records.front import SCHEMA, Front, FrontAnswer
from placement.records.plan import Plan, TimingsRecord, plan_from_json, plan_json
from placement.records.role import Figure, IntervalRecord
from placement.report.certainty import about, apart, bracket, ends, sure
from placement.report.front import front_text
from placement.report.screen import solve_screen
from placement.report.why import why
from specs.scenario import Scenario
from specs.validation import validate
from tests.cli.conftest import TINY
from tests.report.plans import QUICK, changed

NO_TIME = TimingsRecord(total_s=0.0, split_s=0.0, routing_s=0.0, solve_s=0.0)


def figure(low: float, high: float, provenance: str = "calibrated") -> Figure:
    told = IntervalRecord(low=low, high=high, coverage=0.8, group="30 measurements", nearest="measured within: m")
    return Figure(value=100.0, provenance=provenance, moe_layer="scored placement", interval=told)  # type: ignore[arg-type]


def hopper(nodes: int = 2) -> Scenario:
    """The small scenario on GPUs of a generation that was measured."""
    fields = copy.deepcopy(TINY)
    fields["cluster"]["gpu"]["generation"] = "hopper"
    fields["cluster"]["nodes"] = nodes
    scenario: Scenario = validate(Scenario, fields, "tiny")
    return scenario


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A plan on a generation of GPUs that was measured."""
    return plan_scenario(hopper(), **QUICK)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0.0, "0"),
        (0.06237, "0.0624"),
        (9.6, "9.60"),
        (9.996, "10.0"),
        (14.04, "14.0"),
        (999.6, "1,000"),
        (41234, "41,200"),
    ],
)
def test_ends_have_three_digits_that_count(value: float, told: str) -> None:
    assert about(value) == told


def test_two_choices_are_apart_where_each_lies_outside_the_others_interval() -> None:
    """A choice as good is never apart, though measurements lie to one side of predictions."""
    for told in (figure(80.0, 125.0), figure(60.0, 93.75)):
        assert [apart(told, ratio) for ratio in (1.0, 0.81, 1.24)] == [False] * 3
        assert [apart(told, ratio) for ratio in (0.79, 1.26, 0.0)] == [True] * 3
        assert apart(told.model_copy(update={"interval": None}), 1.0) is None


def test_a_figure_says_where_it_comes_from() -> None:
    assert bracket(figure(80.0, 140.0)) == " (80.0 to 140)"
    assert sure(figure(80.0, 140.0)) == "calibrated; 80% interval of tokens/s, of all alike: -20% to +40%"
    assert sure(figure(80.0, 140.0, "population")).startswith("population (GPU or attention never meas")


@pytest.mark.parametrize("width", [80, 120])
def test_the_screen_has_intervals_and_cuts_none(plan: Plan, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = solve_screen(plan, NO_TIME, None)
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    flat = " ".join(shown.split())
    for told in (plan.predicted.tokens_per_s, plan.predicted.ttft_ms, plan.predicted.tpot_ms):
        assert told is not None
        assert told.interval is not None
        assert f"({about(told.interval.low)} to {about(told.interval.high)}" in flat
    assert re.search(r"intervals +80%[,;] .*by \d+ measurements", flat)
    assert "nearest measured: " in flat


def test_tokens_per_s_of_all_gpus_are_as_sure_as_of_one(plan: Plan) -> None:
    whole, each = plan.predicted.tokens_per_s, plan.predicted.tokens_per_s_per_gpu
    assert whole.interval is not None
    assert each.interval is not None
    assert whole.interval.low / whole.value == pytest.approx(each.interval.low / each.value)


def test_halves_are_at_their_ends_together() -> None:
    """Tokens/s of all roles are at the low end where each role is, which leaves the scarcer half to decide."""
    both = plan_scenario(hopper(4), mode="disaggregated", **QUICK)
    whole, halves = both.predicted.tokens_per_s.interval, [role.predicted.tokens_per_s.interval for role in both.roles]
    assert whole is not None
    assert len(halves) == 2
    for end in ("low", "high"):
        each = {i: getattr(half, end) for i, half in enumerate(halves)}
        assert getattr(whole, end) == tokens_per_s(both.scenario.spec, both.roles, each)
    assert whole.low <= min(half.low for half in halves if half is not None)
    assert all(check.passed is not False for check in verify_plan(both))


def test_a_front_tells_them_by_limit(plan: Plan) -> None:
    told = plan.predicted.tokens_per_s.interval
    answer = FrontAnswer(
        tpot_limit_ms=9.0, tokens_per_s=5.0, tokens_per_s_per_gpu=1.0, gpus=5, ttft_ms=None, tpot_ms=None, kinds=(),
        provenance="population", interval=told,
    )  # fmt: skip
    front = Front(schema_=SCHEMA, scenario="s", answers=(answer,))
    assert told is not None
    assert ends(told) in front_text(front)
    assert "figures  population" in front_text(front)
    older = answer.model_dump(exclude={"provenance", "interval"})
    assert "interval" not in front_text(Front(schema_=SCHEMA, scenario="s", answers=(older,)))  # type: ignore[arg-type]


def test_a_runner_up_within_the_interval_is_called_so(plan: Plan) -> None:
    def beside(ratio: float) -> Callable[[dict[str, Any]], None]:
        def change(data: dict[str, Any]) -> None:
            rate = data["choice"]["priced_tokens_per_s"] * ratio
            data["choice"]["runner_up"] = {"kinds": "1 aggregated EP2", "tokens_per_s": rate}

        return change

    told = dict(why(changed(plan, beside(0.99))))
    assert told["runner-up"] == "1 aggregated EP2: -1.0% tokens/s, within the interval"
    assert dict(why(changed(plan, beside(0.1))))["runner-up"] == "1 aggregated EP2: -90.0% tokens/s"


def test_what_ifs_that_all_lie_within_are_told_so_once(plan: Plan) -> None:
    def bought(*ratios: float) -> Callable[[dict[str, Any]], None]:
        def change(data: dict[str, Any]) -> None:
            rate = data["choice"]["priced_tokens_per_s"]
            data["choice"]["what_if"] = [{"change": f"x{ratio}", "tokens_per_s": rate * ratio} for ratio in ratios]

        return change

    alike = [text for _, text in why(changed(plan, bought(1.01, 1.02)))]
    assert alike[:4] == [alike[0], "x1.01: +1.0% tokens/s", "x1.02: +2.0% tokens/s", "all within the interval"]
    one = [text for _, text in why(changed(plan, bought(1.01, 9.0)))]
    assert one[1:3] == ["x1.01: +1.0% tokens/s, within the interval", "x9.0: +800.0% tokens/s"]


def test_intervals_are_checked_and_older_plans_without_them_pass(plan: Plan) -> None:
    def predicted(data: dict[str, Any]) -> list[dict[str, Any]]:
        records = (data["predicted"], *(role["predicted"] for role in data["roles"]))
        return [each for record in records for each in record.values() if isinstance(each, dict)]

    def without(data: dict[str, Any]) -> None:
        for each in predicted(data):
            del each["interval"]

    def narrower(data: dict[str, Any]) -> None:
        for each in predicted(data):
            each["interval"]["high"] *= 0.9

    assert all(check.passed is not False for check in verify_plan(plan))
    older = changed(plan, without)
    assert older.predicted.tpot_ms is not None
    assert older.predicted.tpot_ms.interval is None
    assert "interval" not in plan_json(older)
    assert all(check.passed is not False for check in verify_plan(older))
    wrong = [check.name for check in verify_plan(changed(plan, narrower)) if check.passed is False]
    assert "prediction" in wrong


def test_the_file_holds_them(plan: Plan) -> None:
    told = json.loads(plan_json(plan))["predicted"]["tpot_ms"]
    assert set(told["interval"]) == {"low", "high", "coverage", "group", "nearest"}
    assert plan_from_json(plan_json(plan), "p.json") == plan
