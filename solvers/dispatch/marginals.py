"""Chances that a token reaches a bin, and that it does so only because of one expert."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray


@njit(cache=True, nogil=True)
def marginals(
    ids: NDArray[np.int32], weight: NDArray[np.float64], keep: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """([homes, windows, bins] touch chances, [homes, windows, experts, bins] their derivatives).

    The chance 1 - prod(keep of a set's experts) is linear in each expert's share; its slope, the product over the set's
    other experts, is the chance that nothing but that expert would bring the token to the bin.

    Args:
        ids: [sets, k] experts. weight: [windows, sets]. keep: [homes, experts, bins] chance that an expert's copy does
            not go to a bin, for tokens of a home.
    """
    homes, experts, bins = keep.shape
    windows, (sets, k) = weight.shape[0], ids.shape
    touched = np.zeros((homes, windows, bins))
    slope = np.zeros((homes, windows, experts, bins))
    after = np.ones((k + 1, bins))
    before = np.ones(bins)
    for h in range(homes):
        for s in range(sets):
            for j in range(k - 1, -1, -1):
                row = keep[h, ids[s, j]]
                for b in range(bins):
                    after[j, b] = after[j + 1, b] * row[b]
            for w in range(windows):
                share = weight[w, s]
                if share == 0.0:
                    continue
                for b in range(bins):
                    touched[h, w, b] += share * (1.0 - after[0, b])
                    before[b] = share
                for j in range(k):
                    e = ids[s, j]
                    out, row = slope[h, w, e], keep[h, e]
                    for b in range(bins):
                        out[b] += before[b] * after[j + 1, b]
                        before[b] *= row[b]
    return touched, slope
