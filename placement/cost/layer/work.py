"""Seconds that slots and layers take."""

from __future__ import annotations

import numpy as np

from placement.arithmetic import exp, expm1
from placement.problem.arrays import FloatArray
from placement.problem.rates import LayerRates


def roofline_s(rates: LayerRates, touched: FloatArray | float, tokens: FloatArray | float) -> FloatArray:
    """Seconds of slots: the larger of reading their weights, if touched (a chance), and multiplying their tokens."""
    return np.maximum(np.multiply(touched, rates.weight_s), np.multiply(tokens, rates.token_s))


def slot_times(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """[kinds, ...] seconds that slots take in each kind of pass, times the kind's share of the passes.

    The roofline, with the chance that a Poisson count of that mean is not 0 for "touched".

    Args:
        tokens: Expected tokens of slots in the mean pass (any shape).
        rates: What they cost.
    """
    kinds, x = rates.kinds, np.asarray(tokens, dtype=np.float64)
    seconds = np.empty((len(kinds), *x.shape))
    for k, kind in enumerate(kinds):
        count = kind.tokens * x
        seconds[k] = kind.share * roofline_s(rates, -expm1(-count), count)
    return seconds


def slot_slopes(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """[kinds, ...] derivative of `slot_times` by the tokens; of the branch at hand where it has a kink."""
    kinds, x = rates.kinds, np.asarray(tokens, dtype=np.float64)
    slopes = np.empty((len(kinds), *x.shape))
    for k, kind in enumerate(kinds):
        count = kind.tokens * x
        reading = -expm1(-count) * rates.weight_s > count * rates.token_s
        slopes[k] = kind.share * kind.tokens * np.where(reading, exp(-count) * rates.weight_s, rates.token_s)
    return slopes


def layer_seconds(rates: LayerRates, moved: FloatArray, work: FloatArray, wait: float) -> FloatArray:
    """[...] seconds of layers, the mean over kinds of passes: messages and work in turn, or the longer (`two_batch`).

    Args:
        rates: Kinds of passes, and how work and messages overlap.
        moved: [...] seconds of dispatch and combine in the mean pass.
        work: [kinds, ...] seconds of the busiest GPU, times the kind's share.
        wait: The latency that is in `moved`, of passes of any size.
    """
    if rates.overlap == "none":
        return np.asarray(moved + work.sum(axis=0))
    each = [kind.share * (wait + kind.tokens * (moved - wait)) for kind in rates.kinds]
    return np.asarray(np.maximum(each, work).sum(axis=0))
