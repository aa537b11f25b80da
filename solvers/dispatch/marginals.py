"""Chances that a token reaches a bin, and that it does so only because of one expert."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import lean_kernel


def marginals(
    ids: NDArray[np.int32], weight: NDArray[np.float64], keep: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([homes, windows, bins] touch chances, [homes, windows, experts, bins] their derivatives by an expert's share).

    Args:
        ids: [sets, k] experts. weight: [windows, sets]. keep: [homes, experts, bins] chance that an expert's copy does
            not go to a bin, for tokens of a home.
    """
    homes, experts, bins = keep.shape
    windows, (sets, k) = weight.shape[0], ids.shape
    touched = np.zeros((homes, windows, bins))
    slope = np.zeros((homes, windows, experts, bins))
    scratch, part = np.ones((k + 2, bins)), max(1, PART // (k * bins * windows))
    for h in range(homes):
        for first in range(0, sets, part):
            _add(ids, weight, keep[h], scratch, touched[h], slope[h], first, min(first + part, sets))
    return touched, slope


#: Elementary steps of one compiled call: between them an interrupt is heard.
PART = 30_000_000


@lean_kernel
def _add(
    ids: NDArray[np.int32], weight: NDArray[np.float64], keep: NDArray[np.float64], scratch: NDArray[np.float64],
    touched: NDArray[np.float64], slope: NDArray[np.float64], first: int, last: int,
) -> None:  # fmt: skip
    """Adds what the sets `first` to `last` have in one home's chances; scratch: [k + 2, bins], its row k all 1."""
    windows, k, bins = len(weight), ids.shape[1], keep.shape[1]
    after, before = scratch, scratch[k + 1]
    for s in range(first, last):
        for j in range(k - 1, -1, -1):
            row = keep[ids[s, j]]
            for b in range(bins):
                after[j, b] = after[j + 1, b] * row[b]
        for w in range(windows):
            share = weight[w, s]
            if share == 0.0:
                continue
            for b in range(bins):
                touched[w, b] += share * (1.0 - after[0, b])
                before[b] = share
            for j in range(k):
                e = ids[s, j]
                out, row = slope[w, e], keep[e]
                for b in range(bins):
                    out[b] += before[b] * after[j + 1, b]
                    before[b] *= row[b]
