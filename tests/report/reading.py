"""A page read as a browser reads it, strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from xml.etree.ElementTree import Element

import html5lib

#: Elements that run something, load something, or take input.
FORBIDDEN = {
    "script",
    "link",
    "iframe",
    "object",
    "embed",
    "form",
    "input",
    "base",
    "img",
    "audio",
    "video",
    "foreignObject",
}
_NEUTRAL = re.compile(r"^\{.*\}")


def read(html: str) -> Element:
    """The document; fails at the first parse error."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    root: Element = parser.parse(html)
    return root


def tag(element: Element) -> str:
    return _NEUTRAL.sub("", str(element.tag))


def found(root: Element, *tags: str) -> list[Element]:
    """Elements of these tags in document order, SVG's among them."""
    return [each for each in root.iter() if isinstance(each.tag, str) and tag(each) in tags]


def text(element: Element) -> str:
    return " ".join("".join(element.itertext()).split())


def faults(root: Element) -> Iterator[str]:
    """What a page must not have: a way out, a broken reference, or a part that some readers can't follow."""
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    yield from (f"id {each} twice" for each in sorted({each for each in ids if ids.count(each) > 1}))
    yield from (f"element {tag(each)}" for each in found(root, *FORBIDDEN))
    for element in root.iter():
        for name, value in element.attrib.items():
            name = _NEUTRAL.sub("", str(name)).removeprefix("xlink:")
            if name.startswith("on"):
                yield f"handler {name}"
            if name in ("href", "src") and not value.startswith(("#", "data:image/png;base64,")):
                yield f"way out {value}"
            targets = re.findall(r"url\(#([^)]+)\)", value)
            targets += [value[1:]] if name == "href" and value.startswith("#") else []
            targets += value.split() if name in ("aria-labelledby", "aria-describedby") else []
            yield from (f"{name} points to {target}, which is nothing" for target in targets if target not in ids)
    levels = [int(tag(each)[1]) for each in found(root, "h1", "h2", "h3", "h4", "h5", "h6")]
    if levels.count(1) != 1 or any(after > before + 1 for before, after in pairwise(levels)):
        yield f"headings {levels}"
    for table in found(root, "table"):
        if len(found(table, "caption")) != 1 or any(
            each.get("scope") not in ("row", "col") for each in found(table, "th")
        ):
            yield "a table without caption or scope"
        widths = {len(found(row, "th", "td")) for row in found(table, "tr")}
        if len(widths) != 1:
            yield f"a table of rows of {sorted(widths)} cells"
    for svg in found(root, "svg"):
        if svg.get("role") != "img" or not all(text(each) for each in found(svg, "title", "desc")):
            yield "a drawing without words"
    if len(found(root, "main")) != 1 or found(root, "html")[0].get("lang") != "en":
        yield "no main part or no language"


def rows(root: Element, caption: str) -> list[list[str]]:
    """The cells of the table with that caption, its header first."""
    table = next(each for each in found(root, "table") if text(found(each, "caption")[0]) == caption)
    return [[text(cell) for cell in found(row, "th", "td")] for row in found(table, "tr")]
