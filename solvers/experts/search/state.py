"""What the compiled search works on: a layer's constants (Data) and a placement with all that its price needs (State).

Cells. Homes fall into classes that dispatch alike: one class under `even` (or with one copy of each expert, or inside
one node), else one per node. Messages are counted in bins (tariff.Bins). A cell is a class and a bin; keep[e, cell] is
the chance that a token of the class that uses expert e does not reach the bin because of e, miss[s, cell] the product
over the experts of set s, and marginal[w, e, cell] the weighted sum of miss over the sets that hold e. Then a change of
keep[e, cell] by a factor f lowers the chance that a token misses the bin by marginal * (1 - f): a move is priced in
constant time for each cell that it changes, and only an accepted one reads the sets.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from placement.problem.arrays import BoolArray, FloatArray, IntArray

EVEN, NEAREST, PLANNED = 0, 1, 2
#: How the busiest GPU and the busiest link make a window's value: both in turn, side by side, or the link alone.
SUM, LARGER, LINK = 0, 1, 2
#: Stands for a chance of 0 in keep, so that products can be undone by a division; exact as a power of two.
COVERED = 2.0**-20


class Data(NamedTuple):
    """A layer's constants.

    Attributes:
        gpu_of_slot: [slots] of usable slots. node_of_gpu, bin_of_gpu: [gpus].
        node_of_bin, in_group, out_group: [bins].
        in_of_cell, out_of_cell: [cells] index of the links that a cell's messages take.
        in_rate: [cells] seconds of ingress of the cell's group per touch; 0 where no message is needed.
        out_rate: [out groups] seconds of egress per touch. policy: EVEN, NEAREST or PLANNED.
        home: [classes] share of the tokens.
        tokens: [rows, experts] tokens in a pass; rows are windows by kinds of passes (PassKind), a
            window's kinds one after the other. weight_s, token_s: [rows] price of a slot, as
            LayerRates has it, times the kind's share. kind_moved: [kinds] share of what messages take
            in the mean pass.
        share_load: [windows, experts] copies of a token (the price of messages where they are counted per expert).
        mean_load: [experts] load over the mean GPU load, over all windows.
        work_share, load_share: [gpus] factor of a copy's seconds and of its load there (slower GPUs have more).
        linear: messages are copies, not distinct tokens.
        set_start, set_index: sets that hold an expert, in compressed rows; pair_start, pair_index: that hold the two
            experts a < b, row a * experts + b. ids: [sets, k].
        weight_start, weight_window, weight_value: a set's weights that are not 0, in compressed rows.
        window_weight: [windows]. tail: share of the worst windows that counts (1: all). join: SUM, LARGER or LINK.
        cap: largest allowed load over the mean. reach_scale: seconds of a touch in the smooth part of the guide.
        allowed: [nodes, experts] where an expert may lie. fixed: [slots] slots that keep their expert.
        least_copies: [experts] copies below which none is dropped.
        was: [gpus, experts] experts held before; max_moves: how many (GPU, expert) pairs may be new.
    """

    gpu_of_slot: IntArray
    node_of_gpu: IntArray
    bin_of_gpu: IntArray
    node_of_bin: IntArray
    in_group: IntArray
    out_group: IntArray
    in_of_cell: IntArray
    out_of_cell: IntArray
    in_rate: FloatArray
    out_rate: FloatArray
    policy: int
    home: FloatArray
    tokens: FloatArray
    share_load: FloatArray
    mean_load: FloatArray
    work_share: FloatArray
    load_share: FloatArray
    weight_s: FloatArray
    token_s: FloatArray
    kind_moved: FloatArray
    linear: bool
    set_start: IntArray
    set_index: IntArray
    pair_start: IntArray
    pair_index: IntArray
    ids: IntArray
    weight_start: IntArray
    weight_window: IntArray
    weight_value: FloatArray
    window_weight: FloatArray
    tail: float
    join: int
    cap: float
    reach_scale: float
    allowed: BoolArray
    fixed: BoolArray
    least_copies: IntArray
    was: BoolArray
    max_moves: int


class State(NamedTuple):
    """A placement and its price; arrays are changed in place.

    Attributes:
        slots: [slots] expert of each usable slot. where: [experts, gpus] its slots, the first copies[e] of a row.
        holds: [gpus, experts]. on_node: [nodes, experts] copies there.
        target: [classes, experts] node that serves a home's tokens (`planned`).
        keep: [experts, cells]. miss: [sets, cells]. marginal: [windows, experts, cells]; both
            are kept up where messages are needed (in_rate above 0).
        gpu_cost: [rows, gpus] seconds of work, rows as in Data.tokens. gpu_load: [gpus] over the mean.
        in_sum: [windows, in groups] seconds. out_sum: [windows, out groups] touches. total: [windows] touches.
        touch: [windows, cells] scratch.
    """

    slots: IntArray
    where: IntArray
    copies: IntArray
    holds: BoolArray
    on_node: IntArray
    target: IntArray
    keep: FloatArray
    miss: FloatArray
    marginal: FloatArray
    gpu_cost: FloatArray
    gpu_load: FloatArray
    in_sum: FloatArray
    out_sum: FloatArray
    total: FloatArray
    touch: FloatArray


def empty_state(data: Data, slots: IntArray) -> State:
    """A state for `slots` [slots]; solvers.experts.search.layout.load_state fills it."""
    windows, (rows, experts) = len(data.window_weight), data.tokens.shape
    gpus, nodes = len(data.node_of_gpu), data.allowed.shape[0]
    classes, bins = len(data.home), len(data.node_of_bin)
    cells = classes * bins
    sets = 0 if data.linear else len(data.ids)
    return State(
        slots=np.array(slots, dtype=np.int64),
        where=np.zeros((experts, gpus), np.int64),
        copies=np.zeros(experts, np.int64),
        holds=np.zeros((gpus, experts), np.bool_),
        on_node=np.zeros((nodes, experts), np.int64),
        target=np.zeros((classes, experts), np.int64),
        keep=np.ones((experts, cells)),
        miss=np.ones((sets, cells)),
        marginal=np.zeros((windows, experts, cells)),
        gpu_cost=np.zeros((rows, gpus)),
        gpu_load=np.zeros(gpus),
        in_sum=np.zeros((windows, int(data.in_group.max()) + 1)),
        out_sum=np.zeros((windows, len(data.out_rate))),
        total=np.zeros(windows),
        touch=np.zeros((windows, cells)),
    )
