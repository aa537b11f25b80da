"""A report as one HTML file that needs nothing else (extra `report`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from itertools import groupby

from placement.errors import MissingExtraError
from placement.report.page.blocks import Bars, Block, Facts, Heat, Lines, Page, Section, Table

INSTALL = "pip install 'placement[report]'"
#: Columns of a table for which half a page is wide enough.
NARROW = 5


@dataclass(frozen=True)
class Drawn:
    """A block with its kind, which a template can't ask for, and the drawing of a chart."""

    kind: str
    block: Block
    svg: str = ""


@dataclass(frozen=True)
class Group:
    """Blocks that stand beside each other where there is room, or below each other."""

    beside: bool
    blocks: tuple[Drawn, ...]


@dataclass(frozen=True)
class View:
    """A section as the template takes it. `path`: its title after those of the sections around it."""

    title: str
    path: str
    anchor: str
    groups: tuple[Group, ...]
    parts: tuple[View, ...]


def page_html(page: Page) -> str:
    """The report as HTML; the same page gives the same bytes.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        import jinja2
        import markupsafe
        import matplotlib  # noqa: F401
    except ImportError as error:
        told = f"an HTML report needs jinja2 and matplotlib; install them with: {INSTALL}, or ask for markdown"
        raise MissingExtraError(told) from error
    here = files("placement.report.page")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(here.joinpath("page.html.jinja").read_text())
    style = markupsafe.Markup(here.joinpath("page.css").read_text())
    sections = tuple(_view(section, "", "") for section in page.sections)
    return template.render(title=page.title, lead=page.lead, sections=sections, style=style) + "\n"


def _view(section: Section, before: str, around: str) -> View:
    anchor = before + re.sub(r"[^a-z0-9]+", "-", section.title.lower()).strip("-")
    path = around + section.title
    parts = tuple(_view(part, f"{anchor}-", f"{path}, ") for part in section.parts)
    return View(section.title, path, anchor, tuple(_groups(section, anchor)), parts)


def _groups(section: Section, anchor: str) -> Iterator[Group]:
    for beside, found in groupby(enumerate(section.blocks), key=lambda each: _is_narrow(each[1])):
        yield Group(beside, tuple(_drawn(block, f"{anchor}-{i}") for i, block in found))


def _is_narrow(block: Block) -> bool:
    """Whether half a page is wide enough."""
    if isinstance(block, Table):
        return len(block.header) <= NARROW and not block.words
    return isinstance(block, Facts | Bars | Lines | Heat)


def _drawn(block: Block, prefix: str) -> Drawn:
    if not isinstance(block, Bars | Lines | Heat):
        return Drawn(type(block).__name__, block)
    from markupsafe import Markup

    from placement.report.page.plots import svg_of

    # Text in it was escaped when it was written as XML.
    return Drawn("Chart", block, Markup(svg_of(block, prefix)))
