"""A report as Markdown: charts are told in words."""

from __future__ import annotations

import re
from collections.abc import Iterator

from placement.report.page.blocks import Block, Code, Facts, Page, Points, Prose, Section, Table, Warn


def page_markdown(page: Page) -> str:
    """The report as Markdown with tables (GitHub's)."""
    lines = [f"# {_plain(page.title)}", "", _plain(page.lead), ""]
    for section in page.sections:
        lines += _section(section, 2)
    return "\n".join(lines).rstrip() + "\n"


def _section(section: Section, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {_plain(section.title)}", "")
    for block in section.blocks:
        yield from _block(block)
        yield ""
    for part in section.parts:
        yield from _section(part, level + 1)


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Prose):
        yield _plain(block.text)
    elif isinstance(block, Warn):
        yield f"> **Note:** {_plain(block.text)}"
    elif isinstance(block, Points):
        yield from (f"- {_plain(item)}" for item in block.items)
    elif isinstance(block, Code):
        fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", block.text) or [""]))
        yield from (fence, block.text, fence)
    elif isinstance(block, Facts):
        yield from _table(("", ""), block.rows, words=True)
    elif isinstance(block, Table):
        yield from (f"**{_plain(block.caption)}**", "", *_table(block.header, block.rows, block.words, block.strong))
    else:
        yield f"**{_plain(block.title)}.** {_plain(block.text)}"


def _table(
    header: tuple[str, ...], rows: tuple[tuple[str, ...], ...], words: bool, strong: int | None = None
) -> Iterator[str]:
    yield f"| {' | '.join(map(_plain, header))} |"
    yield f"|{'|'.join('---' if words or i == 0 else '---:' for i in range(len(header)))}|"
    for i, row in enumerate(rows):
        cells = [f"**{_plain(cell)}**" if i == strong else _plain(cell) for cell in row]
        yield f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """The text as itself: nothing in it is taken for Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|#&])", r"\\\1", " ".join(text.split()))
