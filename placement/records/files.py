"""Writes files whole or not at all, and JSON as people can read it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from placement.errors import InputError
from specs.documents import shown


def write_text(path: str | Path, text: str, option: str) -> None:
    """Writes a text file by way of a temporary one beside it; `option` names the path in messages.

    Raises:
        InputError: the file can't be written. Then what was there before is still there.
    """
    try:
        target = _regular_target(path, option)
        temporary = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.tmp")
        try:
            with temporary.open("x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                temporary.chmod(target.stat().st_mode & 0o7777)
            os.replace(temporary, target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        raise _unwritable(path, option, error) from None


def check_writable(path: str | Path, option: str) -> None:
    """Finds out before long work whether write_text could write `path`.

    Raises:
        InputError: it could not.
    """
    try:
        target = _regular_target(path, option)
        trial = target.with_name(f".{target.name[:80]}.{secrets.token_hex(6)}.tmp")
        trial.open("x").close()
        trial.unlink()
    except (OSError, ValueError) as error:
        raise _unwritable(path, option, error) from None


def _regular_target(path: str | Path, option: str) -> Path:
    """The file behind `path`, links followed: a new one or a regular one."""
    if not str(path).strip():
        raise InputError(option, "", "is empty", "name a file")
    target = Path(path).resolve()
    if target.is_dir():
        raise InputError(option, shown(str(path), 200), "is a folder", "name a file")
    if target.exists() and not target.is_file():
        raise InputError(option, shown(str(path), 200), "is not a regular file", "name a file")
    return target


def _unwritable(path: str | Path, option: str, error: Exception) -> InputError:
    reason = shown(error.strerror) if isinstance(error, OSError) and error.strerror else "not a valid path"
    return InputError(
        option, shown(str(path), 200), f"can't be written: {reason}", "choose a folder that exists and is writable"
    )


def json_text(data: Any) -> str:
    """JSON text of plain data: one entry a line, except for lists that hold no mapping or list."""
    return "".join(_formatted(data, "")) + "\n"


def _formatted(value: Any, indent: str) -> Iterator[str]:
    """The text of `json_text` piece by piece, what follows the first line indented."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        yield "{\n"
        for i, (key, item) in enumerate(value.items()):
            yield f"{',' if i else ''}{chr(10) if i else ''}{inner}{json.dumps(key)}: "
            yield from _formatted(item, inner)
        yield f"\n{indent}}}"
    elif isinstance(value, list) and value and any(isinstance(item, dict | list) for item in value):
        yield "[\n"
        for i, item in enumerate(value):
            yield f"{',' if i else ''}{chr(10) if i else ''}{inner}"
            yield from _formatted(item, inner)
        yield f"\n{indent}]"
    else:
        yield json.dumps(value, allow_nan=False, separators=(",", ":"))
