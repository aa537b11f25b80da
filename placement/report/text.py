"""Renders rich tables and lines as text for stdout: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

#: Columns where stdout is no terminal and COLUMNS is not set, and the range that screens are made for.
PIPE_WIDTH = 80
_LEAST, _MOST = 40, 160
_GAP = 2


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
    console = Console(
        file=buffer, force_terminal=sys.stdout.isatty(), width=screen_width(), highlight=False, soft_wrap=False
    )
    for part in parts:
        console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in buffer.getvalue().splitlines())


def html(parts: Sequence[RenderableType]) -> str:
    """The parts below each other as HTML that needs no style sheet."""
    console = Console(file=io.StringIO(), record=True, width=PIPE_WIDTH, highlight=False)
    for part in parts:
        console.print(part)
    return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def heading(text: str, more: str = "") -> Text:
    """A bold line, with plain text after it."""
    return Text.assemble((text, "bold"), more)


def fields(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values in two columns."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


@dataclass(frozen=True)
class Columns:
    """A table whose first column is text and whose others are numbers.

    Where it is wider than the screen, columns follow below in tables of their own, each with the first column: no cell
    is cut. Headers are broken at spaces.

    Attributes:
        marked: The row that is marked by ">" and in bold.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    marked: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        for part in self._parts(options.max_width):
            yield self._table(part)

    def _width(self, column: int) -> int:
        words = self.header[column].split(" ")
        return max(map(len, (*words, *(row[column] for row in self.rows))))

    def _parts(self, room: int) -> list[list[int]]:
        """Positions of the columns of each table."""
        first = self._width(0) + (0 if self.marked is None else 2) + _GAP
        parts: list[list[int]] = [[]]
        left = room - first
        for column in range(1, len(self.header)):
            width = self._width(column) + _GAP
            if width > left and parts[-1]:
                parts.append([])
                left = room - first
            parts[-1].append(column)
            left -= width
        return parts

    def _table(self, chosen: Sequence[int]) -> Table:
        table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="cyan", collapse_padding=True)
        mark = "" if self.marked is None else "  "
        table.add_column(mark + self.header[0], no_wrap=True, vertical="bottom")
        for column in chosen:
            width = self._width(column)
            table.add_column(Text(self.header[column]), justify="right", min_width=width, max_width=width)
        for i, row in enumerate(self.rows):
            own = i == self.marked
            name = ("> " if own else mark) + row[0]
            cells = (Text(row[column], no_wrap=True) for column in chosen)
            table.add_row(Text(name), *cells, style="bold" if own else "")
        return table


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], marked: int | None = None) -> Columns:
    """A table of figures; see Columns."""
    return Columns(tuple(header), tuple(tuple(row) for row in rows), marked)
