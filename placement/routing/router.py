"""A router's choice from logits, compiled: top-k, and group-limited top-k (DeepSeek-V3 report, section 2.1.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.kernels import lean, lean_kernel
from placement.problem.arrays import FloatArray, IntArray

Logits = NDArray[np.float32]


def choose(logits: Logits, bias: Logits, top_k: int, groups: int, top_groups: int) -> IntArray:
    """[tokens, k] the experts of largest logit + bias, largest first.

    With top_groups < groups, only experts of the `top_groups` groups whose two best logits sum highest count.

    Args:
        logits: [tokens, experts]; bias: [experts].
        groups: consecutive groups of experts / groups experts each.
    """
    ids = np.zeros((len(logits), top_k), dtype=np.int64)
    _choose(
        logits, bias, ids, np.empty(top_k, dtype=np.float32), np.empty(top_groups, dtype=np.float32),
        np.zeros(top_groups, dtype=np.int64), np.ones(groups, dtype=bool),
    )  # fmt: skip
    return ids


def copies_per_token(ids: IntArray, experts: int) -> FloatArray:
    """[experts] mean copies of a token that go to each expert."""
    return np.bincount(ids.ravel(), minlength=experts) / len(ids)


@lean
def _insert(values: Logits, names: IntArray, value: np.float32, name: int) -> None:
    """Puts a value that exceeds the last of the descending `values` in its place; of equal values the first stays."""
    at = len(values) - 1
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        names[at] = names[at - 1]
        at -= 1
    values[at] = value
    names[at] = name


@lean_kernel
def _choose(
    logits: Logits, bias: Logits, ids: IntArray, best: Logits, group_best: Logits, kept: IntArray,
    allowed: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Fills ids of `choose`; best: [k], group_best, kept: [top groups], allowed: [groups], all True: scratch."""
    experts, groups, top_groups = logits.shape[1], len(allowed), len(kept)
    size = experts // groups
    for token in range(len(logits)):
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
                if score > group_best[top_groups - 1]:
                    _insert(group_best, kept, score, group)
            allowed[:] = False
            for place in range(top_groups):
                allowed[kept[place]] = True
        best[:] = -np.inf
        for group in range(groups):
            if allowed[group]:
                for expert in range(group * size, (group + 1) * size):
                    value = logits[token, expert] + bias[expert]
                    if value > best[len(best) - 1]:
                        _insert(best, ids[token], value, expert)
