"""Real runs on 2, 4 and 8 processes: bytes are the scorer's, results the reference's, under every rule."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.alltoall.job import PARTS, matrix_of
from bench.alltoall.launch import run_job
from bench.alltoall.main import command
from placement.cli.main import cli
from placement.cli.running import outcome
from tests.alltoall.conftest import HIDDEN, small_job

ROOT = Path(__file__).resolve().parents[2]
#: Bytes of one hidden state as sent, over those of bf16.
FP8 = (HIDDEN + 4) / (2 * HIDDEN)


@pytest.mark.parametrize(
    ("gpus", "gpus_per_node", "changes", "scale", "tolerance"),
    [
        (2, 1, {"wire": "fp8", "kind": "mlp"}, (FP8, 1.0), 0.03),
        (4, 4, {"wire": "fp32", "kind": "mlp"}, (2.0, 2.0), 1e-5),
        (8, 2, {}, (1.0, 1.0), 0.03),
        (6, 3, {"failed": (1,)}, (1.0, 1.0), 0.03),
    ],
)
def test_bytes_and_results(
    gpus: int, gpus_per_node: int, changes: dict[str, Any], scale: tuple[float, float], tolerance: float
) -> None:
    job, wanted = small_job(gpus, gpus_per_node, seed=gpus, **changes)
    ran = run_job(job)
    assert len(ran.records) == 1
    assert ran.uplinks == ()
    for records, matrices in zip(ran.records[0], wanted, strict=True):
        for kind, matrix, size in zip(("dispatch", "combine"), matrices, scale, strict=True):
            assert matrix.any()
            for side in ("sent", "received"):
                np.testing.assert_array_equal(matrix_of(records, kind, side), matrix * size)
        assert max(record.error for record in records) < tolerance
        assert max(record.error for record in records) > 0
        took = np.stack([record.ended - record.begun for record in records])
        assert took.shape == (gpus, 2, len(PARTS))
        assert (took >= 0).all()
        np.testing.assert_array_equal(
            matrix_of(records, "metadata", "sent"), matrix_of(records, "metadata", "received")
        )


def test_a_plan_and_its_baselines(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run.json"
    args = [
        "--plan", str(folder / "plan.json"), "--trace", str(folder / "a.npz"), "--baseline", "eplb", "--baseline",
        "hash", "--ranks", "4", "--tokens-per-rank", "30", "--repeats", "3", "--mlp", "--json", "--out", str(out),
    ]  # fmt: skip
    assert outcome(command, "alltoall", args) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads(out.read_text())
    assert told["schema"] == "placement.alltoall/1"
    # The plan was judged on 60 tokens; 120 are asked for.
    assert told["repeated_tokens"] == 60
    assert [(each["layer"], each["layout"]) for each in told["exchanges"]] == [
        (layer, layout) for layer in (1, 2) for layout in ("solved", "eplb", "hash")
    ]
    for each in told["exchanges"]:
        assert each["exact"]
        assert each["right"]
        assert each["predicted_ms"] is None
        assert len(each["moved"]["each_ms"]) == 3
        assert each["moved"]["median_ms"] <= each["moved"]["p95_ms"]
        for kind in ("dispatch_bytes", "combine_bytes"):
            matrix = np.array(each[kind]["matrix"])
            same = np.arange(4)[:, None] // 2 == np.arange(4)[None, :] // 2
            assert each[kind]["within"] == matrix[same].sum()
            assert each[kind]["across"] == matrix[~same].sum()
        np.testing.assert_array_equal(
            np.array(each["dispatch_bytes"]["matrix"]), np.array(each["combine_bytes"]["matrix"]).T
        )
        assert each["metadata_bytes"]["across"] > 0
    assert told["agreement"] is None


def test_a_plan_that_has_lost_a_gpu(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, trace = str(tmp_path / "lost.json"), str(folder / "a.npz")
    migrate = ["migrate", "--plan", str(folder / "plan.json"), "--trace", trace, "--failed-gpu", "1", "--work", "0.02"]
    migrate += ["--max-moves", "9"]
    assert outcome(cli, "placement", [*migrate, "--out", lost, "--json"]) == 0
    capsys.readouterr()
    args = ["--plan", lost, "--trace", trace, "--layers", "1", "--tokens-per-rank", "30", "--repeats", "1", "--json"]
    assert outcome(command, "alltoall", args) == 0
    for each in json.loads(capsys.readouterr().out)["exchanges"]:
        assert each["exact"]
        assert each["right"]
        matrix = np.array(each["dispatch_bytes"]["matrix"])
        assert matrix.any()
        assert not matrix[1].any()
        assert not matrix[:, 1].any()


def test_under_torchrun(folder: Path, tmp_path: Path) -> None:
    plan, trace = str(tmp_path / "plan.json"), str(folder / "a.npz")
    solve = ["solve", "--spec", str(folder / "tiny.yaml"), "--ep", "2", "--dp", "2", "--strategy", "eplb", "-q"]
    assert outcome(cli, "placement", [*solve, "--trace", trace, "--out", plan]) == 0
    args = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "bench.alltoall",
        "--plan", plan, "--trace", trace, "--layers", "1", "--repeats", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(
        args, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=120
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ranks"] == 2
    assert all(each["exact"] and each["right"] for each in told["exchanges"])
