"""Layers in parallel over joblib: on processes, threads or Ray, with the same answers as one after another."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

from placement.errors import MissingExtraError, NothingFoundError, ParameterError
from solvers.params import DEFAULTS, SearchParams
from solvers.stop import Interrupt, Stop

Backend = Literal["processes", "threads", "sequential", "ray"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

#: Layers a worker that one round on Ray has: more wait less for the slowest of a round, fewer tell progress sooner.
RAY_ROUND = 4
#: Seconds between a worker's looks at whether the process that started it is still there.
WATCH_EVERY_S = 0.5

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def map_layers(
    function: Callable[[Item], Answer],
    items: Sequence[Item],
    workers: int,
    backend: Backend = "processes",
    on_done: Callable[[int], None] | None = None,
) -> tuple[Answer, ...]:
    """`function` of every item, in the order of the items; see `each_layer`.

    Args:
        on_done: called in the calling thread with 0, 1, ... as soon as that item and all before it are done.
    """
    answers: list[Answer] = []
    with closing(each_layer(function, items, workers, backend)) as found:
        for i, answer in enumerate(found):
            answers.append(answer)
            if on_done is not None:
                on_done(i)
    return tuple(answers)


def each_layer(
    function: Callable[[Item], Answer], items: Sequence[Item], workers: int, backend: Backend = "processes"
) -> Generator[Answer, None, None]:
    """`function` of every item, in the order of the items, each as soon as it and all before it are done.

    Processes are kept for the next call, and end with this one, however that ended; in each, BLAS and numba have one
    thread (on Ray, as many as the task has CPUs). One worker, or one item, runs in the calling thread on every backend
    but Ray.

    Args:
        function: picklable (a module's own function), for `processes` and `ray`. items: picklable likewise.
        workers: processes or threads, at least 1.

    Raises:
        InputError: no such backend, or no workers.
        MissingExtraError: `ray` is not installed. NothingFoundError: a worker process was killed.
        Exception: what `function` raised for the first failing item; from another process with its traceback as a note,
            and as a RuntimeError if it can't be pickled. What still runs is ended (threads: what has not begun).
    """
    if backend not in BACKENDS:
        raise ParameterError("backend", f"unknown backend {backend!r}", f"choose one of {', '.join(BACKENDS)}")
    if workers < 1:
        raise ParameterError("workers", f"{workers} workers", "give at least 1")
    if not items:
        return
    if backend == "sequential" or (backend != "ray" and min(workers, len(items)) == 1):
        yield from map(function, items)
        return
    with _outcomes(function, items, min(workers, len(items)), backend) as outcomes:
        for outcome in outcomes:
            if isinstance(outcome.failure, _Failure):
                raise outcome.failure.error()
            if outcome.failure is not None:
                raise outcome.failure
            yield outcome.answer


@dataclass(frozen=True)
class Carried:
    """A stop criterion that can be taken to another process or machine; made by `carry`.

    Attributes:
        deadline: of the monotonic clock of the boot that it was made in. unix: the same by the wall clock.
        boot: names that boot; the monotonic clock is one for all processes of a boot.
        interrupt: heard in the process that the stop criterion comes from, alone; the others are ended.
    """

    work: float
    deadline: float | None
    unix: float
    boot: str
    params: SearchParams = DEFAULTS
    gap: float = 0.0
    interrupt: Interrupt | None = field(default=None, compare=False)

    def here(self) -> Stop:
        """The stop criterion in this process: seconds left are counted anew by the wall clock on another machine."""
        if self.deadline is None or self.boot == _boot():
            return Stop(self.work, self.deadline, self.params, self.gap, self.interrupt)
        left = Stop.after(max(0.0, self.unix - time.time()), self.work, self.params)
        return replace(left, gap=self.gap)


def carry(stop: Stop) -> Carried:
    """`stop` made portable; call `here` on it where the work starts."""
    left = stop.seconds_left() or 0.0
    return Carried(stop.work, stop.deadline, time.time() + left, _boot(), stop.params, stop.gap, stop.interrupt)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import platform

        return platform.node()


@dataclass(frozen=True)
class _Failure:
    """An exception in parts: many can't be unpickled by their constructor, which wants other arguments."""

    kind: type[Exception]
    arguments: tuple[Any, ...]
    state: dict[str, Any]
    trace: str

    @classmethod
    def of(cls, error: Exception) -> _Failure:
        import pickle

        trace = "".join(traceback.format_exception(error))
        state = {name: value for name, value in vars(error).items() if name != "__notes__"}
        found = cls(type(error), error.args, state, trace)
        try:
            pickle.loads(pickle.dumps(found)).error()
        except Exception:
            return cls(RuntimeError, (f"{type(error).__name__}: {error}",), {}, trace)
        return found

    def error(self) -> Exception:
        """The exception again, as it was raised, with the worker's traceback as a note."""
        error = self.kind.__new__(self.kind, *self.arguments)
        error.args = self.arguments
        vars(error).update(self.state)
        error.add_note(f"raised in a worker:\n{self.trace}")
        return error


@dataclass(frozen=True)
class _Outcome(Generic[Answer]):
    """What one item came to. `answer` is meaningless with a failure."""

    answer: Answer
    failure: _Failure | Exception | None = None


def _attempt(function: Callable[[Item], Answer], item: Item, portable: bool) -> _Outcome[Any]:
    """Runs in the worker; `portable` where it is another process."""
    try:
        return _Outcome(function(item))
    except Exception as error:
        return _Outcome(None, _Failure.of(error) if portable else error)


def end_with(parent: int) -> None:
    """Ends this process, and what it has started, within a second of the end of its parent, process `parent`.

    A thread looks, as the kernel's own signal (PR_SET_PDEATHSIG) would come when the thread ends that started this
    process, and workers outlive such a thread. A parent that has gone by now is seen at the first look.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_EVERY_S)
        for listed in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):  # a thread or a child that has ended
                for child in listed.read_text().split():
                    os.kill(int(child), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _outcomes(
    function: Callable[[Item], Answer], items: Sequence[Item], workers: int, backend: Backend
) -> Iterator[Iterator[_Outcome[Answer]]]:
    """The outcomes in order, while workers run; leaving it early ends them."""
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    names = {"processes": "loky", "threads": "threading"}
    options: dict[str, Any] = {}
    if backend == "processes":
        options = {"inner_max_num_threads": 1, "initializer": end_with, "initargs": (os.getpid(),)}
    if backend == "ray":
        _register_ray()
        with joblib.parallel_config(backend="ray", n_jobs=workers), joblib.Parallel(batch_size=1) as pool:
            yield _rounds(pool, function, items, RAY_ROUND * workers)
        return
    with joblib.parallel_config(backend=names[backend], n_jobs=workers, **options):
        # A layer takes tens of milliseconds or more, so each is a task of its own.
        # No memory maps: a kernel would see their read-only arrays as another type, and compile anew.
        pool = joblib.Parallel(return_as="generator", batch_size=1, pre_dispatch="2*n_jobs", max_nbytes=None)
        outcomes = pool(joblib.delayed(_attempt)(function, item, backend == "processes") for item in items)
        finished = False
        try:
            yield outcomes
            finished = True
        except TerminatedWorkerError as error:
            raise NothingFoundError(
                "a worker process was killed, most likely for want of memory; use fewer `workers`"
            ) from error
        finally:
            with warnings.catch_warnings():
                # joblib warns of the tasks that an error or the user's interrupt leaves undone.
                warnings.simplefilter("ignore", UserWarning)
                outcomes.close()
            if not finished and backend == "processes":
                from joblib.externals.loky import get_reusable_executor

                get_reusable_executor().shutdown(wait=True, kill_workers=True)


def _rounds(
    pool: Any, function: Callable[[Item], Answer], items: Sequence[Item], size: int
) -> Iterator[_Outcome[Answer]]:
    """The outcomes, `size` items at a time: Ray's backend gives no answer before it has all it was asked for."""
    import joblib

    for first in range(0, len(items), size):
        yield from pool(joblib.delayed(_attempt)(function, item, True) for item in items[first : first + size])


def _register_ray() -> None:
    try:
        ray = importlib.import_module("ray.util.joblib")
    except ImportError as error:
        raise MissingExtraError("backend 'ray' needs Ray; install it with: pip install 'placement[ray]'") from error
    ray.register_ray()
