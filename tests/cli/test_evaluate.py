"""`placement evaluate` and `placement compare`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from placement.records.plan import load_plan
from tests.cli.conftest import Done

FIGURES = (
    "balancedness", "nodes_per_token", "remote_nodes_per_token", "cross_node_bytes_per_token", "moe_layer_us",
)  # fmt: skip
BASELINES = {"hash", "linear", "round_robin", "greedy", "eplb"}


def test_second_half_gives_the_plans_own_figures(call: Callable[..., Done], folder: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    done = call(
        "evaluate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "a.npz"), "--part", "second-half",
        "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    (trace,) = json.loads(done.out)["traces"]
    assert trace["tokens"] == plan.provenance.routing.tokens_judged
    assert set(trace["baselines"]) == BASELINES
    for strategy in plan.role().strategies:
        record = trace["plan"] if strategy.placements is None else trace["baselines"][strategy.name]
        for name in FIGURES:
            assert record[name] == pytest.approx(getattr(strategy, name), rel=1e-9)


def test_each_trace_is_scored_apart(call: Callable[..., Done], folder: Path) -> None:
    args = ("evaluate", "--plan", str(folder / "recorded.json"), "--trace")
    both = json.loads(call(*args, str(folder / "a.npz"), "--trace", str(folder / "b.npz"), "--json").out)["traces"]
    alone = json.loads(call(*args, str(folder / "b.npz"), "--json").out)["traces"]
    assert [trace["trace"] for trace in both] == ["a", "b"]
    assert both[1] == alone[0]
    assert both[0]["plan"]["moe_layer_us"] != both[1]["plan"]["moe_layer_us"]


def test_figures_lie_in_their_ranges(call: Callable[..., Done], folder: Path) -> None:
    done = call("evaluate", "--plan", str(folder / "synthetic.json"), "--trace", str(folder / "b.npz"), "--json")
    (trace,) = json.loads(done.out)["traces"]
    for record in (trace["plan"], *trace["baselines"].values()):
        assert 0 < record["balancedness"] <= 1
        assert 1 <= record["nodes_per_token"] <= 2
        assert 0 <= record["remote_nodes_per_token"] <= record["nodes_per_token"]
        assert record["moe_layer_us"] > 0


def test_load_counts_have_no_nodes_per_token(call: Callable[..., Done], folder: Path) -> None:
    args = ("evaluate", "--plan", str(folder / "recorded.json"), "--loads", str(folder / "counts.npz"))
    (trace,) = json.loads(call(*args, "--json").out)["traces"]
    assert trace["plan"]["nodes_per_token"] is None
    assert trace["plan"]["balancedness"] > 0
    assert " - " in call(*args).out


def test_text_shows_a_table_per_trace(call: Callable[..., Done], folder: Path) -> None:
    done = call(
        "evaluate", "--plan", str(folder / "recorded.json"), "--trace", str(folder / "a.npz"), "--trace",
        str(folder / "b.npz"), "--part", "first-half",
    )  # fmt: skip
    assert done.out.count("balancedness") == 2
    assert "solved on  recorded trace a; the first half" in done.out


def test_plan_of_planned_dispatch_is_scored_with_its_own_fractions(call: Callable[..., Done], folder: Path) -> None:
    out = folder / "evaluate_planned.json"
    args = ("--spec", str(folder / "tiny.yaml"), "--trace", str(folder / "a.npz"), "--dispatch", "planned")
    assert call("solve", *args, "--strategy", "greedy", "--out", str(out)).code == 0
    done = call("evaluate", "--plan", str(out), "--trace", str(folder / "b.npz"), "--json")
    assert done.code == 0, done.err
    whole = call(
        "evaluate", "--plan", str(out), "--trace", str(folder / "b.npz"), "--json", "--weight-levels", "1"
    )  # fmt: skip
    exact, rounded = (json.loads(each.out)["traces"][0] for each in (done, whole))
    times = [{name: row["moe_layer_us"] for name, row in each["baselines"].items()} for each in (exact, rounded)]
    assert times[0] != times[1]
    fine = call(
        "evaluate", "--plan", str(out), "--trace", str(folder / "b.npz"), "--json", "--weight-levels", "1000000"
    )  # fmt: skip
    near = {name: row["moe_layer_us"] for name, row in json.loads(fine.out)["traces"][0]["baselines"].items()}
    assert near == pytest.approx(times[0], rel=1e-4)
    assert call("evaluate", "--plan", str(out), "--trace", str(folder / "b.npz"), "--weight-levels", "0").code == 2


def test_compare_has_a_table_per_scenario(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text((folder / "tiny.yaml").read_text().replace("name: tiny\n", "name: other\n"))
    args = (
        "compare",
        "--spec",
        str(folder / "tiny.yaml"),
        "--spec",
        str(other),
        "--strategy",
        "search",
        "--work",
        "0.05",
    )
    done = call(*args)
    assert done.code == 0, done.err
    assert done.out.count("plan's") == 2
    scenarios = json.loads(call(*args, "--json").out)["scenarios"]
    assert [each["scenario"] for each in scenarios] == ["tiny", "other"]
    assert [row["name"] for row in scenarios[0]["strategies"]][-1] == "solved"
    assert scenarios[0]["strategies"] == scenarios[1]["strategies"]


def test_all_roles_are_scored_or_the_one_named(call: Callable[..., Done], folder: Path, apart: Path) -> None:
    plan, args = load_plan(apart), ("evaluate", str(apart), "--trace", str(folder / "a.npz"), "--part", "second-half")
    both = json.loads(call(*args, "--json").out)
    assert list(both["roles"]) == ["prefill", "decode"]
    for role in plan.roles:
        told = both["roles"][role.role]["traces"][0]["plan"]
        assert role.own is not None
        assert told["moe_layer_us"] == pytest.approx(role.own.moe_layer_us)
        assert told["tokens_per_s"] == pytest.approx(role.own.tokens_per_s)
        alone = json.loads(call(*args, "--role", role.role, "--json").out)
        assert alone["traces"] == both["roles"][role.role]["traces"]
    text = call(*args).out
    assert text.index("\nprefill, ") < text.index("\ndecode, ")
    assert "--role: 'aggregated' is no role of the plan" in call(*args, "--role", "aggregated").err


def test_compare_sets_what_runs_beside_the_strategies(
    call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path
) -> None:
    """The map of a strategy, exported, has that strategy's figures; -q leaves the tables alone."""
    spec = ("--spec", str(folder / "tiny.yaml"), "--trace", str(folder / "a.npz"), "--strategy", "linear")
    plan = tmp_path / "linear.json"
    assert call("solve", *spec, "--out", str(plan), "-q").code == 0
    assert call("export", "--plan", str(plan), "--to", "deepseek", "--out", str(tmp_path / "maps")).code == 0
    (current,) = (tmp_path / "maps" / "aggregated").glob("*.npz")
    done = call("compare", *spec, "--current", str(current), "--json")
    assert done.code == 0, done.err
    rows = {row["name"]: row for row in json.loads(done.out)["scenarios"][0]["strategies"]}
    for name in FIGURES:
        assert rows["current"][name] == pytest.approx(rows["linear"][name], rel=1e-9)
    text = call("compare", *spec, "--current", str(current), "-q").out
    assert "\n  current " in text
    assert "\nengine " not in text
    two = call("compare", *spec, *spec[:2], "--current", str(current))
    assert "--current: a map is of one scenario" in two.err
    roles = ("--nodes", "4", "--mode", "disaggregated")
    assert "--role: the plan has 2" in call("compare", *spec, *roles, "--current", str(current)).err
    told = call("compare", *spec, *roles, "--current", str(current), "--role", "decode", "--json")
    names = [[row["name"] for row in each["strategies"]] for each in json.loads(told.out)["scenarios"]]
    assert ["current" in each for each in names] == [False, True]
