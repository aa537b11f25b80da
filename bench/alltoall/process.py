"""The process that becomes a job's ranks: `python -m bench.alltoall.process FOLDER PARENT`, started by launch.py.

It imports torch once and forks a process for each rank, which is many times quicker than as many interpreters.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from bench.alltoall.job import Job

TASK, STORE, RESULT = "task.pickle", "store", "result.pickle"
#: Seconds that others get to say that a rank has left them, before they are ended.
LAST_WORDS_S = 0.5
#: The interface that ranks without places talk over: all of them are on this machine.
LOOPBACK = "lo"
_PRIORITY = -10
_SET_DEATH_SIGNAL, _NEW_NETWORK = 1, 0x40000000


@dataclass(frozen=True)
class Place:
    """Where the ranks of one node run: the file of their network namespace, and the interface of their uplink."""

    namespace: str
    interface: str


@dataclass(frozen=True)
class Task:
    """A job, and its nodes' places (none: all ranks in this process's own network)."""

    job: Job
    places: tuple[Place, ...] = ()


def errors_of(folder: Path, rank: int) -> Path:
    """Where a rank's stdout and stderr go."""
    return folder / f"rank{rank}.err"


def failures_of(folder: Path) -> Path:
    """Where it stands which ranks failed: a line of rank and wait status each, in the order in which they ended."""
    return folder / "failed"


def die_with(parent: int) -> None:
    """Makes the kernel end this process when its parent, process `parent`, is gone, however that ended."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit("the process that started this one has gone")


def main(arguments: list[str]) -> int:
    """Runs the task in the folder; 0 where all ranks are done. Rank 0 leaves the result, whole or not at all."""
    folder = Path(arguments[0])
    die_with(int(arguments[1]))
    # Ranks share what is imported by now.
    import bench.alltoall.rank  # noqa: F401

    task: Task = pickle.loads((folder / TASK).read_bytes())
    own = os.getpid()
    ranks: dict[int, int] = {}
    for rank in range(task.job.gpus):
        child = os.fork()
        if child == 0:
            _become(task, rank, folder, own)
        ranks[child] = rank
    return _watch(ranks, folder)


def _watch(ranks: dict[int, int], folder: Path) -> int:
    """Waits for the ranks; when one fails, ends the others and writes down which failed."""
    failed: list[tuple[int, int]] = []
    until = 0.0
    while ranks:
        child, status = os.waitpid(-1, os.WNOHANG if failed else 0)
        if child:
            rank = ranks.pop(child)
            if status:
                failed.append((rank, status))
                until = until or time.monotonic() + LAST_WORDS_S
        elif time.monotonic() < until:
            time.sleep(0.02)
        else:
            for other in ranks:
                os.kill(other, signal.SIGKILL)
            for other in list(ranks):
                os.waitpid(other, 0)
            ranks.clear()
    if failed:
        failures_of(folder).write_text("".join(f"{rank} {status}\n" for rank, status in failed))
    return int(bool(failed))


def _become(task: Task, rank: int, folder: Path, parent: int) -> None:
    """Runs a rank in this forked process and ends it; never returns."""
    code = 1
    try:
        with errors_of(folder, rank).open("wb") as errors:
            os.dup2(errors.fileno(), 1)
            os.dup2(errors.fileno(), 2)
        die_with(parent)
        _run(task, rank, folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(task: Task, rank: int, folder: Path) -> None:
    import torch.distributed as dist

    from bench.alltoall.rank import Seat, join, run_rank

    interface = None
    if task.places:
        place = task.places[rank // task.job.gpus_per_node]
        interface = place.interface
        _enter(place)
    # Else the backends listen at the address of this machine's own name.
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["NCCL_SOCKET_IFNAME"] = interface or LOOPBACK
    device = join(task.job, rank, f"file://{folder / STORE}", rank)
    found = run_rank(task.job, Seat(rank, device, interface))
    if found is not None:
        unfinished = folder / f"{RESULT}.part"
        unfinished.write_bytes(pickle.dumps(found))
        unfinished.replace(folder / RESULT)
    dist.barrier()
    dist.destroy_process_group()


def _enter(place: Place) -> None:
    """Moves this process into a network namespace."""
    with open(place.namespace, "rb") as namespace:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(namespace.fileno(), _NEW_NETWORK):
            raise OSError(ctypes.get_errno(), f"can't enter {place.namespace}")
    # The links are to be what is waited for, not a turn on a shared core; who may enter a namespace may do this, too.
    os.setpriority(os.PRIO_PROCESS, 0, _PRIORITY)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
