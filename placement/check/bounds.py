"""Bounds that loads alone prove, in a few plain lines: what a plan's own bounds are held against."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.risk import tail_mean
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem

#: Relative allowance for rounding: a bound must not lie above what it bounds.
ROUNDING = 1e-9


def least_objective(problem: LayerProblem) -> float:
    """A lower bound on the objective of every placement and dispatch of a layer without speeds, in its unit.

    In each window the busiest GPU has at least the mean of all work, and at least the work of its largest copy, which
    the slots leave no smaller than `_largest_copy`. Messages count as their latency. Bytes have no such bound.
    """
    if problem.objective.kind == "traffic":
        return 0.0
    alive, copy = int(problem.hardware.alive.sum()), _largest_copy(problem)
    if problem.objective.kind == "load":
        mean = problem.data.load.sum(axis=1) / alive
        return tail_mean(np.maximum(1.0, copy / mean), problem.data.window_weight, problem.objective.tail) * (
            1 - ROUNDING
        )
    tariff = tariff_of(problem)
    # Copies of an expert together never take less than one copy would: time per token falls with the tokens.
    mean_s = tariff.slot_times(tariff.all_tokens * problem.data.load).sum(axis=2) / alive
    work = np.maximum(mean_s, tariff.slot_times(tariff.all_tokens * copy))
    seconds = tariff.layer_seconds(np.full(problem.windows, tariff.wait_s), work)
    return tail_mean(seconds, problem.data.window_weight, problem.objective.tail) * (1 - ROUNDING)


def _largest_copy(problem: LayerProblem) -> FloatArray:
    """[windows] the slot bound: the smallest load with sum of ceil(expert's load / it) <= slots, by bisection."""
    low, high = np.zeros(problem.windows), problem.data.load.max(axis=1)
    for _ in range(60):
        middle = 0.5 * (low + high)
        fits = np.maximum(1, np.ceil(problem.data.load / middle[:, None])).sum(axis=1) <= problem.hardware.usable_slots
        low, high = np.where(fits, low, middle), np.where(fits, middle, high)
    return low
