"""`placement deploy` as users run it: a table, JSON, a file, refusals, and what the certificate says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SPEC = "kimi_k2_h200_ib"


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "placement.deploy", *args], capture_output=True, text=True, check=False, timeout=120
    )


def record(*args: str) -> dict[str, Any]:
    done = run(*args, "--json", "--balanced")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_deployment_adds_up(tmp_path: Path) -> None:
    out = tmp_path / "deployment.json"
    found = record("--spec", SPEC, "--out", str(out))
    assert json.loads(out.read_text()) == found
    assert found["schema"] == "placement.deployment/1"
    (answer,) = found["answers"]
    kinds = answer["instances"]
    assert sum(k["count"] * k["gpus"] for k in kinds) == answer["gpus"] <= 32
    for i, kind in enumerate(kinds):
        lies = sum(g["nodes"] * h["gpus"] for g in answer["nodes"] for h in g["holds"] if h["instance"] == i)
        assert lies == kind["count"] * kind["gpus"]
    assert sum(group["nodes"] for group in answer["nodes"]) <= 4
    assert all(sum(h["gpus"] for h in group["holds"]) <= 8 for group in answer["nodes"])
    rates = {
        role: sum(k["count"] * k["requests_per_s"] for k in kinds if k["role"] == role)
        for role in ("aggregated", "prefill", "decode")
    }
    assert answer["requests_per_s"] <= rates["aggregated"] + min(rates["prefill"], rates["decode"]) + 1e-9
    assert answer["tokens_per_s"] == pytest.approx(answer["requests_per_s"] * 1024)
    assert answer["ttft_ms"] <= 2000 * (1 + 1e-9)
    assert answer["tpot_ms"] <= 30 * (1 + 1e-9)
    assert answer["certificate"]["bound"] >= answer["tokens_per_s"] * (1 - 1e-9)
    dropped = sum(each["count"] for each in found["columns"]["dropped"])
    assert dropped + found["columns"]["kept"] == found["columns"]["considered"]


def test_modes_are_ordered() -> None:
    rates = {
        mode: record("--spec", SPEC, "--mode", mode)["answers"][0]["tokens_per_s"] for mode in ("aggregated", "mixed")
    }
    assert rates["mixed"] >= rates["aggregated"] * (1 - 1e-9)


def test_a_target_takes_fewer_gpus() -> None:
    whole = record("--spec", SPEC)["answers"][0]
    half = record("--spec", SPEC, "--target-rate", str(whole["tokens_per_s"] / 4))["answers"][0]
    assert half["gpus"] < whole["gpus"]
    assert half["tokens_per_s"] >= whole["tokens_per_s"] / 4 * (1 - 1e-6)
    assert half["certificate"]["goal"] == "gpus"


def test_the_front_trades_users_for_gpus() -> None:
    answers = record("--spec", SPEC, "--front")["answers"]
    assert len(answers) >= 4
    limits = [answer["tpot_limit_ms"] for answer in answers]
    rates = [answer["tokens_per_s"] for answer in answers]
    assert limits == sorted(limits)
    assert rates == sorted(rates)


def test_text_names_every_kind_of_instance() -> None:
    done = run("--spec", SPEC, "--balanced", "--pool", "b200_hgx_ib")
    assert done.returncode == 0
    for word in ("instances", "certificate", "not dominated", "h200_hgx_ib", "b200_hgx_ib", "proven optimal"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--spec", "dgx_a100_175b"), 2, "is training"),
        (("--spec", "nowhere"), 2, "nowhere"),
        (("--spec", SPEC, "--tp", "7"), 2, "tp 7"),
        (("--spec", SPEC, "--pool", "abacus"), 2, "abacus"),
        (("--spec", SPEC, "--front", "--target-rate", "5"), 2, "exclude each other"),
        (("--spec", SPEC, "--tpot-ms", "0.5"), 3, "TPOT"),
        (("--spec", SPEC, "--ttft-ms", "5"), 3, "TTFT"),
        (("--spec", SPEC, "--ttft-ms", "5", "--mode", "aggregated"), 3, "TTFT 5 ms"),
        (("--spec", SPEC, "--target-rate", "1e9"), 3, "the most is"),
        (("--spec", "kimi_k2_h200_ib", "--tp", "1", "--ep", "1", "--pp", "1", "--dp", "1"), 3, "HBM"),
    ],
)
def test_refusals_are_one_line(args: tuple[str, ...], code: int, words: str) -> None:
    done = run(*args, "--balanced")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
