"""A scenario small enough to plan in a moment, and the commands run in this process or as a process of their own."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from placement.cli.main import cli
from placement.cli.running import outcome

ROOT = Path(__file__).resolve().parents[2]

TINY: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "name": "tiny_model", "layers": 3, "hidden": 64, "vocabulary": 256,
        "attention": {"kind": "gqa", "query_heads": 4, "kv_heads": 2, "head_dim": 16},
        "moe": {"experts": 8, "top_k": 2, "expert_width": 32},
        "dense_layers": [0], "dense_width": 128,
    },
    "cluster": {
        "name": "tiny_cluster", "nodes": 2, "gpus_per_node": 2,
        "gpu": {"name": "tiny_gpu", "hbm_gib": 8.0, "hbm_gb_per_s": 100.0, "peak_tflops": {"bf16": 10.0}},
        "fast": {"gb_per_s": 50.0, "latency_us": 1.0}, "slow": {"gb_per_s": 5.0, "latency_us": 2.0},
    },
    "workload": {
        "kind": "serving", "name": "tiny_work", "isl": 64, "osl": 32, "ttft_ms": 2000.0, "tpot_ms": 100.0,
        "prefill_tokens_per_gpu": 64,
    },
    "pins": {"tp": 1, "ep": 4, "pp": 1, "dp": 4, "batch": 8},
    "redundant": 4,
    "routing": {"tokens": 128, "sequences": 8, "skew": 2.0},
    "reserve_gib": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """The small scenario's fields; a copy."""
    return copy.deepcopy(TINY)


@pytest.fixture(scope="session")
def apart(folder: Path) -> Path:
    """A plan of two roles, prefill and decode apart, solved on a.npz."""
    out = folder / "apart.json"
    args = ["solve", "--spec", str(folder / "tiny.yaml"), "--nodes", "4", "--mode", "disaggregated", "--strategy"]
    more = ["search", "--work", "0.05", "--trace", str(folder / "a.npz"), "--out", str(out), "-q"]
    assert outcome(cli, "placement", [*args, *more]) == 0
    return out


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `placement ARGS...` in this process."""

    def run(*args: str) -> Done:
        capsys.readouterr()
        code = outcome(cli, "placement", args)
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def process(args: Sequence[str], cwd: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Starts `python ARGS...` with this checkout's packages."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.Popen([sys.executable, *args], cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finish(running: subprocess.Popen[bytes]) -> Done:
    """Waits for a process."""
    out, err = running.communicate(timeout=300)
    return Done(running.returncode, out.decode(), err.decode())
