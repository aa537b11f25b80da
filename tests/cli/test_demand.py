"""`placement deploy` and `solve` asked by demand: at random, of a record, or in flight; the mean and the p95."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.conftest import TINY, Done

Call = Callable[..., Done]
QUICK = ("--balanced", "--set", "routing.tokens=128")


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """The tiny scenario, its degrees left to planning."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "pins": {}, "redundant": 0}))
    return str(path)


def record(call: Call, *args: str, command: str = "deploy") -> dict[str, Any]:
    done = call(command, *args, *QUICK, "--json")
    assert done.code == 0, done.err
    found: dict[str, Any] = json.loads(done.out)
    return found


def served(plan: dict[str, Any]) -> float:
    """Requests/s that a plan predicts."""
    return float(plan["predicted"]["tokens_per_s"]["value"]) / TINY["workload"]["osl"]


def gpus(plan: dict[str, Any]) -> int:
    splits = [role["split"] for role in plan["roles"]]
    return sum(int(split["tp"] * split["dp"] * split["pp"] * split["instances"]) for split in splits)


def test_a_rate_takes_the_fewest_gpus_and_is_simulated(call: Call, spec: str, tmp_path: Path) -> None:
    most, out = record(call, "--spec", spec), tmp_path / "plan.json"
    assert "demand" not in most
    rate = served(most) / 4
    plan = record(call, "--spec", spec, "--rate", f"{rate}", "--out", str(out))
    assert plan["choice"]["goal"] == "gpus"
    assert served(plan) >= rate * 0.95
    assert gpus(plan) < gpus(most)
    found = plan["demand"]
    assert found["served_requests_per_s"] == pytest.approx(rate, rel=0.02)
    assert found["tpot"]["mean_ms"] == pytest.approx(found["tpot"]["planned_ms"], rel=0.05)
    for figure in (found["ttft"], found["tpot"]):
        assert figure["p50_ms"] <= figure["p95_ms"] <= figure["p99_ms"]
    # The file is simulated again, and a figure that was changed is found.
    done = call("verify", str(out), "--json")
    checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
    assert (done.code, checks["demand"]["passed"]) == (0, True)
    plan["demand"]["ttft"]["p95_ms"] += 1.0
    out.write_text(json.dumps(plan))
    done = call("verify", str(out), "--json")
    checks = {check["name"]: check for check in json.loads(done.out)["checks"]}
    assert checks["demand"]["passed"] is False
    assert "demand.ttft.p95_ms" in checks["demand"]["detail"]


def test_solve_places_experts_of_the_instances_for_a_demand(call: Call, spec: str) -> None:
    rate = served(record(call, "--spec", spec)) / 4
    quick = record(call, "--spec", spec, "--rate", f"{rate}")
    plan = record(call, "--spec", spec, "--rate", f"{rate}", "--work", "0.05", "--workers", "1", command="solve")
    assert plan["provenance"]["strategy"] == "auto"
    assert [role["split"]["instances"] for role in plan["roles"]] == [r["split"]["instances"] for r in quick["roles"]]
    assert plan["demand"]["asked_requests_per_s"] == pytest.approx(rate)


def test_kept_instances_are_simulated_as_they_are(call: Call, spec: str, tmp_path: Path) -> None:
    out = tmp_path / "plan.json"
    most = record(call, "--spec", spec, "--out", str(out))
    kept = ("--deployment", str(out), "--strategy", "eplb")
    light = record(call, *kept, "--rate", f"{served(most) / 10}", command="solve")
    heavy = record(call, *kept, "--rate", f"{served(most) * 3}", command="solve")
    assert gpus(light) == gpus(heavy) == gpus(most)
    assert (light["demand"]["hold"], light["demand"]["grows"]) == (None, False)
    assert heavy["demand"]["grows"] is True
    assert 0 < heavy["demand"]["hold"]["share"] < 1
    assert heavy["demand"]["hold"]["gpus"] is None


def test_a_closed_loop_serves_what_its_requests_allow(call: Call, spec: str) -> None:
    found = record(call, "--spec", spec, "--concurrency", "12")["demand"]
    assert found["in_flight"] == 12
    stay = found["ttft"]["mean_ms"] * 1e-3 + 32 * found["tpot"]["mean_ms"] * 1e-3
    assert found["served_requests_per_s"] <= 12 / stay * 1.5


def test_recorded_requests_are_planned_at_their_mean_lengths(call: Call, spec: str, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    times, isl, osl = np.cumsum(draws.exponential(0.2, 400)), draws.integers(10, 90, 400), draws.integers(1, 60, 400)
    rows = zip(times, isl, osl, strict=True)
    path, out = tmp_path / "requests.csv", tmp_path / "plan.json"
    path.write_text("arrival_s,isl,osl\n" + "".join(f"{t:.4f},{i},{o}\n" for t, i, o in rows))
    found = record(call, "--spec", spec, "--arrivals", str(path))["demand"]
    assert (found["kind"], found["simulated"], found["cut"]) == ("recorded", 400, 0)
    assert found["asked_requests_per_s"] == pytest.approx(5, rel=0.15)
    assert found["isl"] == pytest.approx(50, abs=5)
    done = call("deploy", "--spec", spec, "--arrivals", str(path), "--rate", "20", *QUICK, "--out", str(out))
    assert "20.00 requests/s as recorded, 49 in / 31 out" in done.out
    checks = {check["name"]: check for check in json.loads(call("verify", str(out), "--json").out)["checks"]}
    assert checks["demand"]["kind"] == "missing"
    assert checks["demand"]["fields"] == ["demand"]


def test_what_all_gpus_serve_is_on_the_screen(call: Call, spec: str) -> None:
    done = call("deploy", "--spec", spec, *QUICK, "--simulate")
    assert done.code == 0, done.err
    told = done.out[done.out.index("DEMAND ") : done.out.index("WHY")]
    for word in ("limit", "planned", "mean", "p95", "within", "goodput", "ranks get", "verdict"):
        assert word in told
    assert max(map(len, told.splitlines())) <= 80
    assert "demand" not in record(call, "--spec", spec, "--rate", "1", "--no-simulate")


@pytest.mark.parametrize("asked", ["--rate", "--concurrency"])
@pytest.mark.parametrize("command", ["deploy", "solve"])
def test_other_limits_are_weighed_for_the_demand(call: Call, spec: str, command: str, asked: str) -> None:
    """They are about the GPUs for it, as those of a target are: not about what all GPUs would serve."""
    most = served(record(call, "--spec", spec))
    many = f"{most / 4}" if asked == "--rate" else "2"
    quickly = ("--strategy", "eplb") if command == "solve" else ()
    plan = record(call, "--spec", spec, asked, many, "--no-simulate", "--explain", *quickly, command=command)
    choice = plan["choice"]
    assert choice["what_if"]
    assert all(each["gpus"] <= gpus(plan) for each in choice["what_if"])
    target = ("--target-rate", f"{choice['target_tokens_per_s']!r}", "--explain")
    assert record(call, "--spec", spec, *target, *quickly, command=command)["choice"] == choice


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("deploy", "--rate", "5", "--concurrency", "3"), 2, "--concurrency: it and --rate exclude each other"),
        (("solve", "--rate", "5", "--target-rate", "3"), 2, "exclude each other"),
        (("deploy", "--rate", "5", "--front"), 2, "--front: it and --rate exclude each other"),
        (("deploy", "--simulate", "--front"), 2, "--front: it and --simulate exclude each other"),
        (("deploy", "--rate", "-1"), 2, "is not a positive number"),
        (("solve", "--concurrency", "0"), 2, "--concurrency"),
        (("deploy", "--arrivals", "nowhere.csv"), 2, "no such file"),
        (("solve", "--rate", "1e8"), 3, "lower --rate"),
        (("solve", "--spec", "dgx_a100_175b", "--rate", "5"), 2, "is training"),
        (("deploy", "--spec", "dgx_a100_175b", "--rate", "5"), 2, "is training"),
    ],
)
def test_refusals_are_one_line(call: Call, spec: str, args: tuple[str, ...], code: int, words: str) -> None:
    done = call(args[0], "--spec", spec, *QUICK, *args[1:])
    assert done.code == code, done.err
    assert words in done.err
    assert "error" in done.err.strip().splitlines()[-1]
    assert done.out == ""


def test_lengths_come_from_the_record_alone(call: Call, spec: str, tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,isl,osl\n0,100,10\n0,100,10\n")
    done = call("deploy", "--spec", spec, *QUICK, "--arrivals", str(path), "--isl", "50")
    assert (done.code, "--isl: it and --arrivals exclude each other" in done.err) == (2, True)
    for more in ((), ("--rate", "5")):
        done = call("deploy", "--spec", spec, *QUICK, "--arrivals", str(path), *more)
        assert (done.code, "all requests come at once" in done.err) == (2, True)
