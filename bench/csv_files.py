"""Reads the CSV files that benchmarks judge by: every column present, every value a stripped text."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection
from pathlib import Path

from placement.errors import InputError
from specs.documents import read_text, shown

#: Larger files are no table of measurements.
MAX_BYTES = 2**28


def read_csv(path: str | Path, columns: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows of a file, all its columns; a value that a short row lacks is "".

    Args:
        columns: That the file must have.

    Raises:
        InputError: The file can't be read, is no CSV text, or lacks a column.
    """
    source = str(path)
    text = read_text(Path(path), source, MAX_BYTES)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        names = table.fieldnames or ()
        missing = [name for name in columns if name not in names]
        if missing:
            raise InputError(source, "header", f"no column {', '.join(missing)}", f"give {', '.join(columns)}")
        return [{name: (row[name] or "").strip() for name in names} for row in table]
    except csv.Error as error:
        raise InputError(source, "", f"is no CSV text ({shown(str(error), 80)})", "give a UTF-8 CSV file") from None
