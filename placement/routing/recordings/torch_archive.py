"""Tensors out of a .pt file of torch.save, without torch and without running any of it.

A .pt file is a zip: `data.pkl`, a pickle of the objects, and `data/N`, the bytes of their tensors. The pickle is read
by a small machine that knows the instructions torch.save writes, builds plain containers, and calls nothing. Tensors
are read when they are asked for, so a file may be larger than memory.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from placement.errors import InputError
from placement.routing.archive import DEFECTS, MAX_ARRAY_BYTES, Directory
from specs.documents import shown

#: Most bytes of a pickle, objects in it (whole numbers in lists aside), bytes of text, and objects stacked at a time.
_MAX_PICKLE, _MAX_ENTRIES, _MAX_TEXT, _MAX_STACK = 2**28, 2**22, 2**24, 2**17
#: Bytes of a tensor that are read at once, where it is read in parts.
_PART_BYTES = 2**22
_INTACT = "copy the file anew, or record again"
_MARK = object()
_TYPES = {
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "?", "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "uint16": "<u2",
    "uint32": "<u4", "uint64": "<u8", "int64": "<i8", "int32": "<i4", "int16": "<i2", "int8": "<i1", "uint8": "<u1",
    "bool": "?", "float32": "<f4", "float64": "<f8", "float16": "<f2",
}  # fmt: skip


class Names(Directory):
    """A recording has a tensor or two for each pass of the engine."""

    most = 2**24


class PickledList:
    """A list of a pickle. One of whole numbers takes 8 bytes for each."""

    def __init__(self) -> None:
        self.numbers = array("q")
        self.others: list[Any] = []

    def extend(self, items: list[Any]) -> None:
        """Adds items at the end."""
        if not self.others and all(type(item) is int for item in items):
            self.numbers.extend(items)
        else:
            self.others.extend([*self.numbers, *items])
            self.numbers = array("q")

    def __len__(self) -> int:
        return len(self.numbers) + len(self.others)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.others or self.numbers)


@dataclass(frozen=True)
class _Storage:
    """The bytes of tensors: the member `data/KEY`. dtype: None where each tensor says its own."""

    key: str
    dtype: str | None


@dataclass(frozen=True)
class _Global:
    """A name that a pickle refers to, and may call: see _Machine._reduce."""

    name: str


class TorchFile:
    """A .pt file: `data` holds its objects, with a `Tensor` for each tensor and a `PickledList` for each list."""

    def __init__(self, path: Path, source: str) -> None:
        """Opens and reads all but the tensors' bytes; messages name the file `source`.

        Raises:
            InputError: no .pt file of today's form, a broken one, or one with other objects in it.
        """
        self.source = source
        with self.defects(""):
            with Names(path) as names, zipfile.ZipFile(names):
                pass
            self._zip = zipfile.ZipFile(path)
            found = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
            if len(found) != 1:
                raise InputError(source, "", "has no data.pkl: it is no file of torch.save", _INTACT)
            self._root = found[0].removesuffix("data.pkl")
            if f"{self._root}byteorder" in self._zip.namelist():
                order = self._zip.open(f"{self._root}byteorder").read(8)
                if order != b"little":
                    raise InputError(
                        source, "byteorder", f"is {shown(order.decode('latin-1'))}", "save it on x86 or Arm"
                    )
            if self.size("data.pkl") > _MAX_PICKLE:
                raise InputError(source, "data.pkl", f"has over {_MAX_PICKLE} bytes", "record fewer passes in a file")
            with self.member("data.pkl") as file:
                self.data = _Machine(io.BufferedReader(file), self).run()

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    @contextmanager
    def member(self, name: str) -> Iterator[Any]:
        """The bytes of a member, stored as they are."""
        info = self._zip.getinfo(self._root + name)
        if info.compress_type != zipfile.ZIP_STORED:
            raise InputError(self.source, name, "is compressed, as torch.save does not", _INTACT)
        with self._zip.open(info) as file:
            yield file

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._zip.getinfo(self._root + name).file_size

    @contextmanager
    def defects(self, field: str) -> Iterator[None]:
        """Turns what zip and number readers raise on broken bytes into one InputError."""
        try:
            yield
        except DEFECTS as error:
            said = shown(str(error).strip("'\"") or type(error).__name__, 200)
            raise InputError(self.source, field, f"cannot be read ({said})", _INTACT) from error


@dataclass(frozen=True)
class Tensor:
    """A tensor whose bytes are still in the file. shape, stride, offset: in entries."""

    file: TorchFile
    key: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def read(self) -> NDArray[Any]:
        """The tensor as an array.

        Raises:
            InputError: it is larger than MAX_ARRAY_BYTES, or the file is broken.
        """
        span = 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        size = self.dtype.itemsize
        if max(math.prod(self.shape), span) * size > MAX_ARRAY_BYTES:
            raise InputError(self.file.source, self.key, f"has shape {self.shape}, too large to read", "record less")
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        with self.file.defects(self.key), self.file.member(f"data/{self.key}") as file:
            file.seek(self.offset * size)
            flat = np.frombuffer(file.read(span * size), self.dtype)
            if len(flat) < span:
                raise InputError(self.file.source, self.key, "is cut off", _INTACT)
        steps = tuple(step * size for step in self.stride)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False).copy()

    def parts(self) -> Iterator[NDArray[Any]]:
        """The tensor's arrays along its first axis, one after the other."""
        step = self.stride[0]
        at_once = max(1, _PART_BYTES // max(1, step * self.dtype.itemsize))
        for start in range(0, self.shape[0], at_once):
            count = min(at_once, self.shape[0] - start)
            part = Tensor(
                self.file, self.key, self.dtype, (count, *self.shape[1:]), self.stride, self.offset + start * step
            )
            yield from part.read()


class _Machine:
    """Runs the instructions of a pickle of protocol 2 that torch.save writes."""

    def __init__(self, file: IO[bytes], owner: TorchFile) -> None:
        self._file, self._owner = file, owner
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._entries = self._text = 0
        self._steps: dict[bytes, Callable[[], None]] = {
            b"\x80": self._protocol, b"}": self._dict, b"]": self._list, b")": lambda: self._push(()),
            b"(": lambda: self._push(_MARK), b"q": lambda: self._put(self._number("<B")),
            b"r": lambda: self._put(self._number("<I")), b"h": lambda: self._get(self._number("<B")),
            b"j": lambda: self._get(self._number("<I")), b"X": self._unicode, b"K": lambda: self._whole("<B"),
            b"M": lambda: self._whole("<H"), b"J": lambda: self._whole("<i"), b"\x8a": self._long,
            b"G": lambda: self._whole(">d"), b"N": lambda: self._push(None), b"\x88": lambda: self._push(True),
            b"\x89": lambda: self._push(False), b"c": self._global, b"t": lambda: self._tuple(self._to_mark()),
            b"\x85": lambda: self._tuple(self._pop(1)), b"\x86": lambda: self._tuple(self._pop(2)),
            b"\x87": lambda: self._tuple(self._pop(3)), b"a": lambda: self._append(self._pop(1)),
            b"e": lambda: self._append(self._to_mark()), b"s": lambda: self._set(self._pop(2)),
            b"u": lambda: self._set(self._to_mark()), b"R": self._reduce, b"Q": self._storage, b"b": self._build,
        }  # fmt: skip

    def run(self) -> Any:
        """The object that the pickle holds."""
        while (code := self._file.read(1)) != b".":
            if code not in self._steps:
                self._refuse(f"has the instruction {code!r}" if code else "is cut off")
            self._steps[code]()
        if len(self._stack) != 1:
            self._refuse("ends too early")
        return self._stack[0]

    def _refuse(self, problem: str) -> None:
        raise InputError(
            self._owner.source, "data.pkl", f"{problem}, which torch.save does not write for tensors and plain values",
            "save a dict of tensors, numbers and lists",
        )  # fmt: skip

    def _push(self, value: Any) -> None:
        if len(self._stack) >= _MAX_STACK:
            self._refuse("stacks too many objects")
        self._stack.append(value)

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count or any(item is _MARK for item in self._stack[-count:]):
            self._refuse("takes what is not there")
        items = self._stack[-count:]
        del self._stack[-count:]
        return items

    def _to_mark(self) -> list[Any]:
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                items = self._stack[place + 1 :]
                del self._stack[place:]
                return items
        self._refuse("has no mark")
        return []

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._file.read(struct.calcsize(form)))[0]

    def _whole(self, form: str) -> None:
        self._push(self._number(form))

    def _long(self) -> None:
        size = self._number("<B")
        if size > 8:
            self._refuse("holds a huge number")
        self._push(int.from_bytes(self._file.read(size), "little", signed=True))

    def _protocol(self) -> None:
        if self._number("<B") != 2:
            self._refuse("is of another pickle protocol than 2")

    def _unicode(self) -> None:
        size = self._number("<I")
        self._text += size
        if self._text > _MAX_TEXT:
            self._refuse("holds too much text")
        self._push(self._file.read(size).decode("utf-8", "surrogatepass"))

    def _put(self, place: int) -> None:
        if not self._stack or len(self._memo) > _MAX_ENTRIES:
            self._refuse("remembers too much, or nothing")
        self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        self._push(self._memo[place])

    def _count(self, entries: int = 1) -> None:
        self._entries += entries
        if self._entries > _MAX_ENTRIES:
            self._refuse("holds too many objects")

    def _dict(self) -> None:
        self._count()
        self._push({})

    def _list(self) -> None:
        self._count()
        self._push(PickledList())

    def _tuple(self, items: list[Any]) -> None:
        self._count()
        self._push(tuple(items))

    def _append(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], PickledList):
            self._refuse("appends to no list")
        self._count(sum(type(item) is not int for item in items))
        self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        if not self._stack or not isinstance(self._stack[-1], dict) or len(items) % 2:
            self._refuse("sets keys of no dict")
        self._count(len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                self._refuse("has a key that is no text or number")
            self._stack[-1][key] = value

    def _global(self) -> None:
        module, name = (self._file.readline(200).decode("ascii").rstrip("\n") for _ in range(2))
        known = {"_rebuild_tensor_v2", "_rebuild_tensor_v3", "OrderedDict", "Size", "UntypedStorage", *_TYPES}
        if module not in ("torch", "torch._utils", "torch.storage", "collections") or name not in known:
            self._refuse(f"names {shown(module)}.{shown(name)}")
        self._push(_Global(name))

    def _build(self) -> None:
        """The state of an object: torch gives an OrderedDict one that says nothing."""
        self._pop(1)

    def _storage(self) -> None:
        (said,) = self._pop(1)
        if not isinstance(said, tuple) or len(said) != 5 or said[0] != "storage" or not isinstance(said[1], _Global):
            self._refuse("refers to no storage")
        _, kind, key, _, _ = said
        if not isinstance(key, str) or not key.isdigit():
            self._refuse("refers to no storage")
        self._push(_Storage(key, _TYPES.get(kind.name)))

    def _reduce(self) -> None:
        called, given = self._pop(2)
        if not isinstance(called, _Global) or not isinstance(given, tuple):
            self._refuse("calls what is no function")
        if called.name == "OrderedDict" and not given:
            self._dict()
        elif called.name == "Size" and len(given) == 1 and isinstance(given[0], tuple):
            self._push(given[0])
        elif called.name.startswith("_rebuild_tensor") and len(given) >= 6:
            storage, offset, shape, stride = given[:4]
            kind = given[6] if called.name.endswith("v3") and len(given) > 6 else None
            self._push(self._tensor(storage, offset, shape, stride, kind))
        else:
            self._refuse(f"calls {called.name} in another way")

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, kind: Any) -> Tensor:
        numbers = (offset, *(shape if isinstance(shape, tuple) else ()), *(stride if isinstance(stride, tuple) else ()))
        sound = isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(stride, tuple)
        sound = sound and len(shape) == len(stride) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in numbers)
        name = storage.dtype or _TYPES.get(getattr(kind, "name", "")) if sound else None
        if name is None:
            self._refuse("builds a tensor of an unknown type or shape")
        dtype = np.dtype(str(name))
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        if 0 not in shape and (last + 1) * dtype.itemsize > self._owner.size(f"data/{storage.key}"):
            self._refuse(f"builds a tensor of shape {shape} beyond its bytes")
        return Tensor(self._owner, storage.key, dtype, shape, stride, offset)
