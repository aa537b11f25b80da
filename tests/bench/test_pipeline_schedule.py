"""The lab's study of pipeline schedules, on small and real training scenarios."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.lab.planner import Planner
from bench.lab.target import LabCase
from bench.lab.targets.pipeline_schedule import TARGET, Options
from placement.engines.torch_schedule import read_order
from placement.errors import InputError
from placement.planning.schedule import study_schedules, training_split
from specs.loading import load_scenario
from specs.scenario import Scenario


def scenario(name: str = "dgx_a100_175b") -> Scenario:
    return load_scenario(name)


def case(**options: object) -> LabCase[Options]:
    return LabCase(scenario(), Options(**options), "minimal", Planner())  # type: ignore[arg-type]


def test_the_best_order_beats_1f1b_on_even_stages(tmp_path: Path) -> None:
    trace, csv = tmp_path / "trace.json", tmp_path / "order.csv"
    asked = case(pp=2, microbatches=6, chrome_trace=str(trace), csv=str(csv))
    before, after = TARGET.baseline(asked), TARGET.optimized(asked)
    assert before.label == "1f1b, even stages"
    assert before.step_ms is not None
    assert after.step_ms is not None
    assert after.step_ms < before.step_ms
    assert after.tie == ""
    assert all(finding.passed for side in (before, after) for finding in side.findings)
    assert json.loads(trace.read_text())["traceEvents"]
    assert read_order(csv).microbatches == 6
    assert {"trace.json", "order.csv"} <= {each.name for each in after.attachments}
    for side in (before, after):
        assert max(len(line) for drawing in side.drawings for line in drawing.text.splitlines()[:-1]) <= 80


@pytest.mark.parametrize(
    ("schedule", "csv", "told"),
    [
        ("gpipe", "/proc/self/nowhere/x.csv", "`csv`: /proc/self/nowhere/x.csv: can't be written"),
        ("gpipe", "trace.json", "`csv`: trace.json is the file of --chrome-trace, too; name two files"),
        ("dualpipe", "order.csv", "schedule dualpipe: csv: every piece is on two devices"),
    ],
)
def test_either_both_files_are_written_or_none(
    schedule: str, csv: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = case(pp=16, microbatches=32, schedule=schedule, chrome_trace="trace.json", csv=csv)
    with pytest.raises(InputError, match=re.escape(told)):
        TARGET.optimized(asked)
    assert list(tmp_path.iterdir()) == []


def test_more_passes_than_are_simulated_are_refused() -> None:
    with pytest.raises(InputError, match=r"`microbatches`: 4096 over 8 stages .*; give at most 2048"):
        TARGET.baseline(case(pp=8, microbatches=4096))


def test_a_pinned_schedule_is_on_both_sides_and_a_tie_says_why() -> None:
    asked = case(pp=8, schedule="zb_h1", microbatches=16)
    before, after = TARGET.baseline(asked), TARGET.optimized(asked)
    assert before.label == "zb_h1, even stages"
    assert after.label.startswith("zb_h1")
    assert after.step_ms == before.step_ms
    assert after.tie == "No order and no cut of those tried beats zb_h1 on even stages."


def test_simulated_1f1b_is_the_planners_step() -> None:
    posed, split = training_split(scenario())
    study = study_schedules(posed, split, ("1f1b", "gpipe"), recut=False, own=False)
    for each in study.candidates:
        assert each.scored_s == pytest.approx(each.run.makespan_s, rel=1e-9)


def test_schedules_that_cannot_run_are_named() -> None:
    posed, split = training_split(scenario(), pp=8, microbatches=12)
    study = study_schedules(posed, split, ("interleaved", "dualpipe", "1f1b"), recut=False, own=False)
    assert [name for name, _ in study.missing] == ["interleaved", "dualpipe"]
    assert "multiple of pp" in study.missing[0][1]


def test_serving_has_no_schedule() -> None:
    assert TARGET.fits(load_scenario("deepseek_r1_gb200_ib")).endswith("is serving")
    with pytest.raises(InputError, match="take a training scenario"):
        training_split(load_scenario("deepseek_r1_gb200_ib"))


def test_deepseeks_step_passes_its_checks() -> None:
    """A slow rank in the middle hides part of a microbatch's way, which the closed form of 1F1B counts in full."""
    v3 = LabCase(scenario("deepseek_v3_train_h800"), Options(), "minimal", Planner())
    side = TARGET.baseline(v3)
    assert [finding.name for finding in side.findings if not finding.passed] == []
    assert any("closed form" in finding.name for finding in side.findings)
    posed, split = training_split(v3.scenario)
    (once,) = study_schedules(posed, split, ("1f1b",), recut=False, own=False).candidates
    assert once.scored_s is not None
    assert 1 < once.scored_s / once.run.makespan_s < 1.001
