"""`placement solve`: what it prints, writes and repeats."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from placement.records.plan import load_plan, plan_json
from tests.cli.conftest import Done, finish, process

QUICK = ("--strategy", "search", "--work", "0.05")


def test_screen_shows_scenario_memory_figures_strategies_and_certificate(
    call: Callable[..., Done], folder: Path
) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK)
    assert done.code == 0
    for word in (
        "tiny_model", "tiny_cluster", "synthetic", "EP4·DP4", "output tokens/s", "per GPU", "TTFT", "TPOT",
        "population", "held-out", "certificate", "gap", "binds", "next",
    ):  # fmt: skip
        assert word in done.out, word
    rows = [line.split() for line in done.out.splitlines()]
    strategies = ["hash", "linear", "round_robin", "greedy", "eplb", "solved"]
    # At batches of their own, and at one batch; the plan's row is marked.
    found = [row[0] for row in rows if row and (row[0] in strategies or row[0] == ">")]
    assert found[-12:] == [*strategies[:-1], ">"] * 2
    assert "\x1b" not in done.out
    # Three lines tell how sure the figures are.
    assert len(done.out.splitlines()) <= 62
    assert max(map(len, done.out.splitlines())) <= 80
    more = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "-v").out
    assert all(word in more for word in ("KV cache", "expert weights", "HBM", "slots per GPU", "nodes"))
    less = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "-q").out.splitlines()
    assert less[1] == "ANSWER"
    assert len(less) < 15


def test_process_prints_data_on_stdout_and_nothing_on_stderr(folder: Path) -> None:
    done = finish(process(["-m", "placement.solve", "--spec", "tiny.yaml", *QUICK, "--json"], folder))
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["schema"] == "placement.plan/2"
    assert [layer["layer"] for layer in plan["roles"][0]["layers"]] == [1, 2]
    assert not [
        line
        for line in done.err.splitlines()
        if not line.startswith(("placing", "making", "fitting", "pricing", "scoring", "choosing"))
    ]


def test_recorded_routing_is_named_with_its_hash_and_held_out(folder: Path) -> None:
    plan = load_plan(folder / "recorded.json")
    routing = plan.provenance.routing
    assert not routing.synthetic
    assert (routing.solved_on, routing.judged_on) == ("first-half", "second-half")
    assert routing.tokens_solved + routing.tokens_judged == 120
    assert [(entry.name, len(entry.sha256)) for entry in plan.provenance.inputs] == [("a", 64)]


def test_no_holdout_uses_everything_for_both(call: Callable[..., Done], folder: Path) -> None:
    done = call(
        "solve", "--spec", str(folder / "tiny.yaml"), "--trace", str(folder / "a.npz"), "--no-holdout",
        "--windows", "1", *QUICK, "--json",
    )  # fmt: skip
    plan = json.loads(done.out)
    assert plan["provenance"]["routing"]["tokens_solved"] == plan["provenance"]["routing"]["tokens_judged"] == 120
    solved = next(row for row in plan["roles"][0]["strategies"] if row["name"] == "solved")
    assert solved["moe_layer_us"] == pytest.approx(plan["roles"][0]["certificate"]["objective"], rel=1e-9)


@pytest.mark.parametrize("names", [("a.npz", "b.npz", "other/a.npz"), ("counts.npz", "other/counts.npz::counts")])
def test_the_order_of_traces_changes_no_byte(
    call: Callable[..., Done], folder: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    """Names that differ, and files of one name whose contents do."""
    (tmp_path / "other").mkdir()
    for name in ("a", "b"):
        (tmp_path / f"{name}.npz").write_bytes((folder / f"{name}.npz").read_bytes())
    np.savez(tmp_path / "other" / "a.npz", topk_ids=np.load(folder / "b.npz")["topk_ids"][:, ::-1])
    for path, seed in (("counts.npz", 1), ("other/counts.npz", 2)):
        np.savez(tmp_path / path, counts=np.random.default_rng(seed).integers(1, 50, (2, 2, 8)))
    first, second = (
        call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "--json", *options)
        for options in (
            [word for name in order for word in ("--trace", str(tmp_path / name))] for order in (names, names[::-1])
        )
    )
    assert first.code == 0, first.err
    assert len(json.loads(first.out)["provenance"]["inputs"]) == len(names)
    assert first.out == second.out


def test_many_synthetic_traces_have_a_short_source() -> None:
    from placement.routing.holdout import Source, routing_of
    from placement.routing.synthesize import synthesize

    trace = synthesize(layers=1, experts=8, top_k=2, tokens=32, sequences=2, skew=2.0, coactivation=1.0, seed=0)
    sources = [Source(replace(trace, source=f"synthetic {i}" + "x" * 300), None) for i in range(50)]
    source = routing_of(sources, 2, False).record.source
    assert len(source) < 2000
    assert source.endswith("... and 42 more")


def test_a_serving_plan_is_for_both_phases(call: Callable[..., Done], folder: Path) -> None:
    """The mean pass of the default is that of the two phases, by shares that the plan's figures tell apart."""
    args = ("solve", "--spec", str(folder / "tiny.yaml"), "--trace", str(folder / "a.npz"), *QUICK)
    out = folder / "both.json"
    done = call(*args, "--out", str(out))
    assert "us/layer  us/layer" in done.out
    plan = load_plan(out)
    assert plan.role().phase == "serving"
    rows = plan.role().strategies
    times = [[row.decode_us, row.prefill_us] for row in rows]
    mean = [row.moe_layer_us for row in rows]
    share = (mean[0] - times[0][1]) / (times[0][0] - times[0][1])
    assert 0 < share < 1
    for (decode, prefill), both in zip(times, mean, strict=True):
        assert both == pytest.approx(share * decode + (1 - share) * prefill, rel=1e-9)
    assert call("verify", str(out), "--trace", str(folder / "a.npz")).code == 0
    for phase in ("decode", "prefill"):
        one = json.loads(call(*args, "--phase", phase, "--json").out)
        assert one["roles"][0]["phase"] == phase
        assert all(row["moe_layer_us"] == row[f"{phase}_us"] for row in one["roles"][0]["strategies"])


def test_load_counts_are_planned_for_balance(call: Callable[..., Done], folder: Path) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), "--loads", str(folder / "counts.npz"), *QUICK, "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    assert plan["objective"] == "load"
    assert plan["roles"][0]["certificate"]["unit"] == "max_over_mean"
    assert all(row["nodes_per_token"] is None for row in plan["roles"][0]["strategies"])
    screen = call("solve", "--spec", str(folder / "tiny.yaml"), "--loads", str(folder / "counts.npz"), *QUICK)
    assert "nothing held out" in screen.out


def test_least_bytes_between_nodes_are_planned_and_verified(call: Callable[..., Done], folder: Path) -> None:
    out = folder / "least_bytes.json"
    done = call(
        "solve", "--spec", str(folder / "tiny.yaml"), "--trace", str(folder / "a.npz"), "--objective", "traffic",
        "--no-holdout", *QUICK, "--out", str(out),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert "bytes between nodes per token" in " ".join(done.out.split())
    plan = json.loads(out.read_text())
    assert plan["roles"][0]["certificate"]["unit"] == "bytes_per_token"
    by = {row["name"]: row["cross_node_bytes_per_token"] for row in plan["roles"][0]["strategies"]}
    assert by["solved"] == pytest.approx(plan["roles"][0]["certificate"]["objective"])
    assert by["solved"] < by["eplb"]
    checked = call("verify", str(out), "--trace", str(folder / "a.npz"))
    assert checked.code == 0, checked.out + checked.err


def test_traffic_between_nodes_needs_nodes(call: Callable[..., Done], folder: Path) -> None:
    done = call(
        "solve", "--spec", str(folder / "tiny.yaml"), "--ep", "2", "--dp", "2", "--objective", "traffic", *QUICK
    )
    assert done.code == 2
    assert "on one node" in done.err
    assert "Traceback" not in done.err


def test_pins_and_overrides_reach_the_plan(call: Callable[..., Done], folder: Path) -> None:
    done = call(
        "solve", "--spec", str(folder / "tiny.yaml"), "--ep", "2", "--dp", "2", "--redundant", "0", "--dispatch",
        "nearest", "--message-rule", "per_rank", "--phase", "prefill", "--batch", "4", *QUICK, "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    role = plan["roles"][0]
    assert (role["split"]["ep"], role["split"]["dp"], role["split"]["redundant"], role["split"]["batch"]) == (
        2,
        2,
        0,
        4,
    )
    assert (role["dispatch"], role["message_rule"], role["phase"]) == ("nearest", "per_rank", "prefill")
    assert plan["scenario"]["spec"]["pins"]["ep"] == 2


def test_planned_dispatch_stores_its_fractions_and_verifies(call: Callable[..., Done], folder: Path) -> None:
    out = folder / "planned.json"
    done = call("solve", "--spec", str(folder / "tiny.yaml"), "--dispatch", "planned", *QUICK, "--out", str(out))
    assert done.code == 0, done.err
    assert all(layer.dispatch_fractions is not None for layer in load_plan(out).role().layers)
    assert call("verify", str(out)).code == 0


def test_a_baseline_as_strategy_is_the_plan(call: Callable[..., Done], folder: Path) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), "--strategy", "eplb", "--json")
    plan = json.loads(done.out)
    assert [row["name"] for row in plan["roles"][0]["strategies"] if row["placements"] is None] == ["eplb"]
    assert "solved" not in [row["name"] for row in plan["roles"][0]["strategies"]]


def test_batch_is_lowered_until_the_objectives_hold(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    import yaml

    data = yaml.safe_load((folder / "tiny.yaml").read_text())
    del data["pins"]["batch"]
    data["workload"]["tpot_ms"] = 8.0
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(data))
    done = call("solve", "--spec", str(tmp_path / "s.yaml"), *QUICK, "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    (role,) = plan["roles"]
    assert role["binds"] == ["TPOT"]
    own = next(row for row in role["strategies"] if row["placements"] is None)
    assert role["split"]["batch"] == own["at_own_batch"]["batch"]
    # On the routing that judges, the figure may lie a little beyond.
    assert plan["predicted"]["tpot_ms"]["value"] == pytest.approx(8.0, rel=0.03)


@pytest.mark.parametrize("strategy", ["search", "auto"])
def test_same_seed_same_bytes_whatever_the_workers_also_at_once(folder: Path, strategy: str) -> None:
    def start(workers: int) -> subprocess.Popen[bytes]:
        args = ["-m", "placement.solve", "--spec", "tiny.yaml", "--strategy", strategy, "--work", "0.02", "--json"]
        return process([*args, "--workers", str(workers)], folder)

    at_once = [start(1), start(2)]
    done = [finish(running) for running in at_once]
    assert [each.code for each in done] == [0, 0], done[0].err
    assert done[0].out == done[1].out


def test_another_seed_another_synthetic_routing(call: Callable[..., Done], folder: Path) -> None:
    spec = str(folder / "tiny.yaml")
    plans = [call("solve", "--spec", spec, *QUICK, "--seed", seed, "--json").out for seed in ("1", "1", "2")]
    assert plans[0] == plans[1] != plans[2]


def test_timings_only_on_request(call: Callable[..., Done], folder: Path) -> None:
    spec = str(folder / "tiny.yaml")
    assert "timings" not in json.loads(call("solve", "--spec", spec, *QUICK, "--json").out)
    assert json.loads(call("solve", "--spec", spec, *QUICK, "--json", "--timings").out)["timings"]["total_s"] > 0


def test_out_replaces_a_plan_whole_and_reads_back(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    out.write_text("old")
    done = call("solve", "--spec", str(folder / "tiny.yaml"), *QUICK, "--out", str(out), "--json")
    assert done.out == out.read_text()
    assert plan_json(load_plan(out)) == out.read_text()
    witness = load_plan(out).witness
    assert witness is not None
    assert {path.name for path in tmp_path.iterdir()} == {"plan.json", f"plan{witness.suffix}"}


def test_solve_imports_no_torch(folder: Path) -> None:
    code = (
        "import sys; from placement.cli.main import cli; from placement.cli.running import outcome; "
        f"code = outcome(cli, 'p', ['solve', '--spec', 'tiny.yaml', '--json', '--workers', '1', *{QUICK!r}]); "
        "print('loaded', [m for m in sys.modules if m.split('.')[0] in ('torch', 'matplotlib', 'pandas')], code)"
    )
    done = finish(process(["-c", code], folder))
    assert done.out.splitlines()[-1] == "loaded [] 0", done.err


def test_reader_that_leaves_early_ends_it_quietly(folder: Path) -> None:
    running = process(["-m", "placement", "specs", "list"], folder)
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert b"Traceback" not in running.stderr.read()
    running.wait(60)


def test_groups_are_kept_on_nodes(call: Callable[..., Done], tiny: dict[str, Any], tmp_path: Path) -> None:
    tiny = copy.deepcopy(tiny)
    tiny["model"]["moe"] |= {"experts": 16, "groups": 4, "top_groups": 2}
    tiny["redundant"] = 8
    spec, out = tmp_path / "grouped.yaml", tmp_path / "plan.json"
    spec.write_text(yaml.safe_dump(tiny))
    assert call("solve", "--spec", str(spec), "--keep-groups", *QUICK, "--out", str(out)).code == 0
    plan = load_plan(out)
    for layer in plan.role().layers:
        homes = [{e // 4 for e in layer.physical_to_logical[n * 12 : n * 12 + 12]} for n in (0, 1)]
        assert not homes[0] & homes[1]
    assert call("verify", str(out)).code == 0
    broken = json.loads(out.read_text())
    row = broken["roles"][0]["layers"][0]["physical_to_logical"]
    other = next(i for i in range(12, 24) if row[i] not in row[0:6] and row[0] not in row[i // 6 * 6 : i // 6 * 6 + 6])
    row[0], row[other] = row[other], row[0]
    out.write_text(json.dumps(broken))
    done = call("verify", str(out))
    assert done.code == 6
    assert "lies on nodes" in done.out


def test_groups_that_do_not_exist_or_divide_are_told(
    call: Callable[..., Done], folder: Path, tiny: dict[str, Any], tmp_path: Path
) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), "--keep-groups", *QUICK)
    assert done.code == 2
    assert "no expert groups" in done.err
    tiny = copy.deepcopy(tiny)
    tiny["model"]["moe"] |= {"experts": 12, "groups": 3, "top_groups": 1}
    spec = tmp_path / "grouped.yaml"
    spec.write_text(yaml.safe_dump(tiny))
    done = call("solve", "--spec", str(spec), "--keep-groups", *QUICK)
    assert done.code == 2
    assert "3 expert groups do not divide over 2 nodes" in done.err


def test_a_cluster_of_levels_and_unequal_nodes_is_planned_and_verified(
    call: Callable[..., Done], tiny: dict[str, Any], tmp_path: Path
) -> None:
    spec = copy.deepcopy(tiny)
    faster = {**spec["cluster"]["gpu"], "name": "other_gpu", "hbm_gb_per_s": 300.0}
    pair = {"name": "pair", "gpus": 2, "gb_per_s": 90.0, "latency_us": 1.0}
    spec["cluster"] |= {"nodes": 1, "gpus_per_node": 4, "inner": [pair]}
    (tmp_path / "levels.yaml").write_text(yaml.safe_dump(spec))
    spec["cluster"] = {**tiny["cluster"], "other_nodes": [{"nodes": 1, "gpu": faster}]}
    (tmp_path / "mixed.yaml").write_text(yaml.safe_dump(spec))
    for name, told in (("levels", "tiny_gpu"), ("mixed", "tiny_gpu + other_gpu")):
        out = str(tmp_path / f"{name}.json")
        done = call("solve", "--spec", str(tmp_path / f"{name}.yaml"), *QUICK, "--phase", "decode", "--out", out)
        assert done.code == 0, done.err
        assert told in done.out
        assert call("verify", out).code == 0


def test_a_first_run_says_that_it_compiles(
    call: Callable[..., Done], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("solve", "--spec", str(folder / "tiny.yaml"))
    assert "compiling" not in call(*args, *QUICK).err
    monkeypatch.setattr("placement.planning.solve.is_compiled", lambda: False)
    assert call(*args, *QUICK).err.startswith("compiling, once")
    # The load balancer searches nothing.
    assert call(*args, "--strategy", "eplb").err == ""


def test_the_screen_says_what_a_time_limit_cut_short(call: Callable[..., Done], folder: Path) -> None:
    done = call("solve", "--spec", str(folder / "tiny.yaml"), "--time-limit", "1e-9", "--workers", "1", "--gap", "0")
    assert done.code == 0
    assert "search: ended early in 2 of 2 layers" in " ".join(done.out.split())
