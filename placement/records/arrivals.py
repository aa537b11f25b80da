"""Reads a record of requests: a CSV of arrival times and lengths. Every defect of a file is one InputError."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np

from placement.cost.serving_sim.arrivals import Recorded
from placement.errors import InputError
from placement.records.demand import MAX_REQUESTS
from specs.documents import read_text, shown
from specs.fields import MAX_COUNT

#: The columns, by their names in the file's first line; others are not read.
COLUMNS = ("arrival_s", "isl", "osl")
#: A larger file is no record of a few hours of requests.
MAX_BYTES = 100_000_000
#: Ten years: what comes later is a clock that counts from another time, in another unit.
MAX_SECONDS = 3.2e9


def read_arrivals(path: str | Path) -> Recorded:
    """The requests of a CSV file with the columns arrival_s (seconds, ascending), isl and osl (tokens).

    Times count from the first arrival.

    Raises:
        InputError: any defect of the file, by its line.
    """
    source = str(path)
    rows = csv.reader(read_text(Path(path), source, MAX_BYTES).splitlines())
    try:
        places = _places(source, next(rows, []))
        found = [_request(source, rows.line_num, row, places) for row in rows if row]
    except csv.Error as error:
        raise InputError(
            source, f"line {rows.line_num}", f"is no CSV: {error}", "write comma-separated values"
        ) from None
    if not found:
        raise InputError(source, "", "has no requests", f"write lines of {','.join(COLUMNS)}")
    if len(found) > MAX_REQUESTS:
        raise InputError(source, "", f"has {len(found):,} requests", f"give at most {MAX_REQUESTS:,}")
    arrival, isl, osl = (np.array(column) for column in zip(*found, strict=True))
    earlier = np.flatnonzero(np.diff(arrival) < 0)
    if len(earlier):
        at = int(earlier[0]) + 1
        raise InputError(
            source, f"request {at + 1}", f"arrival_s {arrival[at]:g} is before the one above, {arrival[at - 1]:g}",
            "sort the file by arrival_s",
        )  # fmt: skip
    return Recorded(arrival - arrival[0], isl.astype(np.int64), osl.astype(np.int64))


def _places(source: str, header: list[str]) -> tuple[int, ...]:
    names = [name.strip() for name in header]
    for column in COLUMNS:
        if names.count(column) != 1:
            told = shown(", ".join(names), 80) or "nothing"
            problem = "is not there" if column not in names else "is there more than once"
            raise InputError(source, column, f"{problem}: the first line names {told}", f"name {', '.join(COLUMNS)}")
    return tuple(names.index(column) for column in COLUMNS)


def _request(source: str, line: int, row: list[str], places: tuple[int, ...]) -> tuple[float, int, int]:
    if len(row) <= max(places):
        raise InputError(source, f"line {line}", f"has {len(row)} values", f"give {', '.join(COLUMNS)}")
    arrival, isl, osl = (row[place].strip() for place in places)
    return _seconds(source, line, arrival), _tokens(source, line, "isl", isl), _tokens(source, line, "osl", osl)


def _seconds(source: str, line: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_SECONDS:
        raise InputError(
            source, f"line {line}", f"arrival_s {shown(text)!r} is no number of seconds from 0 to {MAX_SECONDS:g}",
            "write seconds since the record began",
        )  # fmt: skip
    return value


def _tokens(source: str, line: int, column: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_COUNT)) and 1 <= int(text) <= MAX_COUNT):
        raise InputError(
            source, f"line {line}", f"{column} {shown(text)!r} is no count of tokens from 1 to {MAX_COUNT:,}",
            "write whole numbers, or leave the request out",
        )  # fmt: skip
    return int(text)
