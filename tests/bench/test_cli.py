"""`python -m bench`: names, exit codes, and that listing imports nothing."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from bench.cli import cli
from bench.registry import BENCHMARKS, Benchmark, present
from placement.cli.running import outcome
from placement.errors import InputError

MODULE = """
import click

@click.command()
@click.option("--fail", default="")
@click.option("--json", "as_json", is_flag=True)
def command(fail, as_json):
    from placement.errors import CheckFailedError, MissingExtraError
    if fail == "check":
        raise CheckFailedError("a figure moved")
    if fail == "extra":
        raise MissingExtraError("install it")
    click.echo('{"figure": 3}' if as_json else "figure 3")
"""


@pytest.fixture
def figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A benchmark called `figure`, in a module of its own."""
    (tmp_path / "figure_benchmark.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(BENCHMARKS, "figure", Benchmark("figure", "figure_benchmark", "A figure."))
    monkeypatch.delitem(sys.modules, "figure_benchmark", raising=False)
    return "figure"


def run(*args: str) -> int:
    return outcome(cli, "python -m bench", args)


def test_every_present_benchmark_has_a_command_and_a_summary() -> None:
    assert {"placement_speed", "routing_fit"} <= {each.name for each in present()}
    for name, each in BENCHMARKS.items():
        assert name == each.name
        assert each.summary
        if each.present:
            assert isinstance(each.load(), click.Command)


def test_list_tells_names_and_summaries(figure: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [each.name for each in present()]
    assert lines[-1].split(maxsplit=1) == ["figure", "A figure."]
    assert run("list", "--json") == 0
    assert json.loads(capsys.readouterr().out)[-1] == {
        "name": "figure", "module": "figure_benchmark", "summary": "A figure.",
    }  # fmt: skip
    assert "figure_benchmark" not in sys.modules


@pytest.mark.parametrize("args", [("list",), ("--help",), ("run", "--help"), ("list-targets",)])
def test_texts_fit_80_columns(args: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_run_passes_options_on(figure: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("run", "figure") == 0
    assert capsys.readouterr().out == "figure 3\n"
    assert run("run", "figure", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"figure": 3}


@pytest.mark.parametrize(("fail", "code"), [("check", 6), ("extra", 5)])
def test_outcomes_are_the_exit_codes_of_every_command(figure: str, fail: str, code: int) -> None:
    assert run("run", "figure", "--fail", fail) == code


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "placement_sped"], "no benchmark 'placement_sped'; did you mean placement_speed"),
        (["run", "zzz"], "no benchmark 'zzz'; choose one of "),
        (["run", "placement_speed", "--workers", "0"], "invalid value for '--workers': 0 is not in the range"),
        (["lst"], "no such command 'lst'"),
        (["run", "training_rates", "--data", ""], "--data: is empty"),
        (["run", "accuracy", "--levers", "--data", ""], "--data: is empty"),
    ],
)
def test_bad_usage_is_one_line(args: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {told}")
    assert captured.err.count("\n") == 1


def test_a_benchmark_that_is_not_in_this_installation_is_unknown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(BENCHMARKS, "later", Benchmark("later", "bench.no_such_package.main", "Not yet."))
    assert not BENCHMARKS["later"].present
    assert run("run", "later") == 2
    assert "no benchmark 'later'" in capsys.readouterr().err


def test_a_module_without_a_command_is_told() -> None:
    with pytest.raises(InputError, match="has no click command"):
        Benchmark("stop", "solvers.stop", "").load()


def test_a_main_that_parses_its_own_arguments_gets_them(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(sys.argv)
    with pytest.raises(SystemExit) as ended:
        run("run", "routing_fit", "--help")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith("usage: bench run routing_fit")
    with pytest.raises(SystemExit) as ended:
        run("run", "routing_fit", "--nope")
    assert ended.value.code == 2
    assert sys.argv == before


def test_as_a_process_help_is_quick_to_import() -> None:
    code = (
        "import sys\nfrom bench.cli import cli\nfrom placement.cli.running import outcome\n"
        "code = outcome(cli, 'bench', ['run', '--help'])\n"
        "print(code, [m for m in ('numpy', 'numba', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    process = [sys.executable, "-m", "bench", "run", "zzz"]
    assert subprocess.run(process, capture_output=True, check=False).returncode == 2
