"""Whose turn is next, compiled: a tournament of servers by their keys, and a heap of requests by time."""

from __future__ import annotations

import numpy as np

from placement.cost.serving_sim.state import Line
from placement.kernels import lean
from placement.problem.arrays import FloatArray, IntArray


def line_of(keys: FloatArray) -> Line:
    """A tournament of servers with these keys, inf for those that can't win."""
    leaves = 1
    while leaves < max(2, len(keys)):
        leaves *= 2
    key = np.full(leaves, np.inf)
    key[: len(keys)] = keys
    winner = np.arange(2 * leaves) - leaves
    for node in range(leaves - 1, 0, -1):
        left, right = winner[2 * node], winner[2 * node + 1]
        winner[node] = right if key[right] < key[left] else left
    return Line(key, winner)


@lean
def set_key(line: Line, at: int, key: float) -> None:
    """Gives a server another key."""
    line.key[at] = key
    node = (at + len(line.key)) // 2
    while node > 0:
        left, right = line.winner[2 * node], line.winner[2 * node + 1]
        line.winner[node] = right if line.key[right] < line.key[left] else left
        node //= 2


@lean
def push(keys: FloatArray, values: IntArray, base: int, count: int, key: float, value: int) -> None:
    """Adds to a heap of `count` from position `base` on."""
    at = count
    while at > 0:
        above = (at - 1) // 2
        if keys[base + above] <= key:
            break
        keys[base + at], values[base + at] = keys[base + above], values[base + above]
        at = above
    keys[base + at], values[base + at] = key, value


@lean
def pop(keys: FloatArray, values: IntArray, base: int, count: int) -> None:
    """Takes the least off a heap of `count`."""
    last = count - 1
    key, value, at = keys[base + last], values[base + last], 0
    while 2 * at + 1 < last:
        below = 2 * at + 1
        if below + 1 < last and keys[base + below + 1] < keys[base + below]:
            below += 1
        if key <= keys[base + below]:
            break
        keys[base + at], values[base + at] = keys[base + below], values[base + below]
        at = below
    keys[base + at], values[base + at] = key, value
