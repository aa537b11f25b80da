"""What is held out, what stands in every table beside the constants, and what is counted apart."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from bench.accuracy.figures import Figures
from bench.accuracy.floor import floor_of
from bench.accuracy.folds import GPU, GROUP, KINDS, MEASUREMENT, MODEL, deployments_held_out, folds_of
from bench.accuracy.main import command
from bench.accuracy.published import deployments_of, read_published
from bench.accuracy.rivals import aiconfigurator, regression
from bench.accuracy.rows import read_rows
from bench.accuracy.samples import Sample, samples_of
from bench.accuracy.validate import errors_of, held_out, judge
from tests.bench.accuracy import test_published as published
from tests.bench.accuracy.test_rows import GOOD, write

OSS = {"model": "openai/gpt-oss-120b", "dtype": "fp4", "engine": "vllm 1", "ep": "1"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on two GPUs, at two batches; one of the measurements is stated twice, one waits in a queue."""
    kinds = product(({}, OSS), ("b200_sxm", "h200_sxm"), (4, 64))
    rows = [
        GOOD | change | {"id": f"{i}", "gpu": gpu, "batch_per_attention_rank": f"{b}", "tpot_ms": f"{8 + i + b / 10}"}
        for i, (change, gpu, b) in enumerate(kinds)
    ]
    again = rows[0] | {"id": "again", "model": "deepseek-ai/DeepSeek-V3"}
    queue = GOOD | {"id": "queue", "isl": "8192", "batch_per_attention_rank": "2048", "ttft_ms": "99999"}
    return write(tmp_path_factory.mktemp("rows") / "m.csv", *rows, again, queue)


@pytest.fixture(scope="module")
def samples(path: Path) -> tuple[Sample, ...]:
    return samples_of(read_rows(path))[0]


def test_every_kind_of_fold_holds_out_what_it_says(samples: tuple[Sample, ...]) -> None:
    assert len(samples) == 9
    sizes = {MEASUREMENT: 3, GROUP: 4, MODEL: 2, GPU: 2}
    for kind in KINDS:
        folds = folds_of(kind, samples, 3, seed=1)
        assert len(folds) == sizes[kind]
        assert sorted(i for fold in folds for i in fold) == list(range(len(samples)))
    for fold in folds_of(MODEL, samples, 3, seed=1):
        rest = {samples[i].model for i in range(len(samples)) if i not in fold}
        assert not rest & {samples[i].model for i in fold}


def test_deployments_of_what_is_held_out_are_held_out(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    one, h200 = published.DECODE, {"hardware": "H200", "gpus": "8", "ep": "8", "dp": "8", "metric": ""}
    rows = [one, one | {"id": "sgl_longer", "isl": "5000"}, one | h200 | {"id": "sgl_y"}]
    rows.append(one | h200 | {"id": "trt_z", "model": "gpt-oss-120b", "dtype": "mxfp4"})
    deployments = deployments_of(read_published(published.write(tmp_path / "p.csv", *rows)))
    assert len(deployments) == 4
    deepseek = next(each for each in samples if each.group == "deepseek_r1 on h200_sxm")

    def out(kind: str, number: int = 0) -> set[str]:
        return set(deployments_held_out(kind, number, deepseek, deployments, 2, seed=0))

    assert out(GROUP) == {"sgl_y"}
    assert out(MODEL) == {"sgl_x", "sgl_longer", "sgl_y"}
    assert out(GPU) == {"sgl_y", "trt_z"}
    # Each once, and rows of one deployment together.
    first, second = out(MEASUREMENT), out(MEASUREMENT, 1)
    assert first | second == {each.id for each in deployments}
    assert not first & second
    assert ("sgl_x" in first) == ("sgl_longer" in first)


def test_nothing_is_fitted_to_what_it_predicts_or_to_a_queue(samples: tuple[Sample, ...]) -> None:
    seen = []

    def predictor(train: object, test: object) -> list[Figures]:
        seen.append((set(train), set(test)))  # type: ignore[call-overload]
        return [Figures(1.0, 1.0) for _ in test]  # type: ignore[attr-defined]

    found = held_out(samples, folds_of(GROUP, samples, 3, seed=0), predictor)
    assert len(found) == len(samples)
    queue = next(i for i, sample in enumerate(samples) if sample.queued)
    assert all(not train & test and queue not in train for train, test in seen)


def test_errors_have_a_sign_and_queues_are_counted_apart(samples: tuple[Sample, ...]) -> None:
    long = [Figures(1.5e-3 * s.row.tpot_ms, 0.5e-3 * s.row.ttft_ms) for s in samples]
    found = judge("long", samples, long)
    assert found is not None
    assert found.overall.rows == 8
    assert found.overall.tpot.bias == pytest.approx(0.5)
    assert found.overall.ttft.bias == pytest.approx(-0.5)
    assert found.overall.ttft.median == pytest.approx(0.5)
    assert found.overall.tpot.rank == pytest.approx(1.0)
    assert found.queued is not None
    assert found.queued.rows == 1
    assert {name for name, _ in found.groups} >= {"deepseek_r1", "h200_sxm", "gpt_oss_120b on b200_sxm"}
    assert judge("nothing", samples, [None] * len(samples)) is None


def test_the_regression_finds_times_that_are_sums_of_its_terms(samples: tuple[Sample, ...]) -> None:
    terms = [regression.terms_of(sample.named) for sample in samples]
    assert len(terms[0].tpot) == len(regression.TPOT_TERMS)
    assert len(terms[0].ttft) == len(regression.TTFT_TERMS)
    made = []
    for sample, own in zip(samples, terms, strict=True):
        row = replace(sample.row, tpot_ms=2e3 * float(own.tpot.sum()), ttft_ms=3e3 * float(own.ttft.sum()))
        made.append(replace(sample, row=row))
    rows = [sample.row for sample in made]
    found = errors_of(made, regression.fit_predict(terms, rows, terms))
    assert found.tpot.mean < 1e-6
    assert found.ttft.mean < 1e-6


def test_a_rival_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, samples: tuple[Sample, ...]) -> None:
    monkeypatch.setattr(aiconfigurator, "PACKAGE", "no_such_package")
    assert "not installed" in aiconfigurator.missing()


def test_a_plan_cannot_tell_releases_apart(tmp_path: Path) -> None:
    twice = [GOOD, GOOD | {"engine": "sglang 0.6", "tpot_ms": "15.0"}, GOOD | {"engine": "vllm 1", "tpot_ms": "30"}]
    samples, _ = samples_of(read_rows(write(tmp_path / "m.csv", *twice)))
    named, unnamed = floor_of(samples, True), floor_of(samples, False)
    assert named is not None
    assert unnamed is not None
    assert (named.rows, named.plans, unnamed.rows, unnamed.plans) == (2, 1, 3, 1)
    # The best guess for one of a pair is the other.
    assert named.tpot == pytest.approx(np.median([15 / 12.5 - 1, 1 - 12.5 / 15]))
    assert floor_of(samples[:1], True) is None


def test_both_files_are_fitted_to_and_both_are_held_out(path: Path, tmp_path: Path) -> None:
    csv = published.write(tmp_path / "p.csv", published.DECODE, published.DECODE | {"id": "sgl_y", "hardware": "H800"})
    got = CliRunner().invoke(command, ["--data", str(path), "--published", str(csv), "--folds", "2", "--json"])
    assert got.exit_code == 0, got.output
    record = json.loads(got.stdout)
    held_out = [figure["predicted"] for figure in record["published"]["figures"]]
    shipped = CliRunner().invoke(command, ["--published", str(csv), "--json"])
    own = [figure["predicted"] for figure in json.loads(shipped.stdout)["figures"]]
    assert all(a != b and 0.2 < a / b < 5 for a, b in zip(held_out, own, strict=True))


def test_the_command_shows_both_views_and_the_regression(path: Path) -> None:
    got = CliRunner().invoke(command, ["--data", str(path), "--folds", "2", "--json"])
    assert got.exit_code == 0, got.output
    record = json.loads(got.stdout)
    assert [table["held_out"] for table in record["tables"]] == ["shipped", *KINDS]
    for table in record["tables"][1:]:
        ways = {way["way"] for way in table["ways"]}
        assert ways >= {"constants, engine named", "constants, no engine", "regression"}
    assert (record["predicted"], record["queued"]) == (9, 1)
