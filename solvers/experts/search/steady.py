"""Placements for loads that will be others, compiled: on the windows given, and on a domain that nobody gave.

Where balance is all that a placement changes, what is least on a sample is seldom least on other routing. Of a domain
that was not seen little is known but which experts it will make busy together (`LayerData.comovement`): it is one more
window, of nearly even loads with large deviations. Copies and GPUs are annealed for the mean of the windows' 16-norms.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.arithmetic import log
from placement.kernels import copy_into, lean_kernel
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.search.norm import power_16, root_16
from solvers.stop import DEFAULT, Stop

#: Weight of the domain that nobody gave, beside 1 for the windows given together; the share of theirs that is shared
#: out alike, whatever they weigh: each may be the routing of an hour.
UNSEEN, ALIKE = 1.0, 0.75
#: What another domain's loads keep of the given ones' distance from the mean, and their standard deviation beside, over
#: the mean load of an expert: measured from domain to domain (docs/notes/dispatch.md).
KEPT, SPREAD = 0.3, 0.8
#: Standard deviations of drift that a GPU's load counts with in the windows given.
DRIFT = 0.3
#: Proposals for each slot, the share of them that give a slot to another expert, and the first temperature.
PROPOSALS, COPYING, HOT = 300, 0.3, 3e-4


def steady(problem: LayerProblem, slots: IntArray, caution: float, seed: int, stop: Stop = DEFAULT) -> IntArray:
    """[slots] a placement that bears other routing, found from `slots`.

    Args:
        problem: A layer whose copies may lie anywhere, share their expert's tokens alike, and whose GPUs are alike.
        slots: [slots] a valid placement without EMPTY slots.
        caution: From 0, the windows as the problem weighs them, to 1: ALIKE, DRIFT and UNSEEN in full.
        stop: Its deadline.
    """
    data, gpus, experts = problem.data, problem.topology.gpus, problem.experts
    load = data.load / data.load.sum(axis=1, keepdims=True) * gpus
    mean = gpus / experts
    unseen = KEPT * (data.mean_load / data.mean_load.sum() * gpus) + (1.0 - KEPT) * mean
    covariance = np.zeros((2, experts, experts))
    if data.drift is not None:
        covariance[0] = data.drift * (caution * DRIFT * gpus / float(data.mean_load.sum())) ** 2
    covariance[1] = np.eye(experts) if data.comovement is None else data.comovement
    covariance[1] *= (SPREAD * mean) ** 2
    given = (1.0 - ALIKE * caution) * data.window_weight + ALIKE * caution / problem.windows
    weight = np.append(given, caution * UNSEEN) / (1.0 + caution * UNSEEN)
    rows, held = len(weight), problem.held(slots)
    spare = problem.slots > experts
    moves = _Moves(
        np.concatenate([load, unseen[None]]), weight, covariance, problem.hardware.slots_per_gpu,
        COPYING if spare else 0.0, PROPOSALS * problem.slots, HOT, seed,
    )  # fmt: skip
    at = _At(
        np.array(slots, dtype=np.int64), np.bincount(slots, minlength=experts), held, np.zeros((rows, gpus)),
        np.zeros((rows, gpus)), np.zeros(rows), np.zeros((2, gpus, experts)), np.zeros((2, gpus)), np.zeros((2, gpus)),
        np.zeros(2),
    )  # fmt: skip
    trial = _Trial(
        np.zeros(gpus, dtype=np.int64), np.zeros(gpus), np.zeros(gpus), np.zeros((2, gpus)), np.zeros((2, gpus)),
        np.zeros((rows, gpus)),
    )  # fmt: skip
    best = at.slots.copy()
    for first, last in stop.slices(moves.steps):
        _steady(moves, at, trial, best, first, last)
    return best


class _Moves(NamedTuple):
    """What moves cost.

    Attributes:
        load: [rows, experts] over the mean GPU's, the unseen domain last. weight: [rows].
        covariance: [2, experts, experts] of the rows given, and of the last, in the same unit.
        copying: share of the proposals that give a slot to another expert.
        steps: proposals in all. hot: first temperature.
    """

    load: FloatArray
    weight: FloatArray
    covariance: FloatArray
    per_gpu: int
    copying: float
    steps: int
    hot: float
    seed: int


class _At(NamedTuple):
    """Where `steady` is.

    Attributes:
        slots: [slots]. copies: [experts]. holds: [gpus, experts].
        by_gpu: [rows, gpus] load. power: [rows, gpus] 16th power of load and deviation. total: [rows] their sums.
        pull: [2, gpus, experts] covariance x, x the shares of the experts that a GPU serves; its variance is
            x' covariance x. variance, deviation: [2, gpus].
        value: [2] of these slots and of the best.
    """

    slots: IntArray
    copies: IntArray
    holds: BoolArray
    by_gpu: FloatArray
    power: FloatArray
    total: FloatArray
    pull: FloatArray
    variance: FloatArray
    deviation: FloatArray
    value: FloatArray


class _Trial(NamedTuple):
    """A proposal: GPU `gpu[n]` serves `less[n]` more of the first expert, and `more[n]` more of the second."""

    gpu: IntArray
    less: FloatArray
    more: FloatArray
    variance: FloatArray
    deviation: FloatArray
    power: FloatArray


@lean_kernel
def _steady(m: _Moves, at: _At, trial: _Trial, best: IntArray, first: int, last: int) -> None:
    """The proposals `first` to `last` of `steady`; best [slots] is the placement of the least value."""
    load, weight, covariance, per_gpu, copying, steps, hot, seed = m
    slots, copies, holds, by_gpu, power, total, pull, variance, deviation, values = at
    gpu, less, more, new_variance, new_deviation, new_power = trial
    rows, gpus = by_gpu.shape
    experts = len(copies)
    if first == 0:
        np.random.seed(seed)
        for i in range(len(slots)):
            g, e, x = i // per_gpu, slots[i], 1.0 / copies[slots[i]]
            for r in range(rows):
                by_gpu[r, g] += x * load[r, e]
            for k in range(2):
                for f in range(experts):
                    pull[k, g, f] += x * covariance[k, e, f]
        for i in range(len(slots)):
            for k in range(2):
                variance[k, i // per_gpu] += pull[k, i // per_gpu, slots[i]] / copies[slots[i]]
        for g in range(gpus):
            for k in range(2):
                deviation[k, g] = np.sqrt(max(variance[k, g], 0.0))
            for r in range(rows):
                power[r, g] = power_16(by_gpu[r, g] + deviation[r // (rows - 1), g])
                total[r] += power[r, g]
        for r in range(rows):
            values[0] += weight[r] * root_16(total[r] / gpus)
        values[1] = values[0]
    value, least = values
    for step in range(first, last):
        i, j, n = np.random.randint(len(slots)), -1, 0
        a, g = slots[i], i // per_gpu
        if copying > 0.0 and np.random.random() < copying:
            b = np.random.randint(experts)
            if copies[a] < 2 or holds[g, b] or copies[b] == gpus:
                continue
            had, got = 1.0 / copies[a], 1.0 / (copies[b] + 1)
            for h in range(gpus):
                x, y = 0.0, 0.0
                if h == g:
                    x, y = -had, got
                else:
                    if holds[h, a]:
                        x = 1.0 / (copies[a] - 1) - had
                    if holds[h, b]:
                        y = got - 1.0 / copies[b]
                if x != 0.0 or y != 0.0:
                    gpu[n], less[n], more[n] = h, x, y
                    n += 1
        else:
            j = np.random.randint(len(slots))
            b, h = slots[j], j // per_gpu
            if g == h or holds[g, b] or holds[h, a]:
                continue
            gpu[0], less[0], more[0] = g, -1.0 / copies[a], 1.0 / copies[b]
            gpu[1], less[1], more[1] = h, 1.0 / copies[a], -1.0 / copies[b]
            n = 2
        for t in range(n):
            h, x, y = gpu[t], less[t], more[t]
            for k in range(2):
                both = x * x * covariance[k, a, a] + y * y * covariance[k, b, b] + 2.0 * x * y * covariance[k, a, b]
                new_variance[k, t] = variance[k, h] + 2.0 * (x * pull[k, h, a] + y * pull[k, h, b]) + both
                new_deviation[k, t] = np.sqrt(max(new_variance[k, t], 0.0))
        new = 0.0
        for r in range(rows):
            summed = total[r]
            for t in range(n):
                h = gpu[t]
                here = by_gpu[r, h] + less[t] * load[r, a] + more[t] * load[r, b]
                new_power[r, t] = power_16(here + new_deviation[r // (rows - 1), t])
                summed += new_power[r, t] - power[r, h]
            new += weight[r] * root_16(max(summed, 0.0) / gpus)
        if new > value - hot * (1.0 - step / steps) * log(1.0 - np.random.random()):
            continue
        slots[i] = b
        holds[g, a], holds[g, b] = False, True
        if j < 0:
            copies[a] -= 1
            copies[b] += 1
        else:
            slots[j] = a
            holds[gpu[1], b], holds[gpu[1], a] = False, True
        for t in range(n):
            h, x, y = gpu[t], less[t], more[t]
            for k in range(2):
                variance[k, h], deviation[k, h] = new_variance[k, t], new_deviation[k, t]
                for e in range(experts):
                    pull[k, h, e] += x * covariance[k, a, e] + y * covariance[k, b, e]
            for r in range(rows):
                by_gpu[r, h] += x * load[r, a] + y * load[r, b]
                power[r, h] = new_power[r, t]
        # Summed anew: differences of high powers would leave their rounding.
        for r in range(rows):
            total[r] = 0.0
            for h in range(gpus):
                total[r] += power[r, h]
        value = new
        if value < least - 1e-12:
            least = value
            copy_into(slots, best)
    values[0], values[1] = value, least
