"""Tables in CSV files (comma, semicolon or tab), with a header or of numbers alone."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np

from placement.errors import InputError
from placement.routing.recordings.arrays import add_counts
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.table import TableReader
from specs.documents import shown

#: Rows read at once, longest line, most rows of a table of numbers alone (layers, or windows x layers).
ROWS, MAX_LINE, _MAX_LAYERS = 20_000, 2**22, 2**14


def read(files: Sequence[Path], intake: Intake) -> None:
    """Reads files of one recording, one after the other.

    Raises:
        InputError: no table, or one whose columns say neither ids nor counts.
    """
    table = TableReader(intake)
    for path in files:
        source = str(path)
        with path.open("rb") as file:
            rows = _rows(file, source, intake)
            header = next(rows, None)
            if header is None:
                raise InputError(source, "", "is empty", "give a table with a header")
            header = [name.strip() for name in header]
            wide = not _is_number(header[0]) and header[1:] == [str(i) for i in range(len(header) - 1)]
            if len(header) > 1 and wide:  # a column for each expert, behind the layers' names
                _numbers_alone([row[1:] for row in islice(rows, _MAX_LAYERS + 1)], intake, source)
                continue
            if any(_is_number(cell) for cell in header):
                _numbers_alone([header, *islice(rows, _MAX_LAYERS)], intake, source)
                continue
            if len(set(header)) < len(header):
                raise InputError(source, "", "has two columns of one name", "name each column once")
            while batch := list(islice(rows, ROWS)):
                for row in batch:
                    if len(row) != len(header):
                        problem = f"has a row of {len(row)} values under {len(header)} columns: {shown(','.join(row))}"
                        raise InputError(source, "", problem, "give a value for every column")
                table.add({name: [row[i] for row in batch] for i, name in enumerate(header)}, source)
    table.finish()


def _numbers_alone(rows: list[list[str]], intake: Intake, source: str) -> None:
    """Counts [layers, experts], a row a layer."""
    if len(rows) > _MAX_LAYERS:
        raise InputError(source, "", f"has over {_MAX_LAYERS} rows without names", "name the columns in a header")
    try:
        array = np.array(rows, dtype=np.float64)
    except ValueError:
        raise InputError(
            source, "", "is no table of numbers, and has no header", "name the columns in a header"
        ) from None
    add_counts(array, intake, source)


def _rows(file: IO[bytes], source: str, intake: Intake) -> Iterator[list[str]]:
    """The rows that are not empty; blank lines and lines that begin with # are left out."""

    def lines() -> Iterator[str]:
        while line := file.readline(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise InputError(source, "", f"has a line of over {MAX_LINE} bytes", "give a table, a row a line")
            intake.meter.advance(len(line))
            try:
                text = line.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise InputError(source, "", "is not UTF-8 text", "save it as UTF-8") from None
            if text.strip() and not text.startswith("#"):
                yield text

    text = lines()
    first = next(text, None)
    if first is None:
        return
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader((line for part in ((first,), text) for line in part), delimiter=delimiter)
    number = 0
    try:
        for row in reader:
            number += 1
            yield row
    except csv.Error as error:
        raise InputError(source, f"row {number + 1}", f"is broken ({shown(str(error))})", "mend the quotes") from None


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
