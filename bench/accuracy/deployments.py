"""The table of published deployments: settings, published, predicted, error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from rich.console import RenderableType

from bench.accuracy.intervals import coverage_parts, coverage_records, coverage_targets, covered, of_deployments
from bench.accuracy.published import PublishedFigure, bias, median_error, published_figures, read_published
from bench.accuracy.shown import Shown
from bench.accuracy.training import TrainingAccuracy, table, training_accuracy
from bench.targets import Target, target_records, target_table
from placement.errors import InputError
from placement.report.text import columns, heading, rendered

#: Asked of the median absolute error over all rows that can be predicted, of their bias either way, and of the bias of
#: one generation of GPUs or one model.
MEDIAN, BIAS, GROUP_BIAS = 0.18, 0.08, 0.15


def report(path: str) -> Shown:
    """Every published throughput of a file against its prediction, and the training step; rows without one say why.

    Raises:
        InputError: the file can't be read as published figures.
    """
    figures = published_figures(read_published(path))
    told = [figure for figure in figures if figure.predicted is not None]
    groups = _groups(told)
    targets = _targets(told, groups)
    rows = [
        [
            figure.id,
            f"{figure.measured:,.0f}",
            "-" if figure.predicted is None else f"{figure.predicted:,.0f}",
            "-" if figure.error is None else f"{figure.error:+.0%}",
            figure.unit,
        ]
        for figure in figures
    ]
    settings = [f"{figure.id}: {figure.settings}" for figure in figures]
    training = _training(path)
    parts: list[RenderableType] = [
        heading("published deployments", f"  {len(figures)} rows, {len(told)} predicted"),
        columns(("", "published", "predicted", "error", "unit"), rows),
        "",
        heading("by model and generation"),
        columns(
            ("", "rows", "median error", "bias"),
            [[name, str(len(own)), f"{median_error(own):.0%}", f"{bias(own):+.0%}"] for name, own in groups],
        ),
        "",
        heading("settings"),
        *settings,
    ]
    if training is not None:
        parts += ["", heading("training step"), table(training)]
    told_by = covered(of_deployments(told))
    targets += tuple(coverage_targets(told_by))
    parts += coverage_parts(told_by)
    if targets:
        parts += ["", target_table(targets)]
    record = {
        "rows": len(figures),
        "predicted": len(told),
        "figures": [asdict(figure) | {"error": figure.error} for figure in figures],
        "groups": [
            {"group": name, "rows": len(own), "median_error": median_error(own), "bias": bias(own)}
            for name, own in groups
        ],
        "training": None
        if training is None
        else {
            "settings": training.settings,
            "median_error": training.median_error,
            "rows": [asdict(row) | {"error": row.error} for row in training.rows],
        },
        "intervals": coverage_records(told_by),
        "targets": target_records(targets),
    }
    return Shown(rendered(parts), record, targets)


Groups = Sequence[tuple[str, Sequence[PublishedFigure]]]


def _groups(told: Sequence[PublishedFigure]) -> Groups:
    """The figures by generation of GPUs and by model."""
    names = sorted({f.generation for f in told}), sorted({f.model for f in told})
    return [
        *((name, [f for f in told if f.generation == name]) for name in names[0]),
        *((name, [f for f in told if f.model == name]) for name in names[1]),
    ]


def _targets(told: Sequence[PublishedFigure], groups: Groups) -> tuple[Target, ...]:
    if not told:
        return ()
    return (
        Target("median error of published deployments", median_error(told), MEDIAN, ""),
        Target("bias of published deployments, either way", abs(bias(told)), BIAS, ""),
        *(Target(f"bias, {name}, either way", abs(bias(own)), GROUP_BIAS, "") for name, own in groups),
    )


def _training(path: str) -> TrainingAccuracy | None:
    """The published training step's parts, where the file has them."""
    try:
        return training_accuracy(path)
    except InputError:
        return None
