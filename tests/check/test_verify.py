"""The verifier finds every kind of wrong placement and plan, and shares nothing with the solvers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from placement.check.layer import check_layer
from placement.check.plan import verify_plan
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from placement.records.plan import Plan, load_plan, plan_from_json, plan_json
from tests.cli.conftest import ROOT, Done
from tests.cli.conftest import call as call
from tests.cli.conftest import folder as folder
from tests.layers import layer_problem

RATES = LayerRates(10.0, 1e-6, 1e-7, 100.0, 200.0, 1e9, 1e8, 1e-6, 1e-6)


def problem(**changes: Any) -> LayerProblem:
    """Four experts in 6 slots on 2 nodes... as one GPU each, 3 slots per GPU."""
    return layer_problem(np.ones((1, 4)), Topology(2, 1), 3, RATES, **changes)


def test_a_valid_placement_has_no_faults() -> None:
    assert check_layer(problem(), np.array([0, 1, 2, 1, 2, 3])) == ()


@pytest.mark.parametrize(
    ("slots", "word"),
    [
        ([0, 1, 2, 0, 1, 2], "expert 3"),
        ([0, 0, 1, 1, 2, 3], "two copies of expert 0"),
        ([0, 1, 2, 3], "4 slots"),
        ([0, 1, 2, 1, 2, 4], "expert 4"),
        ([0, 1, 2, 1, 2, -1], "expert -1"),
        ([0.0, 1, 2, 1, 2, 3], "whole numbers"),
        ([[0, 1, 2], [1, 2, 3]], "shape"),
    ],
)
def test_faults_of_shape(slots: list[Any], word: str) -> None:
    faults = check_layer(problem(), np.array(slots))
    assert any(word in fault for fault in faults)


def test_groups_lie_on_one_node() -> None:
    grouped = problem(group=np.array([0, 0, 1, 1]))
    assert check_layer(grouped, np.array([0, 1, 2, 1, 2, 3])) == (
        "group 0 lies on 2 nodes (0, 1)",
        "group 1 lies on 2 nodes (0, 1)",
    )
    apart = layer_problem(np.ones((1, 4)), Topology(2, 1), 2, RATES, group=np.array([0, 0, 1, 1]))
    assert check_layer(apart, np.array([1, 0, 2, 3])) == ()


@pytest.mark.parametrize(("moves", "faults"), [(0, 1), (1, 1), (2, 0)])
def test_moves_are_counted_by_gpu_not_by_slot(moves: int, faults: int) -> None:
    current = np.array([0, 1, 2, 1, 2, 3])
    limited = problem(current=current, max_moves=moves)
    assert len(check_layer(limited, np.array([2, 1, 3, 0, 3, 2]))) == faults
    assert check_layer(problem(current=current, max_moves=0), np.array([2, 1, 0, 3, 2, 1])) == ()


@pytest.mark.parametrize(
    ("slots", "word"),
    [
        ([0, 1, -1, 2, 3, 0], None),
        ([0, 1, 2, 1, 2, 3], "slot 2 holds expert 2, but GPU 0 can use 2 slots only"),
        ([0, -1, 1, 1, 2, 3], "slot 2 holds expert 1, but GPU 0 can use 2"),
        ([0, -1, -1, 1, 2, 3], "slot 1 holds expert -1"),
        ([0, 1, -1, 1, 2, -1], "slot 5 holds expert -1"),
        ([0, 1, -1, 1, 2, 0], "1 experts have no copy, the first is expert 3"),
    ],
)
def test_capacities_are_filled_and_not_exceeded(slots: list[int], word: str | None) -> None:
    faults = check_layer(problem(capacity=[2, 3]), np.array(slots))
    assert faults == () if word is None else word in faults[0]


def test_empty_slots_are_no_copies_of_anything() -> None:
    empty = layer_problem(np.ones((1, 3)), Topology(3, 1), 3, RATES, capacity=[1, 1, 1], group=np.array([0, 1, 2]))
    assert check_layer(empty, np.array([0, -1, -1, 1, -1, -1, 2, -1, -1])) == ()


def test_fixed_experts_stay_on_their_gpu() -> None:
    current = np.array([0, 1, 2, 1, 2, 3])
    kept = problem(current=current, fixed=np.array([False, True, False, False, False, True]))
    assert check_layer(kept, np.array([1, 0, 2, 3, 2, 0])) == ()
    assert check_layer(kept, np.array([0, 2, 3, 1, 2, 0])) == (
        "expert 1 is fixed on GPU 0 but is not there",
        "expert 3 is fixed on GPU 1 but is not there",
    )


def test_moves_from_a_failed_gpu_count_where_they_arrive() -> None:
    current = np.array([0, 1, -1, 2, 3, -1])
    limited = problem(current=current, capacity=[1, 3], max_moves=1)
    assert check_layer(limited, np.array([1, -1, -1, 2, 3, 0])) == ()
    assert check_layer(limited, np.array([3, -1, -1, 0, 1, 2])) == ("3 slots move, but the budget is 1",)


def changed(plan: Plan, edit: Callable[[dict[str, Any]], None]) -> Plan:
    """The plan with its file's data edited."""
    data = json.loads(plan_json(plan))
    edit(data)
    return plan_from_json(json.dumps(data), "p.json")


def failed(plan: Plan, traces: tuple[str, ...] = ()) -> list[str]:
    """Names of the checks that fail."""
    return [check.name for check in verify_plan(plan, traces) if check.passed is False]


def test_sound_plans_pass_every_check(folder: Path) -> None:
    assert [check.passed for check in verify_plan(load_plan(folder / "synthetic.json"))] == [True] * 9
    recorded = load_plan(folder / "recorded.json")
    assert [check.passed for check in verify_plan(recorded, [str(folder / "a.npz")])] == [True] * 9
    without = verify_plan(recorded)
    assert [check.name for check in without if check.passed is None] == ["objectives", "figures"]


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        place: Any = data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value

    return edit


EDITS: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (_set("split", "dp", value=2), "split"),
    (_set("split", "instances", value=2), "split"),
    (_set("split", "batch", value=9), "split"),
    (_set("split", "redundant", value=0), "split"),
    (_set("dispatch", value="nearest"), "split"),
    (_set("phase", value="train"), "split"),
    (_set("topology", "gpus_per_node", value=4), "topology"),
    (_set("tokens_per_gpu", value=7.0), "topology"),
    (_set("stages", 0, "layers", value=2), "stages"),
    (_set("layers", 0, "physical_to_logical", value=lambda row: [row[1], *row[1:]]), "placements"),
    (_set("strategies", 0, "placements", 0, value=lambda row: [0] * len(row)), "placements"),
    (_set("strategies", value=lambda rows: rows[1:]), "baselines"),
    (_set("memory", "lines", 0, "bytes", value=lambda size: size + 1e6), "memory"),
    (_set("memory", "total_bytes", value=lambda size: size / 2), "memory"),
    (_set("memory", "headroom_bytes", value=0.0), "memory"),
    (_set("memory", "capacity_bytes", value=1e12), "memory"),
    (_set("memory", "lines", value=lambda lines: [*lines, {"name": "more", "bytes": 0.0}]), "memory"),
    (_set("certificate", "gap", value=0.0), "certificate"),
    (_set("certificate", "bound", value=lambda bound: bound * 2), "certificate"),
    (_set("certificate", "objective", value=lambda objective: objective * 2), "certificate"),
    (_set("certificate", "status", value="optimal"), "certificate"),
    (_set("certificate", "unit", value="max_over_mean"), "certificate"),
    (_set("layers", 0, "bound", value=1.0), "certificate"),
    (_set("layers", 0, "gap", value=None), "certificate"),
    (_set("layers", 0, "objective", value=lambda objective: objective * 1.01), "objectives"),
    (_set("strategies", 2, "balancedness", value=0.999), "figures"),
    (_set("strategies", 5, "nodes_per_token", value=1.0), "figures"),
    (_set("strategies", 5, "moe_layer_us", value=lambda time: time * 0.99), "figures"),
    (_set("strategies", 5, "decode_us", value=lambda time: time * 0.99), "figures"),
    (_set("strategies", 1, "prefill_us", value=lambda time: time * 0.99), "figures"),
    (_set("strategies", 0, "tokens_per_s", value=lambda rate: rate * 1.01), "figures"),
    (_set("predicted", "tokens_per_s", "value", value=lambda rate: rate * 1.01), "figures"),
    (_set("predicted", "tpot_ms", "value", value=1.0), "figures"),
    (_set("predicted", "ttft_ms", value=None), "figures"),
]


@pytest.mark.parametrize(("edit", "name"), EDITS, ids=[f"{i}-{name}" for i, (_, name) in enumerate(EDITS)])
def test_each_wrong_claim_fails_its_check(folder: Path, edit: Callable[[dict[str, Any]], None], name: str) -> None:
    assert name in failed(changed(load_plan(folder / "synthetic.json"), edit))


def test_swapped_experts_change_the_figures(folder: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        row = data["layers"][0]["physical_to_logical"]
        order = np.array(row).reshape(4, 3)[[0, 2, 1, 3]].reshape(-1)
        data["layers"][0]["physical_to_logical"] = order.tolist()

    found = failed(changed(load_plan(folder / "synthetic.json"), swap))
    assert "placements" not in found
    assert "figures" in found or "objectives" in found


def test_the_wrong_trace_is_refused(call: Callable[..., Done], folder: Path) -> None:
    plan = str(folder / "recorded.json")
    assert "SHA-256" in call("verify", plan, "--trace", str(folder / "b.npz")).err
    assert call("verify", plan, "--trace", str(folder / "a.npz"), "--trace", str(folder / "b.npz")).code == 2
    assert call("verify", str(folder / "synthetic.json"), "--trace", str(folder / "b.npz")).code == 2


def test_command_lists_failures_and_exits_6(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "synthetic.json").read_text())
    data["certificate"]["gap"] = 0.0
    (tmp_path / "p.json").write_text(json.dumps(data))
    done = call("verify", str(tmp_path / "p.json"))
    assert done.code == 6
    assert done.err.endswith("checks failed: certificate\n")
    assert "certificate  FAILED" in done.out
    records = json.loads(call("verify", str(tmp_path / "p.json"), "--json").out)
    assert [check["name"] for check in records["checks"] if check["passed"] is False] == ["certificate"]


def test_verifier_imports_no_solver(folder: Path) -> None:
    code = (
        "import sys; from placement.records.plan import load_plan; from placement.check.plan import verify_plan; "
        f"verify_plan(load_plan({str(folder / 'synthetic.json')!r})); "
        "print([name for name in sys.modules if name.split('.')[0] in ('solvers', 'ortools', 'pulp')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
