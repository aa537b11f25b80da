"""Recordings as rows with named columns, whatever file they come from: CSV, Parquet or JSON lines.

A row is a count (layer, expert, count, maybe window), or a token in a layer (layer, ids, maybe token, sequence,
weights).
The ids of a row are one column of lists, or columns numbered from 0 or 1. Each layer's tokens come in one order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.recordings.intake import Intake
from specs.documents import shown
from specs.fields import MAX_EXPERTS, MAX_LAYERS

#: The names of columns that are known, in lower case and without what is no letter.
_NAMES = {
    "layer": ("layer", "layerid", "layeridx", "layerindex", "moelayer"),
    "expert": ("expert", "expertid", "expertidx", "logicalexpert"),
    "count": ("count", "counts", "load", "tokens", "numtokens", "tokencount", "value", "mean"),
    "window": ("window", "step", "iter", "iteration", "pass", "forwardpassid"),
    "sequence": ("sequence", "sequenceid", "seq", "seqid", "request", "requestid", "prompt", "promptid", "rid"),
    "token": ("token", "tokenidx", "tokenindex", "position", "pos"),
}
_IDS = (
    "topkids",
    "topk",
    "expertids",
    "experts",
    "ids",
    "routedexperts",
    "selectedexperts",
    "top",
    "expert",
    "topkindices",
)
_WEIGHTS = ("topkweights", "weights", "weight", "expertweights", "routingweights", "gate", "prob")
_FORM = "give columns layer, expert, count; or layer, token, expert_0, expert_1, ...; or a table of numbers alone"
#: Counts that a table may hold in one window, and most rows apart of one window.
_MAX_CELLS = 2**24


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are: their names, or None. ids, weights: a name of lists, or several names."""

    layer: str | None
    expert: str | None
    count: str | None
    window: str | None
    sequence: str | None
    token: str | None
    ids: tuple[str, ...]
    weights: tuple[str, ...]

    @classmethod
    def of(cls, names: Sequence[str], source: str) -> Columns:
        """Recognizes columns by their names.

        Raises:
            InputError: they name neither counts nor ids.
        """
        plain = {name: re.sub(r"[^a-z]", "", name.lower()) for name in names}
        single = {
            kind: next((name for name in names if plain[name] in known and not re.search(r"\d", name)), None)
            for kind, known in _NAMES.items()
        }
        ids, weights = (_several(names, plain, known) for known in (_IDS, _WEIGHTS))
        if single["count"] is not None and single["expert"] is not None:
            ids = ()
        found = cls(**single, ids=ids, weights=weights)
        if not ids and (found.count is None or found.expert is None):
            raise InputError(source, "", f"has the columns {', '.join(map(shown, names[:12]))}", _FORM)
        return found


def _several(names: Sequence[str], plain: Mapping[str, str], known: Sequence[str]) -> tuple[str, ...]:
    """The columns that are numbered and of one of these names, in their order; else the first that is so named."""
    numbered = [
        (int(number[-1]), name) for name in names if plain[name] in known and (number := re.findall(r"\d+", name))
    ]
    if numbered:
        return tuple(name for _, name in sorted(numbered))
    named = [name for each in known for name in names if plain[name] == each and each != "expert"]
    return tuple(named[:1])


class TableReader:
    """Takes the rows of one recording, in batches of columns."""

    def __init__(self, intake: Intake) -> None:
        """Fills `intake`."""
        self._intake = intake
        self._columns: Columns | None = None
        self._window: Any = None
        self._cells = np.zeros((0, 0))
        self._started = False
        self._sequence: Any = None
        self._first_layer: int | None = None
        self._order: dict[int, list[int]] = {}

    def add(self, batch: Mapping[str, Sequence[Any] | NDArray[Any]], source: str) -> None:
        """Takes rows.

        Args:
            batch: values by column name, equally many of each.

        Raises:
            InputError: values that are no numbers, or no ids and counts.
        """
        self._columns = self._columns or Columns.of(list(batch), source)
        if self._columns.ids:
            self._tokens(batch, self._columns, source)
        else:
            self._counts(batch, self._columns, source)

    def finish(self) -> None:
        """The last window has ended."""
        if self._started:
            self._intake.counts.add(self._cells)
        else:
            self._intake.tokens.end_sequence()

    def _counts(self, batch: Mapping[str, Any], columns: Columns, source: str) -> None:
        expert = _whole(batch, columns.expert, source, MAX_EXPERTS)
        layer = (
            np.zeros(len(expert), np.int64)
            if columns.layer is None
            else _whole(batch, columns.layer, source, MAX_LAYERS)
        )
        count = _numbers(batch, str(columns.count), source)
        window = np.zeros(len(expert)) if columns.window is None else _numbers(batch, columns.window, source)
        edges = np.flatnonzero(np.diff(window)) + 1
        for rows in np.split(np.arange(len(expert)), edges):
            if not len(rows):
                continue
            if self._started and window[rows[0]] != self._window:
                self._intake.counts.add(self._cells)
                self._cells = np.zeros_like(self._cells)
            self._started, self._window = True, window[rows[0]]
            self._grow(int(layer[rows].max()) + 1, int(expert[rows].max()) + 1, source)
            np.add.at(self._cells, (layer[rows], expert[rows]), count[rows])

    def _grow(self, layers: int, experts: int, source: str) -> None:
        """Room for so many layers and experts; counts that were seen keep their places."""
        shape = (max(layers, self._cells.shape[0]), max(experts, self._cells.shape[1], self._intake.shape.experts or 0))
        if shape[0] * shape[1] > _MAX_CELLS:
            raise InputError(source, "", f"has {shape[0]} layers of {shape[1]} experts", "check the columns' names")
        if shape != self._cells.shape:
            grown = np.zeros(shape)
            grown[: self._cells.shape[0], : self._cells.shape[1]] = self._cells
            self._cells = grown

    def _tokens(self, batch: Mapping[str, Any], columns: Columns, source: str) -> None:
        ids = _matrix(batch, columns.ids, source)
        weights = _matrix(batch, columns.weights, source) if columns.weights else None
        layer = (
            np.zeros(len(ids), np.int64) if columns.layer is None else _whole(batch, columns.layer, source, MAX_LAYERS)
        )
        if self._first_layer is None and len(layer):
            self._first_layer = int(layer[0])
        for each in sorted(set(layer.tolist()), key=lambda label: label != self._first_layer):
            rows = np.flatnonzero(layer == each)
            if each == self._first_layer and columns.sequence is not None:
                self._sequences(batch[columns.sequence], rows, each, ids, weights)
            else:
                self._intake.tokens.add(each, ids[rows], None if weights is None else weights[rows])

    def _sequences(
        self,
        labels: Sequence[Any],
        rows: NDArray[np.int64],
        layer: int,
        ids: NDArray[Any],
        weights: NDArray[Any] | None,
    ) -> None:
        """Adds rows of the first layer, and ends a sequence wherever the label changes."""
        own = np.array([str(labels[row]) for row in rows])
        for part in np.split(rows, np.flatnonzero(own[1:] != own[:-1]) + 1):
            label = str(labels[part[0]])
            if self._sequence is not None and label != self._sequence:
                self._intake.tokens.end_sequence()
            self._sequence = label
            self._intake.tokens.add(layer, ids[part], None if weights is None else weights[part])


def _numbers(batch: Mapping[str, Any], name: str, source: str) -> NDArray[np.float64]:
    try:
        return np.asarray(batch[name]).astype(np.float64)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InputError(source, shown(name), f"holds no numbers ({shown(str(error))})", _FORM) from None


def _whole(batch: Mapping[str, Any], name: str | None, source: str, most: int) -> NDArray[np.int64]:
    found = _numbers(batch, str(name), source)
    broken = ~((found >= 0) & (found < most) & (found == np.floor(found)))
    if broken.any():
        raise InputError(source, shown(name), f"holds {found[broken][0]:g}", f"give whole numbers from 0 to {most - 1}")
    return found.astype(np.int64)


def _matrix(batch: Mapping[str, Any], names: tuple[str, ...], source: str) -> NDArray[np.float64]:
    """[rows, k] numbers of several columns, or of one column of lists."""
    if len(names) > 1:
        return np.stack([_numbers(batch, name, source) for name in names], axis=1)
    cells = batch[names[0]]
    rows = [re.findall(r"-?\d[\d.eE+-]*", cell) if isinstance(cell, str) else cell for cell in cells]
    try:
        found = np.array(rows).astype(np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        problem = f"holds lists of unlike length, or no numbers ({shown(str(error))})"
        raise InputError(source, shown(names[0]), problem, _FORM) from None
    return found[:, None] if found.ndim == 1 else found
