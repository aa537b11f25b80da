"""`placement deploy` asked by demand: requests at random, of a record, or in flight; the mean and the p95."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.cli.conftest import TINY
from tests.cli.test_deploy import SPEC, run


@pytest.fixture
def spec(tmp_path: Path) -> str:
    """The tiny scenario, its degrees left to planning."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump({**TINY, "pins": {}, "redundant": 0}))
    return str(path)


def demand(*args: str) -> tuple[dict[str, Any], dict[str, Any]]:
    done = run(*args, "--json", "--balanced")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["answers"][-1], found["demand"]


def test_a_rate_takes_the_fewest_gpus_and_is_simulated() -> None:
    answer, found = demand("--spec", SPEC, "--rate", "12")
    assert answer["certificate"]["goal"] == "gpus"
    assert answer["requests_per_s"] >= 12 * (1 - 1e-9)
    assert answer["gpus"] < 32
    assert found["served_requests_per_s"] == pytest.approx(12, rel=0.02)
    assert found["served_tokens_per_s"] == pytest.approx(12 * 1024, rel=0.02)
    for figure in (found["ttft"], found["tpot"]):
        assert figure["mean_ms"] == pytest.approx(figure["planned_ms"], rel=0.05)
        assert figure["p50_ms"] <= figure["p95_ms"] <= figure["p99_ms"]
    assert demand("--spec", SPEC, "--target-rate", str(12 * 1024))[0]["gpus"] == answer["gpus"]


def test_a_miss_at_p95_is_told_with_what_holds() -> None:
    found = demand("--spec", SPEC, "--rate", "20")[1]
    assert found["ttft"]["mean_ms"] < 2000
    assert found["tpot"]["mean_ms"] < 30 * 1.02
    if found["hold"] is None:
        assert found["tpot"]["p95_ms"] <= 30
        assert found["ttft"]["p95_ms"] <= 2000
    else:
        assert 0 < found["hold"]["share"] < 1
    late = demand("--spec", SPEC, "--rate", "22.9", "--routing", "random")[1]
    assert late["tpot"]["p95_ms"] > 30
    assert 0.5 < late["hold"]["share"] < 1
    assert late["hold"]["gpus"] is None  # all 32 are in use


def test_a_closed_loop_serves_what_its_requests_allow(spec: str) -> None:
    found = demand("--spec", spec, "--concurrency", "12")[1]
    assert found["in_flight"] == 12
    stay = found["ttft"]["mean_ms"] * 1e-3 + 32 * found["tpot"]["mean_ms"] * 1e-3
    assert found["served_requests_per_s"] <= 12 / stay * 1.5


def test_recorded_requests_are_planned_at_their_mean_lengths(spec: str, tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    times, isl, osl = np.cumsum(draws.exponential(0.2, 400)), draws.integers(10, 90, 400), draws.integers(1, 60, 400)
    rows = zip(times, isl, osl, strict=True)
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,isl,osl\n" + "".join(f"{t:.4f},{i},{o}\n" for t, i, o in rows))
    found = demand("--spec", spec, "--arrivals", str(path))[1]
    assert found["kind"] == "recorded"
    assert found["simulated"] == 400
    assert found["cut"] == 0
    assert found["asked_requests_per_s"] == pytest.approx(5, rel=0.15)
    assert found["isl"] == pytest.approx(50, abs=5)
    faster = demand("--spec", spec, "--arrivals", str(path), "--rate", "20")[1]
    assert faster["asked_requests_per_s"] == pytest.approx(20)
    done = run("--spec", spec, "--arrivals", str(path), "--balanced")
    assert "requests/s as recorded, 49 in / 31 out" in done.stdout


def test_what_all_gpus_serve_at_p95() -> None:
    done = run("--spec", SPEC, "--balanced", "--simulate")
    assert done.returncode == 0, done.stderr
    told = done.stdout[done.stdout.index("demand ") : done.stdout.index("tokens/s  ")]
    for word in ("limit", "planned", "mean", "p95", "within limit", "goodput", "routing", "verdict", "ranks"):
        assert word in told
    lines = [line for line in told.splitlines() if not line.startswith("verdict")]
    assert max(map(len, lines)) <= 80


def test_without_a_demand_nothing_is_simulated(spec: str) -> None:
    assert json.loads(run("--spec", spec, "--json").stdout)["demand"] is None
    assert json.loads(run("--spec", spec, "--rate", "1", "--no-simulate", "--json").stdout)["demand"] is None


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--rate", "5", "--concurrency", "3"), 2, "--concurrency: it and --rate exclude each other"),
        (("--rate", "5", "--target-rate", "3"), 2, "exclude each other"),
        (("--rate", "5", "--front"), 2, "--front: it and --rate exclude each other"),
        (("--simulate", "--front"), 2, "--front: it and --simulate exclude each other"),
        (("--rate", "-1"), 2, "is not a positive number"),
        (("--concurrency", "0"), 2, "--concurrency"),
        (("--arrivals", "nowhere.csv"), 2, "no such file"),
        (("--rate", "1e6"), 3, "lower --rate"),
        (("--spec", "dgx_a100_175b", "--rate", "5"), 2, "is training"),
    ],
)
def test_refusals_are_one_line(args: tuple[str, ...], code: int, words: str) -> None:
    done = run("--spec", SPEC, "--balanced", *args)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_lengths_come_from_the_record_alone(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_text("arrival_s,isl,osl\n0,100,10\n0,100,10\n")
    done = run("--spec", SPEC, "--balanced", "--arrivals", str(path), "--isl", "50")
    assert (done.returncode, "--isl: it and --arrivals exclude each other" in done.stderr) == (2, True)
    done = run("--spec", SPEC, "--balanced", "--arrivals", str(path))
    assert (done.returncode, "all requests come at once" in done.stderr) == (2, True)
