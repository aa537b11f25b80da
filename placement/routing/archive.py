"""Arrays out of .npz and .npy files that nobody vouches for: sizes are checked before anything is allocated.

No pickle is ever loaded, and every defect is one InputError. numpy's own loader would trust the headers.
"""

from __future__ import annotations

import lzma
import math
import os
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from placement.errors import InputError

#: Largest file, and largest array, that is read.
MAX_BYTES = 4 * 2**30
#: A compressed member may grow by this factor; recorded routing grows by 2 to 10.
MAX_EXPANSION = 500
#: ... but below this size any factor will do (a short constant array shrinks a lot).
_HARMLESS_BYTES = 64 * 2**20
_DEFECTS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, SyntaxError,
    NotImplementedError, RuntimeError, OverflowError, MemoryError, struct.error, tokenize.TokenError, lzma.LZMAError,
)  # fmt: skip
_INTACT = "record or copy the file anew"


class Archive:
    """The arrays of one file, by key. A bare .npy file is an archive with the one key ""."""

    def __init__(self, path: Path, source: str) -> None:
        """Opens `path`; messages name it `source`.

        Raises:
            InputError: it is missing, a folder, too large, or neither .npz nor .npy.
        """
        self.path, self.source = path, source
        with self._defects(""):
            if not path.exists():
                raise InputError(source, "", "no such file", "give the path of a trace (.npz)")
            if not path.is_file():
                raise InputError(source, "", "is not a file", "give the path of a trace (.npz)")
            if path.stat().st_size > MAX_BYTES:
                raise InputError(source, "", f"is larger than {MAX_BYTES // 2**30} GiB", "record fewer tokens")
            with path.open("rb") as file:
                start = file.read(6)
        self._bare = start == b"\x93NUMPY"
        if not start:
            raise InputError(source, "", "is an empty file", _INTACT)
        if not self._bare and start[:2] != b"PK":
            raise InputError(source, "", "is not a .npz file", "write traces with numpy.savez_compressed")
        self.keys = ("",) if self._bare else self._names()

    def _names(self) -> tuple[str, ...]:
        with self._defects(""), zipfile.ZipFile(self.path) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())

    def read(self, key: str) -> NDArray[Any]:
        """The array under `key`, whole.

        Raises:
            InputError: the member is corrupted, truncated, absurdly large, or holds Python objects.
        """
        with self._defects(key):
            if self._bare:
                with self.path.open("rb") as file:
                    return self._array(key, file, self.path.stat().st_size)
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
                if info.file_size > max(_HARMLESS_BYTES, MAX_EXPANSION * info.compress_size):
                    raise self._refuse(key, f"unpacks to {info.file_size} bytes, too many to be routing", _INTACT)
                with archive.open(info) as member:
                    array = self._array(key, member, info.file_size)
                    member.read(1)  # to the end, where the checksum is compared
                return array

    def _array(self, key: str, file: IO[bytes], size: int) -> NDArray[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
            version = npy.read_magic(file)
            if version not in {(1, 0), (2, 0)}:
                raise self._refuse(key, f"has array format {version[0]}.{version[1]}", "write it with numpy.save")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = read_header(file)
        if dtype.hasobject:
            raise self._refuse(key, "holds Python objects, which are not loaded", "store plain numbers or text")
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise self._refuse(key, f"has the impossible shape {shape}", _INTACT)
        wanted = math.prod(shape) * dtype.itemsize
        if wanted > min(size, MAX_BYTES):
            raise self._refuse(key, f"says it has {wanted} bytes, but the file holds {size}", _INTACT)
        data = file.read(wanted)
        if len(data) != wanted:
            raise self._refuse(key, f"is cut off after {len(data)} of {wanted} bytes", _INTACT)
        if dtype.itemsize == 0:
            return np.zeros(shape, dtype)
        flat = np.frombuffer(data, dtype)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)

    def _refuse(self, key: str, problem: str, mend: str) -> InputError:
        return InputError(self.source, key, problem, mend)

    @contextmanager
    def _defects(self, key: str) -> Iterator[None]:
        """Turns what the zip, zlib and numpy readers raise on broken bytes into one InputError."""
        try:
            yield
        except _DEFECTS as error:
            said = str(error).strip("'\"") or type(error).__name__
            raise InputError(self.source, key, f"cannot be read ({said[:200]})", _INTACT) from error


def write_archive(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a compressed .npz whole or not at all: into a file beside `path` first, then renamed over it.

    Raises:
        InputError: `path` cannot be written.
    """
    beside = path.parent / f".{path.name}.{os.getpid()}.tmp"
    try:
        if path.is_dir():
            raise IsADirectoryError("is a folder")
        try:
            with beside.open("xb") as file:
                np.savez_compressed(file, allow_pickle=False, **dict(arrays))
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise InputError(str(path), "", f"cannot be written ({said})", "give a path in a writable folder") from error
