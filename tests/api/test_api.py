"""The public API: names, cost of importing, objects for files, errors that name parameters, results that print."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import placement
from placement import (
    Budget,
    InputError,
    LoadCounts,
    ParameterError,
    Progress,
    Trace,
    compare_strategies,
    evaluate_plan,
    load_plan,
    load_scenario,
    load_trace,
    migrate_plan,
    plan_deployment,
    plan_front,
    plan_scenario,
    verify_plan,
)
from placement.planning.case import make_case
from placement.planning.tokens import LEAST_TOKENS
from placement.records.plan import plan_json
from tests.cli.conftest import ROOT

QUICK: dict[str, Any] = {"strategy": "search", "budget": Budget(work=0.02), "workers": 1}


def run(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
    )


def test_every_public_name_is_there_and_documented() -> None:
    for name in placement.__all__:
        value = getattr(placement, name)
        assert value.__doc__
    assert set(placement.__all__) <= set(dir(placement))
    with pytest.raises(AttributeError, match="plan_everything"):
        _ = placement.plan_everything


def test_importing_the_package_takes_under_a_tenth_of_a_second_of_processor() -> None:
    code = (
        "import sys, time; before = time.process_time(); import placement; "
        "print(time.process_time() - before, 'numpy' in sys.modules)"
    )
    taken = []
    for _ in range(3):
        seconds, heavy = run(code).stdout.split()
        assert heavy == "False"
        taken.append(float(seconds))
    assert min(taken) < 0.1


def test_objects_and_paths_give_the_same_plan_byte_for_byte(folder: Path) -> None:
    files = [folder / "a.npz", folder / "b.npz"]
    by_path = plan_scenario(folder / "tiny.yaml", traces=files, **QUICK)
    by_object = plan_scenario(load_scenario(folder / "tiny.yaml"), traces=[load_trace(f) for f in files[::-1]], **QUICK)
    assert plan_json(by_path) == plan_json(by_object)
    assert all(check.passed is not False for check in verify_plan(by_object, [load_trace(f) for f in files]))


def test_routing_made_in_memory_is_planned_and_verified(folder: Path) -> None:
    rng = np.random.default_rng(1)
    ids = np.argsort(rng.random((2, 64, 8)), axis=2)[:, :, :2].astype(np.uint8)
    trace = Trace(ids, np.full(4, 16), 8, "made", "recorded")
    plan = plan_scenario(folder / "tiny.yaml", traces=[trace], **QUICK)
    assert len(plan.provenance.inputs[0].sha256) == 64
    assert all(check.passed is not False for check in verify_plan(plan, [trace]))
    counts = LoadCounts(rng.integers(1, 9, (2, 2, 8)).astype(float), "loads", "recorded")
    assert plan_scenario(folder / "tiny.yaml", traces=[counts], **QUICK).objective == "load"


def test_overrides_are_the_scenarios_fields(folder: Path) -> None:
    changed = load_scenario(folder / "tiny.yaml", ep=2, dp=2, isl=32, dispatch="nearest", redundant=None)
    assert (changed.pins.ep, changed.workload.isl, changed.dispatch) == (2, 32, "nearest")  # type: ignore[union-attr]
    assert changed.redundant == load_scenario(folder / "tiny.yaml").redundant
    with pytest.raises(TypeError, match="expert_count"):
        load_scenario(folder / "tiny.yaml", expert_count=3)
    with pytest.raises(InputError, match="dispatch"):
        load_scenario(folder / "tiny.yaml", dispatch="nearby")


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [
        ({"strategy": "serch"}, "strategy"),
        ({"tail": 2.0}, "tail"),
        ({"windows": 0}, "windows"),
        ({"phase": "train"}, "phase"),
        ({"objective": "money"}, "objective"),
        ({"workers": -1}, "workers"),
        ({"seed": -1}, "seed"),
        ({"backend": "threds"}, "backend"),
    ],
)
def test_errors_name_parameters_and_no_options(folder: Path, asked: dict[str, Any], parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        plan_scenario(folder / "tiny.yaml", **(QUICK | asked))
    assert str(caught.value).startswith(f"`{parameter}`: ")
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_is_positive(value: float) -> None:
    for name in ("work", "time_limit"):
        with pytest.raises(ParameterError, match=name):
            Budget(**{name: value})


def test_progress_is_told_stage_by_stage(folder: Path) -> None:
    told: list[Progress] = []
    plan_scenario(folder / "tiny.yaml", on_progress=told.append, **QUICK)
    stages = list(dict.fromkeys(each.stage for each in told))
    assert stages[0] == "making synthetic routing"
    assert "pricing splits" in stages
    assert "scoring on held-out routing" in stages
    assert all(0 <= each.done <= each.total for each in told)


def test_results_print_in_a_line_or_a_table(folder: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    assert repr(plan).startswith("<Plan 4 GPUs EP4 DP4: ")
    assert "eplb" in repr(plan)
    assert len(repr(plan)) < 200
    assert len(repr(plan)) == len(str(plan))
    table = plan.compare()
    assert "balancedness" in str(table)
    assert "<pre" in table._repr_html_()
    assert plan._repr_html_() == table._repr_html_()
    assert len(repr(evaluate_plan(plan, folder / "b.npz"))) < 200
    moved = migrate_plan(plan, [folder / "b.npz"], max_moves=2, budget=Budget(work=0.02), workers=1)
    assert moved.plan is not None
    assert len(repr(moved)) < 200
    assert len(repr(load_trace(folder / "a.npz"))) < 100


def test_comparing_and_deploying(folder: Path) -> None:
    found = compare_strategies([folder / "tiny.yaml", load_scenario(folder / "tiny.yaml", redundant=0)], **QUICK)
    assert [plan.role().split.redundant for plan in found.plans] == [4, 0]
    assert str(found).count("\n> solved") >= 2
    deployment = plan_deployment(load_scenario(folder / "tiny.yaml", redundant=0), mode="aggregated", placed=False)
    assert deployment.predicted.tokens_per_s.value > 0
    assert deployment.role().own.name == "eplb"
    assert verify_plan(deployment)
    front = plan_front(load_scenario(folder / "tiny.yaml", redundant=0), placed=False)
    assert [answer.tokens_per_s for answer in front.answers] == sorted(answer.tokens_per_s for answer in front.answers)
    assert len(repr(front)) < 100


def test_a_plan_saved_is_the_plan_loaded(folder: Path, tmp_path: Path) -> None:
    plan = load_plan(folder / "synthetic.json")
    plan.save(tmp_path / "again.json")
    assert load_plan(tmp_path / "again.json") == plan
    with pytest.raises(InputError, match="is a folder"):
        plan.save(tmp_path)


# `make wheel-examples` runs all three, from a wheel.
@pytest.mark.parametrize(
    "example", ["own_trace", *(pytest.param(name, marks=pytest.mark.slow) for name in ("plan_scenario", "migrate"))]
)
def test_examples_run(example: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    file = ROOT / "docs" / "examples" / f"{example}.py"
    done = subprocess.run(
        [sys.executable, str(file)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "<Plan" in done.stdout


def test_a_time_limit_cuts_steps_short_says_so_and_leaves_a_plan_that_verifies(folder: Path) -> None:
    scenario = load_scenario(folder / "tiny.yaml")
    scenario = scenario.model_copy(update={"routing": scenario.routing.model_copy(update={"tokens": 4096})})
    plan = plan_scenario(scenario, budget=Budget(time_limit=1e-9, gap=0.0), workers=1)
    assert [check for check in verify_plan(plan) if check.passed is False] == []
    assert {layer.termination for layer in plan.role().layers} == {"time"}
    assert plan.scenario.spec.routing.tokens == LEAST_TOKENS
    told = " ".join(plan.provenance.cut_short)
    assert f"{LEAST_TOKENS} of 4,096 tokens" in told
    assert "redundant experts" not in told  # their number was asked for
    assert "ended early in 2 of 2 layers" in told
    rivals = [row.tokens_per_s for row in plan.role().strategies if row.placements is not None]
    assert plan.role().own is not None
    assert plan.role().own.tokens_per_s >= min(rivals)


def test_a_time_limit_that_does_not_bind_cuts_nothing(folder: Path) -> None:
    plan = plan_scenario(folder / "tiny.yaml", budget=Budget(work=0.02, time_limit=3600), workers=1)
    assert plan.provenance.cut_short == ()
    assert "cut_short" not in plan_json(plan)


def test_reading_the_routing_counts_for_the_time_limit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock starts with the call, not with the first step."""
    monkeypatch.setattr("placement.planning.case.read_sources", lambda *_: time.sleep(0.2) or ())
    left = make_case(folder / "tiny.yaml", budget=Budget(time_limit=60.0)).effort.stop().seconds_left()
    assert left is not None
    assert left <= 59.8
