"""What the compiled search works on: a layer's constants (Data) and a placement with all that its price needs (State).

Tokens fall into classes that are dispatched alike, by home or by their number (Shares.together); a cell is a class and
a bin (tariff.Bins). keep[e, cell]: chance that a
token that uses e does not reach the bin because of e; miss[s, cell]: its product over set s; marginal[w, e, cell]:
weighted sum of miss over the sets that hold e. A factor f on keep lowers the chance to miss by marginal * (1 - f), so
that a move costs constant time a cell, and only an accepted one reads the sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from placement.problem.arrays import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    from solvers.experts.search.arrays import SetRows

EVEN, NEAREST, PLANNED, TOGETHER, OS_NODE = 0, 1, 2, 3, 4
#: How the busiest GPU and the busiest link make a window's value: both in turn, side by side, or the link alone.
SUM, LARGER, LINK = 0, 1, 2
#: Stands for a chance of 0 in keep, so that products can be undone by a division; exact as a power of two.
COVERED = 2.0**-20


class Places(NamedTuple):
    """Where slots lie and who dispatches alike.

    Attributes:
        gpu_of_slot: [slots] of usable slots. node_of_gpu, bin_of_gpu: [gpus]. node_of_bin: [bins].
        policy: EVEN, NEAREST, PLANNED, TOGETHER or OS_NODE. home: [classes] share of the tokens.
        os_gpus: GPUs of an OS node. of_gpu: [gpus], of_os_node: [OS nodes] share of the node's tokens, for OS_NODE.
    """

    gpu_of_slot: IntArray
    node_of_gpu: IntArray
    bin_of_gpu: IntArray
    node_of_bin: IntArray
    policy: int
    home: FloatArray
    os_gpus: int
    of_gpu: FloatArray
    of_os_node: FloatArray


class Work(NamedTuple):
    """What copies cost where they lie.

    Attributes:
        tokens: [rows, experts] tokens in a pass; rows are windows by kinds of passes (PassKind), a
            window's kinds one after the other. weight_s, token_s: [rows] price of a slot, as
            LayerRates has it, times the kind's share.
        mean_load: [experts] load over the mean GPU load, over all windows.
        work_share, load_share: [gpus] factor of a copy's seconds and of its load there (slower GPUs have more).
    """

    tokens: FloatArray
    mean_load: FloatArray
    work_share: FloatArray
    load_share: FloatArray
    weight_s: FloatArray
    token_s: FloatArray


class Links(NamedTuple):
    """What messages cost.

    Attributes:
        in_of_cell, out_of_cell: [cells] index of the links that a cell's messages take.
        in_rate: [cells] seconds of ingress of the cell's group per touch; 0 where no message is needed.
        linear: messages are copies, not distinct tokens. share_load: [windows, experts] copies of a token, their price.
    """

    in_of_cell: IntArray
    out_of_cell: IntArray
    in_rate: FloatArray
    linear: bool
    share_load: FloatArray


class Goal(NamedTuple):
    """How work and messages make a value.

    Attributes:
        window_weight: [windows]. tail: share of the worst windows that counts (1: all). join: SUM, LARGER or LINK.
        kind_moved: [kinds] share of what messages take in the mean pass.
        cap: largest allowed load over the mean. reach_scale: seconds of a touch in the smooth part of the guide.
        out_rate: [out groups] seconds of egress per touch. classes: of homes; of one, out_sum is what stays.
    """

    window_weight: FloatArray
    tail: float
    join: int
    kind_moved: FloatArray
    cap: float
    reach_scale: float
    out_rate: FloatArray
    classes: int


class Rules(NamedTuple):
    """What a placement must keep.

    Attributes:
        allowed: [nodes, experts] where an expert may lie. fixed: [slots] slots that keep their expert.
        least_copies: [experts] copies below which none is dropped.
        was: [gpus, experts] experts held before; max_moves: how many (GPU, expert) pairs may be new.
    """

    allowed: BoolArray
    fixed: BoolArray
    least_copies: IntArray
    was: BoolArray
    max_moves: int


class Data(NamedTuple):
    """A layer's constants. In parts, since a compiled function takes the longer to compile the more arrays it is given,
    whether or not it uses them."""

    places: Places
    work: Work
    links: Links
    sets: SetRows
    goal: Goal
    rules: Rules


class Layout(NamedTuple):
    """A placement.

    Attributes:
        slots: [slots] expert of each usable slot. where: [experts, gpus] its slots, the first copies[e] of a row.
        holds: [gpus, experts]. on_node: [nodes, experts] copies there.
        target: [classes, experts] node that serves a home's tokens (`planned`).
    """

    slots: IntArray
    where: IntArray
    copies: IntArray
    holds: BoolArray
    on_node: IntArray
    target: IntArray


class Chances(NamedTuple):
    """Of tokens not to reach a bin.

    Attributes:
        keep: [experts, cells]. miss: [sets, cells]. marginal: [windows, experts, cells]; both
            are kept up where messages are needed (in_rate above 0). touch: [windows, cells] scratch.
    """

    keep: FloatArray
    miss: FloatArray
    marginal: FloatArray
    touch: FloatArray


class Busy(NamedTuple):
    """Of GPUs: cost [rows, gpus] seconds of work, rows as in Work.tokens; load [gpus] over the mean."""

    cost: FloatArray
    load: FloatArray


class Sums(NamedTuple):
    """Of links: ins [windows, in groups] seconds; outs [windows, out groups] and total [windows] touches."""

    ins: FloatArray
    outs: FloatArray
    total: FloatArray


class State(NamedTuple):
    """A placement and its price; arrays are changed in place."""

    layout: Layout
    chances: Chances
    busy: Busy
    sums: Sums


def empty_state(data: Data, slots: IntArray) -> State:
    """A state for `slots` [slots]; solvers.experts.search.layout.load_state fills it."""
    places, links, goal = data.places, data.links, data.goal
    windows, (rows, experts) = len(goal.window_weight), data.work.tokens.shape
    gpus, nodes = len(places.node_of_gpu), data.rules.allowed.shape[0]
    classes, cells = len(places.home), len(links.in_of_cell)
    sets = 0 if links.linear else len(data.sets.ids)
    return State(
        Layout(
            slots=np.array(slots, dtype=np.int64),
            where=np.zeros((experts, gpus), np.int64),
            copies=np.zeros(experts, np.int64),
            holds=np.zeros((gpus, experts), np.bool_),
            on_node=np.zeros((nodes, experts), np.int64),
            target=np.zeros((classes, experts), np.int64),
        ),
        Chances(
            keep=np.ones((experts, cells)),
            miss=np.ones((sets, cells)),
            marginal=np.zeros((windows, experts, cells)),
            touch=np.zeros((windows, cells)),
        ),
        Busy(np.zeros((rows, gpus)), np.zeros(gpus)),
        Sums(
            np.zeros((windows, int(links.in_of_cell.max()) + 1)), np.zeros((windows, len(goal.out_rate))),
            np.zeros(windows),
        ),
    )  # fmt: skip
