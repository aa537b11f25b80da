"""Turns what pydantic says about wrong data into one line that names the field, what is wrong and how to mend it."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from specs.documents import shown, told
from specs.errors import InputError

T = TypeVar("T")


def validate(kind: type[T] | Any, data: dict[str, Any], source: str, prefix: str = "") -> T:
    """`data` as a record.

    Args:
        kind: a spec class, or a union of spec classes.
        data: plain data, as read from a file.
        source: the file or name it comes from, for messages.
        prefix: dotted path of `data` inside `source`, or "".

    Raises:
        InputError: the data do not fit; the message names the first problem and counts the others.
    """
    try:
        record: T = TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise explain(error, kind, source, prefix) from None
    except RecursionError:
        raise InputError(source, prefix, "nested too deep", "flatten it") from None
    return record


def explain(error: ValidationError, kind: Any, source: str, prefix: str = "") -> InputError:
    """The InputError for `error`, which came of validating data as `kind`."""
    by_field: dict[str, list[ErrorDetails]] = {}
    # A field that is not known comes first: it is likely what another one, said to be missing, was meant by.
    for detail in sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden"):
        by_field.setdefault(_dotted(kind, detail["loc"], prefix), []).append(detail)
    field, details = next(iter(by_field.items()))
    problem, mend = _problem_and_mend(kind, details)
    if len(by_field) > 1:
        mend += f" (and {len(by_field) - 1} more)"
    return InputError(source, shown(field, 120), problem, mend)


def record_classes(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every spec class in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        # Other forms in which the record may be written.
        yield from getattr(annotation, "forms", ())
    for inner in get_args(annotation):
        yield from record_classes(inner)


def unknown_step(kind: Any, path: Sequence[str]) -> tuple[int, list[str]] | None:
    """Where a path of field names leaves what records of `kind` have.

    Returns:
        The index of the first name that is no field, and the fields there are; None for a path that there may be.
    """
    classes = list(record_classes(kind))
    for index, name in enumerate(path):
        holders = [each for each in classes if name in each.model_fields]
        if classes and not holders:
            return index, list(dict.fromkeys(field for each in classes for field in each.model_fields))
        classes = [inner for each in holders for inner in record_classes(each.model_fields[name].annotation)]
    return None


def _kinds(record: type[BaseModel]) -> tuple[str, ...]:
    """The values of a record's discriminating field `kind`; none where it has no such field."""
    return get_args(record.model_fields["kind"].annotation) if "kind" in record.model_fields else ()


def _walk(kind: Any, loc: tuple[int | str, ...]) -> tuple[list[int | str], list[type[BaseModel]]]:
    """Path of `loc` without pydantic's own marks for union members, and the classes that hold its last part."""
    path: list[int | str] = []
    classes = list(record_classes(kind))
    holders = classes
    for part in loc:
        matching = [c for c in classes if part in c.model_fields]
        tagged = [c for c in classes if part in _kinds(c)]
        if matching:
            holders, annotations = matching, [c.model_fields[str(part)].annotation for c in matching]
            classes = [c for annotation in annotations for c in record_classes(annotation)]
            path.append(part)
        elif tagged:
            holders = classes = tagged
        elif classes or isinstance(part, int) or not _is_union_mark(part):
            holders = classes or holders
            path.append(part)
    return path, holders


def _is_union_mark(part: int | str) -> bool:
    """Whether pydantic added `part` to name the member of a union of plain types, such as constrained-int."""
    return isinstance(part, str) and (part.startswith(("constrained-", "literal[")) or part in ("int", "str", "[key]"))


def _dotted(kind: Any, loc: tuple[int | str, ...], prefix: str) -> str:
    text = prefix
    for part in _walk(kind, loc)[0]:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _problem_and_mend(kind: Any, details: list[ErrorDetails]) -> tuple[str, str]:
    first = details[0]
    if len(details) > 1:  # members of a union, each with its own complaint
        wanted = " or ".join(dict.fromkeys(_wanted(detail) for detail in details))
        return f"is {told(first['input'])}", f"write {wanted}"
    error_type, context = first["type"], first.get("ctx", {})
    if error_type == "missing":
        return "is missing", "add it"
    if error_type == "extra_forbidden":
        holders = _walk(kind, first["loc"])[1]
        known = list(dict.fromkeys(name for holder in holders for name in holder.model_fields))
        name = str(first["loc"][-1])
        deeper = [path for holder in holders for path in _paths_to(name, holder)]
        return "is not a known field", suggestion(name, known, deeper)
    if error_type == "union_tag_not_found":
        typo = difflib.get_close_matches("kind", [key for key in first["input"] if isinstance(key, str)], n=1)
        if typo:
            return f"has no kind, but {shown(typo[0])}", "did you mean kind?"
        return "has no kind", f"add 'kind:' {' or '.join(_tags(kind, first['loc']))}"
    if error_type == "union_tag_invalid":
        data = first["input"]
        return (
            f"has kind {told(data.get('kind') if isinstance(data, dict) else data)}",
            f"write {' or '.join(_tags(kind, first['loc']))}",
        )
    if error_type == "value_error":
        problem, _, mend = str(context.get("error", first["msg"])).partition("; ")
        return problem, mend or "make the values agree"
    return f"is {told(first['input'])}", f"write {_wanted(first)}"


def _tags(kind: Any, loc: tuple[int | str, ...]) -> list[str]:
    """The kinds that a record at `loc` may have."""
    classes = list(record_classes(kind))
    for part in loc:
        matching = [c.model_fields[str(part)].annotation for c in classes if part in c.model_fields]
        classes = [c for annotation in matching for c in record_classes(annotation)]
    return [tag for c in classes for tag in _kinds(c)]


def _wanted(detail: ErrorDetails) -> str:
    """What the field takes, as the object of 'write'."""
    error_type, context = detail["type"], detail.get("ctx", {})
    if error_type in ("greater_than_equal", "greater_than"):
        return f"at least {_bound(context.get('ge', context.get('gt')))}"
    if error_type in ("less_than_equal", "less_than"):
        return f"at most {_bound(context['le'])}" if "le" in context else f"less than {_bound(context.get('lt'))}"
    fixed = {
        "finite_number": "a finite number",
        "float_type": _not_text("a number such as 1.5", detail["input"]),
        "int_type": _not_text("a whole number", detail["input"]),
        "int_from_float": "a whole number",
        "bool_type": "true or false",
        "string_type": "text",
        "string_too_short": "at least one character",
        "string_too_long": f"at most {context.get('max_length')} characters",
        "string_pattern_mismatch": "text on one line",
        "string_unicode": "text without broken characters",
        "tuple_type": "a list such as [0, 1]",
        "too_long": f"at most {context.get('max_length')} entries",
        "too_short": f"at least {context.get('min_length')} entry",
        "dict_type": "a mapping",
        "model_type": "a mapping",
        "model_attributes_type": "a mapping",
        "invalid_key": "field names as text",
    }
    if error_type == "literal_error":
        return str(context.get("expected", "an allowed value"))
    return fixed.get(error_type, detail["msg"][:1].lower() + detail["msg"][1:])


def _bound(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else str(value)


def _not_text(wanted: str, value: object) -> str:
    return f"{wanted}, without quotes" if isinstance(value, str) and value[:1].isdigit() else wanted


def _paths_to(name: str, record: type[BaseModel]) -> Iterator[str]:
    """The dotted path of every field of that name inside the fields of a record."""
    for field, info in record.model_fields.items():
        for inner in record_classes(info.annotation):
            if name in inner.model_fields:
                yield f"{field}.{name}"
            yield from (f"{field}.{path}" for path in _paths_to(name, inner))


def _alike(name: str, known: Sequence[str]) -> list[str]:
    """The names that are `name` but for case and separators, else the first few that hold it."""

    def letters(text: str) -> str:
        return "".join(filter(str.isalnum, text.lower()))

    wanted = letters(name)
    same = [each for each in known if letters(each) == wanted]
    return same or [each for each in known if len(wanted) > 2 and wanted in letters(each)][:3]


def suggestion(name: str, known: list[str], deeper: Sequence[str] = ()) -> str:
    """How to mend an unknown `name`: the paths of that name `deeper` inside, else the nearest known ones, else all."""
    depth = min((path.count(".") for path in deeper), default=0)
    near = [path for path in dict.fromkeys(deeper) if path.count(".") == depth][:3]
    near = near or _alike(name[:100], known) or difflib.get_close_matches(name[:100], sorted(set(known)), n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"choose one of {', '.join(known)}" if known else "remove it"
