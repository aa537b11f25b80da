"""Layers in parallel: the same answers on every backend, errors as they were, nothing left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

from placement.errors import CheckFailedError, InfeasibleError, InputError, MissingExtraError, NothingFoundError
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError
from solvers.experts.layers import LayerAnswer, plan_layers
from solvers.parallel import WATCH_EVERY_S, Carried, _Failure, carry, map_layers
from solvers.result import Termination
from solvers.stop import Interrupt, Stop
from tests.solvers.problems import random_problem

CONCURRENT = ("processes", "threads")


@dataclass(frozen=True)
class Task:
    problem: LayerProblem
    stop: Carried
    seed: int


def plan_one(task: Task) -> LayerAnswer:
    return plan_layers([task.problem], "search", task.stop.here(), task.seed)[0]


def wait_and_return(item: tuple[float, int]) -> int:
    time.sleep(item[0])
    return item[1]


def threads_allowed(_: int) -> tuple[int, str, str]:
    return os.getpid(), os.environ.get("OMP_NUM_THREADS", ""), os.environ.get("NUMBA_NUM_THREADS", "")


def seconds_left(stop: Carried) -> float:
    return stop.here().seconds_left() or 0.0


class AwkwardError(ValueError):
    """Can't be unpickled by its constructor, and holds what can't be pickled."""

    def __init__(self, where: str, number: int) -> None:
        super().__init__(f"{where} {number}")
        self.hook = lambda: number


def fail(item: int) -> int:
    if item == 1:
        time.sleep(0.3)  # a later item fails first: the first failing item is told all the same
        raise InputError("trace.npz", "topk_ids", "is empty", "record more")
    if item == 2:
        raise InfeasibleError("layer 2: no placement")
    if item == 10:
        raise AwkwardError("layer", item)
    return item


def die(item: int) -> int:
    if item == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return item


def test_same_answers_and_progress_on_every_backend() -> None:
    tasks = [Task(random_problem(i, tokens=150, slots_per_gpu=4 + i % 3), carry(Stop(0.05)), i) for i in range(5)]
    expected = map_layers(plan_one, tasks, 1, "sequential")
    for backend in CONCURRENT:
        done: list[int] = []
        found = map_layers(plan_one, tasks, 2, backend, done.append)
        assert done == [0, 1, 2, 3, 4]
        for one, other in zip(expected, found, strict=True):
            assert one.slots.tolist() == other.slots.tolist()
            assert one.score.objective == other.score.objective
            assert one.bound == other.bound
            assert one.status == other.status


@pytest.mark.parametrize("backend", CONCURRENT)
def test_answers_are_in_order_whoever_is_done_first(backend: str) -> None:
    items = [(0.2, 0), (0.0, 1), (0.1, 2), (0.0, 3)]
    assert map_layers(wait_and_return, items, 2, backend) == (0, 1, 2, 3)


def test_processes_have_one_thread_and_are_kept() -> None:
    first, second = (map_layers(threads_allowed, range(6), 2, "processes") for _ in range(2))
    assert {found[1:] for found in first + second} == {("1", "1")}
    assert os.getpid() not in {found[0] for found in first}
    assert len({found[0] for found in first + second}) <= 2


def test_workers_outlive_the_thread_that_started_them() -> None:
    get_reusable_executor().shutdown(kill_workers=True)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(map_layers, threads_allowed, range(6), 2, "processes").result()
    time.sleep(3 * WATCH_EVERY_S)
    pids = {found[0] for found in first}
    assert all(_runs(pid) for pid in pids)
    assert len(pids | {found[0] for found in map_layers(threads_allowed, range(6), 2, "processes")}) <= 2


@pytest.mark.parametrize("backend", ["sequential", *CONCURRENT])
def test_errors_come_back_as_they_were(backend: str) -> None:
    done: list[int] = []
    with pytest.raises(InputError) as caught:
        map_layers(fail, [0, 1, 2, 3, 4, 5], 2, backend, done.append)
    assert (caught.value.source, caught.value.field, caught.value.mend) == ("trace.npz", "topk_ids", "record more")
    assert str(caught.value) == "trace.npz: topk_ids: is empty; record more"
    assert done == [0]
    assert map_layers(fail, [3, 4], 2, backend) == (3, 4)


@pytest.mark.parametrize(
    "error",
    [
        InfeasibleError("layer 2: no placement"),
        NothingFoundError("layer 2: nothing found"),
        MissingExtraError("install it"),
        CheckFailedError("a figure moved"),
        UnsupportedError("no groups"),
        InputError("a.yaml", "gpus", "is 0", "give 1"),
        FileNotFoundError(2, "no such file", "trace.npz"),
    ],
)
def test_every_kind_of_error_can_travel(error: Exception) -> None:
    found = pickle.loads(pickle.dumps(_Failure.of(error))).error()
    assert type(found) is type(error)
    assert found.args == error.args
    assert vars(found).items() >= vars(error).items()


def test_an_error_that_cannot_be_pickled_is_told_in_words() -> None:
    with pytest.raises(RuntimeError, match="AwkwardError: layer 10") as caught:
        map_layers(fail, [10, 3], 2, "processes")
    assert "raise AwkwardError" in "".join(caught.value.__notes__)
    with pytest.raises(AwkwardError, match="layer 10") as itself:
        map_layers(fail, [3, 10], 2, "threads")
    assert itself.value.hook() == 10


def test_a_killed_worker_is_no_bug_and_the_next_call_works() -> None:
    with pytest.raises(NothingFoundError, match="killed"):
        map_layers(die, [0, 1, 2], 2, "processes")
    assert map_layers(fail, [3, 4], 2, "processes") == (3, 4)


def test_a_deadline_holds_across_processes() -> None:
    began = time.monotonic()
    stop = Stop.after(30.0)
    left = map_layers(seconds_left, [carry(stop)] * 3, 2, "processes")
    assert all(30.0 - (time.monotonic() - began) - 0.01 <= one <= 30.0 for one in left)
    assert map_layers(seconds_left, [carry(Stop(deadline=began - 1))] * 2, 2, "processes") == (0.0, 0.0)


def test_a_deadline_on_another_machine_goes_by_the_wall_clock() -> None:
    here = carry(Stop.after(20.0, work=0.5))
    there = Carried(here.work, deadline=1e12, unix=here.unix, boot="another machine")
    stop = pickle.loads(pickle.dumps(there)).here()
    assert stop.work == 0.5
    assert stop.seconds_left() == pytest.approx(20.0, abs=1.0)
    assert Carried(1.0, None, 0.0, "another machine").here().deadline is None
    assert carry(Stop(0.3)).here() == Stop(0.3)


def test_an_interrupt_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys, time\n"
        "from solvers.parallel import map_layers\n"
        "def slow(item):\n"
        "    open(os.path.join(sys.argv[1], 'pid%d' % os.getpid()), 'w').close()\n"
        "    time.sleep(120)\n"
        "if __name__ == '__main__':\n"
        "    map_layers(slow, range(6), 2)\n"
    )
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    job = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], env=os.environ | {"PYTHONPATH": path}, start_new_session=True,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        patience = time.monotonic() + 60
        while len(list(tmp_path.glob("pid*"))) < 2 and time.monotonic() < patience:
            assert job.poll() is None
            time.sleep(0.05)
        os.killpg(job.pid, signal.SIGINT)  # as a terminal does
        _, err = job.communicate(timeout=30)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert "KeyboardInterrupt" in err
    workers = [int(found.name[3:]) for found in tmp_path.glob("pid*")]
    assert len(workers) == 2
    patience = time.monotonic() + 10
    while any(_runs(pid) for pid in workers) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not any(_runs(pid) for pid in workers)


def _runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and only waits for its parent to ask does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_bad_arguments() -> None:
    with pytest.raises(InputError, match="unknown backend 'dask'; choose one of processes"):
        map_layers(fail, [3], 1, "dask")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="0 workers"):
        map_layers(fail, [3], 0)
    assert map_layers(fail, [], 2) == ()


def test_ray_that_is_missing_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray.util.joblib", None)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'placement\[ray\]'"):
        map_layers(fail, [3, 4], 2, "ray")


@pytest.mark.slow
def test_ray_gives_the_same_answers() -> None:
    ray = pytest.importorskip("ray")
    root = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": root}})
    try:
        tasks = [Task(random_problem(i, tokens=150), carry(Stop(0.05)), i) for i in range(3)]
        done: list[int] = []
        found = map_layers(plan_one, tasks, 2, "ray", done.append)
        expected = map_layers(plan_one, tasks, 1, "sequential")
        assert [a.slots.tolist() for a in found] == [a.slots.tolist() for a in expected]
        assert done == [0, 1, 2]
        with pytest.raises(InputError, match="is empty"):
            map_layers(fail, [0, 1, 2], 2, "ray")
    finally:
        ray.shutdown()


def doubled(array: np.ndarray) -> tuple[bool, np.ndarray]:
    return array.flags.writeable and type(array) is np.ndarray, 2 * array


def test_large_arrays_are_plain_arrays_in_the_worker() -> None:
    """Not the read-only memory maps that joblib makes of arrays above a megabyte."""
    big = np.arange(400_000, dtype=np.float64)
    for i, (plain, found) in enumerate(map_layers(doubled, [big, big + 1], 2, "processes")):
        assert plain
        assert (found == 2 * (big + i)).all()


@pytest.mark.parametrize("backend", ["sequential", "threads", "processes"])
def test_an_interrupted_search_keeps_the_layers_that_are_done(backend: str) -> None:
    problems = [random_problem(np.random.default_rng(seed)) for seed in range(3)]
    interrupt = Interrupt()

    def first_layer(_: int) -> None:
        if not interrupt.heard and interrupt.ask():
            raise KeyboardInterrupt

    stop = Stop(interrupt=interrupt)
    cut = plan_layers(problems, "search", stop, 0, 2, first_layer, backend=backend)  # type: ignore[arg-type]
    whole = plan_layers(problems, "search", Stop(), 0)
    assert interrupt.heard
    assert np.array_equal(cut[0].slots, whole[0].slots)
    assert [answer.termination for answer in cut[1:]] == [Termination.INTERRUPTED] * 2
