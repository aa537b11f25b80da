"""How far off predictions are for measurements that the constants were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from scipy.stats import spearmanr

from bench.accuracy.fit import Figures, fit, predictions, without
from bench.accuracy.settings import Setting


@dataclass(frozen=True)
class Errors:
    """Absolute percentage errors over rows: medians and means as shares, and Spearman's rank correlations."""

    rows: int
    tpot_median: float
    tpot_mean: float
    ttft_median: float
    ttft_mean: float
    tpot_rank: float
    ttft_rank: float


@dataclass(frozen=True)
class Judged:
    """A way to predict rows, and its errors.

    Attributes:
        name: how the constants came about.
        overall: over all rows. groups: (name, errors) by model, by GPU, and by both.
    """

    name: str
    overall: Errors
    groups: tuple[tuple[str, Errors], ...]


def errors_of(settings: Sequence[Setting], predicted: Sequence[Figures]) -> Errors:
    """Errors over rows; a rank correlation of fewer than three rows is nan."""
    tpot = np.array([[p.tpot_s * 1e3, s.row.tpot_ms] for s, p in zip(settings, predicted, strict=True)])
    ttft = np.array([[p.ttft_s * 1e3, s.row.ttft_ms] for s, p in zip(settings, predicted, strict=True)])
    off = [np.abs(pairs[:, 0] / pairs[:, 1] - 1) for pairs in (tpot, ttft)]
    return Errors(
        len(settings), float(np.median(off[0])), float(off[0].mean()), float(np.median(off[1])), float(off[1].mean()),
        _rank(tpot), _rank(ttft),
    )  # fmt: skip


def judge(name: str, settings: Sequence[Setting], predicted: Sequence[Figures]) -> Judged:
    """Errors overall and by group."""
    keys: tuple[Callable[[Setting], str], ...] = (
        lambda s: s.row.model,
        lambda s: s.row.gpu,
        lambda s: group_of(s),
    )
    groups = []
    for key in keys:
        for value in sorted({key(setting) for setting in settings}):
            chosen = [i for i, setting in enumerate(settings) if key(setting) == value]
            groups.append((value, errors_of([settings[i] for i in chosen], [predicted[i] for i in chosen])))
    return Judged(name, errors_of(settings, predicted), tuple(groups))


def group_of(setting: Setting) -> str:
    """Model and GPU as the file names them."""
    return f"{setting.row.model} on {setting.row.gpu}"


def random_folds(settings: Sequence[Setting], folds: int, seed: int) -> tuple[tuple[Setting, ...], ...]:
    """The settings in `folds` random parts; rows that state the same measurement stay together."""
    measurements = sorted({setting.row.measurement for setting in settings})
    order = np.random.default_rng(seed).permutation(len(measurements))
    fold = {measurements[at]: i % folds for i, at in enumerate(order)}
    parts = (tuple(s for s in settings if fold[s.row.measurement] == i) for i in range(folds))
    return tuple(part for part in parts if part)


def grouped_folds(settings: Sequence[Setting]) -> tuple[tuple[Setting, ...], ...]:
    """One part for each model and GPU."""
    return tuple(tuple(s for s in settings if group_of(s) == name) for name in sorted({group_of(s) for s in settings}))


def held_out(
    settings: Sequence[Setting],
    folds: Sequence[Sequence[Setting]],
    workers: int,
    on_fold: Callable[[], None] | None = None,
) -> tuple[Figures, ...]:
    """Figures of every setting, by constants fitted to the rows that are in another fold and state other measurements.

    Args:
        on_fold: called when a fold is done.
    """
    found: dict[int, Figures] = {}
    tasks = (delayed(_predict_fold)(without(settings, fold), tuple(fold)) for fold in folds)
    for fold, figures in zip(folds, Parallel(n_jobs=workers, return_as="generator")(tasks), strict=True):
        found |= {setting.row.line: each for setting, each in zip(fold, figures, strict=True)}
        if on_fold is not None:
            on_fold()
    return tuple(found[setting.row.line] for setting in settings)


def _predict_fold(train: tuple[Setting, ...], test: tuple[Setting, ...]) -> tuple[Figures, ...]:
    return predictions(test, fit(train))


def _rank(pairs: np.ndarray) -> float:
    if len(pairs) < 3 or len(set(pairs[:, 0])) < 2 or len(set(pairs[:, 1])) < 2:
        return float("nan")
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
