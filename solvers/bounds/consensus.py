"""The alternating direction method of multipliers that bounds what tokens reach, whatever relaxes the placements.

docs/formulation.md, "Messages, by co-location". Prices prove a bound however far they are from the best.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from solvers.bounds.partitions import Floats, Tokens, approach, proven
from solvers.stop import Stop

#: Penalty of half a squared distance from the shared variables, in bins.
PENALTY = 0.4
#: Partitions that a token's point may take in per step, the first time and later.
FIRST_ROUNDS, ROUNDS = 6, 3
#: Sets that move in one step, more if eigenvalues take longer than they do, and the most parts that they are cut into.
BLOCK, BLOCKS = 2048, 8
#: How often a proven value is taken, and the gain, relative, below which the method ends.
EVERY, ENOUGH = 10, 1e-3
#: Elementary steps by default over the experts squared, about a nanosecond each: a search takes longer, too. Least and
#: most steps of the method.
BUDGET, LEAST_STEPS, MOST_STEPS = 2.5e4, 16, 400
#: Elementary steps of a token's point beside the subsets that `cheapest` goes through, and of an eigenvalue.
BESIDE, EIGENVALUE = 400, 1


class Relaxation(Protocol):
    """A convex set that holds the shared variables of every placement; keeps the state of the method.

    Attributes:
        spectra: sizes of the matrices whose eigenvalues a step takes.
        start: [variables] a first guess.
        agree: a step towards the set: [variables] between what the set and the tokens ask for, from `shared` as it is
            now, `pull` (what tokens ask for times their weight) and that `weight`.
        least: a proven lower bound on the minimum of <slope, shared> over the set, by the prices times `penalty`.
    """

    @property
    def spectra(self) -> tuple[int, ...]: ...
    def start(self) -> Floats: ...
    def agree(self, shared: Floats, pull: Floats, weight: Floats) -> Floats: ...
    def least(self, slope: Floats, penalty: float) -> float: ...


#: Whether so many bins proven are enough.
Enough = Callable[[float], bool]


def never(_: float) -> bool:
    """No bound is enough: the method goes on while it gains."""
    return False


def least_reached(tokens: Tokens, relaxation: Relaxation, stop: Stop, enough: Enough = never) -> float:
    """A lower bound on the mean bins that tokens reach, over all placements: the largest proven by the deadline, or the
    first that is enough."""
    shared = relaxation.start()
    weight, pull, slope = np.zeros_like(shared), np.zeros_like(shared), np.zeros_like(shared)
    np.add.at(weight, tokens.variable, tokens.weight[:, None])
    stride, steps = _plan(tokens, relaxation, stop.work)
    best = -np.inf
    for step in range(steps):
        if stop.expired:
            break
        rounds = FIRST_ROUNDS if step < stride else ROUNDS
        approach(tokens, step % stride, stride, shared, PENALTY, rounds, pull)
        shared = relaxation.agree(shared, pull, weight)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            value, done = 0.0, 0
            slope[:] = 0.0
            for first, done in stop.slices(len(tokens.weight), 100):
                value = proven(tokens, PENALTY, slope, first, done, value)
            if done < len(tokens.weight):
                break
            value += relaxation.least(-slope, PENALTY)
            if value <= best + ENOUGH * abs(best) and step + 1 >= LEAST_STEPS * stride:
                return max(best, value)
            best = max(best, value)
            if enough(best):
                break
    return best


def _plan(tokens: Tokens, relaxation: Relaxation, effort: float) -> tuple[int, int]:
    """Parts that the sets are cut into, of which one moves in a step, and the steps that the budget pays for."""
    subsets = 3 ** (tokens.experts if tokens.home else tokens.experts - 1) / 2
    point, sets = ROUNDS * (subsets + BESIDE), len(tokens.weight)
    spectra = EIGENVALUE * sum(size**3 for size in relaxation.spectra)
    stride = int(np.clip(np.ceil(sets * point / max(BLOCK * point, spectra)), 1, BLOCKS))
    points = sets * point / stride
    budget = effort * BUDGET * max(relaxation.spectra) ** 2
    return stride, int(np.clip(budget / (points + spectra), LEAST_STEPS, MOST_STEPS * max(1.0, effort)))
