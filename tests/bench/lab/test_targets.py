"""Every target on a scenario that it fits: both sides, their verdict, 80 columns, Markdown that renders, JSON."""

import json
from types import SimpleNamespace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bench.lab import render
from bench.lab.arguments import described, read_options
from bench.lab.discover import targets
from bench.lab.harness import Asked, Skipped, faults, run_pair, verdict
from bench.lab.planner import Planner
from bench.lab.rack.study import why_tied
from bench.lab.splits.study import LETTERS, lag_told
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

    commands = {f"  {step.partition(' # ')[0].rstrip()}" for step in result.optimized.production if step[-1] != "."}
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


@pytest.mark.parametrize(
    ("ours", "told"),
    [
        ([(74, "prefill", "EP4"), (11, "decode", "EP24")], "the same instances"),
        ([(73, "prefill", "PP2"), (11, "decode", "EP24")], "both have 11 decode EP24, and these limit the whole"),
        ([(73, "prefill", "PP2"), (12, "decode", "EP8")], "its instances differ"),
    ],
)
def test_a_tie_with_a_recipe_says_what_is_alike(ours: list[tuple[int, str, str]], told: str) -> None:
    theirs = [
        SimpleNamespace(count=74, role="prefill", degrees="EP4"),
        SimpleNamespace(count=11, role="decode", degrees="EP24"),
    ]
    roles = [SimpleNamespace(split=SimpleNamespace(instances=n), role=role, degrees=at) for n, role, at in ours]
    rival = SimpleNamespace(feasible=True, tokens_per_s=1.0, roles=theirs)
    plan: Any = SimpleNamespace(roles=roles, choice=SimpleNamespace(rivals=[rival]))
    assert told in why_tied(plan)


def test_a_split_lags_by_a_part_only_where_that_part_explains_it() -> None:
    def timed(batch: int, **parts: float) -> Any:
        fitted = SimpleNamespace(tp=1, microbatches=1, batch=batch)
        return SimpleNamespace(made=SimpleNamespace(fitted=fitted), parts=dict.fromkeys(LETTERS, 0.0) | parts)

    chosen = timed(100, compute=20.0)
    assert lag_told(chosen, timed(100, compute=20.0, communication=0.03), 0.025) == ""
    assert lag_told(chosen, timed(98, compute=19.6, communication=0.5), 0.02) == ", most of it communication"
    assert lag_told(chosen, timed(80, compute=20.0), 0.25) == ", most of it compute"
