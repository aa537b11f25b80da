"""Increments of messages, compiled: what changed chances of one or two experts do, and booking them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.search.layout import add_touch, keep_row
from solvers.experts.search.state import COVERED, Data, State


class Change(NamedTuple):
    """Scratch of one proposal.

    Attributes:
        row: [2, cells] new keep of the two experts. cell: [2, cells] the cells that change, changed: [2] how many.
        ratio: [2, cells] new keep over old, by cell (1 where nothing changes). both: [windows].
        in_sum, out_sum, total: sums after the change. cost, load: saved prices of the GPUs in gpus.
        target: [2, classes] saved targets.
    """

    row: FloatArray
    cell: IntArray
    changed: IntArray
    ratio: FloatArray
    both: FloatArray
    in_sum: FloatArray
    out_sum: FloatArray
    total: FloatArray
    gpus: IntArray
    cost: FloatArray
    load: FloatArray
    target: IntArray


def empty_change(state: State) -> Change:
    """Scratch for a state."""
    windows, (rows, gpus) = len(state.total), state.gpu_cost.shape
    cells, classes = state.keep.shape[1], state.target.shape[0]
    return Change(
        np.ones((2, cells)), np.zeros((2, cells), np.int64), np.zeros(2, np.int64), np.ones((2, cells)),
        np.zeros(windows), state.in_sum.copy(), state.out_sum.copy(), state.total.copy(),
        np.zeros(2 * gpus + 2, np.int64), np.zeros((2 * gpus + 2, rows)), np.zeros(2 * gpus + 2),
        np.zeros((2, classes), np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def price_change(d: Data, s: State, t: Change, a: int, b: int) -> None:
    """Fills t's sums with those after experts a and b (b < 0: only a) have changed their places.

    Sets that hold both are counted as if each changed alone; `price_both` mends that, which mostly adds touches.
    """
    _copy(s.in_sum, t.in_sum)
    _copy(s.out_sum, t.out_sum)
    in_sum, out_sum, total, old_total = t.in_sum, t.out_sum, t.total, s.total
    windows, linear, in_rate = len(d.window_weight), d.linear, d.in_rate
    row, cell, ratio, keep, marginal, share_load = t.row, t.cell, t.ratio, s.keep, s.marginal, d.share_load
    for w in range(windows):
        total[w] = old_total[w]
    for turn in range(1 if b < 0 else 2):
        e = a if turn == 0 else b
        keep_row(d, s, e, row[turn])
        n = 0
        for x in range(row.shape[1]):
            old, new = keep[e, x], row[turn, x]
            ratio[turn, x] = 1.0
            if abs(new - old) < 1e-12 or in_rate[x] == 0.0:
                continue
            cell[turn, n] = x
            n += 1
            if not linear:
                ratio[turn, x] = new / old
            lost = old - new if linear else 1.0 - ratio[turn, x]
            for w in range(windows):
                touch = (share_load[w, e] if linear else marginal[w, e, x]) * lost
                add_touch(d, x, touch, w, in_sum, out_sum, total)
        t.changed[turn] = n


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def price_both(d: Data, s: State, t: Change, a: int, b: int) -> None:
    """Mends t's sums for the sets that hold both experts: their chances change by the product of the two factors."""
    if b < 0 or d.linear or t.changed[0] == 0 or t.changed[1] == 0:
        return
    pair = min(a, b) * len(s.copies) + max(a, b)
    first, last = d.pair_start[pair], d.pair_start[pair + 1]
    if first == last:
        return
    in_sum, out_sum, total = t.in_sum, t.out_sum, t.total
    ratio, miss, pair_index, both = t.ratio, s.miss, d.pair_index, t.both
    start, window, value = d.weight_start, d.weight_window, d.weight_value
    for i in range(t.changed[0]):
        x = t.cell[0, i]
        if ratio[1, x] == 1.0:
            continue
        factor = (1.0 - ratio[0, x]) * (1.0 - ratio[1, x])
        for w in range(len(both)):
            both[w] = 0.0
        for p in range(first, last):
            z = pair_index[p]
            part = miss[z, x]
            for q in range(start[z], start[z + 1]):
                both[window[q]] += value[q] * part
        for w in range(len(both)):
            add_touch(d, x, -factor * both[w], w, in_sum, out_sum, total)


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def _copy(source: FloatArray, out: FloatArray) -> None:
    for i in range(source.shape[0]):
        for j in range(source.shape[1]):
            out[i, j] = source[i, j]


@njit(cache=True, nogil=True, _nrt=False, forceinline=True)
def book_change(d: Data, s: State, t: Change, a: int, b: int) -> None:
    """Makes a priced change the state's own."""
    _copy(t.in_sum, s.in_sum)
    _copy(t.out_sum, s.out_sum)
    for w in range(len(s.total)):
        s.total[w] = t.total[w]
    ids, set_start, set_index = d.ids, d.set_start, d.set_index
    start, window, value = d.weight_start, d.weight_window, d.weight_value
    miss, marginal, ratio, cell = s.miss, s.marginal, t.ratio, t.cell
    keep, row, in_rate = s.keep, t.row, d.in_rate
    k = ids.shape[1]
    # What is less is lost in the rounding of sets that three further experts cover.
    least = COVERED * COVERED * 0.25
    for turn in range(1 if b < 0 else 2):
        e = a if turn == 0 else b
        n = t.changed[turn]
        if not d.linear and n > 0:
            for p in range(set_start[e], set_start[e + 1]):
                z = set_index[p]
                for i in range(n):
                    x = cell[turn, i]
                    old = miss[z, x]
                    new = old * ratio[turn, x]
                    miss[z, x] = new
                    change = new - old
                    if abs(change) < least:
                        continue
                    for q in range(start[z], start[z + 1]):
                        w, part = window[q], value[q] * change
                        for j in range(k):
                            marginal[w, ids[z, j], x] += part
        for i in range(n):
            x = cell[turn, i]
            keep[e, x] = row[turn, x]
        for x in range(row.shape[1]):
            if in_rate[x] == 0.0:
                keep[e, x] = row[turn, x]
