"""What every solver is held to, those of other packages too: run over all that are registered and one of a test's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from placement.check.layer import check_layer
from placement.cli.main import cli
from placement.cli.running import outcome
from placement.cost.layer.score import score_layer
from placement.errors import ParameterError
from placement.problem.layer import LayerProblem
from solvers.base import UnsupportedError, unsupported
from solvers.dispatch import fractions_for
from solvers.experts.layers import plan_layers
from solvers.registry import SOLVERS, get_solver, solver_names
from solvers.result import Status
from solvers.stop import Stop
from tests.cli.conftest import TINY, Done
from tests.layers import changed
from tests.solvers.problems import random_problem

THEIRS = '''
import numpy as np
from placement.cost.layer.score import objective_value
from placement.problem.arrays import EMPTY
from solvers.base import Features
from solvers.result import Result, Status, Termination

class Shuffled:
    """The best of some random orders; without redundant experts."""
    name = "theirs"
    features = Features(replicas=False, traffic=True, windows=True, uneven=True, note="drawn")

    def solve(self, problem, stop, seed):
        rng, best, least = np.random.default_rng(seed), None, np.inf
        for _ in range(max(1, int(20 * stop.work))):
            slots = np.full(problem.slots, EMPTY)
            slots[problem.hardware.usable] = rng.permutation(problem.experts)
            value = objective_value(problem, slots)
            if value < least:
                best, least = slots, value
            if stop.expired:
                break
        return Result(best, Status.FEASIBLE, Termination.WORK)

class NoSolver:
    pass
'''
BROKEN = ("absent", "no_module", "no_solver", "raises")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `placement ARGS...` in this process."""
    return lambda *args: Done(outcome(cli, "placement", args), *capsys.readouterr())


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package with one solver, and several entry points that can't be loaded."""
    (tmp_path / "their_solver.py").write_text(THEIRS)
    (tmp_path / "their_fault.py").write_text("raise OSError('two\\nlines')")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[placement.solvers]\ntheirs = their_solver:Shuffled\nhash = their_solver:Shuffled\n"
        "absent = their_solver:Missing\nno_module = not_there_at_all:Solver\nno_solver = their_solver:NoSolver\n"
        "raises = their_fault:Solver\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def _posed() -> dict[str, LayerProblem]:
    """Small problems, each with something that not every solver has."""
    plain = random_problem(1, experts=8, gpus=4, slots_per_gpu=2, k=2, tokens=10)
    more = random_problem(2, experts=4, gpus=4, slots_per_gpu=2, k=2, tokens=10)
    few = random_problem(2, experts=3, gpus=4, slots_per_gpu=1, k=2, tokens=5)
    current = np.arange(8)[::-1]
    return {
        "plain": plain,
        "loads": changed(plain, sets=None, objective="load"),
        "bytes": changed(plain, objective="traffic"),
        "windows": random_problem(3, experts=8, gpus=4, slots_per_gpu=2, k=2, tokens=10, windows=2),
        "tail": random_problem(3, experts=8, gpus=4, slots_per_gpu=2, k=2, tokens=10, windows=2, tail=0.0),
        "replicas": more,
        "nearest": changed(more, dispatch="nearest"),
        "planned": changed(more, dispatch="planned"),
        "static": changed(few, dispatch="sglang_static"),
        "hash": changed(few, dispatch="token_hash"),
        "groups": changed(plain, group=np.repeat([0, 1], 4)),
        "moves": changed(plain, current=current, max_moves=4),
        "fixed": changed(plain, current=current, fixed=np.arange(8) < 2),
        "capacity": changed(more, capacity=np.array([2, 2, 1, 0])),
        "speed": changed(plain, speed=np.array([1.0, 0.5, 1.0, 2.0])),
    }


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("name", [*SOLVERS, "theirs"])
def test_contract(name: str) -> None:
    solver, solved = get_solver(name), 0
    for what, problem in _posed().items():
        if unsupported(solver.features, problem):
            with pytest.raises(UnsupportedError, match="does not support"):
                solver.solve(problem, Stop(0.02), 3)
            continue
        found, again = (solver.solve(problem, Stop(0.02), 3) for _ in range(2))
        if found.slots is None:
            assert found.status is Status.UNKNOWN, what
            continue
        assert check_layer(problem, found.slots) == (), what
        np.testing.assert_array_equal(found.slots, again.slots, what)
        fractions = fractions_for(problem, found.slots) if found.fractions is None else found.fractions
        assert found.bound <= score_layer(problem, found.slots, fractions).objective * (1 + 1e-9), what
        solved += 1
    assert solved >= 4
    problem = _posed()["plain"]
    began = time.perf_counter()
    late = solver.solve(problem, Stop(1e6, time.monotonic()), 3)
    assert time.perf_counter() - began < 2.0
    assert late.slots is None or check_layer(problem, late.slots) == ()
    answer = plan_layers([problem], name, Stop(0.02), 3, floor=False)[0]
    assert answer.bound <= answer.score.objective * (1 + 1e-9)


@pytest.mark.usefixtures("theirs")
def test_a_package_can_not_break_or_take_what_others_are(call: Callable[..., Done]) -> None:
    assert solver_names() == [*SOLVERS, *sorted(["theirs", *BROKEN])]
    assert get_solver("hash").features.baseline
    for name in BROKEN:
        with pytest.raises(ParameterError, match=rf"{name} of the package theirs: .*mend or remove"):
            get_solver(name)
    done = call("strategies")
    assert done.code == 0
    assert [line.split()[0] for line in done.out.splitlines()[1 : 2 + len(SOLVERS)]] == [*SOLVERS, "theirs"]
    assert done.err.count("\n") == len(BROKEN)
    with pytest.raises(ParameterError, match="did you mean theirs"):
        get_solver("their")


@pytest.mark.usefixtures("theirs")
def test_a_scenario_is_planned_by_a_solver_of_another_package(call: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    asked = ("solve", "--spec", str(tmp_path / "tiny.yaml"), "--strategy", "theirs", "--backend", "threads")
    done = call(*asked, "--redundant", "0", "--json")
    assert done.code == 0, done.err
    assert '"strategy": "theirs"' in done.out
    refused = call(*asked)
    assert refused.code == 2
    assert "does not support redundant experts" in refused.err.splitlines()[-1]
