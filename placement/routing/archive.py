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
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from placement.errors import InputError
from specs.documents import shown

#: Largest file that is opened, and the most that one array of it may take in memory.
MAX_BYTES, MAX_ARRAY_BYTES = 4 * 2**30, 2**30
#: Largest header of an array, and largest list of a file's arrays: both are read before anything is known of them.
_MAX_HEADER, _MAX_NAMES = 10_000, 2**20
#: A compressed member may grow by this factor; recorded routing grows by 2 to 10.
MAX_EXPANSION = 500
#: ... but below this size any factor will do (a short constant array shrinks a lot).
_HARMLESS_BYTES = 64 * 2**20
#: What the zip, zlib and numpy readers raise on broken bytes.
DEFECTS = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, SyntaxError,
    NotImplementedError, RuntimeError, OverflowError, MemoryError, struct.error, tokenize.TokenError,
)  # fmt: skip
_INTACT = "record or copy the file anew"


class Directory(io.FileIO):
    """A zip file that is opened for its list of members, which zipfile would read at any length."""

    most = _MAX_NAMES

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file, but not much at once."""
        if size is not None and size > self.most:
            raise ValueError(f"its list of arrays takes {size} bytes")
        return super().read(-1 if size is None else size)


@dataclass(frozen=True)
class OpenArray:
    """An array that is read piece by piece.

    Attributes:
        shape: as its entries lie in the file, the last axis innermost. fortran: whether those are its axes backwards.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    _archive: Archive
    _key: str
    _file: IO[bytes]

    def take(self, entries: int) -> NDArray[Any]:
        """The next `entries` entries, flat.

        Raises:
            InputError: the file ends before, or is corrupted.
        """
        with self._archive.defects(self._key):
            data = self._file.read(entries * self.dtype.itemsize)
        if len(data) != entries * self.dtype.itemsize:
            raise InputError(self._archive.source, shown(self._key, 200), "is cut off before its end", _INTACT)
        return np.frombuffer(data, self.dtype)


class Archive:
    """The arrays of one file, by key. A bare .npy file is an archive with the one key ""."""

    def __init__(self, path: Path, source: str, most: int | None = None) -> None:
        """Opens `path`, of at most `most` bytes (None: MAX_BYTES); messages name it `source`.

        Raises:
            InputError: it is missing, a folder, too large, or neither .npz nor .npy.
        """
        self.path, self.source = path, source
        most = MAX_BYTES if most is None else most
        with self.defects(""):
            if not path.exists():
                raise InputError(source, "", "no such file", "give the path of a trace (.npz)")
            if not path.is_file():
                raise InputError(source, "", "is not a file", "give the path of a trace (.npz)")
            if path.stat().st_size > most:
                raise InputError(source, "", f"is larger than {most // 2**30} GiB", "record fewer tokens")
            with path.open("rb") as file:
                start = file.read(6)
        self._bare = start == b"\x93NUMPY"
        if not start:
            raise InputError(source, "", "is an empty file", _INTACT)
        if not self._bare and start[:2] != b"PK":
            raise InputError(source, "", "is not a .npz file", "write traces with numpy.savez_compressed")
        self.keys = ("",) if self._bare else self._names()

    def _names(self) -> tuple[str, ...]:
        with self.defects(""), Directory(self.path) as file, zipfile.ZipFile(file) as archive:
            return tuple(name.removesuffix(".npy") for name in archive.namelist())

    def read(self, key: str, each: int = 1, most: int = MAX_ARRAY_BYTES) -> NDArray[Any]:
        """The array under `key`, whole.

        Args:
            each: bytes that the caller takes for one entry, where that is more than it has in the file.
            most: bytes that all entries may take.

        Raises:
            InputError: the member is corrupted, truncated, too large, or holds Python objects.
        """
        with self.defects(key), self._member(key) as (file, size):
            array = read_array(file, size, self.source, shown(key, 200), each, most)
            file.read(1)  # to the end, where the checksum of a member is compared
            return array

    @contextmanager
    def open(self, key: str) -> Iterator[OpenArray]:
        """The array under `key`, to be read in pieces: of any size.

        Raises:
            InputError: the member is corrupted, or holds Python objects.
        """
        with self._member(key) as (file, size):
            with self.defects(key):
                shape, fortran, dtype = _header(file, size, self.source, shown(key, 200))
            yield OpenArray(shape[::-1] if fortran else shape, dtype, fortran, self, key, file)

    @contextmanager
    def _member(self, key: str) -> Iterator[tuple[IO[bytes], int]]:
        """The bytes of the array under `key`, and how many there are."""
        if self._bare:
            with self.path.open("rb") as file:
                yield file, self.path.stat().st_size
            return
        with self.defects(key):
            archive = zipfile.ZipFile(self.path)
        with archive:
            with self.defects(key):
                info = archive.getinfo(f"{key}.npy" if f"{key}.npy" in archive.namelist() else key)
                if info.file_size > max(_HARMLESS_BYTES, MAX_EXPANSION * info.compress_size):
                    raise InputError(
                        self.source,
                        shown(key, 200),
                        f"unpacks to {info.file_size} bytes, too many to be routing",
                        _INTACT,
                    )
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    # Of these zipfile unpacks all there is, whatever size the member states.
                    raise InputError(
                        self.source,
                        shown(key, 200),
                        "is compressed as numpy does not",
                        "write it with numpy.savez_compressed",
                    )
                member = archive.open(info)
            with member:
                yield member, info.file_size

    def defects(self, key: str) -> AbstractContextManager[None]:
        """See `defects`, for an array of this file."""
        return defects(self.source, shown(key, 200))


@contextmanager
def defects(source: str, field: str) -> Iterator[None]:
    """Turns what the zip, zlib and numpy readers raise on broken bytes into one InputError."""
    try:
        yield
    except DEFECTS as error:
        said = shown(str(error).strip("'\"") or type(error).__name__, 200)
        raise InputError(source, field, f"cannot be read ({said})", _INTACT) from error


def read_array(
    file: IO[bytes], size: int, source: str, field: str, each: int = 1, most: int = MAX_ARRAY_BYTES
) -> NDArray[Any]:
    """The array of a .npy file of `size` bytes that is open at its start.

    Args:
        each: bytes that the caller takes for one entry, where that is more than it has in the file.
        most: bytes that all entries may take.

    Raises:
        InputError: it is corrupted, truncated, too large, or holds Python objects.
    """
    with defects(source, field):
        shape, fortran, dtype = _header(file, size, source, field)
        taken = math.prod(shape) * max(each, dtype.itemsize)
        if taken > most:
            problem = f"has shape {shape} and type {dtype}, for which {taken} bytes of memory are needed"
            raise InputError(source, field, problem, f"record less: at most {most} bytes are taken")
        wanted = math.prod(shape) * dtype.itemsize
        data = file.read(wanted)
        if len(data) != wanted:
            raise InputError(source, field, f"is cut off after {len(data)} of {wanted} bytes", _INTACT)
        flat = np.frombuffer(data, dtype)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def _header(file: IO[bytes], size: int, source: str, field: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of an array of `size` bytes whose file is at its start."""

    def refuse(problem: str, mend: str = _INTACT) -> InputError:
        return InputError(source, field, problem, mend)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers that Python 2 wrote
        version = npy.read_magic(file)
        if version not in {(1, 0), (2, 0)}:
            raise refuse(f"has array format {version[0]}.{version[1]}", "write it with numpy.save")
        read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        length = file.read(2 if version == (1, 0) else 4)
        if int.from_bytes(length, "little") > _MAX_HEADER:
            raise refuse(f"has a header of {int.from_bytes(length, 'little')} bytes")
        shape, fortran, dtype = read_header(io.BytesIO(length + file.read(int.from_bytes(length, "little"))))
    if dtype.hasobject:
        raise refuse("holds Python objects, which are not loaded", "store plain numbers or text")
    if any(not isinstance(n, int) or n < 0 for n in shape):
        raise refuse(f"has the impossible shape {shape}")
    if dtype.itemsize == 0:
        raise refuse("has entries of no size", "store plain numbers or text")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > size:
        raise refuse(f"says it has {wanted} bytes, but the file holds {size}")
    return shape, fortran, dtype
