"""What of recorded token choices is routing.

Padding, unused columns, dense layers, fused shared experts and profile runs are recognized by what they look like,
named, and left out.

Two passes over the spool: the first looks at every layer by itself, the second marks tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.problem.arrays import BoolArray, IntArray
from placement.routing.recordings.layers import choose_layers
from placement.routing.recordings.shape import ModelShape
from placement.routing.recordings.spool import PADDING, Spool, blank_rows

#: So many tokens in a row with the same experts in every layer are a profile run, if their weights are equal, too ...
PROFILED = 8
#: ... or if no weights are known: a text that repeats one character comes close to that.
PROFILED_UNWEIGHTED = 64
#: Weights of a token count as equal up to this share of the largest.
_EQUAL = 1e-3


@dataclass(frozen=True)
class CleanTokens:
    """What of a spool is routing.

    Attributes:
        layers: labels of the MoE layers. columns: [k] columns of routed experts. experts: how many there are a layer.
        keep: [tokens] True where a token is kept. notes: what was left out and why.
    """

    layers: tuple[int, ...]
    columns: IntArray
    experts: int
    keep: BoolArray
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Columns:
    """Of one layer, over the rows that are not blank: how many they are, least and largest id of each column ([k])."""

    rows: int
    low: IntArray
    high: IntArray

    @property
    def empty(self) -> bool:
        """Whether the layer has no routing; of one id a token, 0 in all rows is what a dense layer looks like."""
        return self.rows == 0 or (len(self.high) == 1 and self.high[0] == 0)


def clean_tokens(spool: Spool, shape: ModelShape, source: str) -> CleanTokens:
    """Finds what is routing.

    Raises:
        InputError: nothing is left, or what is left can't be routing of this model, with the cause.
    """
    spool.check_even()
    labels = spool.layers
    if not labels:
        raise InputError(source, "", "holds no tokens", "record while the engine serves")
    seen = {layer: _columns(spool, layer) for layer in labels}
    keep_layer, notes = choose_layers(
        labels, np.array([seen[layer].empty for layer in labels], dtype=bool), shape, source
    )
    layers = tuple(np.array(labels)[keep_layer].tolist())
    low = np.array([seen[layer].low for layer in layers])
    high = np.array([seen[layer].high for layer in layers])
    columns, experts = _routed(low, high, shape, source, notes)
    padded, same = _marks(spool, layers, columns, experts, source)
    keep = ~padded
    if padded.any():
        notes.append(f"dropped {padded.sum():,} tokens: padding (-1, 65535, {experts}, or one id in all places)")
    profiled = _runs(same & keep, PROFILED if spool.weighted else PROFILED_UNWEIGHTED) & keep
    if profiled.any():
        equal = " at equal weights" if spool.weighted else ""
        notes.append(f"dropped {profiled.sum():,} tokens: profile run (constant ids{equal})")
    keep &= ~profiled
    if not keep.any():
        raise InputError(source, "", f"holds no routing: {'; '.join(notes)}", "record while the engine serves")
    return CleanTokens(layers, columns, experts, keep, tuple(notes))


def _columns(spool: Spool, layer: int) -> _Columns:
    rows, low, high = 0, np.full(spool.width, PADDING), np.full(spool.width, -1)
    for _, ids, _ in spool.rows(layer):
        full = ids[~blank_rows(ids)].astype(np.int64)
        rows += len(full)
        if len(full):
            low = np.minimum(low, full.min(axis=0))
            high = np.maximum(high, np.where(full == PADDING, -1, full).max(axis=0))
    return _Columns(rows, low, high)


def _routed(
    low: NDArray[Any], high: NDArray[Any], shape: ModelShape, source: str, notes: list[str]
) -> tuple[IntArray, int]:
    """([k] columns, experts a layer): without unused columns, and without a fused shared expert behind the others."""
    used = np.asarray((high >= 0).any(axis=0))
    if not used.all():
        notes.append(f"dropped {(~used).sum()} of {len(used)} columns: never used (-1)")
    columns = np.flatnonzero(used)
    while len(columns) > 1 and _is_shared(low[:, columns], high[:, columns], shape, len(columns)):
        ids = sorted({int(low[:, columns[-1]].min()), int(high[:, columns[-1]].max())})
        told = "-".join(map(str, ids))
        notes.append(f"dropped column {columns[-1]}: a fused shared expert (id {told} in every token)")
        columns = columns[:-1]
    if shape.top_k is not None and len(columns) != shape.top_k:
        raise InputError(
            source, "", f"has {len(columns)} experts a token, {shape.name} has {shape.top_k}; none is a shared expert",
            "give the model that was recorded with `model`",
        )  # fmt: skip
    most = int(high[:, columns].max())
    experts = shape.experts or most + 1
    if shape.experts is None:
        notes.append(f"took {experts} experts, the highest id and one, as no model was given")
    if most > experts:
        raise InputError(
            source, "", f"holds the id {most}, {shape.name} has {experts} experts: ids are slots of a placement",
            "record logical experts, or a file that holds its physical_to_logical_map",
        )  # fmt: skip
    return columns, experts


def _is_shared(low: NDArray[Any], high: NDArray[Any], shape: ModelShape, width: int) -> bool:
    """Whether the last column lies beyond all ids of the others, in every layer."""
    if shape.top_k is not None and width <= shape.top_k:
        return False
    floor = high[:, :-1].max() + 1 if shape.experts is None else shape.experts
    return bool((low[:, -1] >= floor).all())


def _marks(
    spool: Spool, layers: tuple[int, ...], columns: IntArray, experts: int, source: str
) -> tuple[BoolArray, BoolArray]:
    """([tokens] padding in some layer, [tokens] experts of the token before in every layer, at equal weights)."""
    padded = np.zeros(spool.tokens, dtype=bool)
    same = np.ones(spool.tokens, dtype=bool)
    same[:1] = False
    for layer in layers:
        last = np.zeros((0, len(columns)), dtype=np.uint16)
        for start, every, weights in spool.rows(layer):
            ids = every[:, columns]
            stop = start + len(ids)
            blank = (ids >= experts).any(axis=1) | blank_rows(ids)
            _check_distinct(ids, blank, start, layer, source)
            padded[start:stop] |= blank
            before = np.concatenate([last if len(last) else ids[:1], ids[:-1]])
            same[start:stop] &= (ids == before).all(axis=1)
            if weights is not None:
                own = weights[:, columns]
                same[start:stop] &= np.ptp(own, axis=1) <= _EQUAL * np.abs(own).max(axis=1)
            last = ids[-1:]
    return padded, same


def _check_distinct(ids: NDArray[Any], blank: BoolArray, start: int, layer: int, source: str) -> None:
    ordered = np.sort(ids, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1) & ~blank
    if twice.any():
        token = int(np.flatnonzero(twice)[0])
        raise InputError(
            source, f"layer {layer}, token {start + token}", f"uses an expert twice: {ids[token].tolist()}",
            "give the axes in their order with `axes`, or record logical experts",
        )  # fmt: skip


def _runs(same: BoolArray, least: int) -> BoolArray:
    """[tokens] True in runs of at least `least` tokens that are alike; `same` says it of a token and the one before."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], same, [False]]).astype(np.int8)))
    out = np.zeros(len(same), dtype=bool)
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        if stop - start + 1 >= least:
            out[max(0, start - 1) : stop] = True
    return out
