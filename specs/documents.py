"""Reads YAML and JSON files defensively: whatever a file holds, the result is plain data or one InputError.

Limits: a regular file of at most MAX_BYTES, nested at most MAX_DEPTH deep, and no key twice in a mapping. YAML
anchors, aliases, merges and tags are refused: no spec needs them, and they are how small files become huge or build
objects.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Hashable
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from specs.errors import InputError

MAX_BYTES = 1_000_000
MAX_DEPTH = 32


def shown(value: object, limit: int = 60) -> str:
    """`value` as one short printable piece of text, for messages: control and unencodable characters are escaped."""
    if isinstance(value, str):
        text = value if value.isprintable() else ascii(value)[1:-1]
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int) and abs(value) >= 2**63:
        text = f"a number of {value.bit_length()} bits"  # str() of a huge int is slow, or refused
    elif isinstance(value, int | float):
        text = str(value)
    elif value is None:
        text = "nothing"
    else:
        text = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else type(value).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def told(value: object) -> str:
    """`value` as what a field is, for messages: as `shown`, but text says that it is text."""
    return f"the text '{shown(value)}'" if isinstance(value, str) else shown(value)


def read_text(path: Path, source: str, most: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file.

    Args:
        path: the file.
        source: its name in messages.
        most: bytes that it may have.

    Raises:
        InputError: it can't be read, is no regular file, is too large, or is not UTF-8.
    """
    if not source.strip():
        raise InputError("the file's name", "", "is empty", "name a file")
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(source, "", "is a folder", "name a file")
        if not stat.S_ISREG(mode):
            raise InputError(source, "", "is not a regular file", "name a file on disk")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise InputError(source, "", "no such file", "check the path") from None
    except PermissionError:
        raise InputError(source, "", "can't be read: permission denied", "make it readable") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "not a valid path"
        raise InputError(source, "", f"can't be read: {shown(reason)}", "check the path") from None
    if len(data) > most:
        raise InputError(source, "", f"is over {most} bytes", "check that this is the file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(source, "", f"is not UTF-8 text (byte {error.start})", "save it as UTF-8") from None


def _mapping(data: object, source: str) -> dict[str, Any]:
    if data is None:
        raise InputError(source, "", "is empty", "write the fields of a spec, one 'field: value' per line")
    if not isinstance(data, dict):
        raise InputError(source, "", f"holds {shown(data)} at its top, not a mapping", "write 'field: value' lines")
    _check_numbers(data, source, "")
    return data


def _check_numbers(data: dict[Any, Any] | list[Any], source: str, path: str) -> None:
    """Refuses integers beyond 64 bits, which validators downstream can't print."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        field = f"{path}[{key}]" if isinstance(data, list) else f"{path}.{shown(key)}" if path else shown(key)
        if isinstance(value, int) and abs(value) >= 2**63:
            raise InputError(source, field, f"is {shown(value)}", "write a number of a real system's size")
        if isinstance(value, dict | list):
            _check_numbers(value, source, field)


#: libyaml's parser where PyYAML was built with it (ten times faster), else the one in Python.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def shipped_yaml(package: str, *path: str) -> Any:
    """What a YAML file that ships with a package holds; only its syntax is checked."""
    return yaml.load(files(package).joinpath(*path).read_text(encoding="utf-8"), Loader=_SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Safe loader that refuses a key given twice in a mapping."""

    keys: tuple[type, ...] = (str,)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping at `node`; YAML itself would let the last of equal keys win."""
        keys = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if type(key) not in self.keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} is not text", key_node.start_mark
                )
            if key in keys:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key)} is given twice", key_node.start_mark
                )
            keys.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


class _WholeKeys(_Loader):
    """The same where keys may be whole numbers."""

    keys = (str, int)


def _check_events(text: str, source: str) -> None:
    """Refuses what could make composing or constructing `text` expensive or unsafe."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise InputError(source, "", f"line {line}: YAML anchors and aliases are not taken", "write the value out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise InputError(source, "", f"line {line}: YAML tag {shown(tag)} is not taken", "remove the tag")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise InputError(source, "", f"line {line}: nested over {MAX_DEPTH} deep", "flatten it")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def parse_yaml(text: str, source: str, whole_keys: bool = False) -> dict[str, Any]:
    """The mapping that `text` holds.

    Args:
        text: the YAML.
        source: where it comes from, for messages.
        whole_keys: keys may be whole numbers, too.

    Raises:
        InputError: malformed YAML, or what this module refuses.
    """
    return _mapping(_yaml(text, source, _WholeKeys if whole_keys else _Loader), source)


def parse_value(text: str, source: str, field: str) -> Any:
    """The value of a field that `text` is as YAML: a number, text, a list, a mapping.

    Raises:
        InputError: as in parse_yaml.
    """
    value = _yaml(text, f"{source}: {field}")
    _check_numbers({field: value}, source, "")
    return value


def _yaml(text: str, source: str, loader: type[_Loader] = _Loader) -> Any:
    try:
        _check_events(text, source)
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        if "nesting depth" in (error.problem or ""):
            # Newer releases of libyaml have a limit of their own, and reach it first: they read ahead.
            raise InputError(source, "", f"{where}nested over {MAX_DEPTH} deep", "flatten it") from None
        problem = shown(error.problem or error.context or "malformed", 120)
        raise InputError(source, "", f"{where}not valid YAML: {problem}", "mend the line") from None
    except yaml.YAMLError as error:  # a reader error: characters that YAML does not allow
        raise InputError(
            source, "", f"not valid YAML: {shown(str(error).partition(chr(10))[0])}", "remove the character"
        ) from None
    except (ValueError, OverflowError) as error:  # a date or number that looks like one and is none
        raise InputError(source, "", f"a value can't be read: {shown(str(error), 120)}", "put text in quotes") from None


class _Dumper(yaml.SafeDumper):
    """Writes lists of values, and short mappings, on one line; and no aliases, which are not read."""

    def ignore_aliases(self, data: Any) -> bool:
        """Nothing is written as another's alias."""
        return True

    def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> Any:
        """On lines of their own are only mappings."""
        return super().represent_sequence(tag, sequence, not any(isinstance(each, dict) for each in sequence))

    def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> Any:
        """On one line where it fits."""
        return super().represent_mapping(tag, mapping, len(str(mapping)) < 70)


def yaml_text(data: dict[str, Any]) -> str:
    """Plain data as YAML that parse_yaml reads, within 80 columns where words allow."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=66)


def parse_json(text: str, source: str, finite: bool = True) -> dict[str, Any]:
    """The object that `text` holds.

    Args:
        text: the JSON.
        source: where it comes from, for messages.
        finite: refuse NaN and infinity wherever they stand; otherwise they are values, as Python's json writes them.

    Raises:
        InputError: malformed JSON, a key twice, NaN or infinity, or nested too deep.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(source, "", f"key {shown(twice)} is given twice", "keep one")
        return result

    def constant(name: str) -> Any:
        if not finite:
            return float(name)
        raise InputError(source, "", f"holds {name}", "write a finite number")

    try:
        data = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise InputError(source, "", f"line {error.lineno}: not valid JSON: {error.msg}", "mend the line") from None
    except RecursionError:
        raise InputError(source, "", "nested too deep", "flatten it") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(source, "", f"a value can't be read: {shown(str(error), 120)}", "correct it") from None
    return _mapping(data, source)
