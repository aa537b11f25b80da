"""Which slots a neighbourhood sets free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import weighted_sum
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.exact.coefficients import Coefficients

#: Free slots at most: the free experts of a token set are the bits of a number.
MOST_SLOTS = 60


@dataclass(frozen=True)
class Neighbourhood:
    """Slots set free [slots], and experts that may get copies there besides those that the slots hold now."""

    free: BoolArray
    extra: IntArray


def gpu_work(problem: LayerProblem, data: Coefficients, slots: IntArray) -> FloatArray:
    """[gpus] mean work over the windows, under evenly shared copies."""
    used = slots != EMPTY
    copies = np.bincount(slots[used], minlength=problem.experts)
    work, most = data.work.sum(axis=0), data.tariff.most_copies
    weight = weighted_sum(problem.data.window_weight, work[np.minimum(copies, most), :, np.arange(len(copies))].T)
    out = np.bincount(problem.hardware.gpu_of_slot[used], weights=weight[slots[used]], minlength=problem.topology.gpus)
    return np.asarray(out / data.tariff.speeds)


def neighbourhood(
    problem: LayerProblem, data: Coefficients, slots: IntArray, size: int, kind: int, rng: np.random.Generator
) -> Neighbourhood:
    """A neighbourhood of about `size` free slots.

    Args:
        kind: 0: all slots of a busiest GPU and of random others. 1: single experts, drawn by how often they are used
            together with a first one, wherever they lie. 2: experts of a node with much ingress and of the others.
    """
    movable = slots != EMPTY
    if problem.rules.fixed is not None and problem.rules.current is not None:
        held = set(zip(*(part.tolist() for part in problem.fixed_pairs), strict=True))
        movable &= np.array(
            [(int(g), int(e)) not in held for g, e in zip(problem.hardware.gpu_of_slot, slots, strict=True)], dtype=bool
        )
    if problem.hardware.usable_slots > problem.experts or problem.data.sets is None or data.tariff.linear:
        kind = 0
    if kind == 0:
        return _by_gpu(problem, data, slots, movable, size, rng)
    return _by_expert(problem, slots, movable, size, kind == 2, rng)


def _by_gpu(
    problem: LayerProblem, data: Coefficients, slots: IntArray, movable: BoolArray, size: int, rng: np.random.Generator
) -> Neighbourhood:
    work = gpu_work(problem, data, slots)
    gpus = problem.topology.gpus
    count = int(np.clip(round(size / problem.hardware.slots_per_gpu), 2, gpus))
    order = np.argsort(-work, kind="stable")
    alive = problem.hardware.alive
    busiest = int(order[0]) if rng.random() < 0.8 else int(rng.choice(np.flatnonzero(alive)))
    # Light GPUs have room for what a busy one gives away.
    chance = np.where(alive, (work.max() - work) + 0.1 * max(float(np.ptp(work)), 1e-300), 0.0)
    chance[busiest] = 0.0
    others = min(count - 1, int((chance > 0).sum()))
    picked = rng.choice(gpus, others, replace=False, p=chance / chance.sum()) if others > 0 else np.zeros(0, np.int64)
    chosen = np.append(picked, busiest)
    free = movable & np.isin(problem.hardware.gpu_of_slot, chosen)
    over = np.flatnonzero(free)
    if len(over) > MOST_SLOTS:
        free[rng.choice(over, len(over) - MOST_SLOTS, replace=False)] = False
    extra = np.zeros(0, dtype=np.int64)
    if problem.hardware.usable_slots > problem.experts:
        copies = np.maximum(np.bincount(slots[slots != EMPTY], minlength=problem.experts), 1)
        heat = problem.data.mean_load / copies
        heat[np.unique(slots[free])] = 0.0
        more = min(max(2, size // 2), int((heat > 0).sum()))
        if more:
            extra = rng.choice(problem.experts, more, replace=False, p=heat / heat.sum())
    return Neighbourhood(free, extra.astype(np.int64))


def _by_expert(
    problem: LayerProblem, slots: IntArray, movable: BoolArray, size: int, spread: bool, rng: np.random.Generator
) -> Neighbourhood:
    if problem.data.sets is None:
        raise ValueError("token sets are not known")
    where = np.flatnonzero(movable)
    size = min(size, len(where))
    weight = weighted_sum(problem.data.window_weight, problem.data.sets.weight)
    first = int(slots[rng.choice(where)])
    uses = (problem.data.sets.ids == first).any(axis=1)
    together = np.bincount(
        problem.data.sets.ids[uses].reshape(-1), weights=np.repeat(weight[uses], problem.data.sets.ids.shape[1]),
        minlength=problem.experts,
    )  # fmt: skip
    chance = together[slots[where]] / np.maximum(np.sqrt(problem.data.mean_load[slots[where]]), 1e-12)
    chance = chance + 1e-3 * max(float(chance.max()), 1e-12)
    if spread:
        node = problem.hardware.gpu_of_slot[where] // problem.topology.gpus_per_node
        chance = chance * rng.random(problem.topology.nodes)[node]
        chance = chance + 1e-9
    chosen = rng.choice(where, size, replace=False, p=chance / chance.sum())
    free = np.zeros(problem.slots, dtype=bool)
    free[chosen] = True
    return Neighbourhood(free, np.zeros(0, dtype=np.int64))
