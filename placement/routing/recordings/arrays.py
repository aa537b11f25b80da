"""Arrays of ids or counts in .npz and .npy files, in any order of axes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.archive import MAX_ARRAY_BYTES, Archive, OpenArray
from placement.routing.reader import COUNT_KEYS
from placement.routing.recordings.axes import axes_of_counts, axes_of_ids, differ, is_even
from placement.routing.recordings.intake import PIECE, Intake
from specs.documents import shown

#: Largest file. What is read of it at once is bounded by PIECE, or by MAX_ARRAY_BYTES where k is not the last axis.
_MAX_FILE = 2**44
ID_KEYS = (
    "topk_ids",
    "topk_indices",
    "expert_ids",
    "routed_experts",
    "selected_experts",
    "topk_experts",
    "experts",
    "ids",
)
WEIGHT_KEYS = ("topk_weights", "expert_weights", "routing_weights", "weights")
ALL_COUNT_KEYS = (*COUNT_KEYS, "expert_counts", "expert_load", "expert_loads", "loads", "load")
#: Experts of a token that an array of an unknown name may be taken for.
_MOST_K = 64
_FORM = "store topk_ids [layers, tokens, k] or counts [windows, layers, experts]"


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads files of one recording, one after the other.

    Raises:
        InputError: a broken file, or one without ids and counts.
    """
    for path in files:
        end = intake.meter.done + path.stat().st_size
        archive = Archive(path, str(path), _MAX_FILE)
        ids, weights, counts = (
            next((key for key in keys if key in archive.keys), None) for keys in (ID_KEYS, WEIGHT_KEYS, ALL_COUNT_KEYS)
        )
        numbered = [(int(found[0]), key) for key in archive.keys if len(found := re.findall(r"\d+", key)) == 1]
        if ids is not None:
            _ids(archive, ids, weights, intake)
        elif counts is not None:
            _counts(archive, counts, intake)
        elif len(archive.keys) == 1:
            _by_content(archive, archive.keys[0], intake)
        elif 0 < len(numbered) == len(archive.keys) == len({layer for layer, _ in numbered}):
            _by_layer(archive, sorted(numbered), intake)
        else:
            listed = ", ".join(shown(key) for key in archive.keys[:12])
            raise InputError(str(path), "", f"holds {listed or 'nothing'}, but no ids or counts", _FORM)
        intake.meter.reach(end)


def add_ids(ids: NDArray[Any], weights: NDArray[Any] | None, intake: Intake, source: str) -> None:
    """Adds a 3-d array of ids in any order of axes; [tokens, k] is one layer.

    Raises:
        InputError: its axes can't be told.
    """
    if ids.ndim == 2:
        intake.tokens.add(0, ids, weights)
        return
    if ids.ndim != 3 or 0 in ids.shape:
        raise InputError(source, "", f"has ids of shape {ids.shape}", "give [layers, tokens, k]")
    order = axes_of_ids(ids.shape, cache(partial(differ, ids)), intake.shape, intake.axes, source)
    _say(order, ("layers", "tokens", "k"), intake)
    move = [order.index(name) for name in ("tokens", "layers", "k")]
    intake.add_tokens(ids.transpose(move), None if weights is None else weights.transpose(move))


def add_counts(counts: NDArray[Any], intake: Intake, source: str) -> None:
    """Adds a 2-d or 3-d array of counts in any order of axes.

    Raises:
        InputError: it has other dimensions.
    """
    if counts.ndim not in (2, 3) or counts.dtype.kind not in "iuf" or 0 in counts.shape:
        problem = f"has counts of shape {counts.shape} and type {counts.dtype}"
        raise InputError(source, "", problem, "give numbers as [windows, layers, experts]")
    order = axes_of_counts(counts, intake.shape, intake.axes, source)
    names = ("windows", "layers", "experts")[3 - counts.ndim :]
    _say(order, names, intake)
    moved = counts.transpose([order.index(name) for name in names])
    for window in moved if counts.ndim == 3 else (moved,):
        intake.counts.add(window)


def _say(order: tuple[str, ...], usual: tuple[str, ...], intake: Intake) -> None:
    if order != usual:
        intake.note(f"took the axes as [{', '.join(order)}]")


def _ids(archive: Archive, key: str, weights_key: str | None, intake: Intake) -> None:
    with ExitStack() as files:
        array = files.enter_context(archive.open(key))
        weights = None if weights_key is None else files.enter_context(archive.open(weights_key))
        if array.dtype.kind not in "iuf":
            raise InputError(archive.source, shown(key), f"has type {array.dtype}", "store whole numbers")
        if weights is not None:
            same = (weights.shape, weights.fortran) == (array.shape, array.fortran)
            if not same or weights.dtype.kind != "f":
                problem = f"has shape {weights.shape} and type {weights.dtype} beside ids of {array.shape}"
                raise InputError(archive.source, str(weights_key), problem, "store a weight for each id, as floats")
        order = _streamed_axes(archive, key, array, intake)
        if order is not None:
            _say(order, ("layers", "tokens", "k"), intake)
            _stream(array, weights, order, intake, archive.path.stat().st_size)
    if order is None:
        beside = None if weights_key is None else archive.read(weights_key)
        add_ids(archive.read(key), beside, intake, archive.source)
    _sequences(archive, intake)


def _streamed_axes(archive: Archive, key: str, array: OpenArray, intake: Intake) -> tuple[str, ...] | None:
    """The axes of a 3-d array whose last one is k, which is read piece by piece; None for others."""
    if len(array.shape) != 3 or 0 in array.shape:
        return None
    if intake.axes is not None:
        given = intake.axes[::-1] if array.fortran else intake.axes
        order = axes_of_ids(array.shape, bool, intake.shape, given, archive.source)
        return order if order[2] == "k" else None
    k = array.shape[2]
    with archive.open(key) as again:
        head = again.take(min(math.prod(array.shape), max(1, PIECE // k) * k)).reshape(1, -1, k)
    if not differ(head, 2):
        return None
    return axes_of_ids(array.shape, lambda axis: axis == 2, intake.shape, None, archive.source)


def _stream(array: OpenArray, weights: OpenArray | None, order: tuple[str, ...], intake: Intake, size: int) -> None:
    """Adds an array of a file of `size` bytes piece by piece."""
    first, second, k = array.shape
    if order[0] == "tokens":
        at_once = max(1, PIECE // (second * k))
        for start in range(0, first, at_once):
            block = (min(at_once, first - start), second, k)
            intake.add_tokens(_taken(array, block), None if weights is None else _taken(weights, block))
            intake.meter.advance(size * block[0] // first)
        return
    at_once = max(1, PIECE // k)
    for layer in range(first):
        for start in range(0, second, at_once):
            rows = (min(at_once, second - start), k)
            intake.tokens.add(layer, _taken(array, rows), None if weights is None else _taken(weights, rows))
            intake.meter.advance(size * rows[0] // (first * second))


def _taken(array: OpenArray, shape: tuple[int, ...]) -> NDArray[Any]:
    return array.take(math.prod(shape)).reshape(shape)


def _sequences(archive: Archive, intake: Intake) -> None:
    """The lengths of sequences, where the file says them of all its tokens."""
    if "seq_lens" not in archive.keys:
        intake.tokens.end_sequence()
        return
    lengths = archive.read("seq_lens")
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths.size and lengths.min() < 1):
        raise InputError(
            archive.source, "seq_lens", f"has shape {lengths.shape} and type {lengths.dtype}", "store lengths"
        )
    intake.tokens.end_sequences(lengths.astype(np.int64), archive.source)


def _counts(archive: Archive, key: str, intake: Intake) -> None:
    """Windows one after the other where the array is too large to be looked at as a whole."""
    with archive.open(key) as array:
        large = math.prod(array.shape) * array.dtype.itemsize > MAX_ARRAY_BYTES
        if large and (len(array.shape) != 3 or array.fortran):
            raise InputError(archive.source, shown(key), f"has shape {array.shape}", "store [windows, layers, experts]")
        if large:
            for _ in range(array.shape[0]):
                intake.counts.add(_taken(array, array.shape[1:]))
            return
    add_counts(archive.read(key, each=8), intake, archive.source)


def _by_content(archive: Archive, key: str, intake: Intake) -> None:
    """An array of a name that says nothing: ids differ along the last axis, and counts have equal sums over layers."""
    with archive.open(key) as array:
        k, size = array.shape[-1] if array.shape else 0, math.prod(array.shape)
        ids = len(array.shape) == 3 and array.dtype.kind in "iu" and 0 < k <= _MOST_K and size > 0
        if ids:
            head = array.take(min(size, max(1, PIECE // k) * k))
            ids = differ(head.reshape(1, -1, k), 2) and (len(head) < size or not is_even(head.reshape(array.shape)))
    if ids:
        _ids(archive, key, None, intake)
    else:
        _counts(archive, key, intake)


def _by_layer(archive: Archive, numbered: Sequence[tuple[int, str]], intake: Intake) -> None:
    """An array [tokens, k] of ids, or [experts] of counts, for each layer."""
    arrays = [(layer, archive.read(key)) for layer, key in numbered]
    if all(array.ndim == 1 and array.size == arrays[0][1].size for _, array in arrays):
        intake.counts.add(np.stack([array for _, array in arrays]), tuple(layer for layer, _ in arrays))
        return
    for layer, array in arrays:
        if array.ndim != 2:
            raise InputError(archive.source, f"layer {layer}", f"has shape {array.shape}", "store [tokens, k] a layer")
        intake.tokens.add(layer, array)
    intake.tokens.end_sequence()
