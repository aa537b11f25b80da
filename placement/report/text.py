"""Renders rich tables and lines as text for stdout: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

#: Columns where stdout is no terminal and COLUMNS is not set, and the range that screens are made for.
PIPE_WIDTH = 80
_LEAST, _MOST = 40, 160
_GAP = 2
_MARK = "> "


def screen_width() -> int:
    """Columns of a screen: the terminal's, or those that COLUMNS says."""
    told = os.environ.get("COLUMNS", "")
    if told.isdigit() and int(told) > 0:
        width = int(told)
    else:
        width = Console().width if sys.stdout.isatty() else PIPE_WIDTH
    return min(_MOST, max(_LEAST, width))


def rendered(parts: Sequence[RenderableType]) -> str:
    """The parts below each other."""
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=sys.stdout.isatty(), width=screen_width(), highlight=False)
    _print(console, parts)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def html(parts: Sequence[RenderableType]) -> str:
    """The parts below each other as HTML that needs no style sheet."""
    console = Console(file=io.StringIO(), record=True, width=PIPE_WIDTH, highlight=False)
    _print(console, parts)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def _print(console: Console, parts: Sequence[RenderableType]) -> None:
    """Text is printed as it stands: no markup is read in it, and no word of it is broken."""
    for part in parts:
        text = Text(part) if isinstance(part, str) else part
        lines = _wrapped(text, console.width) if isinstance(text, Text) else [text]
        for line in lines:
            console.print(line, crop=False, no_wrap=isinstance(line, Text) or None, overflow="ignore")


def _wrapped(text: Text, width: int) -> list[Text]:
    """The text in lines that are broken at blanks alone: a word wider than the screen, such as a path, runs over."""
    lines = []
    for line in text.split(allow_blank=True):
        at = [] if text.no_wrap else _breaks(line.plain, width)
        for piece in line.divide(at):
            piece.rstrip()
            piece.no_wrap, piece.overflow = True, "ignore"
            lines.append(piece)
    return lines


def _breaks(line: str, width: int) -> list[int]:
    """Where a line is broken so that its parts take at most `width` columns, as far as blanks allow."""
    found, start = [], 0
    for word in re.finditer(r"\S+", line):
        if start < word.start() and cell_len(line[start : word.end()]) > width and line[start : word.start()].strip():
            start = word.start()
            found.append(start)
    return found


def heading(text: str, more: str = "") -> Text:
    """A bold line, with plain text after it."""
    return Text.assemble((text, "bold"), more)


def command(text: str) -> Text:
    """What a user copies: it stays on one line, however long."""
    return Text(text, no_wrap=True)


@dataclass(frozen=True)
class Fields:
    """Names and values in two columns."""

    rows: tuple[tuple[str, Text], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        first = max((cell_len(name) for name, _ in self.rows), default=0)
        for name, value in self.rows:
            for i, line in enumerate(_wrapped(value, max(1, options.max_width - first - _GAP))):
                told = name if i == 0 else ""
                blanks = " " * (first + _GAP - cell_len(told))
                yield Text.assemble((told, "cyan"), blanks, line, no_wrap=True, overflow="ignore")


def fields(rows: Sequence[tuple[str, str | Text]]) -> Fields:
    """Names and values in two columns; see `command` for values that are to be copied."""
    return Fields(tuple((name, value if isinstance(value, Text) else Text(value)) for name, value in rows))


@dataclass(frozen=True)
class Columns:
    """A table whose first column is text and whose others are numbers.

    No cell is cut. Where a table is wider than the screen, its gaps shrink, its headers are broken at blanks, and then
    columns follow below in tables of their own, each with the first column.

    Attributes:
        marked: The row that is marked by ">" and in bold.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        most = max(header.count(" ") + 1 for header in self.header)
        ways = [(gap, self._widths(lines)) for gap in (_GAP, 1) for lines in range(1, most + 1)]
        gap, widths = min(ways, key=lambda way: len(_parts(way[1], options.max_width, way[0])))
        for part in _parts(widths, options.max_width, gap):
            yield self._table(part, widths, gap)

    def _widths(self, lines: int) -> tuple[int, ...]:
        """Columns that each column takes with its header in at most so many lines."""
        mark = 0 if self.marked is None else len(_MARK)
        cells = [max((cell_len(row[i]) for row in self.rows), default=0) for i in range(len(self.header))]
        needed = [max(_header_width(header, lines), cells[i]) for i, header in enumerate(self.header)]
        return (needed[0] + mark, *needed[1:])

    def _table(self, chosen: Sequence[int], widths: Sequence[int], gap: int) -> Table:
        total = widths[0] + sum(widths[column] + gap for column in chosen)
        table = Table(box=None, padding=(0, gap, 0, 0), header_style="cyan", pad_edge=False, width=total)
        mark = "" if self.marked is None else " " * len(_MARK)
        table.add_column(Text(mark + self.header[0]), width=widths[0], vertical="bottom")
        for column in chosen:
            table.add_column(Text(self.header[column]), justify="right", width=widths[column], vertical="bottom")
        for i, row in enumerate(self.rows):
            own = i == self.marked
            cells = (
                Text(cell, no_wrap=True) for cell in ((_MARK if own else mark) + row[0], *(row[c] for c in chosen))
            )
            table.add_row(*cells, style="bold" if own else "")
        return table


def _header_width(header: str, lines: int) -> int:
    """Least columns in which a header takes at most so many lines."""
    least = max(map(cell_len, header.split(" ")))
    return next(width for width in range(least, cell_len(header) + 1) if len(_breaks(header, width)) < lines)


def _parts(widths: Sequence[int], room: int, gap: int) -> list[list[int]]:
    """Positions of the columns of each table, the first column's aside."""
    parts: list[list[int]] = [[]]
    left = room - widths[0]
    for column, width in enumerate(widths[1:], start=1):
        if width + gap > left and parts[-1]:
            parts.append([])
            left = room - widths[0]
        parts[-1].append(column)
        left -= width + gap
    return parts


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None = None) -> Columns:
    """A table of figures; see Columns."""
    return Columns(tuple(header), tuple(tuple(row) for row in rows), marked)
