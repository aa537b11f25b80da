"""What a report is made of: sections of blocks, with no word of HTML or Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from placement.problem.arrays import FloatArray


@dataclass(frozen=True)
class Prose:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Warn:
    """What a reader must not miss: something failed, or was left out, and what to do about it."""

    text: str


@dataclass(frozen=True)
class Code:
    """A command or program, word for word."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; row `strong` is the plan's own. `words`: all columns are text."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: int | None = None
    words: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar for each row. `text` says in words what a chart shows."""

    title: str
    text: str
    unit: str
    rows: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Curve:
    """One line of `Lines`: a value for each position."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Lines:
    """Curves over whole numbers `at`."""

    title: str
    text: str
    across: str
    unit: str
    at: tuple[int, ...]
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Heat:
    """A coloured cell for each row and column; nan: none.

    Attributes:
        down, across: What rows and columns are.
        unit: Of the values; "" where `names` tells them.
        values: [rows, columns].
        rows, columns: Their labels, or () to number them from 0.
        names: What values 0, 1, ... stand for, where they are kinds and no amounts.
        digits: Decimals of the values that are written into cells; None: none are.
        least, most: Where the colours begin and end; None: at the least and the largest value.
    """

    title: str
    text: str
    down: str
    across: str
    unit: str
    values: FloatArray
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    digits: int | None = None
    least: float | None = None
    most: float | None = None


Chart = Bars | Lines | Heat
Block = Prose | Points | Warn | Code | Facts | Table | Chart


@dataclass(frozen=True)
class Section:
    """A heading with what stands below it."""

    title: str
    blocks: tuple[Block, ...] = ()
    parts: tuple[Section, ...] = field(default=())


@dataclass(frozen=True)
class Page:
    """A whole report. `lead`: the answer in one sentence."""

    title: str
    lead: str
    sections: tuple[Section, ...]
