"""Increments of messages, compiled: what changed chances of one or two experts do, and booking them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.kernels import inlined, lean
from placement.problem.arrays import FloatArray, IntArray
from solvers.experts.search.arrays import SetRows
from solvers.experts.search.layout import add_touch, keep_row
from solvers.experts.search.state import COVERED, Chances, Layout, Links, Places, State, Sums


class Change(NamedTuple):
    """Scratch of one proposal.

    Attributes:
        row: [2, cells] new keep of the two experts. cell: [2, cells] the cells that change, changed: [2] how many.
        ratio: [2, cells] new keep over old, by cell (1 where nothing changes). both: [windows].
    """

    row: FloatArray
    cell: IntArray
    changed: IntArray
    ratio: FloatArray
    both: FloatArray


class Saved(NamedTuple):
    """Prices of the GPUs in gpus [most] before a proposal: cost [most, rows], load [most]; target: [2, classes] of the
    two experts."""

    gpus: IntArray
    cost: FloatArray
    load: FloatArray
    target: IntArray


class Scratch(NamedTuple):
    """What an anneal works with beside its state; sums: those after a change."""

    change: Change
    sums: Sums
    saved: Saved


def empty_scratch(state: State) -> Scratch:
    """Scratch for a state."""
    windows, (rows, gpus) = len(state.sums.total), state.busy.cost.shape
    cells, classes, most = state.chances.keep.shape[1], state.layout.target.shape[0], 2 * gpus + 2
    return Scratch(
        Change(
            np.ones((2, cells)), np.zeros((2, cells), np.int64), np.zeros(2, np.int64), np.ones((2, cells)),
            np.zeros(windows),
        ),
        Sums(*(each.copy() for each in state.sums)),
        Saved(np.zeros(most, np.int64), np.zeros((most, rows)), np.zeros(most), np.zeros((2, classes), np.int64)),
    )  # fmt: skip


@inlined
def copy_sums(source: Sums, target: Sums) -> None:
    """Copies sums into others."""
    for w in range(len(source.total)):
        target.total[w] = source.total[w]
        for i in range(source.ins.shape[1]):
            target.ins[w, i] = source.ins[w, i]
        for o in range(source.outs.shape[1]):
            target.outs[w, o] = source.outs[w, o]


@inlined
def price_change(p: Places, links: Links, lay: Layout, chances: Chances, t: Change, sums: Sums, a: int, b: int) -> None:
    """Brings sums up to date with new places of experts a and b (b < 0: only a).

    Sets that hold both are counted as if each changed alone; `price_both` mends that, which mostly adds touches.
    """
    windows, linear, in_rate, share_load = len(sums.total), links.linear, links.in_rate, links.share_load
    row, cell, ratio, keep, marginal = t.row, t.cell, t.ratio, chances.keep, chances.marginal
    for turn in range(1 if b < 0 else 2):
        e = a if turn == 0 else b
        keep_row(p, lay, linear, e, row[turn])
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
                add_touch(links, x, touch, w, sums)
        t.changed[turn] = n


@lean
def price_both(links: Links, sets: SetRows, miss: FloatArray, t: Change, sums: Sums, pair: int) -> None:
    """Mends sums for the sets that hold both experts of a pair: their chances change by the product of the factors."""
    first, last = sets.pair_start[pair], sets.pair_start[pair + 1]
    if first == last:
        return
    ratio, pair_index, both = t.ratio, sets.pair_index, t.both
    start, window, value = sets.weight_start, sets.weight_window, sets.weight_value
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
            add_touch(links, x, -factor * both[w], w, sums)


@lean
def book_change(links: Links, sets: SetRows, chances: Chances, t: Change, a: int, b: int) -> None:
    """Makes priced chances the state's own."""
    ids, set_start, set_index = sets.ids, sets.set_start, sets.set_index
    start, window, value = sets.weight_start, sets.weight_window, sets.weight_value
    miss, marginal, ratio, cell = chances.miss, chances.marginal, t.ratio, t.cell
    keep, row, in_rate = chances.keep, t.row, links.in_rate
    k = ids.shape[1]
    # What is less is lost in the rounding of sets that three further experts cover.
    least = COVERED * COVERED * 0.25
    for turn in range(1 if b < 0 else 2):
        e = a if turn == 0 else b
        n = t.changed[turn]
        if not links.linear and n > 0:
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
