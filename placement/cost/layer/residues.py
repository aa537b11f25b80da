"""What a token touches where one number of it picks the copies of all its experts (Shares.together)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch import Shares
from placement.cost.layer.dispatch.token_hash import token_hashes
from placement.kernels import lean, lean_kernel
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.data import TokenSets

#: Choices of a token repeat with the least common multiple of its experts' copies. Up to so many all are counted; of
#: more the hashes of the first so many tokens stand for all.
MOST = 5040
#: Elementary steps of one compiled call: between them an interrupt is heard.
PART = 100_000_000


def touched_together(
    sets: TokenSets, shares: Shares, place: IntArray, places: int, experts: int, many: int = 1
) -> FloatArray:
    """[many * windows, places] chance that a token touches each place, in expectation over its number.

    Args:
        sets: The tokens. shares: Of one class of homes, `together`.
        place: [entries] where each entry of the shares lies, below `places`.
        experts, many: Rows of the shares are those of so many experts, in so many placements.
    """
    k = sets.ids.shape[1]
    out, hits, seen = np.zeros((many * len(sets.weight), places)), np.zeros(places, np.int64), np.full(places, -1)
    hashes, part = token_hashes(np.arange(MOST)), max(1, PART // (MOST * k * many))
    for first in range(0, len(sets.ids), part):
        last = min(first + part, len(sets.ids))
        _add_touched_of_each(sets.ids, sets.weight, shares.start, place, hashes, hits, seen, out, experts, first, last)
    return out


@lean
def _period(row: NDArray[np.int32], start: NDArray[np.int64]) -> int:
    """Least common multiple of the experts' copies; 0 where it is more than MOST."""
    period = 1
    for e in row:
        copies = start[e + 1] - start[e]
        a, b = period, copies
        while b:
            a, b = b, a % b
        period *= copies // a
        if period > MOST:
            return 0
    return period


@lean_kernel
def _add_touched(
    ids: NDArray[np.int32], weight: NDArray[np.float64], start: NDArray[np.int64], place: NDArray[np.int64],
    hashes: NDArray[np.int64], hits: NDArray[np.int64], seen: NDArray[np.int64], out: NDArray[np.float64], first: int,
    last: int,
) -> None:  # fmt: skip
    """Adds the chances of the sets `first` to `last`; hits, seen: [places] scratch, 0 and -1 before and after."""
    k = ids.shape[1]
    for s in range(first, last):
        period = _period(ids[s], start)
        turns = period if period > 0 else len(hashes)
        for turn in range(turns):
            number = turn if period > 0 else hashes[turn]
            for j in range(k):
                e = ids[s, j]
                p = place[start[e] + number % (start[e + 1] - start[e])]
                if seen[p] != turn:
                    seen[p] = turn
                    hits[p] += 1
        for j in range(k):
            e = ids[s, j]
            for i in range(start[e], start[e + 1]):
                p = place[i]
                if hits[p] > 0:
                    for w in range(len(out)):
                        out[w, p] += weight[w, s] * hits[p] / turns
                hits[p] = 0
                seen[p] = -1


@lean_kernel
def _add_touched_of_each(
    ids: NDArray[np.int32], weight: NDArray[np.float64], start: NDArray[np.int64], place: NDArray[np.int64],
    hashes: NDArray[np.int64], hits: NDArray[np.int64], seen: NDArray[np.int64], out: NDArray[np.float64],
    experts: int, first: int, last: int,
) -> None:  # fmt: skip
    """As `_add_touched` for each placement, whose windows follow one another in out [placements * windows, places]."""
    windows = len(weight)
    for p in range(len(out) // windows):
        own = start[p * experts : (p + 1) * experts + 1]
        _add_touched(ids, weight, own, place, hashes, hits, seen, out[p * windows : (p + 1) * windows], first, last)
