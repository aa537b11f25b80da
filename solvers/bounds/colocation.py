"""A lower bound on how many bins (nodes or GPUs) a token reaches, over all placements and all draws of copies.

Let X[e, f] be the chance that experts e and f are served in one bin. It is the Gram matrix of the experts' shares by
bin, so it is positive semidefinite, its entries lie in [0, 1] and its rows sum to at most the experts C that a bin
can hold. A token that uses experts K reaches, in every draw,

    sum over e in K of 1 / (experts of K in e's bin)  =  sum over e in K of 1 / (1 + sum over f in K of x[e, f])

bins, which is convex in x once joined by straight lines between whole numbers; by the number p of pairs of K that
share a bin it is also at least the lower hull of (fewest pairs of c clusters, c). Both lower functions hold in
expectation for X. The mean over the tokens is minimized over these X: the relaxation of graph and hypergraph
partitioning by a semidefinite program (Donath and Hoffman 1973; Povh and Rendl 2007, with entries not negative), by
the alternating direction method of multipliers (Wen, Goldfarb and Yin 2010), linearized at each step.

What is returned does not rest on its convergence. Any tangent W of the mean at any X and any symmetric Y prove

    mean >= constant + min over the box of <Y - W, X> - max over the spectral set of <Y, Z>,

both extremes in closed form: the smallest entries, and a sum of eigenvalues. The best such value is kept.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.problem import FloatArray

Floats = NDArray[np.float64]

#: Steps of the method, how often a proven value is taken, the gain per round below which it ends, and the steps that
#: it takes at least.
STEPS, EVERY, ENOUGH, LEAST_STEPS = 160, 10, 5e-3, 30
#: Penalty as a multiple of the largest tangent entry.
PENALTY = 0.8
#: Relative allowance for rounding in eigenvalues and sums, of the sizes that enter them.
ROUNDING = 1e-11


def fewest_pairs_hull(k: int, most: int) -> tuple[FloatArray, FloatArray]:
    """([lines] value at no pair, [lines] fall per pair) of the lower hull of clusters over pairs within clusters.

    Args:
        k: experts of a token. most: largest cluster; fewer than ceil(k / most) clusters cannot be.
    """
    clusters = np.arange(1, k + 1)
    size, larger = k // clusters, k % clusters
    pairs = larger * (size + 1) * size / 2 + (clusters - larger) * size * (size - 1) / 2
    hull = [0]
    for c in range(1, k):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            # b stays if it lies below the line from a to c (pairs fall as clusters rise).
            if (pairs[a] - pairs[b]) * (c - b) > (pairs[b] - pairs[c]) * (b - a):
                break
            hull.pop()
        hull.append(c)
    value, fall = [float(-(-k // most))], [0.0]
    for a, b in pairwise(hull):
        fall.append((b - a) / (pairs[a] - pairs[b]))
        value.append(clusters[a] + fall[-1] * pairs[a])
    return np.array(value), np.array(fall)


@njit(cache=True, nogil=True)
def _tangent(
    ids: NDArray[np.int64], weight: Floats, x: Floats, value: Floats, fall: Floats, out: Floats
) -> tuple[float, float]:
    """Tangent at `x` of the mean bins per token: mean >= constant - sum over e < f of out[e, f] * x[e, f].

    Returns the constant and the mean's value at `x`; `out` is symmetric with a zero diagonal.
    """
    sets, k = ids.shape
    out[:] = 0.0
    constant, mean = 0.0, 0.0
    # The line rise[b] - step[b] * s goes through 1 / (1 + s) at the whole numbers b and b + 1.
    rise, step = np.empty(k), np.empty(k)
    for b in range(k):
        step[b] = 1.0 / ((1 + b) * (2 + b))
        rise[b] = 1.0 / (1 + b) + step[b] * b
    sums, slope = np.empty(k), np.empty(k)
    for t in range(sets):
        v = weight[t]
        if v == 0.0:
            continue
        at_zero, here, pairs = 0.0, 0.0, 0.0
        for i in range(k):
            sums[i] = 0.0
            for j in range(i):
                part = x[ids[t, i], ids[t, j]]
                sums[i] += part
                sums[j] += part
        for i in range(k):
            b = int(min(max(sums[i], 0.0), k - 2.0))
            slope[i] = step[b]
            at_zero += rise[b]
            here += rise[b] - step[b] * sums[i]
            pairs += 0.5 * sums[i]
        line = -1
        for c in range(len(value)):
            if value[c] - fall[c] * pairs > here:
                here, line = value[c] - fall[c] * pairs, c
        mean += v * here
        constant += v * (at_zero if line < 0 else value[line])
        for i in range(k):
            for j in range(i):
                # Ids of a set ascend, so this is the lower triangle.
                out[ids[t, i], ids[t, j]] += v * (slope[i] + slope[j] if line < 0 else fall[line])
    for a in range(len(out)):
        for b in range(a):
            out[b, a] = out[a, b]
    return constant, mean


def distinct_bins(ids: NDArray[np.int64], weight: FloatArray, experts: int, bins: int, most: int) -> float:
    """A lower bound on the mean number of bins that a token reaches.

    Args:
        ids: [sets, k] experts. weight: [sets] share of the tokens; sums to 1.
        experts, bins: how many. most: experts that one bin can hold. If bins * most = experts, every bin is taken to
            hold exactly so many and every expert to have one copy; else copies may be anywhere.
    """
    k = ids.shape[1]
    least = float(-(-k // most))
    if k == 1 or bins == 1 or most == 1 or most >= experts:
        return least
    exact = bins * most == experts
    value, fall = fewest_pairs_hull(k, most)
    even = (most - 1) / (experts - 1) if exact else min(1.0, most / experts)
    x = np.full((experts, experts), even)
    np.fill_diagonal(x, 1.0)
    z, u, out = x.copy(), np.zeros_like(x), np.zeros_like(x)
    _tangent(ids, weight, x, value, fall, out)
    rho = PENALTY * max(float(out.max()), 1e-12)
    best = least
    for step in range(1, STEPS + 1):
        constant, _ = _tangent(ids, weight, x, value, fall, out)
        if step % EVERY == 1:
            # <W, X> counts every pair twice.
            proven = constant + _extremes(rho * u, 0.5 * out, bins, most, exact)
            if step > LEAST_STEPS and proven <= best + ENOUGH:
                best = max(best, proven)
                break
            best = max(best, proven)
        x = np.clip(z - u + out / (2 * rho), 0.0, 1.0)
        np.fill_diagonal(x, 1.0)
        z = _project(x + u, most, exact)
        u += x - z
    return best


def _project(matrix: FloatArray, most: int, exact: bool) -> FloatArray:
    """The nearest positive semidefinite matrix: with rows that sum to `most`, or with eigenvalues up to it."""
    if exact:
        matrix = _centred(matrix)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    kept = values > 0
    values = values[kept] if exact else np.minimum(values[kept], most)
    near = (vectors[:, kept] * values) @ vectors[:, kept].T
    return np.asarray(near + most / len(near) if exact else near)


def _centred(matrix: FloatArray) -> FloatArray:
    """Projected off the vector of ones on both sides."""
    mean = matrix.mean(axis=0)
    return np.asarray(matrix - mean[None, :] - matrix.mean(axis=1)[:, None] + mean.mean())


def _extremes(y: FloatArray, tangent: FloatArray, bins: int, most: int, exact: bool) -> float:
    """min over the box of <Y - W, X> - max over the spectral set of <Y, Z>, rounded down.

    Exact: X has ones on its diagonal and most - 1 further ones in a row; Z = (most / E) J plus `most` times a
    projection of rank bins - 1 off the ones. Else: rows of X off the diagonal sum to at most `most`, the diagonal is
    in [0, 1]; Z has rank `bins`, eigenvalues in [0, most] and a trace of at most E.
    """
    y = 0.5 * (y + y.T)
    experts = len(y)
    gain = y - tangent
    diagonal = np.diag(y)
    np.fill_diagonal(gain, np.inf)
    if exact:
        box = float(np.sort(gain, axis=1)[:, : most - 1].sum() + diagonal.sum())
        values = np.sort(np.linalg.eigvalsh(_centred(y)))
        # Y centred has an eigenvalue 0 for the ones beside its own; counting it can only raise the sum.
        top = most * float(values[experts - bins + 1 :].sum()) + most * float(y.mean() * experts)
    else:
        box = float(np.minimum(np.sort(gain, axis=1)[:, :most], 0.0).sum() + np.minimum(diagonal, 0.0).sum())
        values = np.maximum(np.sort(np.linalg.eigvalsh(y))[::-1][:bins], 0.0)
        share = np.clip(experts - most * np.arange(len(values)), 0, most)
        top = float(values @ share)
    size = experts * most * (float(np.abs(y).max()) + float(tangent.max()))
    return box - top - ROUNDING * size
