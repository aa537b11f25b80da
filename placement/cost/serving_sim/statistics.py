"""Means of a simulated run once it has settled, with their error, and what share of requests is slower than what.

The start of a run is cut off by the marginal standard error rule (MSER; White, "An effective truncation heuristic for
bias reduction in simulation output", Simulation 69, 1997): as many of the first blocks, at most half, as make the
standard error of the mean over the others smallest. The mean's error is that of the means of BATCHES consecutive parts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from placement.problem.arrays import FloatArray

#: Blocks of consecutive requests that the rule cuts by, and parts whose means tell the error.
BLOCKS, BATCHES = 200, 20
#: Of the interval around a mean.
COVERAGE = 0.95
#: Correlation with time beyond which waits lie on a line.
STRAIGHT = 0.9


@dataclass(frozen=True)
class Spread:
    """How a figure is spread over requests.

    Attributes:
        error: half of the 95% interval of the mean.
        p50, p95, p99: so many percent of the requests have at most this.
    """

    mean: float
    error: float
    p50: float
    p95: float
    p99: float

    @classmethod
    def of(cls, values: FloatArray) -> Spread:
        """Of [requests] consecutive values."""
        parts = np.array([part.mean() for part in np.array_split(values, BATCHES) if len(part)])
        error = 0.0
        if len(parts) > 1:
            quantile = float(stdtrit(len(parts) - 1, (1 + COVERAGE) / 2))
            error = quantile * float(parts.std(ddof=1)) / len(parts) ** 0.5
        p50, p95, p99 = np.quantile(values, (0.5, 0.95, 0.99), method="inverted_cdf")
        return cls(float(values.mean()), error, float(p50), float(p95), float(p99))


def unsettled(values: FloatArray) -> int:
    """How many of the first values MSER cuts off: at most half."""
    blocks = np.array_split(values, min(BLOCKS, len(values)))
    means = np.array([block.mean() for block in blocks])
    left = np.arange(len(means), 0, -1)
    total, squares = np.cumsum(means[::-1])[::-1], np.cumsum(means[::-1] ** 2)[::-1]
    spread = np.maximum(0.0, squares - total**2 / left) / left**2
    judged = spread[: len(means) // 2 + 1]
    # Rounding tells no values apart that are all alike.
    best = int(np.argmax(judged <= judged.min() + 1e-12 * means.mean() ** 2 / len(means)))
    return sum(len(block) for block in blocks[:best])


def grows(waits: FloatArray) -> bool:
    """Whether [requests] consecutive waits grow without end: in a line, and over the second half by a quarter."""
    parts = np.array([part.mean() for part in np.array_split(waits, BATCHES) if len(part)])
    if len(parts) < BATCHES or parts[-1] <= 1.25 * parts[BATCHES // 2]:
        return False
    # Pearson's correlation with the time, summed in numpy's own order and not by BLAS.
    rise, time = parts - parts.mean(), np.arange(BATCHES) - (BATCHES - 1) / 2
    spread = float((rise * rise).sum() * (time * time).sum()) ** 0.5
    return bool(spread > 0 and float((rise * time).sum()) / spread > STRAIGHT)
