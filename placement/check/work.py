"""Least work of the busiest GPU, by loads and by what a witness says of packings; without the solvers' code.

The arguments are in docs/formulation.md, "Work".
"""

from __future__ import annotations

import numpy as np

from placement.check.packing import check_packing
from placement.check.reach import WitnessError
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from placement.records.witness import PackingWitness

#: Elementary steps that the exact least total work may take.
TOTAL_STEPS = 20_000_000


def copy_costs(problem: LayerProblem) -> FloatArray:
    """[kinds, most copies, windows, experts] seconds of one of 1, 2 ... copies in each kind of pass, times its share;
    or the relative load of one, of a single kind."""
    tariff = tariff_of(problem)
    return np.asarray((tariff.copy_times if tariff.timed else tariff.copy_loads[None])[:, 1:])


def least_work(problem: LayerProblem, packing: tuple[PackingWitness, ...] = ()) -> FloatArray:
    """[kinds, windows] what the busiest GPU has at least: the mean over GPUs, the largest copy's work, or a limit that
    no packing keeps.

    Raises:
        WitnessError: The witness does not prove its limit.
    """
    tariff, alive, costs = tariff_of(problem), problem.hardware.alive, copy_costs(problem)
    speeds = tariff.speeds[alive]
    least = np.maximum(_least_total(problem, costs) / speeds.sum(), _largest_copy(problem, costs) / speeds.max())
    for proof in packing:
        if not (0 <= proof.kind < least.shape[0] and 0 <= proof.window < least.shape[1]):
            raise WitnessError("it packs passes or windows that there are not")
        check_packing(problem, costs[proof.kind, :, proof.window], proof)
        at = proof.kind, proof.window
        least[at] = max(least[at], proof.limit / speeds.max())
    return np.asarray(least)


def _least_total(problem: LayerProblem, costs: FloatArray) -> FloatArray:
    """[kinds, windows] least sum over all copies: of shared-out tokens no less than one copy each would have.

    Where tokens are shared out evenly, over the numbers of copies that fill all slots, by dynamic programming.
    """
    kinds, most, windows, experts = costs.shape
    spare = problem.hardware.usable_slots - experts
    tariff = tariff_of(problem)
    if not (tariff.alike and tariff.timed) or experts * spare * most > TOTAL_STEPS:
        return np.asarray(costs[:, 0].sum(axis=-1))
    total = np.arange(1, most + 1)[:, None, None] * costs.transpose(3, 1, 0, 2)
    least = np.full((spare + 1, kinds, windows), np.inf)
    least[0] = 0.0
    for own in total:
        new = least + own[0]
        for extra in range(1, min(most - 1, spare) + 1):
            np.minimum(new[extra:], least[: spare + 1 - extra] + own[extra], out=new[extra:])
        least = new
    return np.asarray(least[spare])


def _largest_copy(problem: LayerProblem, costs: FloatArray) -> FloatArray:
    """[kinds, windows] the slot bound: the smallest limit that the slots allow every copy to keep within, as one of r
    copies has at least the work of an r-th."""
    out = np.zeros((costs.shape[0], costs.shape[2]))
    for kind, window in np.ndindex(out.shape):
        cost = costs[kind, :, window]
        limits = np.unique(cost)
        low, high = 0, len(limits) - 1
        while low < high:
            middle = (low + high) // 2
            keeps = cost <= limits[middle]
            if keeps.any(axis=0).all() and (keeps.argmax(axis=0) + 1).sum() <= problem.hardware.usable_slots:
                high = middle
            else:
                low = middle + 1
        out[kind, window] = limits[low]
    return out
