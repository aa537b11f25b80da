"""The table of published deployments: settings, published, predicted, error."""

from __future__ import annotations

from dataclasses import asdict

from rich.console import RenderableType

from bench.accuracy.published import median_error, published_figures, read_published
from bench.accuracy.shown import Shown
from bench.accuracy.training import TrainingAccuracy, table, training_accuracy
from bench.targets import Target, target_records, target_table
from placement.errors import InputError
from placement.report.text import columns, heading, rendered

#: Asked of the median absolute error over all rows that can be predicted.
MEDIAN = 0.25


def report(path: str) -> Shown:
    """Every published throughput of a file against its prediction, and the training step; rows without one say why.

    Raises:
        InputError: the file can't be read as published figures.
    """
    figures = published_figures(read_published(path))
    told = [figure for figure in figures if figure.predicted is not None]
    targets = (Target("median error of published deployments", median_error(figures), MEDIAN, ""),) if told else ()
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
        heading("settings"),
        *settings,
    ]
    if training is not None:
        parts += ["", heading("training step"), table(training)]
    if targets:
        parts += ["", target_table(targets)]
    record = {
        "rows": len(figures),
        "predicted": len(told),
        "figures": [asdict(figure) | {"error": figure.error} for figure in figures],
        "training": None
        if training is None
        else {
            "settings": training.settings,
            "median_error": training.median_error,
            "rows": [asdict(row) | {"error": row.error} for row in training.rows],
        },
        "targets": target_records(targets),
    }
    return Shown(rendered(parts), record, targets)


def _training(path: str) -> TrainingAccuracy | None:
    """The published training step's parts, where the file has them."""
    try:
        return training_accuracy(path)
    except InputError:
        return None
