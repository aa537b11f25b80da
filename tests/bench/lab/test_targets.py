"""Every target on a scenario that it fits: both sides, their verdict, 80 columns, Markdown that renders, JSON."""

import json
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.lab import render
from bench.lab.arguments import described, read_options
from bench.lab.discover import targets
from bench.lab.harness import Asked, Skipped, faults, run_pair, verdict
from bench.lab.planner import Planner
from bench.lab.target import PairResult, Target
from specs.scenario import Scenario

TARGETS = {target.name: target for target in targets()}
#: The matrix of a machine, as nvidia-smi prints it.
MATRIX = """\
\tGPU0\tGPU1\tGPU2\tGPU3
GPU0\t X \tNV18\tNV18\tNV18
GPU1\tNV18\t X \tNV18\tNV18
GPU2\tNV18\tNV18\t X \tNV18
GPU3\tNV18\tNV18\tNV18\t X
"""


def pair(target: Target[Any], scenario: Scenario, planner: Planner, extra: str = "") -> PairResult | Skipped:
    return run_pair(target, scenario, Asked((target,), extra={target.name: extra}), planner)


def fitting(target: Target[Any], scenarios: dict[str, Scenario]) -> Scenario:
    return next(scenario for scenario in scenarios.values() if not target.fits(scenario))


@pytest.mark.parametrize("name", TARGETS)
def test_a_pair_holds_the_contract(name: str, scenarios: dict[str, Scenario], planner: Planner) -> None:
    target = TARGETS[name]
    result = pair(target, fitting(target, scenarios), planner)
    assert isinstance(result, PairResult)
    assert faults(result) == []
    told = verdict(result)
    assert told.kind == "better" or told.reason
    assert result.optimized.figure(target.judged_by) is not None
    assert result.optimized.production, "what to do in production"

    commands = {f"  {line}" for line in result.optimized.production}
    drawn = {line for each in result.optimized.drawings for line in each.text.splitlines()}
    for line in render.screen([result], []).splitlines():
        assert len(line) <= 80 or line in commands | drawn, line
    assert all(len(line) <= 80 or line.lstrip().startswith("$ ") for line in drawn)

    text = render.markdown(result)
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    tables = 1 + len(result.optimized.tables) + sum(bool(s.findings) for s in (result.baseline, result.optimized))
    assert sum(token.type == "table_open" for token in tokens) == tables
    assert sum(token.type == "fence" for token in tokens) == len(result.optimized.drawings) + 1

    data = json.loads(render.json_text([result], []))["results"][0]
    assert data["schema"] == render.SCHEMA
    assert data["verdict"]["kind"] == told.kind


@pytest.mark.parametrize("name", ["memory_budget", "moe_grouping", "network_affinity", "parallelism_breakdown"])
def test_training_is_studied_too(name: str, scenarios: dict[str, Scenario], planner: Planner) -> None:
    result = pair(TARGETS[name], scenarios["training"], planner)
    assert isinstance(result, PairResult)
    assert faults(result) == []
    assert result.optimized.step_ms is not None


def test_the_memory_target_validates_itself(scenarios: dict[str, Scenario], planner: Planner) -> None:
    result = pair(TARGETS["memory_budget"], scenarios["serving"], planner, "--validate")
    assert isinstance(result, PairResult)
    names = [each.name for each in result.baseline.findings]
    assert "parameters counted again" in names
    assert any("capacity" in name for name in names)
    assert [each.name for each in result.optimized.findings] == names


def test_a_wrong_recount_fails_the_run(
    scenarios: dict[str, Scenario], planner: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.lab.memory.study.parameters", lambda model: 1.0)
    result = pair(TARGETS["memory_budget"], scenarios["serving"], planner, "--validate")
    assert isinstance(result, PairResult)
    assert any("parameters counted again" in fault for fault in faults(result))


def test_freed_kv_buys_batch(scenarios: dict[str, Scenario], planner: Planner) -> None:
    result = pair(TARGETS["memory_budget"], scenarios["serving"], planner)
    kept = pair(TARGETS["memory_budget"], scenarios["serving"], planner, "--kv keep")
    assert isinstance(result, PairResult)
    assert isinstance(kept, PairResult)
    assert any("KV cache in fp8" in row[0] for table in result.optimized.tables for row in table.rows)
    assert not any("KV cache in fp8" in row[0] for table in kept.optimized.tables for row in table.rows)


def test_a_topology_file_names_the_paths(tmp_path: Any, scenarios: dict[str, Scenario], planner: Planner) -> None:
    file = tmp_path / "topo.txt"
    file.write_text(MATRIX)
    text = f"--topology {file} --nodes 4"
    result = pair(TARGETS["network_affinity"], scenarios["serving"], planner, text)
    assert isinstance(result, PairResult)
    kinds = [row[0] for row in result.optimized.tables[0].rows]
    assert kinds == ["same GPU", "NVLink", "rail", "spine"]
    assert result.optimized.attachments[0].content.startswith("<svg")


def test_a_scenario_that_does_not_fit_is_left_out_with_the_reason(
    scenarios: dict[str, Scenario], planner: Planner
) -> None:
    left = pair(TARGETS["gpt_gb200"], scenarios["serving"], planner)
    assert isinstance(left, Skipped)
    assert "not gpt_oss" in left.reason


@pytest.mark.parametrize("name", TARGETS)
def test_options_are_told_and_examples_are_valid(name: str) -> None:
    target = TARGETS[name]
    assert all(told for _, _, told in described(target))
    read_options(target, target.example)
    assert len(target.summary) <= 110
