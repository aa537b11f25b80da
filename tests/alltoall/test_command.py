"""The command's bad usage, missing torch, and what its reports say. No rank is started."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import bench.experts.main
from bench.alltoall.job import KINDS, PARTS, Ran, RankRecord
from bench.alltoall.main import command
from bench.alltoall.measured import Bytes, agreement, measured, totals
from bench.alltoall.prepare import Expected, Prepared, Sample, take_sample
from bench.alltoall.report import check
from placement.cli.running import outcome
from placement.errors import CheckFailedError
from placement.routing.trace import Trace
from tests.alltoall.conftest import small_job


@pytest.mark.parametrize(
    ("more", "code", "told"),
    [
        (["--ranks", "8"], 2, "--ranks: is 8, but the plan has 4 expert-parallel ranks; leave it out, or solve"),
        (["--baseline", "epbl"], 2, "--baseline: epbl: is not in the plan; choose of"),
        (["--trace", "COUNTS"], 2, "traces with token choices are mixed with load counts"),
        (["--expert-width", "32"], 2, "--expert-width: counts with --mlp alone; add --mlp"),
        (["--phase", "train"], 2, "train is no phase of the plan's workload; choose decode or prefill"),
        (["--backend", "nccl"], 2, "--backend: nccl: needs a GPU a rank, 4; here are 0; use gloo"),
        (["--fabric", "nowhere.yaml"], 2, "nowhere.yaml: "),
        (["--backend", "nccl", "--fabric", "x.yaml"], 2, "--fabric: shapes gloo ranks"),
        (["--dtype", "fp4"], 2, "invalid value for '--dtype'"),
        (["--out", "/nowhere/x.json"], 2, "--out: /nowhere/x.json: can't be written"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line(
    more: list[str], code: int, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--plan", str(folder / "plan.json"), "--trace", str(folder / "a.npz")]
    more = [str(folder / "counts.npz") if word == "COUNTS" else word for word in more]
    assert outcome(command, "python -m bench.alltoall", [*args, *more]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert told in captured.err
    assert captured.err.count("\n") == 1


def test_too_few_gpus_are_told_before_routing_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--plan", str(folder / "plan.json"), "--trace", "/nowhere.npz", "--backend", "nccl"]
    assert outcome(command, "python -m bench.alltoall", args) == 2
    assert capsys.readouterr().err == "error: --backend: nccl: needs a GPU a rank, 4; here are 0; use gloo\n"


def test_load_counts_name_no_tokens(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--plan", str(folder / "plan.json"), "--trace", str(folder / "counts.npz")]
    assert outcome(command, "python -m bench.alltoall", args) == 2
    assert "topk_ids: is missing: load counts name no tokens; give a trace" in capsys.readouterr().err


def test_without_torch_the_line_has_the_install_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))
    args = ["--plan", str(folder / "plan.json"), "--trace", str(folder / "a.npz")]
    for each in (command, bench.experts.main.command):
        assert outcome(each, "bench", args) == 5
        assert capsys.readouterr().err == "error: torch is not installed; pip install 'placement[alltoall]'\n"


def test_help_imports_no_torch() -> None:
    for module in ("bench.alltoall", "bench.experts"):
        code = (
            f"import sys\nfrom {module}.main import command\nfrom placement.cli.running import outcome\n"
            "code = outcome(command, 'x', ['--help'])\n"
            "print(code, [m for m in ('torch', 'numpy', 'scipy', 'pydantic') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "0 []"


def test_a_sample_repeats_no_token_before_all_have_come() -> None:
    ids = np.arange(2 * 10 * 1).reshape(2, 10, 1) % 10
    trace = Trace(ids.astype(np.uint8), np.array([10]), 10, "t", "recorded")
    once = take_sample([trace], 2, 5, 0)
    assert once.repeated == 0
    assert sorted(once.trace.topk_ids[0, :, 0]) == list(range(10))
    assert np.bincount(once.home).tolist() == [5, 5]
    many = take_sample([trace, trace], 3, 10, 1)
    assert many.repeated == 10
    # 15 of each trace: all of its tokens, and half of them again.
    assert set(np.bincount(many.trace.topk_ids[0, :, 0])) <= {2, 3, 4}
    assert many.trace.topk_weights is not None
    assert np.unique(many.trace.topk_weights).tolist() == [1.0]
    assert (take_sample([trace], 2, 5, 0).home == once.home).all()
    assert (take_sample([trace], 2, 5, 1).home != once.home).any()


def fake_run(seconds: dict[str, float], wrong: bool = False) -> tuple[Prepared, Ran]:
    """A run in which every exchange took as told, and whose bytes are the scorer's (but for one, if `wrong`)."""
    job, wanted = small_job(4, 2)
    job = replace(job, repeats=3)
    rng = np.random.default_rng(0)
    records, expected = [], []
    for exchange, (dispatched, combined) in zip(job.layers[0].exchanges, wanted, strict=True):
        ranks = []
        for rank in range(4):
            sent = np.stack([np.zeros(4, dtype=np.int64), dispatched[rank], combined[rank]])
            received = np.stack([np.zeros(4, dtype=np.int64), dispatched[:, rank], combined[:, rank]])
            begun = np.zeros((3, len(PARTS)))
            ended = begun.copy()
            # Rank 3 is the last; half of the time is dispatch.
            ended[:, 0] = ended[:, 4] = seconds[exchange.layout] / 2 * (1.0 if rank == 3 else 0.8)
            ranks.append(RankRecord(sent, received, begun, ended, 0.001, 0.004))
        records.append(tuple(ranks))
        half = seconds[exchange.layout] / 2 * float(rng.uniform(0.9, 1.0))
        expected.append(Expected(dispatched + wrong, combined, half, half, (half, half)))
    assert len(KINDS) == 3
    trace = Trace(np.zeros((1, 1, 1), dtype=np.uint8), np.array([1]), 1, "t", "recorded")
    prepared = Prepared(job, (tuple(expected),), Sample(trace, job.home, 0))
    return prepared, Ran((tuple(records),), (), "cpu", "0")


def test_times_sums_and_agreement() -> None:
    prepared, ran = fake_run({"per_expert": 0.4, "per_rank": 0.2, "per_node": 0.1, "dense": 0.05})
    found = measured(prepared, ran, links_known=True)
    assert [each.moved.median_ms for each in found] == pytest.approx([400, 200, 100, 50])
    assert found[0].dispatch.median_ms == pytest.approx(200)
    assert found[0].dispatch.skew_ms == pytest.approx(40)
    assert all(each.exact and each.right for each in found)
    told = agreement(found)
    assert told is not None
    assert told.spearman == pytest.approx(1.0)
    assert 0 < told.median_error < 0.1
    assert [each.layout for each in totals(found)] == ["per_expert", "per_rank", "per_node", "dense"]
    assert agreement(measured(prepared, ran, links_known=False)) is None


def test_a_single_rank_has_no_links_to_predict() -> None:
    prepared, ran = fake_run({"per_expert": 0.4, "per_rank": 0.2, "per_node": 0.1, "dense": 0.05})
    alone = replace(prepared, job=replace(prepared.job, gpus=1, gpus_per_node=1))
    ran = replace(
        ran,
        records=tuple(
            tuple((replace(own[0], sent=own[0].sent[:, :1], received=own[0].received[:, :1]),) for own in layer)
            for layer in ran.records
        ),
    )
    assert agreement(measured(alone, ran, links_known=True)) is None


def test_a_byte_too_many_fails_the_check() -> None:
    prepared, ran = fake_run({"per_expert": 0.4, "per_rank": 0.2, "per_node": 0.1, "dense": 0.05}, wrong=True)
    found = measured(prepared, ran, links_known=True)
    assert not any(each.exact for each in found)

    class Told:
        exchanges = found

    with pytest.raises(CheckFailedError, match="layer 3 under per_expert: the bytes on the links are not the scorer's"):
        check(Told())  # type: ignore[arg-type]


def test_the_busiest_node_is_that_of_either_direction() -> None:
    matrix = np.array([[0, 5, 1, 0], [0, 0, 2, 3], [7, 0, 0, 9], [0, 8, 1, 0]])
    found = Bytes.of(matrix, 2)
    assert (found.within, found.across, found.busiest_node) == (15, 21, 15)
