"""Finds a recording's format by what is in the file; names and suffixes are not trusted."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from placement.errors import InputError, ParameterError
from placement.routing.archive import defects
from placement.routing.recordings import (
    arrays,
    comma_separated,
    json_records,
    parquet,
    sglang,
    tensorrt_llm,
    vllm,
)
from placement.routing.recordings.intake import Intake
from placement.routing.recordings.json_file import values
from placement.routing.recordings.torch_archive import Names

#: Bytes that are looked at.
_HEAD = 2**16


@dataclass(frozen=True)
class Format:
    """A form of recordings. name: what it is chosen by. told: what it is called. read: fills an intake."""

    name: str
    told: str
    read: Callable[[Sequence[Path], Intake], None]


FORMATS = {
    each.name: each
    for each in (
        Format("sglang", "SGLang's expert distribution recorder", sglang.read),
        Format("tensorrt-llm", "TensorRT-LLM's expert statistics", tensorrt_llm.read),
        Format("vllm", "responses with routed_experts", vllm.read_responses),
        Format("vllm-eplb", "vLLM's EPLB load records", vllm.read_loads),
        Format("vllm-log", "a log of vLLM's EPLB", vllm.refuse_log),
        Format("array", "arrays of numpy", arrays.read),
        Format("csv", "a CSV table", comma_separated.read),
        Format("parquet", "a Parquet table", parquet.read),
        Format("json", "JSON", json_records.read),
    )
}


def find_format(files: Sequence[Path], name: str | None = None) -> Format:
    """The format of a recording's files.

    Args:
        files: one or more files, or a folder. name: of FORMATS, where the user says it.

    Raises:
        InputError: a file that is missing, empty, or of no known format; or files of several formats.
    """
    if name is not None:
        if name not in FORMATS:
            raise ParameterError("format", f"{name!r} is unknown", f"choose {', '.join(FORMATS)}")
        for path in files:
            _check_there(path)
        return FORMATS[name]
    found = {path: _format_of(path) for path in files}
    kinds = sorted(set(found.values()))
    if len(kinds) > 1:
        raise InputError(
            str(files[0]), "", f"is of another format than the others: {', '.join(kinds)}", "convert apart"
        )
    return FORMATS[kinds[0]]


def recording_told(path: str | Path) -> str | None:
    """What a file is called that is a recording and no trace; None of all other files."""
    try:
        found = find_format([Path(path)])
    except InputError:
        return None
    if found.name == "array" or (found.name in ("csv", "json") and Path(path).suffix in (".npz", ".npy")):
        return None
    return found.told


def _check_there(path: Path) -> None:
    with defects(str(path), ""):
        if not path.exists():
            raise InputError(str(path), "", "no such file", "give the path of a recording")
        if not path.is_file() and not path.is_dir():
            raise InputError(str(path), "", "is neither a file nor a folder", "give a file on disk")


def _format_of(path: Path) -> str:
    source = str(path)
    _check_there(path)
    if path.is_dir():
        if tensorrt_llm.is_folder(path):
            return "tensorrt-llm"
        raise InputError(source, "", "is a folder without rank*.safetensors", "name the recording's files")
    with defects(source, ""), path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        raise InputError(source, "", "is an empty file", "record or copy the file anew")
    if head.startswith(b"PK"):
        return _zip(path, source)
    if head.startswith(b"\x93NUMPY"):
        return "array"
    if head.startswith(b"PAR1"):
        return "parquet"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "tensorrt-llm"
    if head.startswith(b"\x80"):
        raise InputError(
            source, "", "is a bare pickle, which is never loaded", "save it with torch.save of torch 1.6 or up"
        )
    if head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ")):
        raise InputError(source, "", "is compressed", "unpack it first")
    if b"\0" in head:
        raise InputError(source, "", "is of no known format", f"give one of: {', '.join(FORMATS)}")
    if (b"INFO " in head or path.suffix == ".log") and vllm.is_log(path):
        return "vllm-log"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return _json(path, source) if text.startswith((b"{", b"[", b"data:")) else "csv"


def _zip(path: Path, source: str) -> str:
    with defects(source, ""), Names(path) as file, zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return "sglang" if any(name.endswith("/data.pkl") for name in names) else "array"


def _json(path: Path, source: str) -> str:
    """By the first value, or by the first that is a response with ids."""
    for place, (_, value) in enumerate(values(path, source, lambda _: None)):
        if isinstance(value, dict) and str(value.get("record_type", "")).startswith("eplb_load"):
            return "vllm-eplb"
        if vllm.is_response(value) or (place == 0 and isinstance(value, dict) and "choices" in value):
            return "vllm"
        if place >= 16:
            break
    return "json"
