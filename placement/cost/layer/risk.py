"""The mean of the worst windows: how a layer's objective weighs its bad moments."""

from __future__ import annotations

import numpy as np

from placement.arithmetic import weighted_sum
from placement.problem.arrays import FloatArray


def tail_mean(values: FloatArray, weight: FloatArray, tail: float) -> float:
    """Mean of `values` over the worst (largest) `tail` share of the weight; part of a window counts where it must.

    The conditional value at risk at level 1 - tail (Rockafellar and Uryasev 2000): 1 the weighted mean, 0 the largest
    value.

    Args:
        values: [windows] in any unit. weight: [windows] not negative, sums to 1. tail: 0 to 1.
    """
    if tail >= 1.0:
        return float(weighted_sum(weight, values))
    order = np.argsort(-values, kind="stable")
    order = order[weight[order] > 0]
    left = tail * float(weight.sum())
    if left <= 0.0 or weight[order[0]] >= left:
        return float(values[order[0]])
    before = np.concatenate([[0.0], np.cumsum(weight[order])[:-1]])
    taken = np.clip(left - before, 0.0, weight[order])
    return float(weighted_sum(taken, values[order]) / taken.sum())
