"""--help: quick, and in step with the commands."""

from __future__ import annotations

import importlib
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from placement.cli.main import COMMANDS
from tests.cli.conftest import Done, finish, process

HEAVY = ("numpy", "pydantic", "ortools", "numba", "rich", "torch", "scipy", "yaml", "pulp")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help_loads_nothing_heavy(command: tuple[str, ...], tmp_path: Path) -> None:
    code = (
        "import sys; from placement.cli.main import cli; from placement.cli.running import outcome; "
        f"code = outcome(cli, 'placement', [*{command!r}, '--help']); "
        f"print('loaded', [m for m in {HEAVY!r} if m in sys.modules], code)"
    )
    done = finish(process(["-c", code], tmp_path))
    assert done.out.splitlines()[-1] == "loaded [] 0", done.err
    assert done.out.startswith("Usage: placement")


@pytest.mark.parametrize("module", ["placement", "placement.cli.solve", "placement.cli.verify"])
def test_help_takes_under_300_ms_of_processor(module: str, tmp_path: Path) -> None:
    """Processor time, as wall-clock time depends on what else runs; the least of three."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = finish(process(["-m", module, "--help"], tmp_path))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.code == 0, done.err
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    finish(process(["-m", module, "--help"], tmp_path))  # compiles bytecode
    assert min(once() for _ in range(3)) < 0.3


def test_summaries_are_the_commands_own() -> None:
    for module, attribute, summary in COMMANDS.values():
        command = getattr(importlib.import_module(module), attribute)
        assert command.get_short_help_str(200) == summary


def test_unknown_command_names_the_nearest(call: Callable[..., Done]) -> None:
    done = call("slove")
    assert done.code == 2
    assert done.err == "error: no command 'slove'; did you mean solve?; see 'placement --help'\n"


def test_version(call: Callable[..., Done]) -> None:
    done = call("--version")
    assert (done.code, done.out.strip()) == (0, "placement, version 0.1.0")


def test_the_module_of_the_console_script_is_one(tmp_path: Path) -> None:
    done = finish(process(["-m", "placement.cli.main", "--version"], tmp_path))
    assert (done.code, done.out.strip()) == (0, "placement, version 0.1.0")


def test_strategies_lists_every_solver(call: Callable[..., Done]) -> None:
    from solvers.registry import SOLVERS

    done = call("strategies")
    assert done.code == 0
    assert all(any(line.startswith(name) for line in done.out.splitlines()) for name in SOLVERS)
    assert '"proves"' in call("strategies", "--json").out


def test_ascii_terminal_gets_a_screen(folder: Path) -> None:
    done = finish(process(["-m", "placement", "strategies"], folder, PYTHONIOENCODING="ascii", PATH=os.environ["PATH"]))
    assert done.code == 0, done.err
    assert sys.version_info >= (3, 11)
