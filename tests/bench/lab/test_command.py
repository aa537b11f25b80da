"""`python -m bench` with the lab's targets: names, wrong arguments, exit codes, what --out writes."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import click
import pytest

from bench.cli import cli
from bench.lab import render
from bench.lab.arguments import read_options, usage
from bench.lab.command import spread, write_pair
from bench.lab.discover import targets
from bench.lab.harness import check, faults, verdict
from bench.lab.target import (
    Attachment,
    Drawing,
    Figure,
    Finding,
    LabCase,
    NoOptions,
    Outcome,
    PairResult,
    Table,
    Target,
)
from placement.cli.running import outcome
from placement.errors import CheckFailedError, InputError

GOLDEN = Path(__file__).parents[2] / "golden" / "lab"
NAMES = ", ".join(target.name for target in targets())


def run(*args: str) -> int:
    return outcome(cli, "python -m bench", args)


def result(after: float = 120.0, tie: str = "", passed: bool = True) -> PairResult:
    baseline = Outcome("hash placement", 2.5, 100.0, figures=(Figure("balancedness", 0.7, "", "higher"),))
    optimized = Outcome(
        "solved", 2.0, after,
        figures=(Figure("balancedness", 0.9, "", "higher"), Figure("bytes", 12_345.0, "B", "lower")),
        tables=(Table("Ways", ("way", "tokens/s"), (("hash", "100"), ("a | b", "120")), 1),),
        drawings=(Drawing("Bars", "hash |##  |\nown  |### |"),), notes=("One thing to know.",),
        attachments=(Attachment("paths.svg", "Paths", "<svg/>"), Attachment("env.sh", "Environment", "export A=1")),
        findings=(Finding("capacity", passed, "10 of 20 GB"),), tie=tie, production=("placement solve --spec x",),
    )  # fmt: skip
    return PairResult("sample", "lab", "What it shows.", "x", "minimal", "throughput", "--flag 1", baseline, optimized)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "--targets", "memory_budgt"], "--targets: no target 'memory_budgt'; did you mean memory_budget?"),
        (["run", "--targets", "lab:zzz"], f"--targets: no target 'lab:zzz'; choose one of {NAMES}"),
        (["compare", "--targets", "zzz"], f"--targets: no target 'zzz'; choose one of {NAMES}"),
        (["run", "--profile", "huge"], "invalid value for '--profile': 'huge' is not one of 'minimal', 'full'"),
        (["run", "--flag"], "no such option"),
        (["compare", "--chapter", "evidence"], "evidence has no pairs; choose --chapter lab"),
        (["run", "--chapter", "evidence"], "name the benchmarks: --targets placement_quality"),
        (["run", "memory_budget", "--target-extra-arg", "--validate"], "--target-extra-arg: '--validate' has no '='"),
        (["run", "memory_budget", "--target-extra-arg", "zzz=--x"], "--targets: no target 'zzz'"),
        (
            ["run", "memory_budget", "--target-extra-arg", "memory_budget=--kv fp7"],
            "--target-extra-arg memory_budget: invalid value for '--kv': 'fp7' is not one of 'keep', 'fp8', 'nvfp4'",
        ),
        (
            ["run", "custom_cluster", "--target-extra-arg", "custom_cluster=--fabrc ib"],
            "--target-extra-arg custom_cluster: no such option",
        ),
        (["run", "memory_budget", "--spec", "gpt_oss_120b_gb200"], "gpt_oss_120b_gb200"),
        (
            ["run", "deepseek_gb200", "--spec", "gpt_oss_120b_gb200_ib"],
            "gpt_oss_120b_gb200_ib: does not fit deepseek_gb200",
        ),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.lower().startswith(f"error: {told.lower()}")
    assert captured.err.count("\n") == 1


def test_targets_takes_several_names() -> None:
    assert spread(["--targets", "a", "b", "--seed", "1"]) == ["--targets", "a", "--targets", "b", "--seed", "1"]
    assert spread(["experts", "--json"]) == ["experts", "--json"]


def test_the_list_has_every_chapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list-targets", "--format", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["chapter"] for row in rows} == {"lab", "evidence"}
    assert {"memory_budget", "placement_quality"} <= {row["name"] for row in rows}
    assert run("list-targets", "--chapter", "lab", "--options") == 0
    text = capsys.readouterr().out
    assert "evidence:" not in text
    assert "--validate" in text
    assert max(len(line) for line in text.splitlines() if " --" not in line) <= 80


def test_a_benchmark_of_the_evidence_is_a_target_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.command()
    @click.option("--flag", default="")
    def command(flag: str) -> None:
        click.echo(f"ran {flag}")

    monkeypatch.setattr("bench.registry.Benchmark.load", lambda self: command)
    assert run("run", "--targets", "evidence:experts", "--target-extra-arg", "experts=--flag on") == 0
    assert capsys.readouterr().out == "ran on\n"
    assert run("run", "evidence:experts", "--flag", "off") == 0
    assert capsys.readouterr().out == "ran off\n"


def test_a_run_writes_json_and_markdown(
    tmp_path: Path, files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = ("run", "lab:moe_grouping", "--spec", str(files["serving"]), "-q", "--workers", "1", "--format", "json")
    assert run(*args, "--out", str(out)) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["target"] for each in printed["results"]] == ["moe_grouping"]
    assert json.loads((out / "summary.json").read_text()) == printed
    assert json.loads((out / "tiny_moe" / "moe_grouping" / "moe_grouping.json").read_text()) == printed["results"][0]
    assert (out / "tiny_moe" / "moe_grouping" / "moe_grouping.md").read_text().startswith("# moe_grouping\n")
    assert "| moe_grouping |" in (out / "summary.md").read_text()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("x", "x"),
        ("../../up", ".._.._up"),
        ("/proc/x", "_proc_x"),
        ("..", "_"),
        (".", "_"),
        ("org/model 1.5", "org_model_1.5"),
    ],
)
def test_no_name_of_a_scenario_leads_out_of_the_folder(name: str, folder: str, tmp_path: Path) -> None:
    pair = dataclasses.replace(result(), scenario=name)
    write_pair(tmp_path / "out", pair)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [folder]
    assert (tmp_path / "out" / folder / "sample" / "sample.json").is_file()
    assert f"({folder}/sample/paths.svg)" in render.markdown_summary([pair], [])


@pytest.mark.parametrize("out", ["", "/proc/self/nowhere", "a_file"])
def test_a_folder_that_takes_no_files_is_told_before_anything_runs(
    out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.lab.harness.run_pair", lambda *_: pytest.fail("it ran"))
    Path("a_file").write_text("kept")
    assert run("run", "memory_budget", "-q", "--out", out) == 2
    assert capsys.readouterr().err.startswith("error: --out: ")
    assert [path.name for path in tmp_path.iterdir()] == ["a_file"]


def test_what_a_side_refuses_is_told_by_the_targets_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "alltoall_tuning", "-q", "--target-extra-arg", "alltoall_tuning=--hca 'a b'") == 2
    told = "error: --target-extra-arg alltoall_tuning: --hca: 'a b' is no list of names; give names"
    assert capsys.readouterr().err.startswith(told)


def test_markdown_is_as_it_was() -> None:
    """After a wanted change: write `render.markdown(result())` there anew."""
    assert render.markdown(result()) == (GOLDEN / "sample.md").read_text()


def test_a_side_that_is_worse_a_tie_without_a_reason_and_a_failed_check_are_faults() -> None:
    assert verdict(result()).kind == "better"
    assert faults(result()) == []
    assert "20.000% worse" in faults(result(80.0))[0]
    assert "nothing says why" in faults(result(100.0))[0]
    assert faults(result(100.0, tie="HBM does not bind")) == []
    with pytest.raises(CheckFailedError, match="capacity: 10 of 20 GB"):
        check([result(passed=False)])


def test_options_are_read_by_their_types() -> None:
    memory = next(target for target in targets() if target.name == "memory_budget")
    assert read_options(memory, "--kv keep --validate") == memory.options(kv="keep", validate=True)
    assert read_options(memory, "") == memory.options()
    assert "--validate" in usage(memory)

    def side(case: LabCase[NoOptions]) -> Outcome:
        return Outcome("nothing")

    plain = Target("plain", "Takes nothing.", side, side)
    with pytest.raises(InputError, match="it takes no extra arguments"):
        read_options(plain, "--x")
    with pytest.raises(InputError, match="no closing quotation"):
        read_options(plain, "'")


def test_steps_in_production_fit_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "placement solve --spec gpt_oss_120b_gb200_ib --set model.types.kv_cache=fp8"
    steps = (f"{long}     # HBM by line", "placement verify plan.json   # short", f"Read {'all of it ' * 9}first.")
    sample = result()
    told = replace(sample, optimized=replace(sample.optimized, production=steps))
    lines = render.screen([told], []).partition("IN PRODUCTION\n")[2].splitlines()
    assert lines[:3] == ["  # HBM by line", f"  {long}", "  placement verify plan.json   # short"]
    assert max(map(len, lines)) <= 80
    assert " ".join(" ".join(lines[3:]).split()) == steps[2]
    assert f"\n# {steps[2]}\n```" in render.markdown(told), "a sentence is no command of the shell"
