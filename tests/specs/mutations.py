"""Hypothesis strategies of damaged spec files: fields deleted, replaced, retyped, renamed, doubled, and garbage bytes.

Every draw is the bytes of a file. `scenario_files()` are scenario YAMLs, most of them invalid, some still valid;
`config_files()` are Hugging Face config.json files likewise. Import as `tests.specs.mutations`.
"""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from specs.loading import list_catalog, load_scenario

CONFIGS = Path(__file__).resolve().parent / "configs"

#: Values that a field may wrongly hold: wrong types, wrong signs, absurd sizes, and what YAML reads oddly.
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**31,
    2**63,
    10**30,
    10**5000,
    0.0,
    -0.5,
    0.5,
    1e-300,
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    " ",
    "8",
    "1e5",
    "auto",
    "fp8",
    "gqa",
    "mla",
    "nowhere.yaml",
    "/",
    "..",
    "a\nb",
    "\x00",
    "\ud800",
    "é" * 300,
    [],
    [0],
    [-1],
    [[[[]]]],
    list(range(5000)),
    {},
    {"kind": "gqa"},
    {"kind": []},
    {"kind": "serving", "isl": 1},
    {1: 2},
    {"": ""},
)

#: Bytes that mean something to YAML or break UTF-8.
INSERTS = (b"\t", b"{", b"[" * 2000, b"&a ", b"*a", b"!!python/object:os.system ", b"<<: ", b"%", b"\xff")

NAMES = ("experts", "top_k", "kind", "name", "layers", "moe", "typo", "", "0", "model_config", "__class__")


@cache
def _bases() -> tuple[dict[str, Any], ...]:
    """Every catalog scenario, as its file has it, with all fields written out, and as what a variant is like."""
    bases = []
    for entry in list_catalog("scenario"):
        bases.append(yaml.safe_load(entry.path.read_text()))
        bases.append(load_scenario(entry.name).model_dump(mode="json"))
        bases.append({"like": entry.name, "cluster": {"nodes": 4}, "model": {"like": "kimi_k2", "name": "mine"}})
    return tuple(bases)


@cache
def _configs() -> tuple[dict[str, Any], ...]:
    return tuple(json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*/config.json")))


def _containers(data: Any) -> list[Any]:
    """Every non-empty mapping and list inside `data`, itself included."""
    found = []
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list) and item:
            found.append(item)
            stack.extend(item.values() if isinstance(item, dict) else item)
    return found


def _retyped(value: Any) -> Any:
    """`value` as another type that a hasty writer might have used."""
    if isinstance(value, bool):
        return "yes" if value else 0
    if isinstance(value, int):
        if abs(value) > 2**53:
            return [value]  # Too long for a float, maybe for text, too.
        return str(value) if value % 2 else float(value)
    if isinstance(value, float):
        return str(value)
    if isinstance(value, str):
        return [value]
    return repr(value)


@st.composite
def damaged(draw: st.DrawFn, bases: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """One of `bases` with one to four of its fields changed."""
    data = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 4))):
        containers = _containers(data)
        if not containers:
            break
        container = draw(st.sampled_from(containers))
        keys = sorted(container, key=str) if isinstance(container, dict) else range(len(container))
        key = draw(st.sampled_from(keys))
        edit = draw(st.sampled_from(("delete", "junk", "junk", "retype", "scale", "rename", "swap")))
        if edit == "delete":
            del container[key]
        elif edit == "junk":
            container[key] = copy.deepcopy(draw(st.sampled_from(JUNK)))
        elif edit == "retype":
            container[key] = _retyped(container[key])
        elif edit == "scale" and type(container[key]) in (int, float):
            factor = draw(st.sampled_from((-1, 0, 2, 7, 1000, 10**9, 0.5)))
            container[key] = type(container[key])(container[key] * factor) if factor != 0.5 else container[key] * factor
        elif edit == "rename" and isinstance(container, dict):
            container[draw(st.sampled_from(NAMES))] = container.pop(key)
        elif edit == "swap":
            other = draw(st.sampled_from(containers))
            if not _contains(other, container):
                container[key] = copy.deepcopy(other)
    return data


def _contains(outer: Any, inner: Any) -> bool:
    return any(item is inner for item in _containers(outer))


@st.composite
def damaged_bytes(draw: st.DrawFn, texts: tuple[bytes, ...]) -> bytes:
    """One of `texts` cut off, or with bytes overwritten or lines doubled."""
    text = bytearray(draw(st.sampled_from(texts)))
    edit = draw(st.sampled_from(("cut", "overwrite", "insert", "double")))
    position = draw(st.integers(0, max(0, len(text) - 1)))
    if edit == "cut":
        del text[position:]
    elif edit == "overwrite":
        junk = draw(st.binary(min_size=1, max_size=8))
        text[position : position + len(junk)] = junk
    elif edit == "insert":
        text[position:position] = draw(st.sampled_from(INSERTS))
    else:
        lines = bytes(text).splitlines(keepends=True)
        index = draw(st.integers(0, max(0, len(lines) - 1)))
        text = bytearray(b"".join(lines[: index + 1] + lines[index:]))
    return bytes(text)


def _yaml_bytes(data: dict[str, Any]) -> bytes:
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False).encode("utf-8", "surrogatepass")


class _Dumper(yaml.SafeDumper):
    """Writes huge integers, which str() refuses, in hexadecimal, and never an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(
    int,
    lambda dumper, value: dumper.represent_scalar(
        "tag:yaml.org,2002:int", str(value) if abs(value) < 10**100 else hex(value)
    ),
)


def _json_bytes(data: dict[str, Any]) -> bytes:
    def plain(item: Any) -> Any:
        if isinstance(item, dict):
            return {str(key): plain(value) for key, value in item.items()}
        if isinstance(item, list):
            return [plain(value) for value in item]
        return 10**400 if type(item) is int and item > 10**400 else item

    return json.dumps(plain(data)).encode()


def scenario_files() -> st.SearchStrategy[bytes]:
    """Bytes of a damaged scenario file."""
    bases = _bases()
    texts = tuple(entry.path.read_bytes() for entry in list_catalog("scenario")) + tuple(map(_yaml_bytes, bases))
    return st.one_of(
        damaged(bases).map(_yaml_bytes), damaged(bases).map(_yaml_bytes), damaged_bytes(texts), st.binary(max_size=200)
    )


def config_files() -> st.SearchStrategy[bytes]:
    """Bytes of a damaged Hugging Face config.json."""
    bases = _configs()
    texts = tuple(map(_json_bytes, bases))
    return st.one_of(damaged(bases).map(_json_bytes), damaged_bytes(texts), st.binary(max_size=200))
