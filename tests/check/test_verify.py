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
from placement.cost.step.throughput import MoeTimes, predict
from placement.problem.layer import LayerProblem
from placement.problem.rates import LayerRates
from placement.problem.topology import Topology
from placement.records.convert import predicted_record
from placement.records.plan import Plan, load_plan, plan_from_json, plan_json
from placement.records.role import RolePlan
from tests.cli.conftest import ROOT, Done
from tests.cli.conftest import call as call
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
    made = plan_from_json(json.dumps(data), "p.json")
    made._kept = plan._kept  # its witness file lies where the plan's does
    return made


def failed(plan: Plan, traces: tuple[str, ...] = ()) -> list[str]:
    """Names of the checks that fail."""
    return [check.name for check in verify_plan(plan, traces) if check.passed is False]


def kinds(plan: Plan, traces: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Names of the findings by kind; every check that was made has passed."""
    checks = verify_plan(plan, traces)
    assert all(check.passed is (True if check.kind == "checked" else None) for check in checks)
    return {kind: [check.name for check in checks if check.kind == kind] for kind in ("checked", "claimed", "missing")}


ROUTED = ["routing", "objectives", "figures", "batches", "heuristics", "bounds"]
TOTAL = ["witness", "nodes", "total"]
PLAIN = ["split", "topology", "stages", "placements", "baselines", "memory", "limits", "certificate", "prediction"]
CLAIMS = ["question", "rivals", "run", "choice"]


def test_sound_plans_pass_every_check(folder: Path) -> None:
    every = {"checked": PLAIN + ROUTED + TOTAL, "claimed": CLAIMS, "missing": []}
    assert kinds(load_plan(folder / "synthetic.json")) == every
    recorded = load_plan(folder / "recorded.json")
    assert kinds(recorded, (str(folder / "a.npz"),)) == every
    unrouted = ["question", "proofs", "rivals", "run", "choice"]
    assert kinds(recorded) == {"checked": PLAIN + TOTAL, "claimed": unrouted, "missing": ROUTED}


def test_bounds_above_what_is_proven_fail(folder: Path) -> None:
    """Raised to the objectives, with all that follows from them."""

    def close(data: dict[str, Any]) -> None:
        for layer in data["roles"][0]["layers"]:
            layer |= {"bound": layer["objective"], "gap": 0.0, "status": "optimal"}
        value = data["roles"][0]["certificate"]["objective"]
        data["roles"][0]["certificate"] |= {"bound": value, "gap": 0.0, "status": "optimal"}

    plan = changed(load_plan(folder / "synthetic.json"), close)
    assert failed(plan) == ["bounds"]
    # A plan without its witness says less than is asked, and who cannot follow it is told so.
    lost = plan.with_witness(None)
    checks = {check.name: check for check in verify_plan(lost)}
    assert all(check.passed is not False for check in checks.values())
    assert checks["proofs"].kind == "missing"
    assert checks["proofs"].detail.startswith("2 of 2 bounds; with them the gap, and 2 layers called optimal")
    assert checks["proofs"].fields == ("roles[0].layers[0].bound", "roles[0].layers[1].bound")
    assert checks["bounds"].detail.startswith("0 of 2 bounds hold")


def test_bounds_that_loads_alone_prove_are_checked(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    """All experts equally busy: hash is optimal, and the mean load proves it."""
    np.savez(tmp_path / "even.npz", counts=np.full((1, 2, 8), 5))
    even, out = str(tmp_path / "even.npz"), str(tmp_path / "p.json")
    args = ("solve", "--spec", str(folder / "tiny.yaml"), "--loads", even, "--redundant", "0", "--strategy", "hash")
    assert call(*args, "--out", out).code == 0
    plan = load_plan(out)
    assert plan.role().certificate.status == "optimal"
    assert kinds(plan, (even,))["claimed"] == ["question", "rivals", "run", "choice"]
    bounds = next(check for check in verify_plan(plan, (even,)) if check.name == "bounds")
    assert bounds.detail.startswith("2 of 2 bounds hold, a gap of 0.00% is proven here")
    done = call("verify", out, "--trace", even)
    assert done.out.splitlines()[-1] == "17 checked, 4 claimed, 0 missing"
    assert json.loads(call("verify", out, "--json").out)["counts"] == {"checked": 11, "claimed": 5, "missing": 6}


def test_figures_of_plans_without_times_by_phase_are_checked_all_the_same(folder: Path) -> None:
    def untold(data: dict[str, Any]) -> None:
        for row in data["roles"][0]["strategies"]:
            row |= {"decode_us": None, "prefill_us": None}

    old = changed(load_plan(folder / "synthetic.json"), untold)
    assert kinds(old)["missing"] == ["prediction"]
    assert failed(changed(old, _set("predicted", "tpot_ms", "value", value=1.0))) == ["figures", "total"]


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(data: dict[str, Any]) -> None:
        place: Any = data["roles"][0] if path[0] in RolePlan.model_fields else data
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value(place[path[-1]]) if callable(value) else value

    return edit


def _row(place: int, like: int) -> Callable[[dict[str, Any]], None]:
    """A strategy's placements and figures replaced by another's."""

    def edit(data: dict[str, Any]) -> None:
        rows = data["roles"][0]["strategies"]
        rows[place] = {**rows[like], "name": rows[place]["name"]}

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
    (_set("scenario", "name", value="other"), "split"),
    (_set("stages", 0, "stage", value=1), "stages"),
    (_set("layers", 0, "dispatch_fractions", value=[]), "placements"),
    (_set("strategies", value=lambda rows: rows[::-1]), "baselines"),
    (_set("strategies", 5, "name", value="best"), "baselines"),
    (_set("memory", "stage", value=1), "memory"),
    (_set("memory", "lines", 0, "name", value="weights"), "memory"),
    (_set("memory", "lines", value=lambda lines: lines[::-1]), "memory"),
    (_set("scenario", "spec", "workload", "ttft_ms", value=1e-3), "limits"),
    (_set("scenario", "spec", "workload", "tpot_ms", value=1e-3), "limits"),
    (_set("predicted", "tpot_ms", value=None), "limits"),
    (_set("layers", 0, "status", value="optimal"), "certificate"),
    (_set("strategies", 5, "decode_us", value=lambda time: time * 0.99), "prediction"),
    (_set("strategies", 5, "decode_us", value=None), "prediction"),
    (_set("strategies", 0, "tokens_per_s", value=lambda rate: rate * 1.01), "prediction"),
    (_set("predicted", "tokens_per_s", "provenance", value="measured"), "prediction"),
    (_set("predicted", "tokens_per_s", "moe_layer", value="balanced estimate"), "prediction"),
    (_set("predicted", "breakdown", 0, "name", value="attention"), "prediction"),
    (_set("predicted", "breakdown", 5, "ms", value=lambda ms: ms * 1.01), "prediction"),
    (_set("predicted", "breakdown", value=lambda parts: parts[1:]), "prediction"),
    (_set("provenance", "seed", value=1), "routing"),
    (_set("provenance", "routing", "source", value="a real trace"), "routing"),
    (_set("provenance", "routing", "synthetic", value=False), "routing"),
    (_set("provenance", "routing", "judged_on", value="all"), "routing"),
    (_set("provenance", "routing", "mixture", value=False), "routing"),
    (_set("provenance", "routing", "tokens_judged", value=9_000), "routing"),
    (_set("tail", value=0.5), "routing"),
    (_set("layers", 0, "objective", value=1e-9), "bounds"),
    (_set("choice", "rivals", 0, "gpus", value=lambda gpus: gpus + 1), "total"),
    (_set("choice", "rivals", 0, "roles", 0, "gpus", value=lambda gpus: gpus * 2), "total"),
    (_row(0, like=4), "baselines"),
    (_row(1, like=3), "baselines"),
    (_row(2, like=0), "heuristics"),
    (_row(3, like=2), "heuristics"),
]


@pytest.mark.parametrize(("edit", "name"), EDITS, ids=[f"{i}-{name}" for i, (_, name) in enumerate(EDITS)])
def test_each_wrong_claim_fails_its_check(folder: Path, edit: Callable[[dict[str, Any]], None], name: str) -> None:
    assert name in failed(changed(load_plan(folder / "synthetic.json"), edit))


def _lower_objectives(data: dict[str, Any]) -> None:
    """Objectives and bounds a tenth lower, gaps as before."""
    for record in (*data["roles"][0]["layers"], data["roles"][0]["certificate"]):
        record |= {"objective": record["objective"] * 0.9, "bound": record["bound"] * 0.9}


def _meet_limits(data: dict[str, Any]) -> None:
    """A limit of a microsecond, and a figure that meets it."""
    data["scenario"]["spec"]["workload"]["tpot_ms"] = 1e-3
    for predicted in (data["predicted"], data["roles"][0]["predicted"]):
        predicted["tpot_ms"]["value"] = 1e-3


def _faster_rows(data: dict[str, Any]) -> None:
    """All MoE times a tenth lower, with the tokens/s and predicted figures that follow from them."""
    for row in data["roles"][0]["strategies"]:
        row |= {name: row[name] * 0.9 for name in ("moe_layer_us", "decode_us", "prefill_us")}
        plan = plan_from_json(json.dumps(data), "p.json")
        times = MoeTimes(row["prefill_us"] * 1e-6, row["decode_us"] * 1e-6)
        made = predict(plan.scenario.spec, plan.role().split.split(), times)
        row["tokens_per_s"] = made.tokens_per_s
        if row["placements"] is None:
            told = predicted_record(made).model_dump()
            data["roles"][0]["predicted"] = told
            data["predicted"] = {name: figure for name, figure in told.items() if name != "breakdown"}


def _swapped_layers(data: dict[str, Any]) -> None:
    first, second = data["roles"][0]["layers"]
    data["roles"][0]["layers"] = [{**second, "layer": first["layer"]}, {**first, "layer": second["layer"]}]


def _other_seed(data: dict[str, Any]) -> None:
    data["provenance"]["seed"] = 1
    routing = data["provenance"]["routing"]
    routing["source"] = routing["source"].replace("seed 0", "seed 1")


def _judged_on_all(data: dict[str, Any]) -> None:
    data["provenance"]["routing"] |= {
        "judged_on": "all",
        "solved_on": "all",
        "tokens_judged": 128,
        "tokens_solved": 128,
    }


@pytest.mark.parametrize(
    ("forge", "names"),
    [
        (_lower_objectives, ["objectives", "bounds"]),
        (_meet_limits, ["limits", "prediction", "figures"]),
        (_faster_rows, ["figures"]),
        (_swapped_layers, ["objectives", "figures", "batches", "bounds"]),
        (_other_seed, ["routing"]),
        (_judged_on_all, ["objectives", "figures", "batches", "heuristics", "bounds"]),
    ],
)
def test_changes_that_agree_with_each_other_fail_all_the_same(
    folder: Path, forge: Callable[[dict[str, Any]], None], names: list[str]
) -> None:
    found = failed(changed(load_plan(folder / "synthetic.json"), forge))
    assert found == names


def test_a_recorded_plan_does_not_pass_for_a_synthetic_one(folder: Path) -> None:
    """Without its inputs, and with the record of the synthetic routing."""

    def forge(data: dict[str, Any]) -> None:
        data["provenance"]["inputs"] = []
        data["provenance"]["routing"] = json.loads((folder / "synthetic.json").read_text())["provenance"]["routing"]

    assert "figures" in failed(changed(load_plan(folder / "recorded.json"), forge))


def test_routing_that_contradicts_itself_fails_its_check(
    folder: Path, call: Callable[..., Done], tmp_path: Path
) -> None:
    """Load counts have no halves: said of the plan, and not of the command line."""
    out, counts = str(tmp_path / "p.json"), str(folder / "counts.npz")
    assert (
        call("solve", "--spec", str(folder / "tiny.yaml"), "--loads", counts, "--strategy", "eplb", "--out", out).code
        == 0
    )
    plan = changed(load_plan(out), _set("provenance", "routing", "solved_on", value="first-half"))
    assert failed(plan, (counts,)) == ["routing"]


def test_swapped_experts_change_the_figures(folder: Path) -> None:
    def swap(data: dict[str, Any]) -> None:
        row = data["roles"][0]["layers"][0]["physical_to_logical"]
        order = np.array(row).reshape(4, 3)[[0, 2, 1, 3]].reshape(-1)
        data["roles"][0]["layers"][0]["physical_to_logical"] = order.tolist()

    found = failed(changed(load_plan(folder / "synthetic.json"), swap))
    assert "placements" not in found
    assert "figures" in found or "objectives" in found


def test_the_wrong_trace_is_refused(call: Callable[..., Done], folder: Path) -> None:
    plan = str(folder / "recorded.json")
    assert "SHA-256" in call("verify", plan, "--trace", str(folder / "b.npz")).err
    assert call("verify", plan, "--trace", str(folder / "a.npz"), "--trace", str(folder / "b.npz")).code == 2
    assert call("verify", str(folder / "synthetic.json"), "--trace", str(folder / "b.npz")).code == 2


def test_traces_are_known_by_their_content(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    """Whatever their order and names."""
    traces = [str(folder / name) for name in ("a.npz", "b.npz")]
    plan, spec = tmp_path / "plan.json", str(folder / "tiny.yaml")
    given = ["--trace", traces[0], "--trace", traces[1]]
    assert call("solve", "--spec", spec, "--strategy", "greedy", *given, "--out", str(plan)).code == 0
    renamed = tmp_path / "z.npz"
    renamed.write_bytes((folder / "a.npz").read_bytes())
    for order in (traces, traces[::-1], [str(renamed), traces[1]]):
        done = call("verify", str(plan), "--trace", order[0], "--trace", order[1])
        assert done.code == 0, done.err
    assert "is not among the files" in call("verify", str(plan), "--trace", traces[0], "--trace", traces[0]).err


def test_command_lists_failures_and_exits_6(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "synthetic.json").read_text())
    data["roles"][0]["certificate"]["gap"] = 0.0
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
