"""A spec with other values: what the command line and Python callers override.

There is one way in: a value for the field at a dotted path, such as `model.types.experts`. Names such as `nodes` are
short for paths. Values are merged into the spec as the fields of a variant are (specs.loading.merged).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, TypeVar

from pydantic import BaseModel

from specs.documents import parse_value, shown, told
from specs.errors import InputError
from specs.kinds import PARTS, RECORDS, Kind, with_article
from specs.loading import Place, varied
from specs.scenario import Pins, Scenario
from specs.validation import suggestion, unknown_step, validate

T = TypeVar("T", bound=BaseModel)

#: The path in a scenario that each name is short for.
OVERRIDES: dict[str, str] = {
    **{name: name for name in ("redundant", "dispatch", "message_rule", "keep_groups", "overlap", "engine", "degrees")},
    **{name: f"pins.{name}" for name in Pins.model_fields},
    **{f"{role}_{name}": f"{role}_pins.{name}" for role in ("prefill", "decode") for name in Pins.model_fields},
    **{name: f"workload.{name}" for name in ("isl", "osl", "ttft_ms", "tpot_ms", "chunk_tokens", "prefix_hit")},
    "draft": "workload.speculation.draft",
    "draft_method": "workload.speculation.method",
    "acceptance": "workload.speculation.acceptance",
    "accepted": "workload.speculation.accepted",
    "kv_type": "model.types.kv_cache",
    "cuda_graphs": "engine.cuda_graphs",
    "model": "model",
    "cluster": "cluster",
    "nodes": "cluster.nodes",
}


#: Characters that a summary tells of values; `with` and `and 12 more` come on top.
_MOST_TOLD = 180


@dataclass(frozen=True)
class _Change:
    """A new value: the parameter that gives it, in back-ticks; the field's path; the value."""

    source: str
    path: str
    value: Any

    @property
    def steps(self) -> list[str]:
        return self.path.split(".")


def overridden(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with other values, checked as a whole.

    Args:
        scenario: The scenario.
        changes: New values by name (see OVERRIDES), where None keeps the scenario's own; and `set`, a mapping of new
            values by dotted path. A value for `model`, `cluster` or `workload` may be a name or file.

    Raises:
        InputError: A field that the scenario doesn't have, a value that it can't have, or two values for one field.
        TypeError: A name that is no override.
    """
    return overridden_spec("scenario", scenario, **changes)


def overridden_spec(kind: Kind, spec: T, **changes: Any) -> T:
    """As `overridden`, for a spec of any kind: paths start at the spec.

    Raises:
        InputError, TypeError: As `overridden`; also a name that speaks of something else than the spec.
    """
    unknown = sorted(changes.keys() - {*OVERRIDES, "set"})
    if unknown:
        raise TypeError(f"{', '.join(unknown)}: no override; choose among {', '.join((*OVERRIDES, 'set'))}")
    asked = [_named(name, value, kind) for name, value in changes.items() if name != "set" and value is not None]
    asked += [_Change("`set`", path, value) for path, value in (changes.get("set") or {}).items()]
    if not asked:
        return spec
    data = spec.model_dump(mode="json")
    known = list(_paths(data))
    for change in asked:
        _check_path(change, kind, data, known)
    _check_once(asked)
    # What replaces a whole part comes before what changes a field of it, in whatever order the two are given.
    for change in sorted(asked, key=lambda each: len(each.steps)):
        over: Any = reduce(lambda inner, step: {step: inner}, reversed(change.steps), change.value)
        data = {field: _plain(each) for field, each in varied(kind, data, over, Place(change.source)).items()}
    paths = [change.path for change in asked]
    if kind == "scenario" and {"model", "cluster"} & set(paths) and "name" not in paths:
        # Its own name would tell of another question.
        data["name"] = shown(f"{data['model']['name']} on {data['cluster']['name']}", 200)
    if "summary" in data.keys() - {*paths} and (
        kind != "scenario" or any(change.steps[0] in PARTS and change.steps[0] != "engine" for change in asked)
    ):
        data["summary"] = _summary(asked)
    try:
        changed: T = validate(RECORDS[kind], data, f"{data.get('name', kind)} with the given options")
    except InputError as error:
        raise _blaming(kind, asked, error) from None
    return changed


def _blaming(kind: Kind, asked: Sequence[_Change], error: InputError) -> InputError:
    """The error of a changed spec by the parameters that changed it, and those that mend it."""
    start, field = "" if kind == "scenario" else f"{kind}.", error.field
    names = {path.removeprefix(start): name for name, path in OVERRIDES.items() if path.startswith(start)}

    def inside(path: str, holder: str) -> bool:
        return bool(holder) and f"{path}.".startswith(f"{holder}.")

    record = field.rpartition(".")[0]
    blamed = [each for each in asked if inside(field, each.path)][:1]
    if not blamed:
        # Values that don't go together; or one is missing that goes with these.
        if blamed := [each for each in asked if inside(each.path, field)]:
            record = field
        else:
            blamed = [each for each in asked if inside(each.path, record)] or list(asked if len(asked) == 1 else ())
            field = f"`{names[field]}`" if field in names else field
    beside = {path.rpartition(".")[2]: name for path, name in names.items() if path.rpartition(".")[0] == record}
    words = re.compile(rf"\b({'|'.join(beside)})\b" if record and beside else r"(?!)")
    problem, mend = (words.sub(lambda word: f"`{beside[word[1]]}`", text) for text in (error.problem, error.mend))
    *most, last = dict.fromkeys(each.source for each in blamed) or (error.source,)
    return InputError(f"{', '.join(most)} and {last}" if most else last, field, problem, mend)


def _summary(asked: Sequence[_Change]) -> str:
    """The values that are given, as many as a line holds: none is cut."""
    told_apart = [f"{change.path}={shown(change.value)}" for change in asked]
    most = next((n for n in range(len(asked), 1, -1) if len(", ".join(told_apart[:n])) <= _MOST_TOLD), 1)
    more = f" and {len(asked) - most} more" if most < len(asked) else ""
    return shown(f"with {', '.join(told_apart[:most])}{more}", 200)


def _plain(value: Any) -> Any:
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


def read_settings(texts: Sequence[str]) -> dict[str, Any]:
    """The values by path that texts such as `cluster.nodes=2` give; values are YAML.

    Raises:
        InputError: No path, no value, no valid YAML, or a path twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        path, _, value = (part.strip() for part in text.partition("="))
        if not path or not value:
            raise InputError("`set`", "", f"is {told(text)}", "write path=value, such as cluster.nodes=2")
        if path in found:
            raise InputError("`set`", shown(path, 120), "is given twice", "keep one")
        found[path] = parse_value(value, "`set`", shown(path, 120))
    return found


def _named(name: str, value: Any, kind: Kind) -> _Change:
    path = OVERRIDES[name]
    if kind != "scenario":
        if not path.startswith(f"{kind}."):
            raise InputError(f"`{name}`", "", f"is no value of {with_article(kind)}", "leave it out")
        path = path.removeprefix(f"{kind}.")
    return _Change(f"`{name}`", path, value)


def _check_path(change: _Change, kind: Kind, data: Any, paths: Sequence[str]) -> None:
    """Refuses a path of no field, with the nearest there is, and one that goes into a list or a plain value."""
    steps, field = change.steps, shown(change.path, 120)
    if not all(steps):
        raise InputError(change.source, field, "has an empty step", "write a path such as model.types.experts")
    inner = data
    for count, step in enumerate(steps):
        if isinstance(inner, dict):
            inner = inner.get(step)
        elif inner is not None:
            whole = ".".join(steps[:count])
            what = "a list" if isinstance(inner, list) else f"one value, {shown(inner)}"
            raise InputError(change.source, field, f"{whole} is {what}", f"give {whole} as a whole")
    found = unknown_step(RECORDS[kind], steps)
    if found is not None:
        index, known = found
        raise InputError(change.source, field, "is not a known field", _nearest(steps, index, known, paths))


def _nearest(steps: list[str], index: int, known: list[str], paths: Sequence[str]) -> str:
    """How to mend a path whose step at `index` is none of the `known` ones; `paths` are those that there are."""
    meant = [
        [*steps[:index], name, *steps[index + 1 :]] for name in difflib.get_close_matches(steps[index][:100], known)
    ]
    last = {path.rpartition(".")[2] for path in paths}
    alike = difflib.get_close_matches(steps[-1][:100], last, n=1)
    near = (
        [path for path in paths if path.endswith(f".{'.'.join(steps)}")]  # its beginning was left out
        or [path for path in map(".".join, meant) if path in paths]  # one step is misspelt
        or [".".join(path[: index + 1]) for path in meant]  # that, and a later one
        or [path for path in paths if path.rpartition(".")[2] in alike]  # it stands elsewhere
    )
    return f"did you mean {' or '.join(near[:3])}?" if near else suggestion(steps[index], known)


def _check_once(asked: Sequence[_Change]) -> None:
    """Refuses two values for one field."""
    by: dict[str, str] = {}
    for change in asked:
        for path in _leaves(change.path, change.value):
            if path in by:
                both = (
                    f"{by[path]} and {change.source} both give a value"
                    if by[path] != change.source
                    else "is given twice"
                )
                raise InputError(change.source, shown(path, 120), both, "keep one")
            by[path] = change.source


def _leaves(path: str, value: Any) -> Iterator[str]:
    """The paths of the values that a change gives."""
    if isinstance(value, Mapping) and value and "like" not in value:
        for key, inner in value.items():
            yield from _leaves(f"{path}.{key}", inner)
    else:
        yield path


def _paths(data: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """The dotted path of every field in `data`."""
    for key, value in data.items():
        yield f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _paths(value, f"{before}{key}.")
