"""Presets on a screen of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from placement.engines.presets.checks import Check
from placement.engines.presets.formulas import Size
from placement.engines.presets.preset import Entry
from placement.engines.settings.catalog import LeftOut

WIDTH = 80


def _wrapped(text: str, indent: int = 4) -> Iterator[str]:
    space = " " * indent
    yield from textwrap.wrap(
        text, WIDTH, initial_indent=space, subsequent_indent=space, break_long_words=False, break_on_hyphens=False
    )


def _document(text: str) -> str:
    """A document's title; its address stands in the files."""
    return text.split(" <")[0]


def _joined(blocks: Iterable[Iterable[str]]) -> str:
    return "\n".join(line for block in blocks for line in block)


def entries_text(entries: Sequence[Entry]) -> str:
    """Settings, each with need, reason, formula and document."""

    def block(entry: Entry) -> Iterator[str]:
        value = "" if entry.value is None else (" " if entry.kind == "option" else "=") + entry.value
        yield from _wrapped(f"{entry.name}{value}   ({entry.need.replace('_', ' ')})", 0)
        formula = f" {entry.formula[:1].upper()}{entry.formula[1:]}." if entry.formula else ""
        yield from _wrapped(f"{entry.reason}.{formula} ({_document(entry.document)})")

    return _joined(map(block, entries))


def options_text(options: Sequence[Entry]) -> str:
    """Options, each in a line or two; their documents stand in the file."""

    def block(entry: Entry) -> Iterator[str]:
        value = "" if entry.value is None else f" {entry.value}"
        own, why = f"{entry.name}{value}", f"{entry.reason}. ({entry.need.replace('_', ' ')})"
        if len(own) + 3 + len(why) <= WIDTH:
            yield f"{own}   {why}"
        else:
            yield own
            yield from _wrapped(why)

    return _joined(map(block, options))


def sizes_text(sizes: Sequence[Size]) -> str:
    """Sizes, each with its formula and source."""

    def block(size: Size) -> Iterator[str]:
        number = f"{size.number / 2**20:,.1f} MiB" if size.unit == "bytes" else f"{size.number:,g} {size.unit}".strip()
        yield from _wrapped(f"{size.name}: {number}", 0)
        if size.formula:
            yield from _wrapped(size.formula)
        yield from _wrapped(size.source)

    return _joined(map(block, sizes))


def left_out_text(left: Sequence[tuple[LeftOut, str]]) -> str:
    """What is often set and is not, each with why and the document."""

    def block(each: tuple[LeftOut, str]) -> Iterator[str]:
        yield from _wrapped(each[0].setting, 0)
        yield from _wrapped(f"{each[0].why} ({_document(each[1])})")

    return _joined(map(block, left))


def checks_text(checks: Sequence[Check], *, urls: bool = False) -> str:
    """Checks, each with its commands (whole lines, to be copied), the figure, how to read less, and the document."""

    def block(check: Check) -> Iterator[str]:
        yield f"{check.name}"
        yield from (f"  $ {line}" for line in check.command.splitlines())
        yield from _wrapped(f"read: {check.looks_for}")
        if check.expected is not None:
            yield from _wrapped(f"expected: {check.expected:g} {check.unit} = {check.formula}")
        for each in check.if_lower:
            yield from _wrapped(f"- {each}")
        if urls:
            yield f"    {check.document}"

    return _joined(map(block, checks))
