"""Ids and counts in JSON: rows of a table, a token or sequence a line, or arrays by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from placement.errors import InputError
from placement.routing.recordings.arrays import ALL_COUNT_KEYS, ID_KEYS, WEIGHT_KEYS, add_counts, add_ids
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.json_file import number_array, values
from placement.routing.recordings.table import TableReader
from specs.documents import shown

#: Rows that are taken together.
_ROWS = 20_000
_FORM = 'give lines such as {"layer": 0, "expert": 3, "count": 17} or {"topk_ids": [[5, 2], [7, 1]]}'


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads files of one recording, one after the other.

    Raises:
        InputError: no JSON, or values that are neither rows nor arrays.
    """
    table, rows, tabular = TableReader(intake), [], False
    for path in files:
        source = str(path)
        for where, value in values(path, source, intake.meter.advance):
            if isinstance(value, dict) and _is_row(value):
                rows.append(value)
                if len(rows) == _ROWS:
                    _add(rows, table, source)
                    rows, tabular = [], True
            else:
                _arrays(value, intake, source, where)
        if rows:
            _add(rows, table, source)
            rows, tabular = [], True
    if tabular:
        table.finish()


def _is_row(value: Mapping[str, Any]) -> bool:
    """Whether a mapping is a row of a table: a layer's, or of plain values alone."""
    return "layer" in value or "layer_id" in value or not any(isinstance(each, list | dict) for each in value.values())


def _add(rows: Sequence[Mapping[str, Any]], table: TableReader, source: str) -> None:
    names = list(rows[0])
    for row in rows:
        if row.keys() != rows[0].keys():
            problem = f"has rows of unlike keys: {', '.join(map(shown, row))}"
            raise InputError(source, "", problem, "give the same keys in every line")
    table.add({name: [row[name] for row in rows] for name in names}, source)


def _arrays(value: Any, intake: Intake, source: str, where: str) -> None:
    """A token [layers, k], a sequence [tokens, layers, k], or counts."""
    if not isinstance(value, dict):
        raise InputError(source, where, f"is {shown(value)}", _FORM)
    ids, weights, counts = (
        next((k for k in keys if k in value), None) for keys in (ID_KEYS, WEIGHT_KEYS, ALL_COUNT_KEYS)
    )
    if ids is not None:
        array = number_array(value[ids], source, f"{where}.{ids}")
        given = (
            None if weights is None else number_array(value[weights], source, f"{where}.{weights}").astype(np.float64)
        )
        if given is not None and given.shape != array.shape:
            raise InputError(source, f"{where}.{weights}", f"has shape {given.shape}", "give a weight for each id")
        if array.ndim == 2:  # a token
            intake.add_tokens(array[None], None if given is None else given[None])
        else:
            add_ids(array, given, intake, source)
            intake.tokens.end_sequence()
    elif counts is not None:
        add_counts(number_array(value[counts], source, f"{where}.{counts}"), intake, source)
    else:
        raise InputError(source, where, f"has the keys {', '.join(map(shown, list(value)[:12]))}", _FORM)
