"""The search for a proof that GPUs of few slots cannot hold all copies within a limit (see solvers.bounds.packing).

Regret matching after Hart and Mas-Colell 2000, in the + variant of Tammelin 2014; docs/formulation.md, "Work".
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.kernels import kernel
from placement.records.witness import PackingWitness
from solvers.bounds.packing import (
    ROUNDING,
    Floats,
    Ints,
    admitted,
    best_copies,
    best_gpu,
    codes,
    configurations,
    levels,
)

#: A proof must exceed this; rounding in sums of at most 1e5 values of at most 1 is far smaller.
MARGIN = 1e-9
#: Most ranges of copies that may be split at once.
DEPTH = 60

IMPOSSIBLE, UNDECIDED, NO_PROOF = -1, 0, 1


class Excluded(NamedTuple):
    """What proves that no packing keeps `limit`: a phi by steps at `stands` for every range of copies; see
    PackingWitness."""

    limit: float
    stands: Floats
    splits: list[tuple[int, int]]
    values: list[Floats]

    def witness(self, window: int) -> PackingWitness:
        """As a witness file has it."""
        return PackingWitness(0, window, self.limit, np.array(self.splits), self.stands, np.array(self.values))


def _first_steps(stands: Floats, width: int, limit: float) -> Floats:
    """Steps under which a copy's value is its cost, as in the mean bound; they sum to 1."""
    steps = np.diff(stands, prepend=0.5 * limit if width == 2 else 0.0)
    return np.asarray(steps / np.cumsum(steps)[-1])


@kernel
def _play(
    gpus: int,
    width: int,
    left: int,
    first: Ints,
    code: Ints,
    sign: Ints,
    least_option: Ints,
    most_option: Ints,
    fits: tuple[Ints, Ints, Ints, Ints],
    steps: Floats,
    rounds: int,
    mean_option: Floats,
    proof: Floats,
) -> tuple[int, int]:
    """One game within the given options: (verdict, an expert to split or -1). `steps` holds the first mixture and takes
    the mean one; `mean_option` takes each expert's mean option, `proof` the phi of IMPOSSIBLE."""
    experts, m = code.shape[0], len(steps)
    high, low, partner, top = fits
    held = np.zeros(width, np.int64)
    best, new = np.empty(left + 1), np.empty(left + 1)
    choice = np.zeros((experts, left + 1), np.int8)
    step, regret = steps.copy(), np.empty(m)
    mean_step, mean_pay = np.zeros(m), np.zeros(m)
    for t in range(m):
        regret[t] = gpus * steps[t]
    mean_option[:] = 0.0
    spread = np.zeros(experts)
    phi, pay, count, weight = np.zeros(m + 1), np.empty(m), np.empty(m + 1), 0.0
    verdict = UNDECIDED
    for played in range(rounds):
        averaged = played % 4 == 3
        for t in range(m):
            phi[t + 1] = phi[t] + (mean_step[t] / weight if averaged else step[t])
        # A further copy is worth least where it is as cheap as can be: at the lowest step, or paired with the dearest.
        lowest = -phi[m] if width == 2 else phi[1]
        value, used = best_copies(phi, lowest, code, sign, first, least_option, most_option, best, new, choice)
        if width > 2:
            value -= gpus * best_gpu(phi, width, high, low, partner, top, held)
        if value > MARGIN:
            for t in range(m):
                proof[t] = phi[t + 1]
            return IMPOSSIBLE, -1
        if averaged:
            continue
        now = played + 1.0
        count[:] = 0.0
        j = used
        for e in range(experts - 1, -1, -1):
            i = choice[e, j]
            count[code[e, i]] += (first[e] + i) * sign[e, i]
            mean_option[e] += now * i
            spread[e] += now * i * i
            j -= i
        running, mean, worst = 0.0, 0.0, -np.inf
        if width == 2:
            running -= left - used
        else:
            count[1] += left - used
            for i in range(width):
                count[held[i] + 1] -= gpus
        for t in range(m - 1, -1, -1):
            running += count[t + 1]
            pay[t] = running
            mean += step[t] * running
            worst = max(worst, running)
        if worst <= 0.0:
            return NO_PROOF, -1
        weight += now
        total, worst = 0.0, -np.inf
        for t in range(m):
            mean_step[t] += now * step[t]
            mean_pay[t] += now * pay[t]
            worst = max(worst, mean_pay[t])
            regret[t] = max(0.0, regret[t] + pay[t] - mean)
            total += regret[t]
        if worst <= 0.0:
            # A mixture of replications that no phi excludes; splitting may.
            break
        for t in range(m):
            step[t] = regret[t] / total if total > 0 else 1.0 / m
    for t in range(m):
        steps[t] = mean_step[t] / weight
    split, widest = -1, 1e-6
    for e in range(experts):
        mean_option[e] /= weight
        variance = spread[e] / weight - mean_option[e] * mean_option[e]
        if variance > widest and least_option[e] <= mean_option[e] < most_option[e]:
            split, widest = e, variance
    return verdict, split


def impossible(
    cost: Floats, gpus: int, width: int, limit: float, rounds: int, splits: int, grain: float
) -> tuple[int, int, Excluded | None]:
    """Whether `gpus` GPUs of `width` slots (2, 3 or 4) are proven unable to keep within `limit`.

    Args:
        cost: [most copies + 1, experts] cost of one copy by the number of copies, not rising in it.
        limit: of a GPU's summed cost. rounds: of the first game; later ones have a quarter. splits: of ranges of
            copies, at most. grain: costs this near are merged, for three slots or more.

    Returns:
        IMPOSSIBLE; NO_PROOF where a replication escapes every phi; UNDECIDED. The splits that were made; the proof of
        IMPOSSIBLE.
    """
    top_cost = limit * (1 + ROUNDING)
    first, left = admitted(cost, gpus, width, top_cost)
    if left < 0:
        return IMPOSSIBLE, 0, Excluded(top_cost, np.zeros(0), [(-1, 0)], [np.zeros(0)])
    stands = levels(cost, first, left, width, top_cost, grain)
    m, experts = len(stands), len(first)
    if m == 0:
        return NO_PROOF, 0, None
    code, sign = codes(cost, first, left, width, top_cost, stands)
    fits = configurations(stands, width, top_cost)
    if width > 2 and (len(fits[2]) == 0 or fits[2][0] < 0):
        return IMPOSSIBLE, 0, Excluded(top_cost, stands, [(-1, 0)], [np.zeros(m)])
    least_option, most_option = np.zeros((DEPTH + 1, experts), np.int64), np.zeros((DEPTH + 1, experts), np.int64)
    most_option[0] = (code >= 0).sum(axis=1) - 1
    steps = np.zeros((DEPTH + 1, m))
    steps[0] = _first_steps(stands, width, top_cost)
    mean_option, proof, found = np.zeros(experts), np.zeros(m), Excluded(top_cost, stands, [], [])
    open_ranges, made = 1, 0
    while open_ranges > 0:
        at = open_ranges - 1
        budget = rounds if made == 0 else max(4, rounds // 4)
        verdict, e = _play(
            gpus,
            width,
            left,
            first,
            code,
            sign,
            least_option[at],
            most_option[at],
            fits,
            steps[at],
            budget,
            mean_option,
            proof,
        )
        if verdict == NO_PROOF:
            return NO_PROOF, made, None
        if verdict == IMPOSSIBLE:
            open_ranges -= 1
            found.splits.append((-1, 0))
            found.values.append(proof.copy())
            continue
        if e < 0 or made >= splits or at + 1 > DEPTH:
            return UNDECIDED, made, None
        made += 1
        cut = int(np.floor(mean_option[e]))
        found.splits.append((e, int(first[e]) + cut))
        least_option[at + 1], most_option[at + 1], steps[at + 1] = least_option[at], most_option[at], steps[at]
        # Fewer copies of a costly expert are excluded sooner, and go last on the stack.
        least_option[at, e] = cut + 1
        most_option[at + 1, e] = cut
        open_ranges += 1
    return IMPOSSIBLE, made, found
