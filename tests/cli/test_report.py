"""`placement report`: files, formats, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from placement.records.plan import load_plan
from placement.report.why import why
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
    assert "needs the recorded routing" in done.out
    both = (str(folder / "synthetic.json"), str(folder / "recorded.json"))
    done = call("report", *both, "--format", "markdown", "--trace", str(folder / "a.npz"))
    assert done.code == 0
    assert "needs the recorded routing" not in done.out
    done = call("report", *both, "--trace", str(folder / "b.npz"))
    assert (done.code, done.err.split(":")[1]) == (2, " --trace")


def test_two_plans_are_both_checked(call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path) -> None:
    data = json.loads(apart.read_text())
    data["roles"][1]["strategies"][0]["moe_layer_us"] *= 1.5
    wrong = tmp_path / "wrong.json"
    wrong.write_text(json.dumps(data))
    args = ("report", str(apart), str(wrong), "--trace", str(folder / "a.npz"), "--format", "markdown")
    done = call(*args)
    assert done.code == 6
    assert done.err.rstrip().endswith(f"1 checks failed: {wrong}: decode figures")
    assert "## Role: prefill" in done.out
    assert "## Role: decode" in done.out


def test_why_is_the_screens(call: Callable[..., Done], folder: Path, apart: Path) -> None:
    """What binds, the recipes and what nodes hold: as solve says them."""
    plan = load_plan(apart)
    assert plan.choice is not None
    told = call("report", str(apart), "--trace", str(folder / "a.npz"), "--format", "markdown").out
    for name, words in why(plan):
        assert f"| {name} | {words} |" in told
    for rival in plan.choice.rivals:
        assert f"| {rival.name} | {rival.tokens_per_s or 0:,.0f} |" in told
    assert "**What nodes hold**" in told
    assert "nearest its limit" not in told


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


def test_a_front_has_its_section(call: Callable[..., Done], folder: Path, apart: Path, tmp_path: Path) -> None:
    front, args = tmp_path / "front.json", ("--format", "markdown", "--trace", str(folder / "a.npz"))
    spec = ("--spec", str(folder / "tiny.yaml"), "--nodes", "4", "--mode", "disaggregated")
    assert call("deploy", *spec, "--front", "--out", str(front)).code == 0
    done = call("report", str(apart), *args, "--front", str(front))
    assert done.code == 0, done.err
    answers = json.loads(front.read_text())["answers"]
    assert all(f"\n| {each['tpot_limit_ms']:g} | " in done.out for each in answers)
    assert done.out.index("## Answer") < done.out.index("## Front") < done.out.index("## Role: prefill")
    other = front.with_name("other.json")
    other.write_text(front.read_text().replace('"scenario": "tiny', '"scenario": "other'))
    assert "--front: is of scenario other" in call("report", str(apart), *args, "--front", str(other)).err
    assert "schema: is not placement.front/1" in call("report", str(apart), *args, "--front", str(apart)).err
    assert "--front: it is of one plan" in call("report", str(apart), str(apart), "--front", str(front)).err
