"""The command or program in a report makes the plan again."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from placement.cli.options import library_options, scenario_options
from placement.cli.solve import command
from placement.planning.case import load_scenario
from placement.planning.effort import Budget
from placement.planning.solve import plan_scenario
from placement.records.plan import Plan, load_plan, plan_json
from placement.report.page.reproduce import reproduction


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"budget": Budget(work=0.5), "seed": 3, "windows": 2, "tail": 0.5, "balance_floor": False},
        {"phase": "decode", "holdout": False, "strategy": "search"},
        {"objective": "traffic"},
    ],
)
def test_the_program_makes_the_plan_again(
    asked: dict[str, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"budget": Budget(work=0.02), "strategy": "greedy", **asked}
    plan = plan_scenario(folder / "tiny.yaml", traces=[folder / "a.npz"], workers=1, **asked)
    plan.save(tmp_path / "plan.json")
    (tmp_path / "a.npz").write_bytes((folder / "a.npz").read_bytes())
    monkeypatch.chdir(tmp_path)
    program, verify = reproduction(plan).texts
    assert verify == "placement verify plan.json --trace a.npz"
    scope: dict[str, Any] = {}
    exec(program, scope)
    assert plan_json(scope["plan"]) == plan_json(plan)


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"redundant": 32, "ep": 8, "dp": 8},
        {"engine": "sglang:deepep", "isl": 2048},
        {"nodes": 2, "ep": 8, "dp": 8, "set": {"model.types.experts": "fp8", "reserve_gib": 4.0, "pins.tp": None}},
    ],
)
def test_the_command_asks_for_the_same_scenario(overrides: dict[str, Any], folder: Path) -> None:
    scenario = load_scenario("deepseek_v2_lite_h100_ib", **overrides)
    plan = _of_scenario(load_plan(folder / "synthetic.json"), scenario)
    solve, _ = reproduction(plan).texts
    assert solve.startswith("placement solve --spec deepseek_v2_lite_h100_ib")
    options = dict(command.make_context("solve", shlex.split(solve)[2:]).params)
    again = load_scenario(options.pop("spec"), **scenario_options(options))
    assert again.model_copy(update={"summary": scenario.summary}) == scenario
    asked = library_options(
        {name: value for name, value in options.items() if name not in ("out", "as_json", "timings")}
    )
    assert (asked["strategy"], asked["seed"], asked["budget"]) == ("search", 0, Budget())


def _of_scenario(plan: Plan, scenario: Any) -> Plan:
    record = plan.scenario.model_copy(update={"name": scenario.name, "spec": scenario})
    return plan.model_copy(update={"scenario": record})


def test_a_plan_that_was_cut_short_promises_no_bytes(folder: Path) -> None:
    plan = _of_scenario(load_plan(folder / "synthetic.json"), load_scenario("deepseek_v2_lite_h100_ib"))
    assert "byte for byte" in reproduction(plan).told
    provenance = plan.provenance.model_copy(update={"cut_short": ("search",)})
    found = reproduction(plan.model_copy(update={"provenance": provenance}))
    assert "byte for byte" not in found.told
    assert "another run may find another plan" in found.why_not
