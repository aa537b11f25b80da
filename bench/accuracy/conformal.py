"""Bands that measurements lie in around their predictions, told by measurements held out (docs/cost-model.md)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.cost.calibration.intervals import NEAREST, Band, Bands, Figure, HeldOut, Standing, band_of

Array = NDArray[np.float64]
#: Share of measurements within a band; rows that a group needs, and parts of so many rows.
COVERAGE, LEAST, PARTS = 0.8, 20, 2
#: Rows that a part needs: of a published deployment there are few.
LEAST_OF_PART: Mapping[str, int] = {"deployment": 1}


@dataclass(frozen=True)
class Residual:
    """One measured time over its prediction, which was fitted to nothing of the measurement's part.

    Attributes:
        part: what was held out together, by name.
        log: logarithm of measured over predicted.
        release: of the engine that was measured; "" where it is not known.
    """

    figure: Figure
    held_out: HeldOut
    part: str
    standing: Standing
    log: float
    release: str = ""

    def within(self, band: Band) -> bool:
        """Whether the measurement lies in a band."""
        return band.low <= math.exp(self.log) <= band.high


def band(logs: Sequence[float] | Array, coverage: float = COVERAGE) -> Band | None:
    """Factors that a further measurement, exchangeable with these, lies between with a chance of `coverage`.

    Of n residuals in order, the (n + 1) p-th and the (n + 1) (1 - p)-th, p = (1 - coverage) / 2: a further one is
    beyond either with a chance of p, whatever the distribution, where these numbers are whole (split-conformal: Vovk,
    Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; each sign by itself: Linusson, Johansson and
    Löfström, "Signed-Error Conformal Regression", PAKDD 2014). Between whole numbers it is interpolated. None: there
    are too few.
    """
    tail = (1 - coverage) / 2
    if (len(logs) + 1) * tail < 1 - 1e-9:
        return None
    low, high = np.quantile(logs, [tail, 1 - tail], method="weibull")
    return _band(len(logs), low, high)


def widened(parts: Sequence[Array], coverage: float = COVERAGE) -> Band | None:
    """Factors that measurements of a further part, exchangeable with these, lie between with about `coverage`.

    Rows of a part are off together, so the quantiles of all rows are too narrow for a part that is not among them. Each
    part, counted alike, is held against the quantiles of the others: a row's score is how far it lies beyond them. The
    band is that of all parts, widened at both ends by the `coverage` quantile of the scores (conformalized quantiles:
    Romano, Patterson and Candès, "Conformalized Quantile Regression", NeurIPS 2019; each part left out in turn: Barber
    et al., "Predictive Inference with the Jackknife+", Annals of Statistics 2021). None: there are too few parts.
    """
    if len(parts) < PARTS:
        return None
    scores = []
    for i, part in enumerate(parts):
        low, high = _ends([other for j, other in enumerate(parts) if j != i], coverage)
        scores.append(np.maximum(low - part, part - high))
    more = _quantile(scores, coverage)
    low, high = _ends(parts, coverage)
    return _band(sum(map(len, parts)), low - more, high + more)


def bands(residuals: Sequence[Residual]) -> tuple[Bands, ...]:
    """The bands of every group that is large enough."""
    kinds = dict.fromkeys((each.figure, each.held_out) for each in residuals)
    found = []
    for figure, held_out in kinds:
        for by in NEAREST[held_out]:
            levels: dict[str, dict[str, list[float]]] = {}
            for each in residuals:
                level = each.standing.level(by)
                if (each.figure, each.held_out) == (figure, held_out) and level is not None:
                    levels.setdefault(level, {}).setdefault(each.part, []).append(each.log)
            made = {level: _group(held_out, parts) for level, parts in sorted(levels.items())}
            told = {level: one for level, one in made.items() if one is not None}
            if told:
                found.append(Bands(figure=figure, held_out=held_out, by=by, bands=told))
    return tuple(found)


def nested(residuals: Sequence[Residual]) -> Iterator[tuple[Residual, Band]]:
    """Each residual, and the band that the residuals of all other parts give it.

    Those for which the others give none are left out.
    """
    for figure, held_out, part in dict.fromkeys((each.figure, each.held_out, each.part) for each in residuals):
        kind = [each for each in residuals if (each.figure, each.held_out) == (figure, held_out)]
        known = bands([each for each in kind if each.part != part])
        for each in kind:
            if each.part == part and (found := band_of(known, figure, held_out, each.standing)) is not None:
                yield each, found.band


def _group(held_out: HeldOut, parts: Mapping[str, Sequence[float]]) -> Band | None:
    """The band of a group of parts, where it is large enough."""
    rows = [log for part in parts.values() for log in part]
    if len(rows) < LEAST:
        return None
    if held_out == "measurement":
        return band(rows)
    least = LEAST_OF_PART.get(held_out, LEAST)
    return widened([np.array(part) for part in parts.values() if len(part) >= least])


def _ends(parts: Sequence[Array], coverage: float) -> tuple[float, float]:
    """The ends of the middle `coverage` of all rows, every part counted alike."""
    return _quantile(parts, (1 - coverage) / 2), _quantile(parts, (1 + coverage) / 2)


def _quantile(parts: Sequence[Array], share: float) -> float:
    """The least value that `share` of all rows do not exceed, every part counted alike."""
    values = np.concatenate(parts)
    weights = np.concatenate([np.full(len(part), 1.0 / (len(part) * len(parts))) for part in parts])
    order = np.argsort(values, kind="stable")
    at = int(np.searchsorted(np.cumsum(weights[order]), share - 1e-9))
    return float(values[order][min(at, len(values) - 1)])


def _band(rows: int, low: float, high: float) -> Band:
    return Band(rows=rows, low=round(math.exp(low), 4), high=round(math.exp(high), 4))
