"""Arrays out of .npz and .npy files that nobody vouches for: sizes are checked before anything is allocated.

No pickle is ever loaded, and every defect is one InputError. numpy's own loader would trust the headers.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from placement.errors import InputError

#: Largest file that is opened, and the most that one array of it may take in memory.
MAX_BYTES, MAX_ARRAY_BYTES = 4 * 2**30, 2**30
#: Largest header of an array, and largest list of a file's arrays: both are read before anything is known of them.
_MAX_HEADER, _MAX_NAMES = 10_000, 2**20
#: A compressed member may grow by this factor; recorded routing grows by 2 to 10.
MAX_EXPANSION = 500
#: ... but below this size any factor will do (a short constant array shrinks a lot).
_HARMLESS_BYTES = 64 * 2**20
_DEFECTS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, SyntaxError,
    NotImplementedError, RuntimeError, OverflowError, MemoryError, struct.error, tokenize.TokenError,
)  # fmt: skip
_INTACT = "record or copy the file anew"


class _Directory(io.FileIO):
    """A zip file that is opened for its list of members, which zipfile would read at any length."""

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file, but not much at once."""
        if size is not None and size > _MAX_NAMES:
            raise ValueError(f"its list of arrays takes {size} bytes")
        return super().read(-1 if size is None else size)


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
        with self._defects(""), _Directory(self.path) as file, zipfile.ZipFile(file) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())

    def read(self, key: str, each: int = 1, most: int = MAX_ARRAY_BYTES) -> NDArray[Any]:
        """The array under `key`, whole.

        Args:
            each: bytes that the caller takes for one entry, where that is more than it has in the file.
            most: bytes that all entries may take.

        Raises:
            InputError: the member is corrupted, truncated, too large, or holds Python objects.
        """
        with self._defects(key):
            if self._bare:
                with self.path.open("rb") as file:
                    return self._array(key, file, self.path.stat().st_size, each, most)
            with zipfile.ZipFile(self.path) as archive:
                info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
                if info.file_size > max(_HARMLESS_BYTES, MAX_EXPANSION * info.compress_size):
                    raise self._refuse(key, f"unpacks to {info.file_size} bytes, too many to be routing", _INTACT)
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # Of these zipfile unpacks all there is, whatever size the member states.
                    raise self._refuse(key, "is compressed as numpy does not", "write it with numpy.savez_compressed")
                with archive.open(info) as member:
                    array = self._array(key, member, info.file_size, each, most)
                    member.read(1)  # to the end, where the checksum is compared
                return array

    def _array(self, key: str, file: IO[bytes], size: int, each: int, most: int) -> NDArray[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
            version = npy.read_magic(file)
            if version not in {(1, 0), (2, 0)}:
                raise self._refuse(key, f"has array format {version[0]}.{version[1]}", "write it with numpy.save")
            read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            length = file.read(2 if version == (1, 0) else 4)
            if int.from_bytes(length, "little") > _MAX_HEADER:
                raise self._refuse(key, f"has a header of {int.from_bytes(length, 'little')} bytes", _INTACT)
            shape, fortran, dtype = read_header(io.BytesIO(length + file.read(int.from_bytes(length, "little"))))
        if dtype.hasobject:
            raise self._refuse(key, "holds Python objects, which are not loaded", "store plain numbers or text")
        if any(not isinstance(n, int) or n < 0 for n in shape):
            raise self._refuse(key, f"has the impossible shape {shape}", _INTACT)
        if dtype.itemsize == 0:
            raise self._refuse(key, "has entries of no size", "store plain numbers or text")
        wanted = math.prod(shape) * dtype.itemsize
        if wanted > size:
            raise self._refuse(key, f"says it has {wanted} bytes, but the file holds {size}", _INTACT)
        taken = math.prod(shape) * max(each, dtype.itemsize)
        if taken > most:
            problem = f"has shape {shape} and type {dtype}, for which {taken} bytes of memory are needed"
            raise self._refuse(key, problem, f"record less: at most {most} bytes are taken")
        data = file.read(wanted)
        if len(data) != wanted:
            raise self._refuse(key, f"is cut off after {len(data)} of {wanted} bytes", _INTACT)
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
