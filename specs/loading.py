"""Finds and reads specs: by catalog name or alias, from a YAML file, or (models) from a Hugging Face config.json.

A spec may be a variant of another: `like: NAME_OR_FILE`, and the fields that differ (see `merged`).
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from specs.cluster import Cluster
from specs.documents import parse_json, parse_yaml, read_text, shown, told
from specs.engine import Engine
from specs.errors import InputError
from specs.huggingface.config import read_config
from specs.kinds import KINDS, PARTS, RECORDS, Kind, check_kind, kind_of, with_article, wrong_kind
from specs.model import Model
from specs.scenario import Scenario
from specs.validation import suggestion, validate
from specs.workload import Workload

CATALOG = Path(__file__).resolve().parent / "catalog"
#: Most bytes of a JSON file: whoever gives a plan for a spec is to hear that it is a plan.
MAX_JSON_BYTES = 64_000_000
#: Most specs that lead from one to another by `like` or by name.
MAX_CHAIN = 32


@dataclass(frozen=True)
class CatalogEntry:
    """A spec that ships with the product.

    Attributes:
        name: what it is asked for by; also the file's stem.
        kind: scenario, model, cluster, workload or engine.
        path: its YAML file.
        aliases: other names for it.
        summary: one line about it.
    """

    name: str
    kind: Kind
    path: Path
    aliases: tuple[str, ...]
    summary: str


def list_catalog(kind: Kind) -> list[CatalogEntry]:
    """The catalog's entries of one kind, sorted by name.

    Raises:
        InputError: a catalog file is damaged.
    """
    entries = []
    for path in sorted((CATALOG / f"{kind}s").glob("*.yaml")):
        data = parse_yaml(read_text(path, path.name), path.name)
        aliases = tuple(str(alias) for alias in data.get("aliases", ()))
        entries.append(CatalogEntry(path.stem, kind, path, aliases, str(data.get("summary", ""))))
    return entries


def catalog_names(kind: Kind) -> list[str]:
    """Every name and alias of the catalog's entries of one kind."""
    return [name for entry in list_catalog(kind) for name in (entry.name, *entry.aliases)]


def is_path(name: str) -> bool:
    """Whether `name` can only be a path, not a catalog name."""
    return any(mark in name for mark in ("/", os.sep)) or name.endswith((".yaml", ".yml", ".json"))


def load_scenario(name_or_path: str) -> Scenario:
    """The scenario of that catalog name or alias, or in that YAML file.

    Its `model`, `cluster`, `workload` and `engine` are each a catalog name, a path relative to the scenario's file, the
    fields themselves, or the fields that differ from another's, which `like` names.

    Raises:
        InputError: there is no such scenario, or it is not valid.
    """
    scenario: Scenario = load("scenario", name_or_path)
    return scenario


def load_model(name_or_path: str) -> Model:
    """The model of that catalog name, in that YAML file, or in that Hugging Face config.json (or its folder).

    Raises:
        InputError: there is no such model, it is not valid, or the config is of a dense or unknown model.
    """
    model: Model = load("model", name_or_path)
    return model


def load_cluster(name_or_path: str) -> Cluster:
    """The cluster of that catalog name, or in that YAML file.

    Raises:
        InputError: there is no such cluster, or it is not valid.
    """
    cluster: Cluster = load("cluster", name_or_path)
    return cluster


def load_workload(name_or_path: str) -> Workload:
    """The workload of that catalog name, or in that YAML file.

    Raises:
        InputError: there is no such workload, or it is not valid.
    """
    workload: Workload = load("workload", name_or_path)
    return workload


def load_engine(name_or_path: str) -> Engine:
    """The engine of that catalog name, or in that YAML file.

    Args:
        name_or_path: NAME or FILE, or either followed by `:` and one of the engine's all-to-all backends.

    Raises:
        InputError: there is no such engine or backend, or the file is not valid.
    """
    engine: Engine = load("engine", name_or_path)
    return engine


@cache
def generic_engine() -> Engine:
    """The engine of a scenario that names none (an immutable record, read once)."""
    return load_engine("generic")


@dataclass(frozen=True)
class Place:
    """Where a spec's fields stand.

    Attributes:
        source: the file or option, for messages.
        folder: what its paths are relative to.
        prefix: dotted path of the fields inside the source, or "".
        name: what a variant is called that does not say so; "": as what it is like.
        chain: the specs that led here, each a kind and a file.
    """

    source: str
    folder: Path = Path()
    prefix: str = ""
    name: str = ""
    chain: tuple[tuple[Kind, Path], ...] = ()

    def field(self, name: str) -> str:
        """The dotted path of a field."""
        return f"{self.prefix}.{name}" if self.prefix else name


def load(kind: Kind, name_or_path: str, folder: Path = Path(), chain: tuple[tuple[Kind, Path], ...] = ()) -> Any:
    """The spec of that kind and catalog name, or in that file.

    Args:
        kind: What is wanted.
        name_or_path: Its name, alias or file.
        folder: What a path is relative to.
        chain: The specs that led here, each a kind and a file.

    Raises:
        InputError: there is no such spec, it is not valid, is another kind of file, or is like itself.
    """
    name_or_path, backend = _with_backend(name_or_path) if kind == "engine" else (name_or_path, "")
    path, source = locate(name_or_path, kind, folder)
    if _holds_config(path):
        if kind != "model":
            raise wrong_kind(source, "model", kind, "the folder of a Hugging Face model")
        return read_config(path / "config.json", source)
    if kind == "model" and path.suffix == ".json":
        return _read_config(path, source)
    step = (kind, Path(os.path.abspath(path)))
    if step in chain:
        names = " -> ".join(each.name for _, each in (*chain[chain.index(step) :], step))
        raise InputError(source, "", f"goes round in a circle: {shown(names, 200)}", "leave one 'like' out")
    if len(chain) == MAX_CHAIN:
        raise InputError(source, "", f"is more than {MAX_CHAIN} specs away", "write the fields out")
    data = _document(path, source)
    if "like" not in data or find_kind(name_or_path, folder) != kind:
        check_kind(data, kind, source)
    place = Place(source, path.parent, name=shown(path.stem, 200), chain=(*chain, step))
    spec = validate(RECORDS[kind], varied(kind, {}, data, place), source)
    return _using(spec, backend, source) if backend else spec


def _with_backend(name_or_path: str) -> tuple[str, str]:
    """An engine's name or file, and the all-to-all backend that may stand behind a colon."""
    name, colon, backend = name_or_path.rpartition(":")
    return (name, backend) if colon else (name_or_path, "")


def _using(engine: Engine, backend: str, source: str) -> Engine:
    if backend not in engine.backends:
        problem = f"{shown(backend)!r} is no all-to-all backend of {engine.label}"
        raise InputError(source, "backend", problem, suggestion(backend, list(engine.backends)))
    return engine.model_copy(update={"backend": backend})


def varied(kind: Kind, base: dict[str, Any], over: dict[str, Any], place: Place) -> dict[str, Any]:
    """The fields of a spec that differs from `base` in the fields `over`, with specs in place of their names.

    Args:
        kind: What it is.
        base: The fields of a valid spec of that kind, or none.
        over: Fields as they are written; the spec that `like` names takes the place of `base`.
        place: Where they are written.

    Raises:
        InputError: a name of nothing, or a spec that is named and not valid.
    """
    over = dict(over)
    if "like" in over:
        like = _named(kind, over.pop("like"), place, "like")
        base = like.model_dump(mode="json", exclude={"name", "summary", "aliases"})
        told_apart = {"name": place.name or like.name, "summary": f"A variant of {like.name}."}
        over = {field: text for field, text in told_apart.items() if field in type(like).model_fields} | over
    for part in PARTS if kind == "scenario" else ():
        value = over.get(part)
        if isinstance(value, dict):
            if "like" in value:
                inner = replace(place, prefix=part, name="")
                over[part] = validate(RECORDS[part], varied(part, {}, value, inner), place.source, part)
            elif _same_kind(base.get(part), value) and "summary" in base[part]:
                over[part] = {"summary": f"A variant of {base[part]['name']}."} | value
        elif isinstance(value, str) or (part in over and Scenario.model_fields[part].is_required()):
            over[part] = _named(part, value, place, part, ", or its fields")
    result: dict[str, Any] = merged(base, over)
    return result


def merged(base: Any, over: Any) -> Any:
    """`base` with the values of `over`: mappings are merged by field; lists, scalars, and mappings of another `kind`
    take the place of what was there.
    """
    if not (isinstance(over, dict) and _same_kind(base, over)):
        return over
    return base | {field: merged(base.get(field), value) for field, value in over.items()}


def _same_kind(base: Any, over: dict[str, Any]) -> bool:
    return isinstance(base, dict) and over.get("kind", base.get("kind")) == base.get("kind")


def find_kind(name_or_path: str, folder: Path = Path(), steps: int = MAX_CHAIN) -> Kind:
    """The first kind whose catalog has the name; for a file, what its fields look like.

    Args:
        name_or_path: A name, alias or file.
        folder: What a path is relative to.
        steps: How many specs are followed that are like another.

    Raises:
        InputError: there is no such spec, or the file can't be read.
    """
    if not is_path(name_or_path):
        for kind in KINDS:
            if _in_catalog(name_or_path, kind) is not None:
                return kind
        if not name_or_path.strip() or not os.path.exists(folder / name_or_path):
            known = [name for kind in KINDS for name in catalog_names(kind)]
            source = shown(name_or_path, 200) or "NAME"
            raise InputError(source, "", "no spec of that name", suggestion(name_or_path, known))
    path, source = locate(name_or_path, "scenario", folder)
    if _holds_config(path):
        return "model"
    data = _document(path, source)
    if "like" in data and steps:
        with suppress(InputError):  # loading it will tell where the name stands
            return find_kind(str(data["like"]), path.parent, steps - 1)
    return kind_of(data) or ("model" if path.suffix == ".json" and "schema" not in data else "scenario")


def _named(kind: Kind, name: object, place: Place, field: str, otherwise: str = "") -> Any:
    """The spec that a field names; an error about the name itself says where the name stands."""
    if not isinstance(name, str):
        mend = f"write the name or file of {with_article(kind)}{otherwise}"
        raise InputError(place.source, place.field(field), f"is {told(name)}", mend)
    try:
        return load(kind, name, place.folder, place.chain)
    except InputError as error:
        if error.field == "" and error.source == shown(name, 200):
            problem = f"{shown(name)}: {error.problem}"
            raise InputError(place.source, place.field(field), problem, error.mend) from None
        raise


def _document(path: Path, source: str) -> dict[str, Any]:
    if path.suffix in (".npz", ".npy"):
        raise InputError(
            source, "", "is recorded routing, not a spec", "name a YAML file, and give routing as `traces`"
        )
    if path.suffix == ".json":
        return parse_json(read_text(path, source, MAX_JSON_BYTES), source)
    return parse_yaml(read_text(path, source), source)


def _read_config(path: Path, source: str) -> Model:
    try:
        return read_config(path, source)
    except InputError:
        check_kind(_document(path, source), "model", source)
        raise


def _holds_config(path: Path) -> bool:
    """Whether it is the folder of a Hugging Face model."""
    try:
        return (path / "config.json").is_file()
    except (OSError, ValueError):  # a folder that can't be looked into, or a name that no path can have
        return False


def locate(name_or_path: str, kind: Kind, folder: Path | None = None) -> tuple[Path, str]:
    """The file of a catalog name or path, and its name for messages.

    A catalog name wins over a file of the same name; `./name` is always a file.
    """
    source = shown(name_or_path, 200)
    if not name_or_path.strip():
        raise InputError(f"the {kind}", "", "has an empty name", f"name {with_article(kind)} of the catalog, or a file")
    if not is_path(name_or_path):
        found = _in_catalog(name_or_path, kind)
        if found is not None:
            return found, source
    path = (folder or Path()) / name_or_path
    if os.path.exists(path):
        return path, source
    if is_path(name_or_path):
        # Such as a name of Hugging Face's hub, openai/gpt-oss-120b.
        mend = "" if path.suffix in (".yaml", ".yml", ".json") else suggestion(path.name, catalog_names(kind))
        if mend.startswith("did you mean"):
            raise InputError(source, "", "no such file", mend)
        return path, source
    for other in KINDS:
        found = _in_catalog(name_or_path, other)
        if found is not None:
            raise wrong_kind(source, other, kind, part=_document(found, other).get(kind))
    raise InputError(source, "", f"no {kind} of that name", suggestion(name_or_path, catalog_names(kind)))


def _in_catalog(name: str, kind: Kind) -> Path | None:
    folder = CATALOG / f"{kind}s"
    stems = {path.stem: path for path in folder.glob("*.yaml")}
    if name in stems:
        return stems[name]
    return next((entry.path for entry in list_catalog(kind) if name in entry.aliases), None)
