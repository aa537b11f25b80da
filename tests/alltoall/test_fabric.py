"""The shaped fabric: its file, its prices, and (with root and iproute2) its namespaces."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.alltoall import namespaces
from bench.alltoall.fabric import Fabric, read_fabric
from bench.alltoall.job import matrix_of
from bench.alltoall.launch import run_job
from bench.alltoall.namespaces import FOLDER, PREFIX, leftovers, remove_leftovers, shaped
from placement.errors import InputError, MissingExtraError
from tests.alltoall.conftest import small_job
from tests.solvers.problems import RATES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def namespaces_work() -> None:
    """Skips where network namespaces can't be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None:
        pytest.skip("a shaped fabric needs root and iproute2")
    try:
        with shaped(Fabric(uplink_mbit_per_s=1000.0), 1):
            pass
    except MissingExtraError as error:
        pytest.skip(str(error))


def own_namespaces(pid: int) -> list[str]:
    return [path.name for path in FOLDER.glob(f"{PREFIX}-{pid}-*")] if FOLDER.is_dir() else []


@pytest.fixture
def _nothing_left() -> Iterator[None]:
    yield
    assert not own_namespaces(os.getpid())


def test_a_file_and_its_prices(tmp_path: Path) -> None:
    path = tmp_path / "fabric.yaml"
    path.write_text("uplink_mbit_per_s: 200\nmtu: 9000\nlatency_ms: 3\nlocal_mb_per_s: 500\n")
    fabric = read_fabric(path)
    assert fabric.uplink_bytes_per_s == pytest.approx(25e6 * 8948 / 9014)
    rates = fabric.rates(RATES, 2)
    assert rates.slow_bytes_per_s == pytest.approx(12.5e6 * 8948 / 9014)
    assert rates.fast_bytes_per_s == 500e6
    assert rates.fast_latency_s == rates.slow_latency_s == pytest.approx(3e-3)
    assert rates.dispatch_bytes == RATES.dispatch_bytes


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mtu: 9000\n", "uplink_mbit_per_s: is missing"),
        ("uplink_mbit_per_s: 0\n", "uplink_mbit_per_s: is 0"),
        ("uplink_mbit_per_s: 200\nmtu: 100\n", "mtu: is 100; write at least 1280"),
        ("uplink_mbit_per_s: 200\nbandwidth: 3\n", "bandwidth: is not a known field"),
    ],
)
def test_a_bad_file_is_told(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "fabric.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=told):
        read_fabric(path)


def test_without_root_or_tools_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    fabric = Fabric(uplink_mbit_per_s=200.0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MissingExtraError, match="this is user 1000; run as root"), shaped(fabric, 2):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda tool: None)
    with pytest.raises(MissingExtraError, match=r"there is no 'ip'.*apt-get install iproute2"), shaped(fabric, 2):
        pass


@pytest.mark.usefixtures("namespaces_work", "_nothing_left")
def test_what_crosses_takes_the_uplinks_time() -> None:
    job, wanted = small_job(4, 2, each=160)
    # 8 Mbit/s: a hop of a few hundred kB takes a large part of a second.
    fabric = Fabric(uplink_mbit_per_s=8.0, burst_kib=16, latency_ms=1.0)
    before = subprocess.run(["ip", "addr"], capture_output=True, text=True, check=True).stdout
    with shaped(fabric, 2) as places:
        during = subprocess.run(["ip", "addr"], capture_output=True, text=True, check=True).stdout
        ran = run_job(job, places)
    assert before == during
    node = np.arange(4) // 2
    for records, matrices in zip(ran.records[0], wanted, strict=True):
        np.testing.assert_array_equal(matrix_of(records, "dispatch", "received"), matrices[0])
        crossing = np.where(node[:, None] == node[None, :], 0, matrices[0])
        busiest = max(np.bincount(node, crossing.sum(axis=1)).max(), np.bincount(node, crossing.sum(axis=0)).max())
        took = np.stack([r.ended for r in records]).max(axis=0) - np.stack([r.begun for r in records]).min(axis=0)
        seconds = np.median(took[:, 0])
        least = (busiest - 16 * 1024) / fabric.uplink_bytes_per_s
        assert 0.9 * least < seconds < 3.0 * least + 0.5
    # The kernel counted at least the payload on the uplinks, and not much more.
    payload = sum(int(np.where(node[:, None] == node[None, :], 0, m)[:2].sum()) for pair in wanted for m in pair) * 2
    assert payload < ran.uplinks[0][0].out_bytes < 1.3 * payload + 200_000


@pytest.mark.usefixtures("namespaces_work", "_nothing_left")
def test_it_is_taken_down_after_an_error_and_a_termination() -> None:
    def fails() -> None:
        with shaped(Fabric(uplink_mbit_per_s=100.0), 2):
            assert len(own_namespaces(os.getpid())) == 3
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fails()
    running = standing()
    assert len(own_namespaces(running.pid)) == 3
    running.terminate()
    assert running.wait(timeout=20) == 128 + signal.SIGTERM
    assert not own_namespaces(running.pid)


@pytest.mark.usefixtures("namespaces_work", "_nothing_left")
def test_what_a_killed_run_left_is_removed_by_the_next() -> None:
    living, killed = standing(), standing()
    killed.kill()
    killed.wait()
    left = own_namespaces(killed.pid)
    assert len(left) == 3
    assert set(left) <= set(leftovers())
    remove_leftovers()
    assert not own_namespaces(killed.pid)
    assert len(own_namespaces(living.pid)) == 3
    living.terminate()
    living.wait(timeout=20)


def standing() -> subprocess.Popen[bytes]:
    """A process that has a fabric standing and waits."""
    code = (
        "import time\nfrom bench.alltoall.fabric import Fabric\nfrom bench.alltoall.namespaces import shaped\n"
        "with shaped(Fabric(uplink_mbit_per_s=100.0), 2):\n    print('up', flush=True)\n    time.sleep(100)"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert running.stdout is not None
    assert running.stdout.readline() == b"up\n"
    return running


def test_a_reused_process_number_is_no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    own = f"{PREFIX}-{os.getpid()}-1-node0"
    monkeypatch.setattr(namespaces, "_names", lambda prefix: [own])
    assert leftovers() == [own]


@pytest.mark.usefixtures("namespaces_work", "_nothing_left")
def test_the_benchmark_as_users_start_it(shared_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "alltoall.json"
    args = [
        sys.executable, "-m", "bench", "run", "alltoall", "--traces", str(shared_dir / "traces"), "--domains", "law",
        "--layers", "1", "--tokens-per-rank", "8", "--repeats", "1", "--warmup", "0", "--work", "0.02", "--out",
        str(out), "--json",
    ]  # fmt: skip
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    started = time.monotonic()
    done = subprocess.run(args, capture_output=True, text=True, check=False, env=env, timeout=240)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 200
    told = json.loads(out.read_text())
    assert told == json.loads(done.stdout)
    assert len(told["totals"]) == 24
    assert all(each["exact"] and each["right"] for each in told["exchanges"])
    assert {"bytes exact", "Spearman over 24 layouts"} <= {target["name"] for target in told["targets"]}
