"""Renders rich tables and lines as text for stdout: coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

#: Columns where stdout is no terminal.
PIPE_WIDTH = 118
_LEAST, _MOST = 80, 140


def rendered(parts: Sequence[RenderableType], pipe_width: int = PIPE_WIDTH) -> str:
    """The parts below each other; `pipe_width`: columns where stdout is no terminal."""
    terminal = sys.stdout.isatty()
    width = min(_MOST, max(_LEAST, Console().width)) if terminal else pipe_width
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=terminal, width=width, highlight=False, soft_wrap=False)
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


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], strong: int | None = None) -> Table:
    """A table whose first column is text and whose others are numbers; row `strong` is bold."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="cyan")
    for i, name in enumerate(header):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True)
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell) for cell in row), style="bold" if i == strong else "")
    return table
