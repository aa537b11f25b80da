"""Tensors out of a .safetensors file, one at a time: eight bytes of length, a JSON header, the tensors' bytes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.archive import MAX_ARRAY_BYTES
from specs.documents import shown

#: Largest header: 300,000 tensors.
_MAX_HEADER = 2**25
_TYPES = {
    "U8": "<u1", "I8": "<i1", "U16": "<u2", "I16": "<i2", "U32": "<u4", "I32": "<i4", "U64": "<u8", "I64": "<i8",
    "F16": "<f2", "F32": "<f4", "F64": "<f8", "BOOL": "?",
}  # fmt: skip
_INTACT = "copy the file anew, or record again"


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    start: int


class SafetensorsFile:
    """The tensors of a file by name."""

    def __init__(self, path: Path, source: str) -> None:
        """Reads the header; messages name the file `source`.

        Raises:
            InputError: a broken header, or one that says more than the file has.
        """
        self._path, self._source = path, source
        with self._opened("") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MAX_HEADER:
                raise InputError(source, "", f"says that its header has {size} bytes", _INTACT)
            try:
                header = json.loads(file.read(size))
            except (ValueError, RecursionError) as error:
                raise InputError(source, "", f"has a header that is no JSON ({shown(str(error))})", _INTACT) from None
            self._start = 8 + size
        if not isinstance(header, dict):
            raise InputError(source, "", "has a header that is no mapping", _INTACT)
        self._entries = {
            name: self._entry(name, entry, path.stat().st_size - self._start)
            for name, entry in header.items()
            if name != "__metadata__"
        }

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of the file."""
        return tuple(self._entries)

    def read(self, name: str) -> NDArray[Any]:
        """A tensor.

        Raises:
            InputError: the file ends before it.
        """
        entry = self._entries[name]
        dtype = np.dtype(entry.dtype)
        count = math.prod(entry.shape)
        with self._opened(name) as file:
            file.seek(self._start + entry.start)
            data = file.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise InputError(self._source, shown(name), "is cut off", _INTACT)
        return np.frombuffer(data, dtype).reshape(entry.shape)

    def _entry(self, name: str, entry: Any, room: int) -> _Entry:
        try:
            dtype, shape, (start, end) = _TYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
            whole = all(type(n) is int and n >= 0 for n in (*shape, start, end))
            size = math.prod(shape) * np.dtype(dtype).itemsize if whole else -1
            said = end - start if whole else 0
        except (KeyError, TypeError, ValueError):
            raise InputError(self._source, shown(name), "has an entry of an unknown form or type", _INTACT) from None
        if size != said or end > room:
            raise InputError(self._source, shown(name), "says another size than its bytes have", _INTACT)
        if size > MAX_ARRAY_BYTES:
            raise InputError(self._source, shown(name), f"has {size} bytes", f"at most {MAX_ARRAY_BYTES} are taken")
        return _Entry(dtype, tuple(shape), start)

    @contextmanager
    def _opened(self, field: str) -> Iterator[IO[bytes]]:
        try:
            with self._path.open("rb") as file:
                yield file
        except OSError as error:
            raise InputError(self._source, field, f"cannot be read ({error.strerror})", _INTACT) from error
