"""What a spec file may hold: its JSON Schema, and a table of its fields for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from specs.kinds import PARTS, RECORDS, Kind, with_article
from specs.validation import record_classes

#: The unit that the end of a field's name states; the longest end that fits counts.
UNITS = {
    "_gib": "GiB", "_gb_per_s": "GB/s", "_tflops": "TFLOP/s", "_ms": "ms", "_us": "us", "_b": "10^9 parameters",
    "_bytes_per_parameter": "bytes", "_tokens_per_gpu": "tokens",
}  # fmt: skip
_LIKE = {
    "type": "string",
    "minLength": 1,
    "description": "Name or file of a spec that this one is like, save in the fields that stand beside.",
}
_REF = "#/$defs/"


def json_schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema (2020-12) of a YAML file of `kind`.

    A spec that has `like` needs no other field. A scenario's parts may be names or paths instead of fields. A number's
    unit is its `unit`.
    """
    schema: dict[str, Any] = TypeAdapter(RECORDS[kind]).json_schema()
    definitions: dict[str, Any] = schema.pop("$defs", {})
    for record in (schema, *definitions.values()):
        for name, field in record.get("properties", {}).items():
            unit = unit_of(name)
            if unit is not None:
                field["unit"] = unit
    partial = {f"{name}.variant": _variant(definition) for name, definition in definitions.items()}
    variant = _variant(schema)
    names = {f"{record.__name__}.variant" for part in (kind, *PARTS) for record in record_classes(RECORDS[part])}
    for record in (variant, *(partial[name] for name in sorted(names & partial.keys()))):
        # A record may have several forms.
        for form in (record, *record.get("anyOf", ())):
            if "properties" in form:
                form["properties"]["like"] = _LIKE
    if kind == "scenario":
        for part in PARTS:
            full, changed = schema["properties"][part], variant["properties"][part]
            name = {
                "type": "string",
                "minLength": 1,
                "description": f"A catalog name, or the path of {with_article(part)} file.",
            }
            either = _either(full, changed)
            schema["properties"][part] = {"anyOf": [name, either], "description": full.pop("description", "")}
            variant["properties"][part] = {"anyOf": [name, changed], "description": changed.pop("description", "")}
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "title": kind, **_either(schema, variant), "$defs": definitions | partial}


def unit_of(name: str) -> str | None:
    """The unit that a field's name ends with, or None."""
    ends = [end for end in UNITS if name.endswith(end) or name == end[1:]]
    return UNITS[max(ends, key=len)] if ends else None


def _either(full: dict[str, Any], variant: dict[str, Any]) -> dict[str, Any]:
    return {"if": {"required": ["like"]}, "then": variant, "else": full}


def _variant(schema: Any) -> Any:
    """The schema of the fields that differ: as `schema`, with nothing required."""
    if isinstance(schema, list):
        return [_variant(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {key: _variant(value) for key, value in schema.items() if key not in ("required", "discriminator")}
    if "$ref" in kept:
        kept["$ref"] += ".variant"
    if "oneOf" in kept:
        kept["anyOf"] = kept.pop("oneOf")
    return kept


def schema_text(kind: Kind, width: int = 80) -> str:
    """Every field of a spec of `kind` with its values, unit, default and meaning, as text of that width."""
    schema: dict[str, Any] = TypeAdapter(RECORDS[kind]).json_schema()
    return "\n".join(_Table(schema.get("$defs", {}), width, PARTS if kind == "scenario" else ()).rows(schema))


@dataclass(frozen=True)
class _Table:
    """Writes a schema as lines. `definitions` are its $defs; the fields `parts` are described elsewhere."""

    definitions: dict[str, Any]
    width: int
    parts: tuple[Kind, ...]

    def rows(self, schema: dict[str, Any], before: str = "") -> Iterator[str]:
        for number, record in enumerate(self._records(schema)):
            tag = record["properties"].get("kind", {}).get("const")
            head = f"{before}kind: {tag}. " if tag else ""
            if head or not before:
                yield from [""] * bool(number)
                yield from self._wrapped(f"{head}{record.get('description', '')}", "")
                yield ""
            for name, field in record["properties"].items():
                if name == "kind" and tag:
                    continue
                told = [self._values(name, field, before), _unit(name, field), _default(name, field, record)]
                yield from self._wrapped(f"{before}{name}: {', '.join(filter(None, told))}", "")
                yield from self._wrapped(field.get("description", ""), "    ")
                if before or name not in self.parts:
                    yield from self.rows(field, f"{before}{name}.")

    def _wrapped(self, text: str, indent: str) -> list[str]:
        return textwrap.wrap(
            text, self.width, initial_indent=indent, subsequent_indent=indent or " " * 8, break_on_hyphens=False
        )

    def _records(self, schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The records that a field may hold."""
        if "$ref" in schema:
            yield from self._records(self.definitions[schema["$ref"].rpartition("/")[2]])
        elif "properties" in schema:
            yield schema
        for member in _members(schema):
            yield from self._records(member)

    def _values(self, name: str, field: dict[str, Any], before: str) -> str:
        """What may be written, in words."""
        if not before and name in self.parts:
            return f"name or file of {with_article(name)}, or its fields"
        members = [member for member in _members(field) if member.get("type") != "null"]
        if members:
            return " or ".join(dict.fromkeys(self._values(name, member, ".") for member in members))
        if "enum" in field or "const" in field:
            return " | ".join(map(str, field.get("enum", [field.get("const")])))
        if field.get("type") == "array":
            return f"list of {self._values(name, field.get('items', {}), '.')}"
        if field.get("additionalProperties"):
            keys = self._values(name, field.get("propertyNames", {"type": "string"}), ".")
            return f"mapping of {keys} to {self._values(name, field['additionalProperties'], '.')}"
        words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true | false"}
        return words.get(field.get("type", ""), "mapping") + _limits(field)


def _members(schema: dict[str, Any]) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = schema.get("anyOf", schema.get("oneOf", []))
    return members


def _limits(field: dict[str, Any]) -> str:
    bounds = {"from": "minimum", "over": "exclusiveMinimum", "to": "maximum", "below": "exclusiveMaximum"}
    return "".join(f" {word} {field[key]:,.9g}" for word, key in bounds.items() if key in field)


def _unit(name: str, field: dict[str, Any]) -> str | None:
    stated = [each["unit"] for each in (field, *_members(field)) if "unit" in each]
    return stated[0] if stated else unit_of(name)


def _default(name: str, field: dict[str, Any], record: dict[str, Any]) -> str | None:
    if name in record.get("required", ()):
        return "required"
    default = field.get("default")
    return (
        "optional"
        if default in (None, "", []) or isinstance(default, dict)
        else f"default {default if isinstance(default, str) else json.dumps(default)}"
    )
