"""Writes files whole or not at all, and JSON as people can read it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from placement.errors import InputError
from specs.documents import shown


def write_text(path: str | Path, text: str, option: str) -> None:
    """Writes a text file, whole or not at all; `option` names the path in messages.

    Raises:
        InputError: the file can't be written. Then what was there before is still there.
    """
    write_file(path, lambda file: file.write(text.encode()), option)


def write_file(path: str | Path, fill: Callable[[IO[bytes]], object], option: str) -> None:
    """Writes a file by `fill`, whole or not at all; `option` names the path in messages.

    Raises:
        InputError: the file can't be written. Then what was there before is still there.
    """
    try:
        target = _regular_target(path, option)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise _unwritable(path, option, error) from None
    try:
        replace_file(target, fill)
    except OSError as error:
        raise _unwritable(path, option, error) from None


def check_writable(path: str | Path, option: str) -> None:
    """Finds out before long work whether write_text could write `path`.

    Raises:
        InputError: it could not.
    """
    try:
        with _temporary(_regular_target(path, option)):
            pass
    except (OSError, ValueError) as error:
        raise _unwritable(path, option, error) from None


def replace_file(target: Path, fill: Callable[[IO[bytes]], object]) -> None:
    """Gives `fill` a new file beside `target` to write, and puts it in the place of `target`, whole or not at all.

    Raises:
        OSError: it can't. Then what was there before is still there.
    """
    with _temporary(target) as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())
        if target.exists():
            os.fchmod(file.fileno(), target.stat().st_mode & 0o7777)
        os.replace(file.name, target)


@contextmanager
def _temporary(target: Path) -> Iterator[IO[bytes]]:
    """An empty file beside `target` that is gone afterwards, unless it was renamed.

    Its lock says that its writer lives, in any container or on any machine that shares the folder. Files of this kind
    that nobody has locked are what killed runs have left, and are removed first.
    """
    start = f".{target.name[:40]}."
    ours = re.compile(re.escape(start) + r"[0-9a-f]{12}\.tmp")
    for name in filter(ours.fullmatch, os.listdir(target.parent)):
        left = target.with_name(name)
        with suppress(OSError), left.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()
    while True:
        beside = target.with_name(f"{start}{secrets.token_hex(6)}.tmp")
        with beside.open("xb") as file:
            try:
                with suppress(OSError):  # a file system without locks, where nothing is removed either
                    fcntl.flock(file, fcntl.LOCK_EX)
                if not beside.exists():
                    continue  # another process has taken it for a left one before it was locked
                yield file
                return
            finally:
                beside.unlink(missing_ok=True)


def _regular_target(path: str | Path, option: str) -> Path:
    """The file behind `path`, links followed: a new one or a regular one."""
    if not str(path).strip():
        raise InputError(option, "", "is empty", "name a file")
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise InputError(option, shown(str(path), 200), "is a link in a loop of links", "name a file")
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
