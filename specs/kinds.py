"""The kinds of spec there are, and what a file holds by the look of its fields."""

from __future__ import annotations

from typing import Any, Literal, get_args

from specs.cluster import Cluster
from specs.documents import shown
from specs.engine import Engine
from specs.errors import InputError
from specs.model import Model
from specs.scenario import Scenario
from specs.validation import record_classes
from specs.workload import Workload

Kind = Literal["scenario", "model", "cluster", "workload", "engine"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: The record of each kind, or the union of its records. A new kind is a row here, and a folder of the catalog.
RECORDS: dict[Kind, Any] = {
    "scenario": Scenario, "model": Model, "cluster": Cluster, "workload": Workload, "engine": Engine,
}  # fmt: skip
#: The kinds that a scenario is made of, each under its own name.
PARTS: tuple[Kind, ...] = tuple(kind for kind in KINDS if kind in Scenario.model_fields)

#: The parameter that puts a spec of a kind into a scenario, where there is one.
_OPTIONS: dict[str, str] = {"model": "`model` ", "cluster": "`cluster` ", "engine": "`engine` "}
#: What to do with a record of this product that is given for a spec.
_OF_RECORDS = {
    "plan": "keep its instances with `deployment`, score it with 'placement evaluate', or check it "
    "with 'placement verify'",
    "deployment": "deploy its scenario again",
    "front": "name its scenario",
}


def _fields(kind: Kind) -> set[str]:
    return {name for record in record_classes(RECORDS[kind]) for name in record.model_fields}


def _required(kind: Kind) -> set[str]:
    """Fields that no spec of this kind lacks."""
    return set.intersection(
        *(
            {name for name, field in each.model_fields.items() if field.is_required()}
            for each in record_classes(RECORDS[kind])
        )
    )


def kind_of(data: dict[str, Any], default: Kind | None = None) -> Kind | None:
    """The kind whose fields `data` has most of; of equals `default`, else the first. None: it has no kind's fields."""
    common = set.intersection(*(_fields(kind) for kind in KINDS))
    known = {kind: len(data.keys() & _fields(kind) - common) for kind in KINDS}
    best = max(KINDS, key=lambda kind: (known[kind], kind == default))
    return best if known[best] else None


def check_kind(data: dict[str, Any], kind: Kind, source: str) -> None:
    """Tells what a document is that is given where a spec of `kind` is wanted, and what to do instead.

    Raises:
        InputError: `data` is another kind of spec, a Hugging Face config, or a file that a command wrote.
    """
    schema = data.get("schema")
    if isinstance(schema, str) and schema.startswith("placement."):
        record = schema.removeprefix("placement.").partition("/")[0]
        told = f"is {with_article(shown(record))} ({shown(schema)}), not {with_article(kind)}"
        raise InputError(source, "", told, _OF_RECORDS.get(record, f"name {with_article(kind)}"))
    if kind != "model" and data.keys() & {"model_type", "architectures"} and "model" not in data:
        raise wrong_kind(source, "model", kind, "the config.json of a Hugging Face model")
    found = kind_of(data, kind)
    if found not in (None, kind) and not data.keys() & (_required(kind) - {"name", "kind"}):
        raise wrong_kind(source, found, kind, part=data.get(kind))


def wrong_kind(source: str, found: Kind, wanted: Kind, told: str = "", part: object = None) -> InputError:
    """The error for a spec of kind `found`, called `source`, where one of kind `wanted` is expected.

    Args:
        told: what it is, where that says more than its kind. part: what it has, as a scenario, of the kind `wanted`.
    """
    mend = f"name {with_article(wanted)}, or a file of one"
    if wanted == "scenario":
        option = _OPTIONS.get(found, f"`set` {found}=")
        mend = f"name a scenario, and put this {found} into it: {option}{source}"
    elif isinstance(part, str):
        mend = f"name its {wanted}, {shown(part)}"
    return InputError(source, "", f"is {told or with_article(found)}, not {with_article(wanted)}", mend)


def with_article(word: str) -> str:
    """`a word`, or `an other`."""
    return f"{'an' if word[:1] in 'aeiou' else 'a'} {word}"
