"""Published training rates: how they are read and posed, and how far predictions are from them."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from bench.accuracy.training_fit import Fitter
from bench.accuracy.training_rates import JudgedRun, release_spread
from bench.accuracy.training_runs import SHIPPED, PosedRun, TrainingRun, posed, posed_runs, read_runs
from placement.cost.training.constants import FITTED, load_training
from placement.errors import InputError


@pytest.fixture(scope="module")
def runs() -> list[PosedRun]:
    return [posed(run) for run in read_runs()]


@pytest.fixture(scope="module")
def judged(runs: list[PosedRun]) -> list[JudgedRun]:
    return [JudgedRun(each.run, each.predicted(), None) for each in runs]


def test_every_run_states_its_source_and_lies_below_the_peak(runs: list[PosedRun]) -> None:
    assert len(runs) > 150
    assert len({each.run.id for each in runs}) == len(runs)
    for each in runs:
        run, split = each.run, each.split
        assert run.source
        assert run.date
        assert split.gpus_per_instance * split.instances == run.gpus
        assert split.etp == run.etp
        assert 0.05 < run.measured * run.flops_per_token / run.peak < 0.7


def test_predictions_are_as_near_as_the_docs_say(judged: list[JudgedRun]) -> None:
    def median(own: list[JudgedRun]) -> float:
        return statistics.median(abs(each.error) for each in own)

    assert median(judged) < 0.20
    assert abs(statistics.median(each.error for each in judged)) < 0.10
    assert median([each for each in judged if each.run.generation == "hopper"]) < 0.10
    assert median([each for each in judged if each.run.model == "deepseek_r1"]) < 0.12


def test_shipped_constants_are_those_of_the_fit(runs: list[PosedRun]) -> None:
    fit = Fitter(runs).fit()
    shipped = load_training()
    for name in FITTED:
        assert getattr(fit.constants, name).value == pytest.approx(getattr(shipped, name).value, rel=5e-3)
        assert fit.errors[name] == pytest.approx(getattr(shipped, name).error, abs=5e-3)


def test_releases_of_the_same_settings_are_told_apart(judged: list[JudgedRun]) -> None:
    assert 0.0 < release_spread(judged) < 0.2
    assert release_spread(judged[:1]) == 0.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("gpus", "many", "line 2, gpus"),
        ("precision", "int3", "line 2, precision"),
        ("tokens_per_s_per_gpu", "-4", "line 2, tokens_per_s_per_gpu"),
    ],
)
def test_bad_rows_are_refused_in_one_line(tmp_path: Path, field: str, value: str, message: str) -> None:
    header, first = SHIPPED.read_text(encoding="utf-8").splitlines()[:2]
    cells = first.split(",")
    cells[header.split(",").index(field)] = value
    path = tmp_path / "runs.csv"
    path.write_text(header + "\n" + ",".join(cells) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        read_runs(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model", "abc", "run {}: abc: no model of that name"),
        ("gpus", "1", "run {}, gpus: degrees, GPUs and batch don't divide"),
        ("sequence", "9000000", "run {}: workload's sequences"),
        ("chunks", "99", "run {}, chunks: is 99"),
    ],
)
def test_runs_that_can_not_be_posed_name_file_and_run(tmp_path: Path, field: str, value: str, message: str) -> None:
    header, first = SHIPPED.read_text(encoding="utf-8").splitlines()[:2]
    cells = first.split(",")
    cells[header.split(",").index(field)] = value
    path = tmp_path / "runs.csv"
    path.write_text(header + "\n" + ",".join(cells) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=rf"runs\.csv: {message.format(cells[0])}") as caught:
        posed_runs(path)
    assert "\n" not in str(caught.value)


def test_runs_that_do_not_divide_or_state_no_rate_are_refused(runs: list[PosedRun], tmp_path: Path) -> None:
    run: TrainingRun = runs[0].run
    with pytest.raises(InputError, match="don't divide"):
        posed(run.model_copy(update={"gpus": 100}))
    with pytest.raises(InputError, match="is missing"):
        _ = run.model_copy(update={"tokens_per_s_per_gpu": None, "tflops_per_gpu": None}).measured
    with pytest.raises(InputError, match="no such file"):
        read_runs(tmp_path / "missing.csv")
