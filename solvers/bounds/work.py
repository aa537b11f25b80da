"""Lower bounds on the busiest GPU's work: mean, slot and packing bounds, window by window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.tariff import tariff_of
from placement.kernels import kernel, largest
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import PackingWitness
from solvers.bounds.game import Excluded, impossible
from solvers.bounds.packing import OPTIONS, options
from solvers.stop import DEFAULT, Stop

#: A bound this near an answer at hand, relatively, is near enough; the step and the accuracy of the search for one.
CLOSE = 1e-3
#: An answer is proven optimal where nothing is better than it by more than this, relatively.
PROOF = 1e-7
#: Rounds of one packing game (of two slots; of more), and elementary steps of one and of all its splits.
ROUNDS, WIDE_ROUNDS, STEPS = 400, 100, 20_000_000
#: Most splits of an expert's copies into two ranges, where a limit near an answer at hand is to be excluded (two
#: slots; more).
SPLITS, WIDE_SPLITS = 40, 2
#: Costs this near, relative to the limit, are merged in packings of three and more slots.
GRAIN = 0.005
#: Most slots of a GPU that the packing bound takes.
MOST_WIDTH = 4
#: Elementary steps that the exact least total work may take.
TOTAL_STEPS = 20_000_000


@dataclass(frozen=True)
class WorkBound:
    """[windows] lower bounds of the busiest GPU's work over its speed (seconds, or load over the mean), and the name
    of the argument that proved most in any window; what proves packing bounds."""

    values: FloatArray
    source: str
    proofs: tuple[PackingWitness, ...] = field(default=(), compare=False)


def work_bounds(
    problem: LayerProblem, known: float | None = None, packing: bool = True, stop: Stop = DEFAULT
) -> WorkBound:
    """Per window the largest of the mean, slot and packing bounds (docs/formulation.md, "Work").

    Args:
        known: the least value of the busiest GPU's work that is of use, where there is one window: an answer's.
        packing: whether to try the packing bound. stop: after its deadline windows have a mean bound alone.
    """
    tariff = tariff_of(problem)
    costs = tariff.copy_costs
    alive = problem.hardware.alive
    speeds = tariff.speeds[alive]
    widths = problem.hardware.capacities[alive]
    spare, even = problem.hardware.usable_slots - problem.experts, tariff.alike
    width = int(widths[0])
    alike = bool((widths == width).all()) and bool((speeds == speeds[0]).all())
    values, names = costs[1].sum(axis=1) / float(speeds.sum()) * (1 - 1e-12), {"mean": 0.0}
    proofs: list[PackingWitness] = []
    for w in range(problem.windows):
        if stop.expired:
            break
        cost = np.ascontiguousarray(costs[:, w, :])
        exact = even and problem.objective.kind == "time" and problem.experts * spare * len(cost) <= TOTAL_STEPS
        total = _least_total(cost, spare) if exact else float(cost[1].sum())
        value, name = total / float(speeds.sum()) * (1 - 1e-12), "mean"
        slot = _slot_bound(cost, problem.hardware.usable_slots) / float(speeds.max()) * (1 - 1e-12)
        if slot > value:
            value, name = slot, "slot"
        if packing and even and alike and 2 <= width <= MOST_WIDTH:
            rate = float(speeds[0])
            target = None if known is None or problem.windows > 1 else known * rate
            packed, proof = _packing_bound(cost, len(widths), width, value * rate, target, stop)
            if proof is not None and packed / rate > value:
                value, name = packed / rate, "packing"
                proofs.append(proof.witness(w))
        values[w] = value
        names[name] = names.get(name, 0.0) + float(problem.data.window_weight[w])
    # Packing needs a witness: it is named wherever a window rests on it.
    name = "packing" if proofs else max(names, key=lambda n: names[n])
    return WorkBound(values, f"{name} bound", tuple(proofs))


def _packing_bound(
    cost: FloatArray, gpus: int, width: int, low: float, known: float | None, stop: Stop
) -> tuple[float, Excluded | None]:
    """The largest limit found by the deadline that no packing keeps, at least `low`, rounded down; what proves it, if
    it is more. See `impossible`."""

    def excluded(limit: float, splits: int) -> Excluded | None:
        left = max(0, options(cost, gpus * width, limit)[1])
        played = cost.shape[1] * (left + 1) * OPTIONS
        rounds = min(ROUNDS if width == 2 else WIDE_ROUNDS, STEPS // played)
        if rounds < 4:
            return None
        splits = min(splits, STEPS // (played * max(4, rounds // 4)))
        return impossible(cost, gpus, width, limit, rounds, splits, GRAIN * limit)[2]

    high = np.inf
    if known is not None:
        for target in (known * (1 - PROOF), known / (1 + CLOSE)):
            if target <= low:
                return low, None
            if proof := excluded(target, SPLITS if width == 2 else WIDE_SPLITS):
                return target * (1 - 1e-12), proof
        high = known / (1 + CLOSE)
    step, best = CLOSE, None
    while high > low * (1 + CLOSE) and not stop.expired:
        limit = low * (1 + step) if np.isinf(high) else 0.5 * (low + high)
        if proof := excluded(limit, 0):
            low, step, best = limit, 2 * step, proof
        else:
            high = limit
    return (low, None) if best is None else (low * (1 - 1e-12), best)


@kernel
def _least_total(cost: NDArray[np.float64], spare: int) -> float:
    """Least sum of copies x cost over replications with `spare` further copies, by dynamic programming."""
    most, experts = cost.shape[0] - 1, cost.shape[1]
    best, new = np.empty(spare + 1), np.empty(spare + 1)
    best[:] = np.inf
    best[0] = 0.0
    for e in range(experts):
        new[:] = np.inf
        for used in range(spare + 1):
            if best[used] == np.inf:
                continue
            for extra in range(min(most - 1, spare - used) + 1):
                value = best[used] + (extra + 1) * cost[extra + 1, e]
                if value < new[used + extra]:
                    new[used + extra] = value
        best, new = new, best
    return float(best[spare])


@kernel
def _slot_bound(cost: NDArray[np.float64], slots: int) -> float:
    """Smallest cost of one copy that the slots allow every copy to stay within (rounded down by bisection)."""
    low, high = 0.0, cost[1, largest(cost[1])]
    for _ in range(60):
        middle = 0.5 * (low + high)
        if options(cost, slots, middle)[1] >= 0:
            high = middle
        else:
            low = middle
    return low
