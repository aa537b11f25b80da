"""Symmetric matrices of pairs of experts: as vectors of pairs, and projected."""

from __future__ import annotations

import numpy as np

from placement.arithmetic import matrix_product, weighted_sum
from placement.kernels import lean_kernel
from solvers.bounds.spectrum import eigenvalues, spectrum
from solvers.bounds.subsets import Floats, Ints

#: Relative allowance for rounding in eigenvalues and sums, of the sizes that enter them.
ROUNDING = 1e-11


def pair_count(size: int) -> int:
    """Pairs of so many experts."""
    return size * (size - 1) // 2


def pair_places(size: int) -> Ints:
    """[size, size] place of every pair in a vector of pairs; -1 on the diagonal."""
    place = np.full((size, size), -1, dtype=np.int64)
    place[np.tril_indices(size, -1)] = np.arange(pair_count(size))
    return np.maximum(place, place.T)


def to_matrix(pairs: Floats, diagonal: Floats | float) -> Floats:
    """The symmetric matrix of a vector of pairs."""
    # pairs = size * (size - 1) / 2
    size = round((1 + np.sqrt(1 + 8 * len(pairs))) / 2)
    out = np.empty((size, size))
    _spread(pairs, out)
    np.fill_diagonal(out, diagonal)
    return out


def to_pairs(matrix: Floats) -> Floats:
    """The vector of pairs of a symmetric matrix."""
    out = np.empty(pair_count(len(matrix)))
    _gather(matrix, out)
    return out


@lean_kernel
def _spread(pairs: Floats, out: Floats) -> None:
    """Both triangles of a matrix."""
    q = 0
    for i in range(len(out)):
        for j in range(i):
            out[i, j] = out[j, i] = pairs[q]
            q += 1


@lean_kernel
def _gather(matrix: Floats, out: Floats) -> None:
    """The lower triangle, row by row."""
    q = 0
    for i in range(len(matrix)):
        for j in range(i):
            out[q] = matrix[i, j]
            q += 1


def cone(matrix: Floats, top: float) -> Floats:
    """The nearest positive semidefinite matrix with eigenvalues of at most `top`."""
    values, vectors = spectrum(0.5 * (matrix + matrix.T))
    kept = values > 0
    vectors = vectors[kept]
    return matrix_product((vectors * np.minimum(values[kept], top)[:, None]).T, vectors)


def without(matrix: Floats, vector: Floats) -> Floats:
    """A symmetric matrix projected off a unit vector on both sides."""
    along = weighted_sum(vector, matrix)
    both = np.outer(vector, along)
    return np.asarray(matrix - both - both.T + float(weighted_sum(vector, along)) * np.outer(vector, vector))


def row_step(price: Floats, over: Floats, norm: float) -> tuple[Floats, Floats]:
    """A step of the method of multipliers for half-spaces <normal, row> <= limit, one a row: the new prices, and what
    the half-spaces ask for beside what is, both as multiples of the normals.

    Args:
        price: [rows] multiples so far. over: [rows] what rows are over the limit. norm: of a normal, squared.
    """
    new = np.maximum(0.0, price + over / norm)
    return new, price - 2 * new


def moved_over(price: Floats) -> Floats:
    """What to add to entries of rows that stand for half a pair each, so that rows' prices are each row's own alone."""
    return np.asarray(0.5 * (price[None, :] - price[:, None]))


def largest_inner(matrix: Floats, rank: int, top: float, trace: float) -> float:
    """max <matrix, V> over positive semidefinite V of so much trace, at most that rank, eigenvalues of at most `top`.

    A sum of the largest eigenvalues (Fan 1949). rank * top must be at least `trace`.
    """
    return rising_inner(matrix, rank, top, trace)[0]


def rising_inner(matrix: Floats, rank: int, top: float, trace: float) -> tuple[float, float]:
    """(`largest_inner`, what it rises by at most per unit of more trace)."""
    values = np.sort(eigenvalues(0.5 * (matrix + matrix.T)))[::-1][:rank]
    found = float((values * np.clip(trace - top * np.arange(len(values)), 0.0, top)).sum())
    return found, float(values[min(int(trace / top), len(values) - 1)])
