"""Which rows a rank sends where: the messages of one hop, made from its tokens' slots. Plain numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from placement.problem.arrays import FloatArray, IntArray

#: A choice of a token that a message does not carry.
ABSENT = -1


@dataclass(frozen=True)
class Outgoing:
    """Messages of one rank in one hop, sorted by receiver.

    Attributes:
        row: [messages] source row that each carries.
        count: [members] messages to each member of the hop's group.
        slots: [messages, width] slots that the receiver serves (or passes on) for it, or ABSENT.
        weights: [messages, width] router weight of each; 1 where the home weighs.
        home_weight: [messages] what the home multiplies the answer by, or None where the receiver has weighed.
    """

    row: IntArray
    count: IntArray
    slots: NDArray[np.int32]
    weights: NDArray[np.float32]
    home_weight: NDArray[np.float32] | None


def outgoing(
    slots: IntArray, weights: FloatArray, to: IntArray, members: int, distinct: bool, also: IntArray | None = None
) -> Outgoing:
    """The messages of some rows.

    Args:
        slots, weights: [rows, k] what each row needs (slots may be ABSENT).
        to: [rows, k] member that gets it, or ABSENT for none.
        distinct: one message for all that a row needs of a member, else one for each slot.
        also: [rows, any number] or, alike for all rows, [any number] members that get a row, whether they serve it or
            not; with `distinct` alone.
    """
    rows, k = slots.shape
    row, choice = np.nonzero(to != ABSENT)
    member = to[row, choice].astype(np.int64)
    if not distinct:
        order = np.lexsort((row, member))
        row, choice, member = row[order], choice[order], member[order]
        return Outgoing(
            row,
            np.bincount(member, minlength=members),
            slots[row, choice][:, None].astype(np.int32),
            np.ones((len(row), 1), dtype=np.float32),
            weights[row, choice].astype(np.float32),
        )
    more = np.zeros(0, dtype=np.int64) if also is None else also
    wanted = np.broadcast_to(more * max(1, rows), (rows, more.shape[-1])) + np.arange(rows)[:, None]
    key = np.unique(np.concatenate([member * max(1, rows) + row, wanted.reshape(-1)]))
    message = np.searchsorted(key, member * max(1, rows) + row)
    table = np.full((len(key), k), ABSENT, dtype=np.int32)
    weight = np.zeros((len(key), k), dtype=np.float32)
    table[message, choice] = slots[row, choice]
    weight[message, choice] = weights[row, choice]
    to_member, from_row = np.divmod(key, max(1, rows))
    return Outgoing(from_row, np.bincount(to_member, minlength=members), table, weight, None)
