"""`python -m bench run training_rates`: predicted against published training rates, and the fit of their constants."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from bench.options import check_option, json_option
from placement.cli.command import Command
from placement.cli.running import emit, note

if TYPE_CHECKING:
    from bench.accuracy.training_fit import TrainingFit
    from bench.accuracy.training_runs import PosedRun, TrainingRun
    from bench.targets import Target

#: Asked of runs whose model was not fitted to: the median error, and the bias either way.
MEDIAN, BIAS = 0.20, 0.10


@dataclass(frozen=True)
class JudgedRun:
    """A run with its rates in tokens/s of a GPU: published, predicted, and predicted with its model left out of the fit
    (None: not refitted)."""

    run: TrainingRun
    predicted: float
    held_out: float | None

    @property
    def error(self) -> float:
        """Predicted over published, less 1."""
        return self.predicted / self.run.measured - 1.0

    @property
    def held_out_error(self) -> float:
        """The same with the model left out; nan where nothing was refitted."""
        return math.nan if self.held_out is None else self.held_out / self.run.measured - 1.0

    def mfu(self, rate: float) -> float:
        """Share of the 16-bit peak that the main model's work makes up at a rate."""
        return rate * self.run.flops_per_token / self.run.peak


@click.command("training_rates", cls=Command)
@click.option("--data", metavar="FILE", help="Runs in the format of bench/accuracy/training_rates.csv; default: that.")
@click.option(
    "--validate/--no-validate", default=True, show_default=True, help="Fit anew without each model, and predict it."
)
@click.option("--write", "out", metavar="FILE", help="Fit the constants to all runs and write them to FILE (YAML).")
@check_option
@json_option
def command(data: str | None, validate: bool, out: str | None, check: bool, as_json: bool) -> None:
    """How far predicted training rates of mixture-of-experts models are from published ones.

    Four constants were fitted to these runs; --validate predicts each model with constants that never saw it.
    """
    from bench.accuracy.training_fit import Fitter
    from bench.accuracy.training_runs import SHIPPED, posed_runs
    from bench.targets import check_targets

    runs = posed_runs(data or SHIPPED)
    fitter = Fitter(runs)
    models = list(dict.fromkeys(each.run.model for each in runs))
    fits = fitter.without(models) if validate else {}
    judged = [_judged(each, fits.get(each.run.model)) for each in runs]
    targets = _targets(judged) if validate else []
    emit(json.dumps(_record(judged, targets), indent=1) if as_json else _text(judged, targets))
    if out is not None:
        from placement.records.files import write_text

        write_text(out, _document(fitter.fit()), "--write")
        note(f"wrote {out}")
    if check:
        check_targets(targets)


def _judged(posed: PosedRun, fit: TrainingFit | None) -> JudgedRun:
    return JudgedRun(posed.run, posed.predicted(), None if fit is None else posed.predicted(fit.constants))


def release_spread(judged: Sequence[JudgedRun]) -> float:
    """Median distance of runs of the same settings under different releases from their mean: no prediction that does
    not know the release does better on them."""
    by_settings: dict[tuple[object, ...], list[float]] = {}
    for each in judged:
        by_settings.setdefault(each.run.settings, []).append(math.log(each.run.measured))
    apart = [abs(one - statistics.mean(own)) for own in by_settings.values() if len(own) > 1 for one in own]
    return statistics.median(apart) if apart else 0.0


_Group = tuple[str, list[JudgedRun]]


def _groups(judged: Sequence[JudgedRun]) -> list[_Group]:
    """All runs, then by model, by generation of GPU, by precision."""
    keys: tuple[Callable[[TrainingRun], str], ...] = (
        lambda _: "all",
        lambda run: run.model,
        lambda run: run.generation,
        lambda run: run.precision,
    )
    groups: list[_Group] = []
    for key in keys:
        found: dict[str, list[JudgedRun]] = {}
        for each in judged:
            found.setdefault(key(each.run), []).append(each)
        groups.extend(found.items())
    return groups


def _figures(own: Sequence[JudgedRun]) -> dict[str, float]:
    """Medians of a group: absolute and signed errors, fitted and held out, and MFU."""
    errors, held = [each.error for each in own], [each.held_out_error for each in own]
    return {
        "runs": len(own),
        "median_error": statistics.median(map(abs, errors)),
        "bias": statistics.median(errors),
        "held_out_median_error": statistics.median(map(abs, held)),
        "held_out_bias": statistics.median(held),
        "published_mfu": statistics.median(each.mfu(each.run.measured) for each in own),
        "predicted_mfu": statistics.median(each.mfu(each.predicted) for each in own),
    }


def _targets(judged: Sequence[JudgedRun]) -> list[Target]:
    from bench.targets import Target

    figures = _figures(judged)
    return [
        Target("training rates, model left out: median error", figures["held_out_median_error"], MEDIAN, ""),
        Target("training rates, model left out: bias, either way", abs(figures["held_out_bias"]), BIAS, ""),
    ]


def _text(judged: Sequence[JudgedRun], targets: Sequence[Target]) -> str:
    from bench.targets import target_table
    from placement.report.text import columns, heading, rendered

    def share(value: float, signed: bool = False) -> str:
        return "-" if math.isnan(value) else f"{value:+.0%}" if signed else f"{value:.0%}"

    rows = [
        [
            each.run.id, _settings(each.run), f"{each.run.measured:,.0f}", f"{each.predicted:,.0f}",
            share(each.error, True), share(each.held_out_error, True),
            f"{share(each.mfu(each.run.measured))} {share(each.mfu(each.predicted))}",
        ]
        for each in judged
    ]  # fmt: skip
    groups = []
    for name, own in _groups(judged):
        f = _figures(own)
        groups.append(
            [
                name, str(len(own)), f"{share(f['median_error'])} ({share(f['bias'], True)})",
                f"{share(f['held_out_median_error'])} ({share(f['held_out_bias'], True)})",
                f"{share(f['published_mfu'])} {share(f['predicted_mfu'])}",
            ]
        )  # fmt: skip
    parts: list[Any] = [
        heading("published training rates", f"  {len(judged)} runs; tokens/s of a GPU"),
        columns(("", "settings", "published", "predicted", "fitted on", "left out", "MFU"), rows),
        "",
        heading("medians", "  absolute error (signed); MFU published, predicted"),
        columns(("", "runs", "fitted on", "model left out", "MFU"), groups),
        f"Releases differ by {share(release_spread(judged))} on the same settings (median, from their mean).",
    ]
    if targets:
        parts += ["", target_table(targets)]
    return rendered(parts)


def _settings(run: TrainingRun) -> str:
    degrees = f"TP{run.tp} EP{run.ep} PP{run.pp}" + (f" VP{run.chunks}" if run.chunks > 1 else "")
    return f"{run.gpus} {degrees} mb{run.microbatch} {run.precision} {run.dispatcher}{' overlap' * run.overlap}"


def _record(judged: Sequence[JudgedRun], targets: Sequence[Target]) -> dict[str, Any]:
    from bench.targets import target_records

    def known(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "runs": [
            each.run.model_dump()
            | {"measured": each.run.measured, "predicted": each.predicted, "error": each.error}
            | {"held_out_error": known(each.held_out_error)}
            for each in judged
        ],
        "groups": [
            {"group": name} | {key: known(value) for key, value in _figures(own).items()}
            for name, own in _groups(judged)
        ],
        "release_spread": release_spread(judged),
        "targets": target_records(targets),
    }


def _document(fit: TrainingFit) -> str:
    """The fitted entries as constants.yaml has them, to be put there."""
    lines = ["# Fitted constants of a training step: value, and standard error of its logarithm."]
    for name, error in fit.errors.items():
        lines.append(f"{name}: {{value: {getattr(fit.constants, name).value:.4g}, error: {error:.2g}}}")
    return "\n".join(lines) + "\n"
