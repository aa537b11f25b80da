"""Bands hold as many further measurements as they say, and none is judged by its own part."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.accuracy.conformal import LEAST, Residual, band, bands, nested, widened
from bench.accuracy.figures import Figures
from bench.accuracy.folds import MODEL, folds_of
from bench.accuracy.intervals import (
    coverage_targets,
    covered,
    covered_by_release,
    known_of,
    of_deployments,
    residuals_of,
)
from bench.accuracy.main import command
from bench.accuracy.published import PublishedFigure
from bench.accuracy.samples import Sample
from bench.accuracy.tables import Table
from placement.cost.calibration.intervals import HeldOut, Standing
from tests.bench.accuracy.test_validate import path as path
from tests.bench.accuracy.test_validate import samples as samples

HERE = Standing("hopper", "H100 SXM", "m", "mla", "vllm", 8)


def rows(kind: HeldOut, part: str, logs: list[float], standing: Standing = HERE) -> list[Residual]:
    return [Residual("tpot", kind, part, standing, log) for log in logs]


@settings(max_examples=10, deadline=None)
@given(
    size=st.integers(LEAST, 120), seed=st.integers(0, 2**32 - 1), coverage=st.sampled_from([0.5, 0.8]),
    shape=st.sampled_from(["normal", "exponential", "uniform"]),
)  # fmt: skip
def test_a_further_row_lies_within_as_often_as_said(size: int, seed: int, coverage: float, shape: str) -> None:
    """Whatever the residuals' distribution, and on either side alike."""
    random = np.random.default_rng(seed)
    draws = getattr(random, shape)(size=(1000, size + 1))
    made = [band(list(draw[:-1]), coverage) for draw in draws]
    below = np.mean([math.exp(draw[-1]) < one.low for draw, one in zip(draws, made, strict=True) if one is not None])
    above = np.mean([math.exp(draw[-1]) > one.high for draw, one in zip(draws, made, strict=True) if one is not None])
    assert below == pytest.approx((1 - coverage) / 2, abs=0.045)
    assert above == pytest.approx((1 - coverage) / 2, abs=0.045)


def test_an_interval_is_as_skewed_as_its_residuals() -> None:
    made = band([0.0] * 10 + [0.01 * i for i in range(1, 31)])
    assert made is not None
    assert made.low == 1.0
    assert made.high > 1.2


@settings(max_examples=5, deadline=None)
@given(parts=st.integers(4, 10), seed=st.integers(0, 2**32 - 1))
def test_rows_of_a_further_part_lie_within_though_parts_are_off_together(parts: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    inside, pooled = [], []
    for _ in range(60):
        shifts = random.normal(0, 0.4, parts + 1)
        logs = [random.normal(shift, 0.1, 30) for shift in shifts]
        narrow, made = band(np.concatenate(logs[:-1])), widened(logs[:-1])
        assert narrow is not None
        assert made is not None
        inside.append(np.mean((np.exp(logs[-1]) >= made.low) & (np.exp(logs[-1]) <= made.high)))
        pooled.append(np.mean((np.exp(logs[-1]) >= narrow.low) & (np.exp(logs[-1]) <= narrow.high)))
    assert 0.68 <= np.mean(inside) <= 0.92
    assert np.mean(inside) > np.mean(pooled)


def test_too_few_rows_or_parts_tell_nothing() -> None:
    assert band([0.0] * 8) is None
    assert widened([np.zeros(30)]) is None
    assert bands(rows("measurement", "1", [0.1] * (LEAST - 1))) == ()
    assert bands([*rows("model", "1", [0.1] * 30), *rows("model", "2", [0.1] * (LEAST - 1))]) == ()


def test_a_row_is_judged_by_other_parts_alone() -> None:
    """A part that is far off, alone, lies outside; it would not if it had a say."""
    usual = [residual for part in "abcd" for residual in rows("measurement", part, [-0.1, 0.0, 0.1] * 5)]
    odd = rows("measurement", "odd", [5.0] * 30)
    judged = list(nested([*usual, *odd]))
    assert len(judged) == 90
    assert not any(residual.within(one) for residual, one in judged if residual.part == "odd")


def test_shares_are_told_by_rows_and_by_parts() -> None:
    """Three parts of one model each: the larger one counts no more than the others where parts are held out."""
    near = [rows("GPU type", part, [-0.1, 0.0, 0.1] * 10) for part in "abc"]
    far = rows("GPU type", "far", [3.0] * 90)
    (told,) = covered([*(residual for part in near for residual in part), *far])
    assert told.rows == 180
    assert told.inside == pytest.approx(0.5)
    assert told.each == pytest.approx(0.75)
    (target,) = coverage_targets([told])
    assert target.measured == pytest.approx(abs(told.each - 0.8))
    assert next(iter(coverage_targets([replace(told, each=0.74)]))).met is False


def test_residuals_are_of_what_was_held_out_with_a_row(samples: tuple[Sample, ...]) -> None:
    """Rows that queue are left out; a model alone in its kind of attention tells of attention held out, too."""
    folds = folds_of(MODEL, samples, 3, seed=1)
    one = tuple(Figures(2e-3 * sample.row.tpot_ms, 1e-3 * sample.row.ttft_ms) for sample in samples)
    known = known_of(samples)
    found = residuals_of(samples, [Table(MODEL, len(folds), (), folds=folds, planned=(one, one))], known)
    served = [sample for sample in samples if not sample.queued]
    assert len(found) == 2 * 2 * len(served) < 2 * 2 * len(samples)
    assert {each.held_out for each in found} == {"attention"}
    assert {(each.figure, round(each.log, 9)) for each in found} == {("tpot", round(-math.log(2), 9)), ("ttft", 0.0)}
    parts = {each.part: each.standing.model for each in found}
    assert sorted(parts.values(), key=str) == ["deepseek_r1", "gpt_oss_120b"]
    assert {each.standing.engine for each in found if each.standing.model == "gpt_oss_120b"} == {None, "vllm"}
    assert known.cases == ()


def test_releases_are_judged_by_other_releases() -> None:
    """A release that is off lies outside what others tell, though its own rows in other folds would hold it."""
    told = [
        replace(residual, part=str(i % 5), release=release)
        for release, log in (("vllm 1", 0.0), ("vllm 2", 0.1), ("vllm 3", 2.0))
        for i, residual in enumerate(rows("measurement", "", [log + 0.01 * j for j in range(20)]))
    ]
    (usual,), (release,) = covered(told), covered_by_release(told)
    assert usual.inside > 0.7
    assert release.inside < 0.5
    assert (release.held_out, list(coverage_targets([release]))) == ("release", [])


def test_a_published_rate_above_its_prediction_is_a_time_below() -> None:
    (told,) = of_deployments(
        [PublishedFigure("trt_1", "m", "hopper", "rate", "tok/s", "", 200.0, 100.0)]
        + [PublishedFigure("trt_2", "m", "hopper", "rate", "tok/s", "none", 200.0, None)]
    )
    assert (told.figure, told.part) == ("rate", "trt m hopper")
    assert told.log == pytest.approx(-math.log(2))


def test_intervals_need_both_files(path: Path) -> None:
    done = CliRunner().invoke(command, ["--data", str(path), "--write-intervals", "x.yaml"])
    assert done.exit_code == 2
    assert "--published" in done.output
