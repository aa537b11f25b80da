"""A rank that dies ends the run at once, says why, and leaves no process behind."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.alltoall.job import Job
from bench.alltoall.launch import RankDiedError, run_job
from bench.alltoall.main import deaths_told
from tests.alltoall.conftest import small_job

ROOT = Path(__file__).resolve().parents[2]


def processes(folder: Path) -> list[int]:
    """Processes whose command line names something in the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in words and b"bench.alltoall.process" in words:
            found.append(int(path.parent.name))
    return found


def gone(folder: Path, seconds: float = 10.0) -> bool:
    """Whether the folder's processes end in that time."""
    until = time.monotonic() + seconds
    while processes(folder) and time.monotonic() < until:
        time.sleep(0.05)
    return not processes(folder)


def without_end(gpus: int = 2) -> Job:
    """A job that runs for hours."""
    return replace(small_job(gpus, 1)[0], repeats=10_000_000, timeout_s=600.0)


def test_a_rank_that_fails_is_told_with_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    job, _ = small_job(4, 2)
    work = job.layers[0]
    exchange = work.exchanges[1]
    served = np.array(exchange.served)
    # A token that lives on rank 2 is to be served by a slot that no rank has.
    served[np.flatnonzero(job.home == job.home[-1])[0], 0] = 10_000
    broken = replace(job, layers=(replace(work, exchanges=(work.exchanges[0], replace(exchange, served=served))),))
    started = time.monotonic()
    with pytest.raises(RankDiedError, match=rf"rank {job.home[-1]} died \(exit code 1\)") as told:
        run_job(broken)
    # The others would have waited a minute for it.
    assert time.monotonic() - started < 45
    assert "Traceback" in str(told.value)
    assert "route.py" in str(told.value)
    assert gone(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def started_run(tmp_path: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A process that runs an endless job, and one of its ranks, once all are at work."""
    (tmp_path / "job.pickle").write_bytes(pickle.dumps(without_end()))
    code = (
        "import pickle, tempfile\nfrom pathlib import Path\nfrom bench.alltoall.launch import run_job\n"
        f"folder = tempfile.tempdir = {str(tmp_path)!r}\nrun_job(pickle.loads(Path(folder, 'job.pickle').read_bytes()))"
    )
    running = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    )
    until = time.monotonic() + 60
    while len(processes(tmp_path)) < 3 and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(0.5)
    # The first is the one that the ranks were forked from.
    return running, max(processes(tmp_path))


def listening(pids: list[int]) -> set[str]:
    """Addresses, in the kernel's own hexadecimal words, at which sockets of these processes await connections."""
    own, found = set(), set()
    for pid in pids:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                own.add(os.readlink(link))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pids[0]}/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in own:
                found.add(local.partition(":")[0])
    return found


def other_interface() -> str:
    """An interface with an address that is not the loopback, where there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                fcntl.ioctl(asked, 0x8915, name.encode().ljust(256, b"\0"))  # SIOCGIFADDR
                if name != "lo":
                    return name
    return "lo"


def test_ranks_on_one_machine_listen_at_the_loopback_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever address the machine's name has, and whatever interface other jobs are told to use."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", other_interface())
    running, _ = started_run(tmp_path)
    try:
        addresses = listening(processes(tmp_path))
    finally:
        running.kill()
        running.communicate()
    assert addresses
    assert addresses <= {"0100007F", "0" * 24 + "01000000"}, addresses
    assert gone(tmp_path)


def test_a_killed_rank_ends_the_others(tmp_path: Path) -> None:
    running, rank = started_run(tmp_path)
    os.kill(rank, signal.SIGKILL)
    _, told = running.communicate(timeout=20)
    assert running.returncode == 1
    assert b"died (signal 9); all ranks have been ended" in told
    assert gone(tmp_path)


def test_a_killed_parent_leaves_no_ranks(tmp_path: Path) -> None:
    running, _ = started_run(tmp_path)
    running.kill()
    running.wait()
    assert gone(tmp_path)


def test_the_command_tells_the_ranks_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(error: RuntimeError) -> None:
        with deaths_told():
            raise error

    with pytest.raises(SystemExit) as ended:
        fails(
            RankDiedError("rank 2 died (exit code 1); all ranks have been ended\nTraceback\n  its own\nValueError: x")
        )
    assert ended.value.code == 1
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "error: rank 2 died (exit code 1); all ranks have been ended"
    assert told[:3] == ["Traceback", "  its own", "ValueError: x"]
    with pytest.raises(RuntimeError, match="a bug"):
        fails(RuntimeError("a bug"))
