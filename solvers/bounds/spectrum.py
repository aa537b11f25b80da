"""Eigenvalues and eigenvectors of symmetric matrices, to the same bits on every machine (LAPACK's are the machine's).

Householder's reduction, then the implicit QL method (Golub and Van Loan, "Matrix Computations", 8.3). Inner loops run
along rows and sum nothing, so that vector code rounds alike.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from solvers.bounds.subsets import Floats

#: Squared length below which entries beside the diagonal are 0: less is lost in the rounding of any price of bins.
TINY = 1e-280


def spectrum(matrix: Floats) -> tuple[Floats, Floats]:
    """([n] eigenvalues in no order, [n, n] their orthonormal eigenvectors as rows) of a symmetric matrix."""
    values: tuple[Floats, Floats] = _spectrum(np.ascontiguousarray(matrix), len(matrix))
    return values


def eigenvalues(matrix: Floats) -> Floats:
    """[n] eigenvalues of a symmetric matrix, in no order."""
    return np.asarray(_spectrum(np.ascontiguousarray(matrix), 0)[0])


@njit(cache=True, nogil=True)
def _spectrum(matrix: Floats, vectors: int) -> tuple[Floats, Floats]:
    """See `spectrum`; `vectors` is 0 where none are asked for."""
    rows = matrix.copy()
    diagonal, beside, scale = np.empty(len(rows)), np.zeros(len(rows)), np.zeros(len(rows))
    _to_tridiagonal(rows, diagonal, beside, scale)
    turned = np.eye(len(rows))[:vectors]
    if vectors:
        for i in range(1, len(rows)):
            if scale[i] > 0.0:
                _reflect(rows[i, :i], scale[i], turned[:i])
        turned = turned.T.copy()
    _to_diagonal(diagonal, beside, turned)
    return diagonal, turned


@njit(cache=True, nogil=True)
def _reflect(normal: Floats, scale: float, rows: Floats) -> None:
    """Mirrors the columns of `rows` [n, columns] at a plane: rows -= normal (normal' rows) / scale."""
    along = np.zeros(rows.shape[1])
    for j in range(len(normal)):
        factor, row = normal[j] / scale, rows[j]
        for k in range(len(along)):
            along[k] += factor * row[k]
    for j in range(len(normal)):
        factor, row = normal[j], rows[j]
        for k in range(len(along)):
            row[k] -= factor * along[k]


@njit(cache=True, nogil=True)
def _to_tridiagonal(rows: Floats, diagonal: Floats, beside: Floats, scale: Floats) -> None:
    """Mirrors a symmetric matrix [n, n] until it is tridiagonal: fills `diagonal` and the entries `beside` it (the last
    is 0); rows[i, :i] becomes the normal of mirror i, `scale` half its squared length (0 where there is no mirror)."""
    pull = np.empty(len(rows))
    for i in range(len(rows) - 1, 0, -1):
        normal = rows[i]
        far = 0.0
        for j in range(i - 1):
            far += normal[j] * normal[j]
        near = normal[i - 1]
        beside[i - 1] = near
        if far < TINY:
            continue
        beside[i - 1] = -np.sqrt(far + near * near) if near > 0.0 else np.sqrt(far + near * near)
        normal[i - 1] = near - beside[i - 1]
        scale[i] = beside[i - 1] * (beside[i - 1] - near)
        for k in range(i):
            pull[k] = 0.0
        for j in range(i):
            factor, row = normal[j] / scale[i], rows[j]
            for k in range(i):
                pull[k] += factor * row[k]
        along = 0.0
        for j in range(i):
            along += normal[j] * pull[j]
        along *= 0.5 / scale[i]
        for j in range(i):
            pull[j] -= along * normal[j]
        for j in range(i):
            left, right, row = normal[j], pull[j], rows[j]
            for k in range(i):
                row[k] -= left * pull[k] + right * normal[k]
    for i in range(len(rows)):
        diagonal[i] = rows[i, i]


@njit(cache=True, nogil=True)
def _joined(d: Floats, e: Floats, i: int) -> bool:
    """Whether the entry beside the diagonal, after row i, is more than rounding."""
    size = abs(d[i]) + abs(d[i + 1])
    return bool(size + abs(e[i]) > size)


@njit(cache=True, nogil=True)
def _to_diagonal(d: Floats, e: Floats, rows: Floats) -> None:
    """Rotates a tridiagonal matrix until its diagonal `d` [n] holds the eigenvalues; `e`: entries beside it, lost.
    `rows` [n, n], or [0, n], are rotated along."""
    for low in range(len(d)):
        while True:
            high = low
            while high < len(d) - 1 and _joined(d, e, high):
                high += 1
            if high == low:
                break
            g = (d[low + 1] - d[low]) / (2.0 * e[low])
            root = np.sqrt(g * g + 1.0)
            g = d[high] - d[low] + e[low] / (g + (root if g >= 0.0 else -root))
            sine, cosine, shift = 1.0, 1.0, 0.0
            i = high - 1
            while i >= low:
                f, b = sine * e[i], cosine * e[i]
                size = np.sqrt(f * f + g * g)
                e[i + 1] = size
                if size == 0.0:
                    break
                sine, cosine = f / size, g / size
                g = d[i + 1] - shift
                root = (d[i] - g) * sine + 2.0 * cosine * b
                shift = sine * root
                d[i + 1] = g + shift
                g = cosine * root - b
                if len(rows) > 0:
                    upper, lower = rows[i], rows[i + 1]
                    for k in range(rows.shape[1]):
                        was = lower[k]
                        lower[k] = sine * upper[k] + cosine * was
                        upper[k] = cosine * upper[k] - sine * was
                i -= 1
            if i >= low:
                # The matrix fell apart on the way: the part below is taken up anew.
                d[i + 1] -= shift
            else:
                d[low] -= shift
                e[low] = g
            e[high] = 0.0
