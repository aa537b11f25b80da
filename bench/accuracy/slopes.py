"""Figures of many settings near one set of constants, in closed form, so that a fit asks the cost model twice.

A figure is a sum of times. Each is in proportion to a constant that is an amount or to the inverse of one that is a
rate, so its share of the figure, taken at one point, tells the figure at any other, until the larger of two times
changes places. What multiplies times that another constant is already in is taken for a power of the whole figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
#: Logarithms of a row's figures, such as (TPOT, TTFT), at multipliers of the constants.
Model = Callable[[int, dict[str, float]], Array]

#: How a figure depends on a constant: times in proportion to its inverse, or the figure by a power. Others are amounts.
RATES = frozenset(
    {
        "hbm", "hbm_experts", "hbm_kv", "matmul", "expert_matmul", "attention_matmul", "attention_decode_matmul",
        "collective_bandwidth",
    }
)  # fmt: skip
POWERS = frozenset(
    {
        "routing_shape", "rank_stall", "rank_wait", "prefill_time",
        "serving_passes", "arrival_bunching",
    }
)  # fmt: skip
#: Step of the logarithm of a constant for its derivative.
STEP = 1e-4


@dataclass(frozen=True)
class Slopes:
    """Figures of rows and their dependence on constants at one point.

    Attributes:
        constants: names.
        at: [rows, constants] logarithms of the multipliers there.
        logs: [rows, figures] logarithms of seconds there, such as TPOT and TTFT.
        shares: [rows, figures, constants] share of a figure that is in proportion to the constant or its inverse; of
            those that are powers, the exponent.
    """

    constants: tuple[str, ...]
    at: Array
    logs: Array
    shares: Array

    @classmethod
    def of(cls, constants: Sequence[str], at: Array, model: Model) -> Slopes:
        """Asks the model once, and once more for every constant, of each row."""
        names = tuple(constants)
        logs, slopes = [], []
        for i, point in enumerate(at):
            factors = dict(zip(names, np.exp(point).tolist(), strict=True))
            logs.append(model(i, factors))
            moved = (model(i, factors | {name: factors[name] * math.exp(STEP)}) for name in names)
            slopes.append(np.stack([(each - logs[i]) / STEP for each in moved], axis=1))
        return cls(names, np.array(at), np.array(logs), np.array(slopes) * _sign(names))

    def rows(self, chosen: Sequence[int]) -> Slopes:
        """Those of some rows."""
        pick = np.asarray(chosen, dtype=np.int64)
        return Slopes(self.constants, self.at[pick], self.logs[pick], self.shares[pick])

    def figures(self, logs: Array) -> tuple[Array, Array]:
        """([rows, figures] logarithms, [rows, figures, constants] their slopes) at [rows, constants] multipliers."""
        power = np.array([name in POWERS for name in self.constants])
        sign = _sign(self.constants)
        moved = logs - self.at
        grown = np.exp(np.where(power, 0.0, sign * moved))[:, None, :] * self.shares
        rest = 1.0 - np.where(power, 0.0, self.shares).sum(axis=2)
        total = np.maximum(rest + np.where(power, 0.0, grown).sum(axis=2), 1e-9)
        value = self.logs + np.log(total) + (np.where(power, self.shares, 0.0) * moved[:, None, :]).sum(axis=2)
        slopes = np.where(power, self.shares, sign * grown / total[:, :, None])
        return value, slopes


def _sign(names: Sequence[str]) -> Array:
    return np.array([-1.0 if name in RATES else 1.0 for name in names])
