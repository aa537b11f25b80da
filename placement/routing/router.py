"""A router's choice from logits, compiled: top-k, and group-limited top-k (DeepSeek-V3 report, section 2.1.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.problem.arrays import FloatArray, IntArray

Logits = NDArray[np.float32]
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _compiled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """numba's njit, with the function's own type kept."""
    return cast(Callable[_P, _R], njit(cache=True, nogil=True)(function))


@_compiled
def _insert(values: Logits, names: IntArray, value: np.float32, name: int) -> None:
    """Puts a value that exceeds the last of the descending `values` in its place; of equal values the first stays."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        names[at] = names[at - 1]
        at -= 1
    values[at] = value
    names[at] = name


@_compiled
def choose(logits: Logits, bias: Logits, top_k: int, groups: int, top_groups: int) -> IntArray:
    """[tokens, k] the experts of largest logit + bias, largest first.

    With top_groups < groups, only experts of the `top_groups` groups whose two best logits sum highest count.

    Args:
        logits: [tokens, experts]; bias: [experts].
        groups: consecutive groups of experts / groups experts each.
    """
    tokens, experts = logits.shape
    size = experts // groups
    ids = np.zeros((tokens, top_k), np.int64)
    best = np.empty(top_k, np.float32)
    group_best = np.empty(top_groups, np.float32)
    kept = np.zeros(top_groups, np.int64)
    allowed = np.ones(groups, np.bool_)
    for token in range(tokens):
        if top_groups < groups:
            group_best[:] = -np.inf
            for group in range(groups):
                first, second = np.float32(-np.inf), np.float32(-np.inf)
                for expert in range(group * size, (group + 1) * size):
                    value = logits[token, expert] + bias[expert]
                    if value > first:
                        second = first
                        first = value
                    elif value > second:
                        second = value
                score = first + second if size > 1 else first
                if score > group_best[-1]:
                    _insert(group_best, kept, score, group)
            allowed[:] = False
            for place in range(top_groups):
                allowed[kept[place]] = True
        best[:] = -np.inf
        for group in range(groups):
            if allowed[group]:
                for expert in range(group * size, (group + 1) * size):
                    value = logits[token, expert] + bias[expert]
                    if value > best[-1]:
                        _insert(best, ids[token], value, expert)
    return ids


@_compiled
def copies_per_token(ids: IntArray, experts: int) -> FloatArray:
    """[experts] mean copies of a token that go to each expert."""
    load = np.zeros(experts, np.float64)
    for token in range(ids.shape[0]):
        for choice in range(ids.shape[1]):
            load[ids[token, choice]] += 1.0
    load /= ids.shape[0]
    return load
