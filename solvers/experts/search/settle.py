"""Evens the GPUs inside each node, compiled: copies of a node swap GPUs, and messages between nodes stay as they are.

All GPUs count, in a high norm, and each with its load's drift (a robust counterpart under ellipsoidal uncertainty,
Ben-Tal and Nemirovski 1999): other routing finds the next busy ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.arithmetic import log, weighted_sum
from placement.cost.layer.tariff import tariff_of
from placement.kernels import copy_into, inlined, lean_kernel
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.stop import DEFAULT, Stop

#: Proposals for each slot, and the first temperature as a share of a GPU's mean cost.
PROPOSALS, HOT = 300, 3e-4
#: Weight of loads beside seconds.
LOAD_SHARE = 1.0


def settle(
    problem: LayerProblem, slots: IntArray, slot_load: FloatArray, seed: int, risk: float = 0.0, stop: Stop = DEFAULT
) -> IntArray:
    """[slots] which slot's copy comes to each slot: an order of `slots`, to be taken of its dispatch fractions, too.

    Args:
        problem: a layer whose copies may lie anywhere and whose GPUs are alike (see multilevel.has_levels).
        slots: [slots] a valid placement. slot_load: [windows, slots] its LayerScore's.
        risk: standard deviations of a stretch's load that a GPU's load counts with; nothing without `drift`.
        stop: its deadline.
    """
    topology, tariff = problem.topology, tariff_of(problem)
    cost, weight = slot_load, problem.data.window_weight
    # What the mean GPU's load costs where only its tokens count, in each row of cost.
    of_load = slot_load.sum(axis=1) / topology.gpus
    if problem.objective.kind != "load":
        tokens, rates = tariff.all_tokens, tariff.rates
        times = tariff.slot_times(tokens * slot_load)
        share_of_kind = times.sum(axis=2) / np.maximum(times.sum(axis=(0, 2)), 1e-300)
        token_s = np.array([[kind.share * kind.tokens * rates.token_s] for kind in rates.kinds])
        # Where a GPU's time is that of its weights, loads differ unseen: they count beside it.
        cost = np.concatenate([*times, slot_load])
        weight = np.concatenate([*(share_of_kind * weight), LOAD_SHARE * weight])
        of_load = np.concatenate([*(tokens * token_s * of_load), of_load])
    mean = cost.sum(axis=1) / topology.gpus
    mean = np.where(mean > 0.0, mean, 1.0)
    drift = np.zeros((0, 0))
    if problem.data.drift is not None and risk > 0.0:
        scale = risk * topology.gpus / float(problem.data.mean_load.sum())
        drift = problem.data.drift * (scale * scale)
    share = weighted_sum(problem.data.window_weight, slot_load) / np.maximum(problem.data.mean_load[slots], 1e-300)
    total, gpus, rows = len(slots), topology.gpus, len(cost)
    moves = _Moves(
        np.array(slots, dtype=np.int64), problem.hardware.slots_per_gpu, topology.gpus_per_node,
        np.ascontiguousarray(cost / mean[:, None]), np.array(weight), np.ascontiguousarray(drift), share,
        of_load / mean, PROPOSALS * total, HOT, seed,
    )  # fmt: skip
    at = _At(
        np.arange(total), problem.held(slots), np.zeros((rows, gpus)), np.zeros((gpus, len(drift))), np.zeros(gpus),
        np.zeros(gpus), np.zeros(2),
    )  # fmt: skip
    best = np.arange(total)
    for first, last in stop.slices(moves.steps):
        _settle(moves, at, best, first, last)
    return best


class _Moves(NamedTuple):
    """What swaps cost.

    Attributes:
        slots: [slots] experts. cost: [rows, slots] over the mean GPU's, weight: [rows]. drift: [experts, experts]
            covariance of loads over the mean GPU's load, risk included, or empty. share: [slots] of its expert's tokens
            that a slot serves. risk_share: [rows] cost of a drift by a mean GPU's load.
        steps: proposals in all. hot: first temperature.
    """

    slots: IntArray
    per_gpu: int
    per_node: int
    cost: FloatArray
    weight: FloatArray
    drift: FloatArray
    share: FloatArray
    risk_share: FloatArray
    steps: int
    hot: float
    seed: int


class _At(NamedTuple):
    """Where `settle` is.

    Attributes:
        here: [slots] the slot whose copy is in each. holds: [gpus, experts]. by_gpu: [rows, gpus] cost.
        pull: [gpus, experts] drift x, x the shares of the experts that a GPU serves; its load's variance is x' drift x.
        variance, risk: [gpus]. value: [2] of this order and of the best.
    """

    here: IntArray
    holds: BoolArray
    by_gpu: FloatArray
    pull: FloatArray
    variance: FloatArray
    risk: FloatArray
    value: FloatArray


@inlined
def _norm(by_gpu: FloatArray, risk: FloatArray, risk_share: float, window: int) -> float:
    """16-norm of a window's GPU costs with their drift, over the mean of GPUs."""
    total = 0.0
    for g in range(by_gpu.shape[1]):
        c = by_gpu[window, g] + risk_share * risk[g]
        c *= c
        c *= c
        c *= c
        total += c * c
    return float(np.sqrt(np.sqrt(np.sqrt(np.sqrt(total / by_gpu.shape[1])))))


@lean_kernel
def _settle(m: _Moves, at: _At, best: IntArray, first: int, last: int) -> None:
    """The proposals `first` to `last` of `settle`; best [slots] is the order of the least value."""
    slots, per_gpu, per_node, cost, weight, drift, share, risk_share, steps, hot, seed = m
    here, holds, by_gpu, pull, variance, risk, values = at
    rows, total = cost.shape
    gpus, experts = len(risk), len(drift)
    if first == 0:
        np.random.seed(seed)
        for i in range(total):
            for w in range(rows):
                by_gpu[w, i // per_gpu] += cost[w, i]
            for e in range(experts):
                pull[i // per_gpu, e] += share[i] * drift[slots[i], e]
        if experts > 0:
            for i in range(total):
                variance[i // per_gpu] += share[i] * pull[i // per_gpu, slots[i]]
            for g in range(gpus):
                risk[g] = np.sqrt(max(variance[g], 0.0))
        for w in range(rows):
            values[0] += weight[w] * _norm(by_gpu, risk, risk_share[w], w)
        values[1] = values[0]
    value, least = values
    node_slots = per_gpu * per_node
    for step in range(first, last):
        i = np.random.randint(total)
        j = (i // node_slots) * node_slots + np.random.randint(node_slots)
        g, h = i // per_gpu, j // per_gpu
        a, b = slots[here[i]], slots[here[j]]
        if g == h or holds[g, b] or holds[h, a]:
            continue
        x, y, risk_g, risk_h = share[here[i]], share[here[j]], risk[g], risk[h]
        at_g, at_h = 0.0, 0.0
        if experts > 0:
            both = x * x * drift[a, a] + y * y * drift[b, b] - 2.0 * x * y * drift[a, b]
            at_g = variance[g] + 2.0 * (y * pull[g, b] - x * pull[g, a]) + both
            at_h = variance[h] + 2.0 * (x * pull[h, a] - y * pull[h, b]) + both
            risk[g], risk[h] = np.sqrt(max(0.0, at_g)), np.sqrt(max(0.0, at_h))
        new = 0.0
        for w in range(rows):
            change = cost[w, here[j]] - cost[w, here[i]]
            by_gpu[w, g] += change
            by_gpu[w, h] -= change
            new += weight[w] * _norm(by_gpu, risk, risk_share[w], w)
        if new <= value - hot * (1.0 - step / steps) * log(1.0 - np.random.random()):
            here[i], here[j] = here[j], here[i]
            holds[g, a], holds[g, b], holds[h, b], holds[h, a] = False, True, False, True
            value = new
            if experts > 0:
                variance[g], variance[h] = at_g, at_h
                for e in range(experts):
                    change = y * drift[b, e] - x * drift[a, e]
                    pull[g, e] += change
                    pull[h, e] -= change
            if value < least - 1e-12:
                least = value
                copy_into(here, best)
        else:
            risk[g], risk[h] = risk_g, risk_h
            for w in range(rows):
                change = cost[w, here[j]] - cost[w, here[i]]
                by_gpu[w, g] -= change
                by_gpu[w, h] += change
    values[0], values[1] = value, least
