"""The options and variables that an engine of one version knows: nothing else is ever written."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from placement.engines.settings.names import names_of
from specs.documents import shipped_yaml

#: Variables of ours that a launch script asks for, and what each is. Engines know none of them.
PLACEHOLDERS = {
    "MODEL": "the model: a folder or a Hugging Face name",
    "DRAFT": "what drafts tokens for the model: a folder or a Hugging Face name",
    "HEAD_ADDRESS": "name or address of the instance's node 0, which every node of the instance must reach",
    "PORT": "port that node 0 serves on",
    "RENDEZVOUS_PORT": "port of node 0 where the nodes of an instance meet",
    "RANKS_PORT": "port of node 0 where the attention ranks of an instance meet",
    "TRANSFER_PORT": "port of this node where other instances ask for KV caches",
}
#: Variables of the plug-in of this package (docs/engines.md).
PLUGIN = ("PLACEMENT_EPLB", "PLACEMENT_PLAN")


@dataclass(frozen=True)
class Option:
    """An option of a command with the reason for it. `value`: one shell word, in which $NAME is filled in; None: a flag
    without a value."""

    name: str
    value: str | None
    reason: str


@dataclass(frozen=True)
class Variable:
    """A variable of the environment with the reason for it. `value`: as an option's."""

    name: str
    value: str
    reason: str


@dataclass(frozen=True)
class Switches:
    """What an engine of one version takes.

    Attributes:
        version: Of the engine. program: The words of its command. source: Where the lists were read.
        options, variables: All that are known, less variables that are kept for debugging.
    """

    version: str
    program: tuple[str, ...]
    source: str
    options: frozenset[str]
    variables: frozenset[str]

    def option(self, name: str, value: object = None, *, reason: str) -> Option:
        """An option that the engine knows.

        Raises:
            ValueError: It does not.
        """
        if name not in self.options:
            raise ValueError(f"{name} is no known option")
        return Option(name, None if value is None else str(value), reason)

    def variable(self, name: str, value: object, *, reason: str) -> Variable:
        """A variable that the engine, or the plug-in inside it, knows.

        Raises:
            ValueError: It does not.
        """
        if name not in self.variables and name not in PLUGIN:
            raise ValueError(f"{name} is no known variable")
        return Variable(name, str(value), reason)


@lru_cache(maxsize=1)
def _all() -> dict[str, Switches]:
    data: dict[str, dict[str, Any]] = shipped_yaml(__package__, "switches.yaml")
    return {engine: _read(each) for engine, each in data.items()}


def _read(each: dict[str, Any]) -> Switches:
    program = tuple(each["program"])
    if "names" not in each:
        options, variables = frozenset(each["options"]), frozenset(each["variables"])
        return Switches(each["version"], program, each["source"], options, variables)
    own, *others = map(names_of, each["names"])
    debugging = own.debugging.union(*(other.debugging for other in others))
    return Switches(
        own.version, program, own.source, own.options,
        own.variables.union(*(other.variables for other in others)) - debugging,
    )  # fmt: skip


def switches_of(engine: str) -> Switches:
    """What an engine takes."""
    return _all()[engine]


def needed(name: str, told: str) -> str:
    """A line of a bash script that ends it as bad usage where a variable is not set."""
    return f'[ -n "${{{name}:-}}" ] || {{ echo "$0: {name}: is not set; {told}" >&2; exit 2; }}'


def shell_word(value: str) -> str:
    """`value` as one word of bash in which $NAME and ${NAME...} are filled in, and nothing else is special."""
    if "$" not in value:
        return shlex.quote(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("`", "\\`").replace("$(", "\\$(") + '"'
