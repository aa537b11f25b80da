"""What engines' files hold, read defensively: JSON, JSON lines, YAML, arrays, and what torch.save wrote.

Limits: the sizes below, checked before anything is unpacked; no pickle but torch's `weights_only` one.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from placement.errors import InputError, MissingExtraError
from placement.routing.archive import Archive
from specs.documents import parse_json, parse_yaml, read_text, shown
from specs.fields import MAX_EXPERTS, MAX_GPUS, MAX_LAYERS

#: Most bytes of a map: 128 layers of 8,192 slots are 6 MB of text.
MAX_TEXT_BYTES, MAX_YAML_BYTES, MAX_ARRAY_BYTES = 32 * 2**20, 4 * 2**20, 256 * 2**20
MAX_SLOTS = 2**20
#: Arrays of one file that are read; the largest format has three.
_MAX_ARRAYS = 16

Kind = Literal["json", "lines", "yaml", "arrays"]


@dataclass(frozen=True)
class Content:
    """A file's content, whatever engine wrote it.

    Attributes:
        source: The file, for messages.
        kind: "json": `data` is what the JSON holds; "lines": a list of objects; "yaml": a mapping; "arrays": a dict of
            arrays by key (one array of no name has the key ""), and plain values of a .pt file.
    """

    source: str
    kind: Kind
    data: Any

    def refuse(self, field: str, problem: str, mend: str) -> InputError:
        """The error of a defect of this file."""
        return InputError(self.source, field, problem, mend)

    def mapping(self) -> dict[str, Any]:
        """`data` where it is a mapping, else nothing."""
        return self.data if isinstance(self.data, dict) else {}


def read_content(path: str | Path) -> Content:
    """The content of an engine's file; its kind is told by its first bytes, not its name.

    Raises:
        InputError: It can't be read, is too large, or is of no kind that an engine writes.
        MissingExtraError: A .pt file, and torch is not installed.
    """
    file, source = Path(path), shown(str(path), 200)
    start = _first_bytes(file, source)
    if start.startswith(b"PK"):
        return Content(source, "arrays", _torch(file, source) if _is_torch(file, source) else _arrays(file, source))
    if start.startswith(b"\x93NUMPY"):
        return Content(source, "arrays", _arrays(file, source))
    if start.startswith(b"\x80"):
        raise InputError(source, "", "is a pickle, which is not loaded", "write .json, .npz, or .pt with torch.save")
    text = read_text(file, source, MAX_TEXT_BYTES)
    head = text.lstrip()[:1]
    if head == "[":
        # The reader of specs takes a mapping.
        wrapped = parse_json(f'{{"": {text}}}', source)
        if len(wrapped) > 1:
            raise InputError(source, "", "not valid JSON after its list", "mend the file")
        return Content(source, "json", wrapped[""])
    if head == "{":
        return _json(text, source)
    if len(text) > MAX_YAML_BYTES:
        raise InputError(source, "", f"is over {MAX_YAML_BYTES} bytes", "check that this is the file")
    return Content(source, "yaml", parse_yaml(text, source, whole_keys=True))


def _first_bytes(file: Path, source: str) -> bytes:
    if not file.is_file():  # a folder, a device, nothing: told as of every other file
        read_text(file, source)
    try:
        with file.open("rb") as opened:
            return opened.read(8)
    except OSError:
        read_text(file, source)
        raise


def _json(text: str, source: str) -> Content:
    """One object, or one a line."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(line.startswith("{") and line.rstrip().endswith("}") for line in lines):
        if len(lines) > MAX_LAYERS:
            raise InputError(source, "", f"has {len(lines)} lines", f"a map has at most {MAX_LAYERS}")
        return Content(source, "lines", [parse_json(line, f"{source}: line {i}") for i, line in enumerate(lines, 1)])
    return Content(source, "json", parse_json(text, source))


def _arrays(file: Path, source: str) -> dict[str, Any]:
    archive = Archive(file, source)
    if len(archive.keys) > _MAX_ARRAYS:
        raise InputError(source, "", f"holds {len(archive.keys)} arrays", "give the file of a map")
    return {key: archive.read(key, most=MAX_ARRAY_BYTES) for key in archive.keys}


@contextmanager
def _zip_defects(source: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, RuntimeError) as error:
        said = shown(str(error).partition("\n")[0] or type(error).__name__, 120)
        raise InputError(source, "", f"can't be read ({said})", "copy the file anew") from None


def _is_torch(file: Path, source: str) -> bool:
    """Whether torch.save wrote the zip file."""
    if file.stat().st_size > MAX_ARRAY_BYTES:
        raise InputError(source, "", f"is over {MAX_ARRAY_BYTES} bytes", "check that this is the file")
    with _zip_defects(source), zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        if not any(info.filename.rpartition("/")[2] == "data.pkl" for info in infos):
            return False
        if sum(info.file_size for info in infos) > MAX_ARRAY_BYTES:
            raise InputError(source, "", f"unpacks to over {MAX_ARRAY_BYTES} bytes", "check that this is the file")
    return True


def _torch(file: Path, source: str) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(f"{source}: needs torch; pip install 'placement[alltoall]'") from None
    try:
        data = torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises of many kinds on what is broken or not plain
        said = shown(str(error).partition("\n")[0] or type(error).__name__, 120)
        problem = f"can't be read as plain tensors ({said})"
        raise InputError(source, "", problem, "write it with torch.save, of tensors alone") from None
    if not isinstance(data, dict):
        data = {"": data}
    if len(data) > _MAX_ARRAYS or not all(isinstance(key, str) for key in data):
        raise InputError(source, "", "is no mapping of a few names", "give the file of a map")
    return {key: _plain(value, f"{source}: {shown(key)}") for key, value in data.items()}


def _plain(value: Any, source: str) -> Any:
    """A tensor as an array; what else a file holds as it is."""
    import torch

    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() * 8 > MAX_ARRAY_BYTES:  # an expanded tensor stores less than it has
        raise InputError(source, "", f"has shape {list(value.shape)}", "give the file of a map")
    try:
        return value.numpy()
    except (TypeError, RuntimeError) as error:
        raise InputError(source, "", shown(f"is no plain array ({error})", 160), "store whole numbers") from None


def whole_rows(content: Content, value: Any, field: str) -> tuple[tuple[int, ...], ...]:
    """[rows][slots] whole numbers of lists or of an array.

    Raises:
        InputError: It is anything else, or has more than a model.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 2 or value.dtype.kind not in "iu":
            raise content.refuse(
                field, f"has shape {list(value.shape)} of {value.dtype}", "store [layers, slots] whole numbers"
            )
        value = value.tolist()
    if not isinstance(value, list) or not value:
        raise content.refuse(field, f"is {shown(value)}", "write one list of experts for each layer")
    if len(value) > 2 * MAX_LAYERS:
        raise content.refuse(field, f"has {len(value)} rows", "use a map of this model")
    return tuple(whole_list(content, row, f"{field}[{i}]") for i, row in enumerate(value))


def whole_list(content: Content, row: Any, field: str) -> tuple[int, ...]:
    """Whole numbers of a list, none of them beyond the experts of any model.

    Raises:
        InputError: It is anything else.
    """
    if not isinstance(row, list) or not row:
        raise content.refuse(field, f"is {shown(row)}", "write a list of experts")
    if len(row) > MAX_SLOTS:
        raise content.refuse(field, f"has {len(row)} entries", f"give at most {MAX_SLOTS}")
    for j, expert in enumerate(row):
        if type(expert) is not int or not 0 <= expert < MAX_EXPERTS:
            raise content.refuse(f"{field}[{j}]", f"is {shown(expert)}", "write the number of an expert")
    return tuple(row)


def whole(content: Content, value: Any, field: str, most: int = MAX_GPUS) -> int:
    """A whole number from 0 to `most`.

    Raises:
        InputError: It is anything else.
    """
    if type(value) is not int or not 0 <= value <= most:
        raise content.refuse(field, f"is {shown(value)}", f"write a whole number from 0 to {most}")
    return value


def only_keys(content: Content, data: dict[str, Any], keys: Sequence[str], field: str, why: str) -> None:
    """Refuses any key of `data` that is none of `keys`; `why`: what the engine does with others.

    Raises:
        InputError: There is one.
    """
    others = [key for key in data if key not in keys]
    if others:
        raise content.refuse(field, f"has {shown(others[0])} beside {' and '.join(keys)}: {why}", "remove it")
