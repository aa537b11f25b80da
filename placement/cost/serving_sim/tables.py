"""Seconds of passes and steps, read off the kinds' tables, compiled."""

from __future__ import annotations

from placement.cost.serving_sim.state import Kinds
from placement.kernels import lean
from placement.problem.arrays import FloatArray


@lean
def between(grid: FloatArray, value: float) -> tuple[int, float]:
    """Where a value lies in an ascending grid: the point below, and the share of the way to the next."""
    if len(grid) == 1 or value <= grid[0]:
        return 0, 0.0
    at = 0
    while at < len(grid) - 2 and value > grid[at + 1]:
        at += 1
    return at, min(1.0, (value - grid[at]) / (grid[at + 1] - grid[at]))


@lean
def step_s(kinds: Kinds, kind: int, sequences: int, context: float) -> float:
    """A decode step of `sequences` of that mean context."""
    at, part = between(kinds.contexts, context)
    low: float = kinds.decode_s[kind, at, sequences]
    return low if part == 0.0 else low + part * (kinds.decode_s[kind, at + 1, sequences] - low)


@lean
def pass_s(table: FloatArray, lengths: FloatArray, share: float, length: float) -> float:
    """A pass that fills that share of the budget with prompts of that mean length, by table [lengths, steps]."""
    steps = table.shape[1] - 1
    step = min(int(share * steps), steps - 1)
    along, (at, part) = share * steps - step, between(lengths, length)
    seconds: float = table[at, step] + along * (table[at, step + 1] - table[at, step])
    if part > 0.0:
        above = table[at + 1, step] + along * (table[at + 1, step + 1] - table[at + 1, step])
        seconds += part * (above - seconds)
    return seconds
