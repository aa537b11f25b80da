"""Makes a drawn SVG part of a page: its own ids, colours of the page, words for who can't see it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

#: Colours in drawings that stand for those of the page, which change with light and dark.
INK, MUTED, GRID = "#010203", "#010204", "#010205"
SERIES = ("#010206", "#010207", "#010208", "#010209")
_OF_PAGE = {
    INK: "currentColor", MUTED: "var(--muted)", GRID: "var(--line)",
    **{colour: f"var(--series-{i + 1})" for i, colour in enumerate(SERIES)},
}  # fmt: skip
_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_REFERENCE = re.compile(r"url\(#([^)]+)\)|^#(.+)$")


def embedded(drawn: str, prefix: str, title: str, text: str) -> str:
    """An `svg` element as a part of HTML, from a whole SVG file.

    Args:
        drawn: The file. prefix: Of its ids. title, text: Its name and its description.
    """
    root = ElementTree.fromstring(drawn)
    for found in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(found)
    elements = list(root.iter())
    named = _referenced(elements)
    for element in elements:
        element.tag = element.tag.rpartition("}")[2]
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            new = _value(name, value, named, prefix)
            if new is not None:
                element.set(name.rpartition("}")[2], new)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-text")
    for i, (tag, words) in enumerate((("title", title), ("desc", text))):
        told = ElementTree.Element(tag, {"id": f"{prefix}-{'title' if tag == 'title' else 'text'}"})
        told.text = words
        root.insert(i, told)
    return ElementTree.tostring(root, encoding="unicode")


def _referenced(elements: list[ElementTree.Element]) -> set[str]:
    """Ids that something points to."""
    values = [value for element in elements for name, value in element.attrib.items() if not name.endswith("id")]
    found = [match for value in values if len(value) < 200 for match in _REFERENCE.finditer(value)]
    return {match[1] or match[2] for match in found}


def _value(name: str, value: str, named: set[str], prefix: str) -> str | None:
    """An attribute as the page has it; None: left out."""
    if name == "id":
        return f"{prefix}-{value}" if value in named else None
    if len(value) >= 200:
        # Pixels and long paths.
        return value
    value = _REFERENCE.sub(lambda match: f"url(#{prefix}-{match[1]})" if match[1] else f"#{prefix}-{match[2]}", value)
    for colour, of_page in _OF_PAGE.items():
        value = value.replace(colour, of_page)
    # The page's own font, at the size that was measured with another.
    return re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", re.sub(r"font-family: [^;]*;? ?", "", value))
