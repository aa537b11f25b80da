"""The alternating direction method of multipliers that bounds what tokens reach, whatever relaxes the placements.

docs/formulation.md, "Messages, by co-location". Prices prove a bound however far they are from the best.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from placement.records.witness import ReachWitness, Tables
from solvers.bounds.partitions import Tokens, approach, new_tokens, proven, rounded_prices
from solvers.bounds.subsets import Floats, Ints
from solvers.stop import Stop

#: Penalty of half a squared distance from the shared variables, in bins.
PENALTY = 0.4
#: Partitions that a token's point may take in per step, the first time and later.
FIRST_ROUNDS, ROUNDS = 6, 2
#: Sets that move in one step, more if eigenvalues take longer than they do, and the most parts that they are cut into.
BLOCK, BLOCKS = 2048, 8
#: Experts of sets that a part has at most (of more sets each would move less often, and prove less), and the effort on
#: parts after the first, over that on it.
MOST_IDS, LATER = 80_000, 0.6
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
        prices: its prices times `penalty`, as a witness has them.
        least: a proven lower bound on the minimum of <slope, shared> over the set, by such prices.
    """

    @property
    def spectra(self) -> tuple[int, ...]: ...
    def start(self) -> Floats: ...
    def agree(self, shared: Floats, pull: Floats, weight: Floats) -> Floats: ...
    def prices(self, penalty: float) -> Tables: ...
    def least(self, slope: Floats, prices: Tables) -> float: ...


@dataclass(frozen=True)
class Token:
    """What a token's features are.

    Attributes:
        variables: the shared variable of each feature [sets, features] of sets [sets, k].
        home: whether a bin is the home's, which is not counted. most: experts that a bin holds.
    """

    variables: Callable[[Ints], Ints]
    home: bool
    most: int


#: Whether so many bins proven are enough.
Enough = Callable[[float], bool]


class Reached(NamedTuple):
    """A lower bound on the mean bins that tokens reach, and the prices that prove it (none: counting does)."""

    bins: float
    witness: tuple[ReachWitness, ...] = ()


def never(_: float) -> bool:
    """No bound is enough: the method goes on while it gains."""
    return False


def least_in_parts(
    ids: Ints, weight: Floats, token: Token, relaxation: Relaxation, least: float, stop: Stop, enough: Enough = never
) -> Reached:
    """A lower bound on the mean bins that tokens reach, over all placements: the largest proven by the deadline, or the
    first that is enough.

    Of many sets each part has a bound of its own, and their mean holds: a sum of minima is at most the minimum of the
    sum. A part goes on from the prices of the one before, which are near its own.

    Args:
        ids: [sets, k] experts. weight: [sets] share of the tokens; sums to 1.
        token: what a token's features are. least: what any token reaches.
    """
    parts, shared = -(-ids.size // MOST_IDS), relaxation.start()
    if parts <= 1:
        tokens = new_tokens(token.variables(ids), weight, ids.shape[1], token.home, token.most)
        value, _, prices = _least_reached(tokens, relaxation, shared, stop, enough)
        return Reached(value, (ReachWitness(0, 1, *prices),)) if prices and value > least else Reached(least)
    found, witness = least, list[ReachWitness]()
    for first in range(parts):
        if stop.expired:
            break
        # Sets come in the order of their experts: those of a part are spread over all of them.
        own, share = ids[first::parts], float(weight[first::parts].sum())
        tokens = new_tokens(token.variables(own), weight[first::parts] / share, ids.shape[1], token.home, token.most)

        def is_enough(value: float, before: float = found, share: float = share) -> bool:
            return enough(before + share * max(0.0, value - least))

        effort = stop if first == 0 else stop.scaled(LATER)
        value, shared, prices = _least_reached(tokens, relaxation, shared, effort, is_enough)
        if prices and value > least:
            found += share * (value - least) * (1 - 1e-12)
            witness.append(ReachWitness(first, parts, *prices))
    return Reached(found, tuple(witness))


def _least_reached(
    tokens: Tokens, relaxation: Relaxation, shared: Floats, stop: Stop, enough: Enough
) -> tuple[float, Floats, tuple[NDArray[np.uint8], Tables] | None]:
    """(The bound of these tokens, the shared variables reached, what proves the bound), from the shared variables and
    prices at hand."""
    weight, pull, slope = np.zeros_like(shared), np.zeros_like(shared), np.zeros_like(shared)
    np.add.at(weight, tokens.variable, tokens.weight[:, None])
    stride, steps = _plan(tokens, relaxation, stop.work)
    best, proof = -np.inf, None
    for step in range(steps):
        if stop.expired:
            break
        rounds = FIRST_ROUNDS if step < stride else ROUNDS
        approach(tokens, step % stride, stride, shared, PENALTY, rounds, pull)
        shared = relaxation.agree(shared, pull, weight)
        if (step + 1) % EVERY == 0 or step + 1 == steps:
            value, done, prices = 0.0, 0, (rounded_prices(tokens, PENALTY), relaxation.prices(PENALTY))
            slope[:] = 0.0
            for first, done in stop.slices(len(tokens.weight), 100):
                value = proven(tokens, prices[0], slope, first, done, value)
            if done < len(tokens.weight):
                break
            value += relaxation.least(-slope, prices[1])
            ends = value <= best + ENOUGH * abs(best) and step + 1 >= LEAST_STEPS * stride
            if value > best:
                best, proof = value, prices
            if ends:
                break
            if enough(best):
                break
    return best, shared, proof


def _plan(tokens: Tokens, relaxation: Relaxation, effort: float) -> tuple[int, int]:
    """Parts that the sets are cut into, of which one moves in a step, and the steps that the budget pays for."""
    subsets = 3 ** (tokens.experts if tokens.home else tokens.experts - 1) / 2
    point, sets = ROUNDS * (subsets + BESIDE), len(tokens.weight)
    spectra = EIGENVALUE * sum(size**3 for size in relaxation.spectra)
    stride = int(np.clip(np.ceil(sets * point / max(BLOCK * point, spectra)), 1, BLOCKS))
    points = sets * point / stride
    budget = effort * BUDGET * max(relaxation.spectra) ** 2
    return stride, int(np.clip(budget / (points + spectra), LEAST_STEPS, MOST_STEPS * max(1.0, effort)))
