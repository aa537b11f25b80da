"""However a command ends, nothing that it started stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from placement.check.plan import verify_plan
from placement.records.plan import load_plan
from solvers.stop import Interrupt, Stop
from specs.loading import load_cluster, load_model
from tests.cli.conftest import ROOT


def start(args: list[str], cwd: Path, stderr: Path | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """Starts `python ARGS...` in a session of its own."""
    with open(stderr or os.devnull, "wb") as told:
        return subprocess.Popen(
            [sys.executable, *args], cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            start_new_session=True, stdout=subprocess.DEVNULL, stderr=told,
        )  # fmt: skip


def alive(session: int) -> dict[int, str]:
    """Command lines of a session's processes, by their id; one that only waits to be asked for does not count."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (path / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state not in "ZX":
                found[int(path.name)] = (path / "cmdline").read_text()
        except OSError:
            continue
    return found


def wait_for(session: int, words: str, count: int, seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while sum(words in line for line in alive(session).values()) < count:
        assert time.monotonic() < until, alive(session)
        time.sleep(0.05)


def wait_for_work(session: int, words: str, count: int, cpu_s: float = 3.0, seconds: float = 60.0) -> None:
    """Waits until `count` processes have each computed for longer than imports take, on however busy a machine."""
    tick = os.sysconf("SC_CLK_TCK")

    def spent(pid: int) -> float:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / tick

    until = time.monotonic() + seconds
    while sum(words in line and spent(pid) > cpu_s for pid, line in alive(session).items()) < count:
        assert time.monotonic() < until, alive(session)
        time.sleep(0.05)


def all_gone(session: int, seconds: float = 5.0) -> bool:
    until = time.monotonic() + seconds
    while alive(session) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(session)


def end(running: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends the signal to the process alone, and holds that its session is empty 5 s later."""
    try:
        running.send_signal(number)
        assert running.wait(5) == -number
        assert all_gone(running.pid), alive(running.pid)
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)]
)
def test_a_killed_solve_leaves_no_process(number: signal.Signals, folder: Path) -> None:
    args = "--spec tiny.yaml --strategy search --work 10000 --backend processes --workers 2"
    running = start(["-m", "placement.solve", *args.split()], folder)
    wait_for_work(running.pid, "LokyProcess", 2, cpu_s=2.0)
    end(running, number)


def test_what_workers_have_started_ends_with_them(tmp_path: Path) -> None:
    """Such as CBC, a program of its own."""
    (tmp_path / "job.py").write_text(
        "import subprocess\n"
        "from solvers.parallel import map_layers\n"
        "def slow(item):\n"
        "    subprocess.run(['sleep', '120'])\n"
        "if __name__ == '__main__':\n"
        "    map_layers(slow, range(6), 2)\n"
    )
    running = start(["job.py"], tmp_path)
    wait_for(running.pid, "sleep", 2)
    end(running, signal.SIGKILL)


def test_a_time_limit_holds_on_load_counts_of_many_windows(folder: Path, tmp_path: Path) -> None:
    """Each step of the search for loads looks at every window: 20,000 of them took minutes, whatever the limit."""
    np.savez_compressed(tmp_path / "many.npz", counts=np.ones((20_000, 2, 8), "u1"))
    args = ["--spec", str(folder / "tiny.yaml"), "--loads", str(tmp_path / "many.npz"), "--time-limit", "3"]
    running = start(["-m", "placement.solve", *args], tmp_path)
    try:
        assert running.wait(45) == 0
    finally:
        running.kill()


def solved_in(args: list[str], cwd: Path) -> float:
    """Seconds that `placement.solve ARGS...` takes, beside what it waits for processors that others have."""
    running = start(["-m", "placement.solve", *args], cwd)
    try:
        began, stat = time.monotonic(), os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(stat[1])
        assert running.returncode == 0
        return min(time.monotonic() - began, stat[2].ru_utime + stat[2].ru_stime)
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)


def test_a_time_limit_holds_for_the_split_routing_and_heuristics(tmp_path: Path) -> None:
    """Three seconds took 8.3 s: 2.3 for the split, 1.1 for routing, and processes were started to search."""
    assert solved_in(["--spec", "gpt_oss_120b_gb200_ib", "--time-limit", "3"], tmp_path) < 3.3 + 3.0


def test_a_time_limit_holds_for_many_layers_of_many_experts(tmp_path: Path) -> None:
    """94 layers of 512 experts on 128 GPUs took 60 s: 22 for routing, 30 for the search without any time left."""
    model, cluster = load_model("qwen3_235b"), load_cluster("h100_hgx_ib")
    model = model.model_copy(update={"name": "large", "moe": model.moe.model_copy(update={"experts": 512})})
    large = {
        "name": "large", "workload": "serving_4k_1k",
        "model": model.model_dump(mode="json", exclude={"published"}, exclude_none=True),
        "cluster": cluster.model_copy(update={"nodes": 16}).model_dump(mode="json", exclude_none=True),
    }  # fmt: skip
    (tmp_path / "large.yaml").write_text(yaml.safe_dump(large))
    assert solved_in(["--spec", "large.yaml", "--time-limit", "8"], tmp_path) < 1.1 * 8 + 3.0


#: Exit codes that a shell shows as 130: the command's own, and death by the signal before there was a command.
INTERRUPTED = (130, -signal.SIGINT)


@pytest.mark.parametrize(
    ("module", "seconds"),
    [
        ("placement.solve", 0.7),
        ("placement.solve", 5.0),
        ("placement", 0.4),
        ("placement", 2),
    ],
)
def test_an_interrupt_is_heard_at_once(module: str, seconds: float, tmp_path: Path) -> None:
    told = tmp_path / "told"
    running = start(["-m", module, *(["solve"] if module == "placement" else [])], tmp_path, stderr=told)
    try:
        time.sleep(seconds)
        running.send_signal(signal.SIGINT)
        assert running.wait(3) in INTERRUPTED
        assert all_gone(running.pid)
        assert b"Traceback" not in told.read_bytes()
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("module", ["placement.solve", "placement"])
@pytest.mark.parametrize("library", ["multiarray", "pydantic_core"])
def test_an_interrupt_is_heard_while_packages_are_imported(module: str, library: str, tmp_path: Path) -> None:
    """Some make an error of their own of it."""
    told = tmp_path / "told"
    running = start(["-m", module, *(["solve"] if module == "placement" else [])], tmp_path, stderr=told)
    try:
        until = time.monotonic() + 60
        while library not in Path(f"/proc/{running.pid}/maps").read_text():
            assert time.monotonic() < until
        running.send_signal(signal.SIGINT)
        assert running.wait(3) == 130
        assert told.read_bytes().strip() == b"interrupted"
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)


def test_an_interrupt_is_heard_while_a_first_run_compiles(tmp_path: Path) -> None:
    running = start(["-m", "placement.solve"], tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "cache"))
    try:
        wait_for(running.pid, "ahead", 2)
        running.send_signal(signal.SIGINT)
        assert running.wait(5) == 130
        assert all_gone(running.pid)
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("does", ["time.sleep(60)", "raise RuntimeError('building a validator')"])
def test_an_interrupt_that_a_package_takes_for_its_own_ends_the_command(does: str, tmp_path: Path) -> None:
    """It is raised again where a callback swallows it, and told where it becomes another error."""
    (tmp_path / "job.py").write_text(
        "import click, time\n"
        "from placement.cli.running import run\n"
        "@click.command()\n"
        "def job():\n"
        "    try:\n"
        "        open('begun', 'w').close()\n"
        "        time.sleep(60)\n"
        "    except KeyboardInterrupt:\n"
        f"        {does}\n"
        "run(job, 'job')\n"
    )
    told = tmp_path / "told"
    running = start(["job.py"], tmp_path, stderr=told)
    try:
        until = time.monotonic() + 30.0
        while not (tmp_path / "begun").exists() and time.monotonic() < until:
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        assert running.wait(5) == 130
        assert told.read_bytes().strip() == b"interrupted"
    finally:
        running.kill()


def test_an_interrupt_keeps_the_best_plan_so_far(folder: Path, tmp_path: Path) -> None:
    # Recorded routing, as synthetic routing is made by processes, too.
    args = f"--spec {folder / 'tiny.yaml'} --trace {folder / 'a.npz'} --strategy search --work 10000"
    args += " --backend processes --workers 2"
    running = subprocess.Popen(
        [sys.executable, "-m", "placement.solve", *args.split(), "--out", "best.json"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        wait_for_work(running.pid, "LokyProcess", 2)
        running.send_signal(signal.SIGINT)
        _, told = running.communicate(timeout=30)
        assert running.returncode == 130
        assert told.decode().splitlines()[-1] == "interrupted: wrote the best plan so far to best.json"
        assert all_gone(running.pid)
    finally:
        for pid in alive(running.pid):
            os.kill(pid, signal.SIGKILL)
    plan = load_plan(tmp_path / "best.json")
    assert [layer.termination for layer in plan.roles[0].layers] == ["interrupted"] * 2
    assert plan.provenance.cut_short == (
        "search: interrupted in 2 of 2 layers", "batches: not fitted for 5 other strategies",
    )  # fmt: skip
    assert not [check.detail for check in verify_plan(plan, ()) if check.passed is False]


@pytest.mark.parametrize("number", [1, 2])
def test_interrupts_before_there_is_a_plan_and_second_ones_stop(number: int) -> None:
    interrupt = Interrupt()
    if number == 1:
        assert interrupt.ask()
        assert not interrupt.heard
        return
    with interrupt.search():
        pass
    assert not interrupt.ask()  # nothing to leave: the work ends by itself
    assert Stop(interrupt=interrupt).expired
    assert interrupt.ask()
