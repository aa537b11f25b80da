"""Starts a job's ranks, waits for them, and tells which one failed and why."""

from __future__ import annotations

import importlib.util
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.alltoall.job import Job, Ran
from bench.alltoall.process import RESULT, TASK, Place, Task, errors_of, failures_of
from placement.errors import InputError, MissingExtraError

#: What a rank says that lost its partner, rather than failed by itself.
_BEREFT = re.compile(r"Connection (closed|reset|refused)|Broken pipe|Socket closed|Timed out waiting", re.IGNORECASE)


class RankDiedError(RuntimeError):
    """A rank ended before its work was done; the message holds its own last words."""


def need_torch() -> None:
    """Raises MissingExtraError where torch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise MissingExtraError("torch is not installed; pip install 'placement[alltoall]'")


def run_job(job: Job, places: Sequence[Place] = ()) -> Ran:
    """Runs a job on processes of this machine and gives what they saw.

    Args:
        places: one a node; none runs every rank in this process's own network.

    Raises:
        MissingExtraError: torch is not installed. RankDiedError: a rank failed; by then all have ended.
    """
    need_torch()
    with tempfile.TemporaryDirectory(prefix="placement-alltoall-") as name:
        folder = Path(name)
        (folder / TASK).write_bytes(pickle.dumps(Task(job, tuple(places))))
        with (folder / "out").open("wb") as out:
            running = _start(folder, out.fileno())
            try:
                code = running.wait()
            finally:
                # Its ranks go with it.
                running.kill()
                running.wait()
        if code:
            raise RankDiedError(_told(folder, code))
        found = pickle.loads((folder / RESULT).read_bytes())
        if not isinstance(found, Ran):
            raise RankDiedError("rank 0 left no result")
        return found


def run_under_torchrun(job: Job) -> Ran | None:
    """Runs this process's rank of a job that torchrun has started; rank 0 gets what all saw, the others None.

    Raises:
        InputError: torchrun has started another number of ranks than the job has.
    """
    import torch.distributed as dist

    from bench.alltoall.rank import Seat, join, run_rank

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if size != job.gpus:
        raise InputError(
            "torchrun", "WORLD_SIZE", f"is {size}, but the plan has {job.gpus} ranks",
            f"start {job.gpus} ranks, one a GPU of the plan",
        )  # fmt: skip
    device = join(job, rank, "env://", int(os.environ["LOCAL_RANK"]))
    found = run_rank(job, Seat(rank, device))
    dist.barrier()
    dist.destroy_process_group()
    return None if found is None else replace(found, one_machine=os.environ.get("LOCAL_WORLD_SIZE") == str(size))


def _start(folder: Path, out: int) -> subprocess.Popen[bytes]:
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    # Ranks share the cores, and a process to be forked must have one thread.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return subprocess.Popen(
        [sys.executable, "-m", "bench.alltoall.process", str(folder), str(os.getpid())],
        env={**os.environ, "PYTHONPATH": paths, **threads}, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
    )  # fmt: skip


def _told(folder: Path, code: int) -> str:
    """The last words of the rank that is to blame: the first that did not merely lose its partner."""
    if not failures_of(folder).exists():
        return f"the ranks did not start (exit code {code})\n{(folder / 'out').read_text(errors='replace').strip()}"
    failed = [tuple(map(int, line.split())) for line in failures_of(folder).read_text().splitlines()]
    words = {rank: errors_of(folder, rank).read_text(errors="replace").strip() for rank, _ in failed}
    rank, status = min(failed, key=lambda each: bool(_BEREFT.search(words[each[0]])))
    code = os.waitstatus_to_exitcode(status)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"rank {rank} died ({how}); all ranks have been ended\n{words[rank] or '(it said nothing)'}"
