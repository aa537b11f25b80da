"""stdout and stderr that are closed, full, or pipes without a reader: one line at most, and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from placement.cli.main import COMMANDS
from tests.cli.conftest import ROOT, process

SOLVE = "placement solve --spec tiny.yaml --strategy greedy --backend threads"
SHOWN = (
    f"{SOLVE} --json",
    "placement compare --spec tiny.yaml --strategy greedy --backend threads",
    "placement deploy --spec tiny.yaml --json",
    "placement evaluate --plan recorded.json --trace a.npz",
    "placement migrate --plan recorded.json --trace b.npz --work 0.001 --backend threads",
    "placement verify recorded.json",
    "placement specs list",
    "placement specs show tiny.yaml",
    "placement specs schema",
    "placement strategies",
    "placement --version",
    "placement --help",
    *(f"placement {name} --help" for name in COMMANDS),
    "bench list",
    "bench --help",
    "bench.alltoall --help",
    "bench.experts --help",
)
REFUSED = (
    *(f"placement {name} --no-such-option" for name in COMMANDS),
    "placement solve --spec no_such_scenario",
    "placement verify no_such_plan.json",
    "bench no_such_benchmark",
    "bench.alltoall --plan no_such_plan.json --trace a.npz",
)
HOW = ("closed", "full", "pipe")


@pytest.fixture(scope="module")
def results(folder: Path) -> dict[tuple[str, int, str], tuple[int, str, str]]:
    """(exit code, stdout, stderr) by command, stream and what is wrong with it; "" for a sound one."""
    wanted = [(args, 1, how) for args in SHOWN for how in ("", *HOW)]
    wanted += [(args, 2, how) for args in (*SHOWN, *REFUSED) for how in HOW]
    cases = [{"args": args.split(), "stream": stream, "how": how} for args, stream, how in wanted]
    (folder / "cases.json").write_text(json.dumps(cases))
    warm = json.dumps([args.split()[1:] for args in SHOWN if args.startswith("placement ")])
    running = process(["-m", "tests.cli.streams", "cases.json", "results.json"], folder, WARM=warm)
    told = running.communicate(timeout=300)[1]
    assert running.returncode == 0, told
    found = json.loads((folder / "results.json").read_text())
    return {case: tuple(result) for case, result in zip(wanted, found, strict=True)}


@pytest.mark.parametrize("args", SHOWN)
def test_stdout_that_takes_nothing(args: str, results: dict[Any, tuple[int, str, str]]) -> None:
    code, out, err = results[args, 1, ""]
    assert (code, err) == (0, "")
    assert out
    for how, reason in (("closed", "Bad file descriptor"), ("full", "No space left on device")):
        code, _, err = results[args, 1, how]
        assert code == 2
        assert err == f"error: stdout: can't be written: {reason}; send it to a file or program that takes it\n"
    assert results[args, 1, "pipe"] == (141, "", "")


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("args", SHOWN)
def test_stderr_that_takes_nothing_changes_no_answer(
    args: str, how: str, results: dict[Any, tuple[int, str, str]]
) -> None:
    assert results[args, 2, how] == results[args, 1, ""]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("args", REFUSED)
def test_stderr_that_takes_nothing_changes_no_exit_code(
    args: str, how: str, results: dict[Any, tuple[int, str, str]]
) -> None:
    assert results[args, 2, how] == (2, "", "")


@pytest.mark.parametrize(
    ("shell", "code", "told"),
    [
        ("-m placement --help >&-", 2, 1), ("-m placement.cli.solve --help >/dev/full", 2, 1),
        ("-m bench --help >/dev/full 2>/dev/full", 2, 0), ("-m placement solve --no-such-option 2>/dev/full", 2, 0),
        ("-m placement specs list <&- >&- 2>&-", 2, 0),
    ],
)  # fmt: skip
def test_a_process_of_its_own(shell: str, code: int, told: int) -> None:
    """Up to the interpreter's own end, which makes 120 of a stream that can't be flushed."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"exec {sys.executable} {shell}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", told)


def test_what_cannot_be_encoded_is_written_as_an_escape(folder: Path) -> None:
    for module, *args in (["placement", "verify", "\u00e4.json"], ["placement", "specs", "show", "tiny.yaml"]):
        running = process(["-m", module, *args], folder, PYTHONIOENCODING="ascii")
        out, err = running.communicate(timeout=60)
        assert running.returncode == (0 if out else 2)
        assert b"Traceback" not in err
