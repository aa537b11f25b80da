"""Names of modules as checkpoints list them: exact, inside a path, with wildcards, or as regular expressions."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from specs.documents import shown
from specs.errors import InputError

#: What may stand before `layers` in the path of a language model's layer; other prefixes are of other models.
ROOTS = frozenset({"model", "language_model", "text_model", "thinker", "backbone", "transformer", "decoder", "llm"})
#: How the layer's path begins for a regular expression, which may be anchored.
_FULL = ("model.", "language_model.model.", "model.language_model.", "")
_REGEX = "re:"
MAX_REGEX = 1_000


@dataclass(frozen=True)
class Patterns:
    """Modules that a list names.

    Attributes:
        runs: parts of paths, each matching wherever it stands in a path.
        globs: expressions of the wildcards, for paths that begin with `layers` and for paths that begin with `model`.
        regexes: regular expressions, which match from a path's beginning.
    """

    runs: frozenset[tuple[str, ...]] = frozenset()
    globs: tuple[re.Pattern[str] | None, re.Pattern[str] | None] = (None, None)
    regexes: tuple[re.Pattern[str], ...] = ()

    @classmethod
    def of(cls, names: Iterable[str], source: str, field: str) -> Patterns:
        """The patterns of a list.

        Args:
            names: its entries; `re:` starts a regular expression.
            source: the file, for messages.
            field: the list's field, for messages.

        Raises:
            InputError: an entry is no regular expression.
        """
        runs: set[tuple[str, ...]] = set()
        rooted: list[str] = []
        free: list[str] = []
        regexes: list[re.Pattern[str]] = []
        for name in dict.fromkeys(names):
            if name.startswith(_REGEX):
                regexes.append(_regex(name.removeprefix(_REGEX), source, field))
                continue
            parts = name.removesuffix(".weight").split(".")
            kept = _without_root(parts)
            if any(mark in name for mark in "*?["):
                wild = fnmatch.translate(".".join(kept)).removesuffix(r"\Z").removesuffix(r"\z")
                (rooted if kept[0] == "layers" else free).append(f"(?:{wild})(?:\\..*)?$")
            elif any(kept):
                runs.add(tuple(kept))
        return cls(frozenset(runs), (_joined(rooted), _joined(free)), tuple(regexes))

    def match(self, paths: Sequence[str]) -> bool:
        """Whether one of `paths`, which begin with `layers`, is named."""
        return any(self._matches(path) for path in paths)

    def _matches(self, path: str) -> bool:
        if self.runs:
            parts = tuple(path.split("."))
            count = len(parts)
            if any(parts[i:j] in self.runs for i in range(count) for j in range(i + 1, count + 1)):
                return True
        rooted, free = self.globs
        if rooted is not None and rooted.match(path):
            return True
        if free is not None and free.match(f"model.{path}"):
            return True
        return any(regex.match(root + path) for regex in self.regexes for root in _FULL)


def _joined(expressions: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(expressions)) if expressions else None


def _without_root(parts: list[str]) -> list[str]:
    """A module's path without what stands before its `layers`."""
    start = 0
    while start < len(parts) - 1 and parts[start] in ROOTS:
        start += 1
    return parts[start:]


def _regex(text: str, source: str, field: str) -> re.Pattern[str]:
    if len(text) <= MAX_REGEX:
        try:
            return re.compile(text)
        except (re.error, OverflowError, RecursionError):
            pass
    raise InputError(source, field, f"{shown(text)} is not a regular expression", "correct it, or write module names")
