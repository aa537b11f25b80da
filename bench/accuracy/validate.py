"""How far off predictions are for measurements that they were not fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bench.accuracy.figures import Figures
from bench.accuracy.folds import Folds
from bench.accuracy.samples import Sample

#: Figures of some samples by what is fitted to others: (fitted to, to predict), both by their numbers. None: without a
#: prediction.
Predictor = Callable[[Sequence[int], Sequence[int]], Sequence[Figures | None]]


@dataclass(frozen=True)
class FigureErrors:
    """Errors of one figure over rows.

    Attributes:
        median, mean: of absolute percentage errors, as shares.
        bias: median of the signed errors: above 0 where predictions are too long.
        rank: Spearman's rank correlation; nan with fewer than three rows.
    """

    median: float
    mean: float
    bias: float
    rank: float


@dataclass(frozen=True)
class Errors:
    """Errors over rows."""

    rows: int
    tpot: FigureErrors
    ttft: FigureErrors


@dataclass(frozen=True)
class Judged:
    """A way to predict rows, and its errors.

    Attributes:
        name: how the predictions came about.
        overall: over all rows that it predicts.
        groups: (name, errors) by model, by GPU, and by both.
        queued: over the rows whose client queued, which are in no other figure; None without any.
    """

    name: str
    overall: Errors
    groups: tuple[tuple[str, Errors], ...]
    queued: Errors | None = None


def errors_of(samples: Sequence[Sample], predicted: Sequence[Figures]) -> Errors:
    """Errors over rows."""
    tpot = np.array([[p.tpot_s * 1e3, s.row.tpot_ms] for s, p in zip(samples, predicted, strict=True)])
    ttft = np.array([[p.ttft_s * 1e3, s.row.ttft_ms] for s, p in zip(samples, predicted, strict=True)])
    return Errors(len(samples), _figure(tpot), _figure(ttft))


def judge(name: str, samples: Sequence[Sample], predicted: Sequence[Figures | None]) -> Judged | None:
    """Errors overall and by group over the samples with a prediction; None without one."""
    told = [(s, p) for s, p in zip(samples, predicted, strict=True) if p is not None]
    served = [(s, p) for s, p in told if not s.queued]
    if not served:
        return None
    keys: tuple[Callable[[Sample], str], ...] = (
        lambda s: s.model,
        lambda s: s.row.gpu,
        lambda s: s.group,
    )
    groups = []
    for key in keys:
        for value in sorted({key(sample) for sample, _ in served}):
            groups.append((value, _errors([pair for pair in served if key(pair[0]) == value])))
    queued = [pair for pair in told if pair[0].queued]
    return Judged(name, _errors(served), tuple(groups), _errors(queued) if queued else None)


def held_out(
    samples: Sequence[Sample], folds: Folds, predictor: Predictor, on_fold: Callable[[], None] | None = None
) -> tuple[Figures | None, ...]:
    """Figures of every sample by what is fitted to the samples of other folds, rows with a queue left out.

    Args:
        on_fold: called when a fold is done.
    """
    found: dict[int, Figures | None] = {}
    for fold in folds:
        out = set(fold)
        train = [i for i, sample in enumerate(samples) if i not in out and not sample.queued]
        found |= dict(zip(fold, predictor(train, fold), strict=True))
        if on_fold is not None:
            on_fold()
    return tuple(found[i] for i in range(len(samples)))


def _errors(pairs: Sequence[tuple[Sample, Figures]]) -> Errors:
    return errors_of([sample for sample, _ in pairs], [figures for _, figures in pairs])


def _figure(pairs: NDArray[np.float64]) -> FigureErrors:
    off = pairs[:, 0] / pairs[:, 1] - 1
    size = np.abs(off)
    return FigureErrors(float(np.median(size)), float(size.mean()), float(np.median(off)), _rank(pairs))


def _rank(pairs: NDArray[np.float64]) -> float:
    if len(pairs) < 3 or len(set(pairs[:, 0])) < 2 or len(set(pairs[:, 1])) < 2:
        return float("nan")
    return float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
