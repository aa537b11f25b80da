"""What the search runs on is compiled ahead, in parallel, and in one kind of each function."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from placement.problem.arrays import frozen
from solvers.ahead import SEARCH_PARTS, compile_bounds, compile_search, compiling, is_compiled
from solvers.bounds import layer_bound, partitions, spectrum
from solvers.experts.heuristics import packing
from solvers.experts.search import anneal, balance, guide, layout
from solvers.registry import get_solver
from solvers.stop import Stop
from tests.cli.conftest import ROOT
from tests.solvers.problems import random_problem


def test_an_empty_or_older_cache_is_not_compiled(tmp_path: Path) -> None:
    code = "from solvers.ahead import is_compiled; print(is_compiled())"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    compile_search()
    assert is_compiled()


def test_a_layer_asks_for_nothing_that_was_not_compiled_ahead() -> None:
    compile_search()
    compile_bounds()
    kernels = (
        anneal._steps, guide.evaluate, layout.load_layout, layout.load_prices, layout.load_traffic, balance._go_on,
        partitions.approach, partitions.proven, spectrum._spectrum,
    )  # fmt: skip
    before = [len(each.signatures) for each in kernels]
    assert min(before) > 0
    problem = random_problem(1, windows=3, slots_per_gpu=5)
    stop = Stop(0.01)
    get_solver("search").solve(problem, stop, 0)
    get_solver("search").solve(problem.with_objective(kind="load"), stop, 0)
    layer_bound(problem, stop=stop)
    assert [len(each.signatures) for each in kernels] == before


def test_read_only_arrays_do_not_compile_heuristics_again() -> None:
    kernels = (packing.longest_first, packing.separate)
    load, speed, room = np.array([4.0, 3.0, 2.0, 1.0]), np.ones(2), np.full(2, 3)
    packing.distinct_packing(load, 2, 3, room, speed)
    before = [len(each.signatures) for each in kernels]
    packing.distinct_packing(frozen(load, np.float64), 2, 3, frozen(room, np.int64), frozen(speed, np.float64))
    assert [len(each.signatures) for each in kernels] == before


def test_parts_run_meanwhile_and_none_outlives_the_context() -> None:
    began = time.monotonic()
    with suppress(KeyboardInterrupt), compiling(*SEARCH_PARTS) as wait:
        wait(Stop.after(0.1))
        assert len(_children()) == 2
        raise KeyboardInterrupt
    assert _children() == []
    assert time.monotonic() - began < 20.0
    with compiling("is_compiled") as wait:
        wait(Stop())
        assert _children() == []


def test_why_a_part_failed_is_told_in_a_line_and_the_work_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with compiling("no_such_part", "is_compiled") as wait:
        wait(Stop(deadline=0.0))
        wait(Stop())
        wait(Stop())
    monkeypatch.setattr(sys, "executable", "/no/python")
    with compiling("is_compiled") as wait:
        wait(Stop())
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("no_such_part failed (exit code 1; AttributeError: module 'solvers.ahead' has no attribute")
    assert second.startswith("is_compiled failed (")
    assert second.endswith("'/no/python'): it is done where it is needed")
    assert "\n" not in first + second


def _children() -> list[str]:
    """Command lines of what this process has started to compile."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append((path.parent / "cmdline").read_text())
    return [line for line in found if "ahead" in line]
