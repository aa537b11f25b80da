"""The fit finds constants that were put in, and the shipped constants are as near to the measurements as they say."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bench.accuracy.effects import MOST
from bench.accuracy.fit import Design, Measured, figures, fit, group_errors, predictions
from bench.accuracy.published import deployments_of, read_published
from bench.accuracy.rows import read_rows
from bench.accuracy.samples import Sample, samples_of
from bench.accuracy.settings import Setting, settings_of
from bench.accuracy.slopes import RATES
from placement.cost.calibration.efficiency import ByTypeEntry, load_efficiency
from placement.cost.calibration.fitted import Calibration, Case, calibrated, load_calibration
from tests.bench.accuracy import test_published as published
from tests.bench.accuracy.test_rows import GOOD, write


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, ...]:
    """Settings whose measurements are the cost model's own under known multipliers, with noise of 2%."""
    kinds = product((4, 8), (4, 16, 64, 128), (1024, 8192))
    rows = [
        GOOD
        | {"id": f"{i}", "gpus": f"{tp}", "tp": f"{tp}", "ep": "1", "batch_per_attention_rank": f"{b}", "isl": f"{isl}"}
        for i, (tp, b, isl) in enumerate(kinds)
    ]
    path = write(tmp_path_factory.mktemp("made") / "m.csv", *rows)
    settings, left = settings_of(read_rows(path))
    assert not left
    truth = calibrated(load_efficiency(), {"layer_overhead_s": 2.0, "hbm_experts": 0.8, "first_token_launch_s": 1.5})
    noise = np.random.default_rng(0).normal(1.0, 0.02, (len(settings), 2))
    found = []
    for setting, (a, b) in zip(settings, noise, strict=True):
        exact = figures(setting, truth)
        row = replace(setting.row, tpot_ms=exact.tpot_s * 1e3 * a, ttft_ms=exact.ttft_s * 1e3 * b)
        found.append(replace(setting, row=row))
    return tuple(found)


def test_the_fit_predicts_what_it_was_made_from(made: tuple[Setting, ...]) -> None:
    before = group_errors(made, tuple(figures(setting, load_efficiency()) for setting in made))["all"]
    fitted = fit(made)
    after = group_errors(made, predictions(made, fitted))["all"]
    assert before.tpot > 0.1
    assert after.tpot < 0.03
    assert after.ttft < 0.05
    by = {(effect.constant, effect.by): effect.levels for effect in fitted.effects}
    own = [levels for (name, _), levels in by.items() if name == "layer_overhead_s"]
    overhead = np.prod([level.multiplier for levels in own for level in levels.values()])
    # Sixteen settings move it from 1 towards the 2 that was put in, as far as the priors let them.
    assert 1.15 < overhead < 3.0
    assert all(0 < level.error < 1 for levels in by.values() for level in levels.values())


def test_every_parameter_multiplies_its_constant(made: tuple[Setting, ...]) -> None:
    design = Design.of([setting.case for setting in made])
    logs = np.linspace(-0.2, 0.2, len(design.names))
    factors = design.multipliers(logs)
    for c, constant in enumerate(design.constants):
        own = [logs[i] for i, (prior, _) in enumerate(design.names) if prior.constant == constant]
        # All settings are of one kind, so each constant has the same levels in every row.
        assert factors[:, c] == pytest.approx(np.full(len(made), np.exp(sum(own))))


def test_a_published_throughput_moves_the_fit_unless_it_is_held_out(made: tuple[Setting, ...], tmp_path: Path) -> None:
    row = published.DECODE | {"value": "4000"}
    (slow,) = deployments_of(read_published(published.write(tmp_path / "p.csv", row)))
    known = Measured.of(made[:4], [slow])

    def rate(fitted: Calibration) -> float:
        return slow.predicted(calibrated(load_efficiency(), fitted.multipliers(slow.case)))

    alone, held_out = fit(made[:4]), known.fit(deployments_held_out={slow.id})
    assert rate(known.fit()) < 0.9 * rate(held_out)
    assert rate(held_out) == pytest.approx(rate(alone), rel=0.03)


def test_figures_in_closed_form_are_the_cost_models(made: tuple[Setting, ...]) -> None:
    known, base = Measured.of(made), load_efficiency()
    # A tenth off every constant, up and down in turn, from where the slopes were taken.
    moved = known.slopes.at + np.where(np.arange(len(known.slopes.constants)) % 2, 0.1, -0.1)
    got, slopes = known.slopes.figures(moved)
    names = known.slopes.constants
    for i, setting in enumerate(made):
        exact = figures(setting, calibrated(base, dict(zip(names, np.exp(moved[i]).tolist(), strict=True))))
        assert got[i] == pytest.approx(np.log([exact.tpot_s, exact.ttft_s]), abs=0.01)
    step = np.zeros_like(moved)
    step[:, 0] = 1e-6
    off = (known.slopes.figures(moved + step)[0] - known.slopes.figures(moved - step)[0]) / 2e-6
    assert slopes[:, :, 0] == pytest.approx(off, abs=1e-6)


def test_constants_are_few_and_physical() -> None:
    shipped, base = load_calibration(), load_efficiency()
    levels = [level for effect in shipped.effects for level in effect.levels.values()]
    assert len(levels) <= MOST
    assert all(0 < level.error < 1 for level in levels)
    for case in (Case("hopper", "mla", "sglang"), Case("blackwell", "gqa"), Case(None, "none")):
        constants = calibrated(base, shipped.multipliers(case))
        for name in RATES:
            entry = getattr(constants, name)
            rates = entry.value.values() if isinstance(entry, ByTypeEntry) else [entry.value]
            assert max(rates) <= 0.95, name


def measured(shared_dir: Path) -> tuple[Sample, ...]:
    path = shared_dir / "measured" / "serving.csv"
    if not path.is_file():
        pytest.skip("no measurements beside this checkout (../shared/measured/serving.csv)")
    return samples_of(read_rows(path))[0]


def test_shipped_constants_fit_the_measurements_as_recorded(shared_dir: Path) -> None:
    settings = [sample.named for sample in measured(shared_dir) if not sample.queued]
    shipped = load_calibration()
    found = group_errors(settings, predictions(settings, shipped))["all"]
    assert found.rows > 780
    assert found.tpot == pytest.approx(shipped.errors["all"].tpot, abs=0.01)
    assert found.ttft == pytest.approx(shipped.errors["all"].ttft, abs=0.01)
