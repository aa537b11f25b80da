"""JSON values out of a file, one after the other: JSON lines, server-sent events, or one document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from specs.documents import shown

#: Longest line, and largest document of several lines: one request of vLLM with 128 k tokens takes 90 MB.
MAX_LINE = 2**28
#: Most entries of one value: Python takes up to 64 bytes for each.
_MAX_ENTRIES = 2**24
_DECODER = json.JSONDecoder()
_BLANK = re.compile(r"\s*")
_FORM = "give JSON lines, one value a line"


def values(path: Path, source: str, advance: Callable[[int], None]) -> Iterator[tuple[str, Any]]:
    """(where it stands, value) of each; the items of a document that is a list come one by one.

    Raises:
        InputError: no JSON, or a line that is too long.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise InputError(source, f"line {number}", f"has over {MAX_LINE} bytes", _FORM)
            text = line.strip().removeprefix(b"data:").strip()  # of a server-sent event
            if text.startswith(b"\xef\xbb\xbf"):
                text = text[3:]
            if not text or text == b"[DONE]":
                advance(len(line))
                continue
            try:
                found = _parsed(text)
            except ValueError as error:
                if number > 1 or path.stat().st_size > MAX_LINE:
                    raise InputError(source, f"line {number}", f"is no JSON ({shown(str(error))})", _FORM) from None
                file.seek(0)
                yield from _document(file.read(), source)
                advance(path.stat().st_size)
                return
            if number == 1 and len(found) == 1 and isinstance(found[0], list):
                yield from ((f"[{i}]", each) for i, each in enumerate(found[0]))
            else:
                yield from ((f"line {number}", value) for value in found)
            advance(len(line))


def _document(data: bytes, source: str) -> Iterator[tuple[str, Any]]:
    try:
        found = _parsed(data)
    except ValueError as error:
        raise InputError(source, "", f"is no JSON ({shown(str(error))})", _FORM) from None
    for value in found:
        if isinstance(value, list):
            yield from ((f"[{i}]", each) for i, each in enumerate(value))
        else:
            yield "", value


def _parsed(data: bytes) -> list[Any]:
    """The values of a text, one after the other: responses that were appended to a file have no line ends."""
    if sum(map(data.count, (b",", b"[", b"{"))) > _MAX_ENTRIES:
        raise ValueError(f"over {_MAX_ENTRIES} entries in one value")
    try:
        text, place, found = data.decode().rstrip(), 0, []
        while place < len(text):
            value, place = _DECODER.raw_decode(text, _BLANK.match(text, place).end())  # type: ignore[union-attr]
            found.append(value)
        return found
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError(type(error).__name__) from None


def number_array(value: Any, source: str, field: str) -> NDArray[Any]:
    """A nested list of numbers as an array.

    Raises:
        InputError: it is none, or its parts are of unlike length.
    """
    try:
        array = np.array(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.array("")
    if array.dtype.kind not in "iuf" or not array.size:
        raise InputError(source, field, "is no nested list of numbers of even lengths", "record again")
    return array
