"""`placement report`: files, formats, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done


def test_formats_by_name_and_by_option(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    plan, page, text = str(folder / "synthetic.json"), tmp_path / "r.html", tmp_path / "r.md"
    assert call("report", plan, "--out", str(page)).code == 0
    assert call("report", plan, "--out", str(text)).code == 0
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert text.read_text().startswith("# tiny\n")
    done = call("report", plan, "--format", "markdown")
    assert (done.code, done.out) == (0, text.read_text())


def test_two_plans(call: Callable[..., Done], folder: Path) -> None:
    done = call("report", str(folder / "synthetic.json"), str(folder / "recorded.json"), "--format", "markdown")
    assert done.code == 0
    assert done.out.startswith("# synthetic.json and recorded.json\n")
    done = call("report", str(folder / "synthetic.json"), str(folder / "recorded.json"), "--trace", "a.npz")
    assert (done.code, done.err.split(":")[1]) == (2, " --trace")


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["nowhere.json"], "no such file"),
        (["{}/synthetic.json", "--trace", "{}/a.npz"], "synthetic routing"),
        (["{}/recorded.json", "--trace", "{}/b.npz"], "SHA-256 differs"),
        (["{}/synthetic.json", "--out", "{}/nowhere/r.html"], "--out"),
        (["{}/synthetic.json", "--windows", "0"], "--windows"),
        (["{}/a.npz"], "a.npz"),
    ],
)
def test_bad_input_is_one_line(call: Callable[..., Done], folder: Path, args: list[str], word: str) -> None:
    done = call("report", *(each.format(folder) for each in args))
    assert done.code == 2
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    assert word in done.err
    assert not done.out


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_html_names_what_is_not_installed(
    package: str, call: Callable[..., Done], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    plan = str(folder / "synthetic.json")
    done = call("report", plan)
    assert done.code == 5
    assert "pip install 'placement[report]'" in done.err
    assert call("report", plan, "--format", "markdown").code == 0


def test_a_failed_check_is_written_and_exits_with_6(call: Callable[..., Done], folder: Path, tmp_path: Path) -> None:
    data = json.loads((folder / "synthetic.json").read_text())
    data["roles"][0]["memory"]["total_bytes"] *= 2
    wrong, out = tmp_path / "wrong.json", tmp_path / "r.md"
    wrong.write_text(json.dumps(data))
    done = call("report", str(wrong), "--out", str(out))
    assert done.code == 6
    assert "memory" in done.err
    assert "1 checks FAILED: memory" in out.read_text()
