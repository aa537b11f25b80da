"""Every placement of a layer that has few: all are priced, so that the best is proven."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, lgamma, log

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.many import score_many
from placement.kernels import kernel, lean
from placement.problem.arrays import EMPTY, BoolArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch import needs_fractions
from solvers.params import DEFAULTS
from solvers.stop import Stop
from specs.engine import Dispatch

#: Steps of the enumeration for each placement that may be found: groups and moves can lead it into dead ends.
STEPS = 50
#: Slots of the largest layer that is enumerated where groups, fixed experts or a budget of moves bind.
BOUND_SLOTS = 32
#: Policies that tell neither GPUs of a node nor nodes apart; under others a placement counts in every order.
BLIND: frozenset[Dispatch] = frozenset({"even", "nearest", "planned"})
#: Objectives this near each other, relatively, are equal but for rounding.
ROUNDING = 1e-9
#: Placements that are priced between two looks at the clock.
PART = 2_000
#: What proves the bounds of such layers.
SOURCE = "enumeration"


@dataclass(frozen=True)
class Enumeration:
    """What all placements of a layer come to.

    Attributes:
        slots: [slots] the best placement that keeps the balance cap, or nearest to it where none does.
        least: the least objective of any placement, whatever its balance.
        placements: how many there are, those that differ in the order of like GPUs and nodes counted once.
    """

    slots: IntArray
    least: float
    placements: int


def best_of_all(problem: LayerProblem, every: IntArray, stop: Stop) -> Enumeration | None:
    """The best of [placements, slots] all placements; None where there is none, or time ends."""
    if len(every) == 0:
        return None
    objective, pooled = np.empty((2, len(every)))
    for first in range(0, len(every), PART):
        if stop.expired:
            return None
        part = slice(first, first + PART)
        objective[part], pooled[part] = score_many(problem, every[part])
    cap = np.inf if problem.rules.max_load is None else problem.rules.max_load
    over = np.maximum(0.0, np.round(pooled - cap, 9))
    near = np.flatnonzero(over == over.min())
    near = near[objective[near] <= objective[near].min() * (1 + ROUNDING)]
    if problem.objective.kind != "time" and len(near) > 1:
        # Equal loads or bytes: the placement of the least layer time.
        near = near[np.argmin(score_many(problem.with_objective(kind="time"), every[near])[0])][None]
    return Enumeration(every[near[0]], float(objective.min()), len(every))


def every_placement(problem: LayerProblem, most: int = DEFAULTS.most_placements) -> IntArray | None:
    """[placements, slots] all valid placements, experts ascending on each GPU; None where there are more than `most`.

    Of those that differ only in the order of GPUs or nodes that no rule and no price tells apart, one.
    """
    gpu_alike, node_alike = alike_places(problem)
    if needs_fractions(problem) or most < max(1.0, _least_count(problem, gpu_alike, node_alike)):
        return None
    rules, hardware, experts, gpus = problem.rules, problem.hardware, problem.experts, problem.topology.gpus
    was, stays = np.ones((gpus, experts), dtype=bool), np.zeros((gpus, experts + 1), dtype=np.int64)
    stays[problem.fixed_pairs] = 1
    if rules.current is not None and rules.max_moves is not None:
        was = problem.held(rules.current)
    due = np.ascontiguousarray(stays[:, ::-1].cumsum(axis=1)[:, ::-1])
    group = np.full(experts, -1) if rules.group is None else np.unique(rules.group, return_inverse=True)[1]

    def fill(out: IntArray) -> int:
        found: int = _enumerate(
            out, most, hardware.slots_per_gpu, problem.topology.gpus_per_node, np.array(hardware.capacities),
            gpu_alike, node_alike, _closing(problem, gpu_alike, node_alike), due, was,
            -1 if rules.max_moves is None else rules.max_moves, group.astype(np.int64),
        )  # fmt: skip
        return found

    found = fill(np.empty((0, problem.slots), dtype=np.int64))
    if found < 0:
        return None
    every = np.full((found, problem.slots), EMPTY, dtype=np.int64)
    fill(every)
    return every


def alike_places(problem: LayerProblem) -> tuple[BoolArray, BoolArray]:
    """([gpus], [nodes]) what may change places with its neighbour before, without a change of any rule or price."""
    topology, hardware, rules = problem.topology, problem.hardware, problem.rules
    rows = np.stack([hardware.capacities, hardware.speeds, hardware.homes])
    free = rules.fixed is None and rules.max_moves is None and rules.dispatch in BLIND
    same = np.append(False, (rows[:, 1:] == rows[:, :-1]).all(axis=0))
    # Trays tell GPUs of a node apart; so do unlike homes, whose tokens enter a node at their own local rank.
    inside = np.arange(topology.gpus) % topology.gpus_per_node > 0
    gpus = same & inside & (topology.gpus_per_tray == 1) & hardware.uniform_home & free
    by_node = rows.reshape(len(rows), topology.nodes, -1)
    nodes = np.append(False, (by_node[:, 1:] == by_node[:, :-1]).all(axis=(0, 2))) & free
    return gpus, nodes


def _closing(problem: LayerProblem, gpu_alike: BoolArray, node_alike: BoolArray) -> BoolArray:
    """[gpus] whether, in the order of like places, no later GPU may hold less than this one's first expert."""
    nodes, per_node = problem.topology.nodes, problem.topology.gpus_per_node
    inside = gpu_alike.reshape(nodes, per_node).copy()
    inside[:, 0] = True
    closing = np.zeros((nodes, per_node), dtype=bool)
    # The last node's GPUs from the first that is like all after it; of others the first GPU, where all that follows is.
    closing[-1] = np.append(inside[-1, ::-1].cumprod()[::-1][1:], True)
    closing[:, 0] = [inside[n:].all() and node_alike[n + 1 :].all() for n in range(nodes)]
    return closing.reshape(-1)


def _least_count(problem: LayerProblem, gpu_alike: BoolArray, node_alike: BoolArray) -> float:
    """No more than the number of placements, in closed form: what tells large layers at once (infinite where rules bind
    more than BOUND_SLOTS slots).

    Experts are dealt out once, b of them to a GPU of capacity c: experts! / prod(b!) ways, each a part of some
    placement, which holds at most prod(binomial(c, b)) of them. Like GPUs and nodes change places.
    """
    if problem.rules.group is not None or problem.rules.fixed is not None or problem.rules.max_moves is not None:
        return 0.0 if problem.hardware.usable_slots <= BOUND_SLOTS else float("inf")
    base, spare = problem.hardware.capacities.copy(), problem.hardware.usable_slots - problem.experts
    for _ in range(spare):
        base[np.argmax(base)] -= 1
    ways = lgamma(problem.experts + 1)
    for c, b in zip(problem.hardware.capacities.tolist(), base.tolist(), strict=True):
        ways -= lgamma(b + 1) + lgamma(c + 1) - lgamma(b + 1) - lgamma(c - b + 1)
    for alike in (gpu_alike, node_alike):
        run = 1
        for same in alike.tolist():
            run = run + 1 if same else 1
            ways -= log(run)
    return exp(min(ways, 50.0)) * (1 - ROUNDING)


@lean
def _least_next(held: NDArray[np.int64], before: int, first: int, at: int) -> int:
    """The least expert at place `at` with which held[first:] does not come before held[before:]."""
    for i in range(at - first):
        if held[first + i] != held[before + i]:
            return 0
    return int(held[before + at - first])


@kernel
def _enumerate(
    out: NDArray[np.int64], most: int, width: int, per_node: int, capacity: NDArray[np.int64],
    gpu_alike: NDArray[np.bool_], node_alike: NDArray[np.bool_], closing: NDArray[np.bool_], due: NDArray[np.int64],
    was: NDArray[np.bool_], most_moves: int, group: NDArray[np.int64],
) -> int:  # fmt: skip
    """Fills out [placements or less, slots], slot by slot with steps back; how many placements there are, or -1 where
    they are more than `most` or take more than STEPS for each of these.

    Like GPUs of a node, and like nodes, come in ascending order of what they hold. closing: [gpus] no later GPU may
    hold less than this one's first expert. due: [gpus, experts + 1] experts from there on that must stay on the GPU.
    was: [gpus, experts] held before, of which most_moves may be new (-1: any). group: [experts], -1: none.
    """
    gpus, experts = was.shape
    copies, on_node, in_group = np.zeros(experts, np.int64), np.zeros(experts, np.int64), np.zeros(experts, np.int64)
    places = capacity.sum()
    gpu, rank, first = np.zeros(places, np.int64), np.zeros(places, np.int64), np.zeros(gpus, np.int64)
    slots, last = 0, 0
    for g in range(gpus):
        first[g] = slots
        if capacity[g] > 0:
            last = g
        for r in range(capacity[g]):
            gpu[slots], rank[slots] = g, r
            slots += 1
    held = np.full(slots, -1)
    found, at, uncovered, moves, steps = 0, 0, experts, 0, 0
    while at >= 0:
        g, r, e = gpu[at], rank[at], held[at]
        node, left = g // per_node, capacity[g] - 1 - r
        if e >= 0:
            copies[e] -= 1
            uncovered += copies[e] == 0
            moves -= not was[g, e]
            in_group[group[e]] -= 1
        else:
            e = held[at - 1] + 1 if r > 0 else 0
            if gpu_alike[g]:
                e = max(e, _least_next(held, first[g - 1], first[g], at))
            if node_alike[node]:
                e = max(e, _least_next(held, first[(node - 1) * per_node], first[node * per_node], at))
        tried = held[at]
        while e < experts:
            steps += 1
            new = copies[e] == 0
            fits = e != tried and uncovered - new < slots - at and experts - e > left
            fits = fits and due[g, e + 1] <= left and (most_moves < 0 or was[g, e] or moves < most_moves)
            if fits and (group[e] < 0 or in_group[group[e]] == 0 or on_node[group[e]] == node):
                break
            # What is passed over here finds no other place.
            tied = due[g, e] > due[g, e + 1] or (new and (g == last or (r == 0 and closing[g])))
            e = experts if tied else e + 1
        if steps > STEPS * most:
            return -1
        if e >= experts:
            held[at] = -1
            at -= 1
            continue
        held[at] = e
        uncovered -= copies[e] == 0
        copies[e] += 1
        moves += not was[g, e]
        in_group[group[e]] += 1
        on_node[group[e]] = node
        if at < slots - 1:
            at += 1
            continue
        if uncovered > 0:
            continue
        if found == most:
            return -1
        if found < len(out):
            for i in range(slots):
                out[found, gpu[i] * width + rank[i]] = held[i]
        found += 1
    return found
