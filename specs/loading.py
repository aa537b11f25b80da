"""Finds and reads specs: by catalog name or alias, from a YAML file, or (models) from a Hugging Face config.json."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from specs.cluster import Cluster
from specs.documents import parse_yaml, read_text, shown, told
from specs.engine import Engine
from specs.errors import InputError
from specs.huggingface.config import read_config
from specs.model import Model
from specs.scenario import Scenario
from specs.validation import suggestion, validate
from specs.workload import Workload

Kind = Literal["scenario", "model", "cluster", "workload", "engine"]
KINDS: tuple[Kind, ...] = ("scenario", "model", "cluster", "workload", "engine")
CATALOG = Path(__file__).resolve().parent / "catalog"

T = TypeVar("T")


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

    Its `model`, `cluster`, `workload` and `engine` are each a catalog name, a path relative to the scenario's file, or
    the fields themselves; an engine's name or path may be followed by `:` and an all-to-all backend.

    Raises:
        InputError: there is no such scenario, or it is not valid.
    """
    path, source = locate(name_or_path, "scenario")
    data = dict(parse_yaml(read_text(path, source), source))
    parts: tuple[tuple[str, Callable[[str, Path], Any], Any], ...] = (
        ("model", _model, Model),
        ("cluster", partial(_simple, Cluster, "cluster"), Cluster),
        ("workload", partial(_simple, Workload, "workload"), Workload),
        ("engine", load_engine, Engine),
    )
    for field, load, record in parts:
        value = data.get(field)
        if isinstance(value, str):
            data[field] = _referenced(load, value, path.parent, source, field)
        elif isinstance(value, dict):
            data[field] = validate(record, value, source, prefix=field)
        elif field in data:
            raise InputError(source, field, f"is {told(value)}", f"write the name or file of a {field}, or its fields")
    return validate(Scenario, data, source)


def load_model(name_or_path: str) -> Model:
    """The model of that catalog name, in that YAML file, or in that Hugging Face config.json (or its folder).

    Raises:
        InputError: there is no such model, it is not valid, or the config is of a dense or unknown model.
    """
    return _model(name_or_path, Path())


def load_cluster(name_or_path: str) -> Cluster:
    """The cluster of that catalog name, or in that YAML file.

    Raises:
        InputError: there is no such cluster, or it is not valid.
    """
    cluster: Cluster = _simple(Cluster, "cluster", name_or_path, Path())
    return cluster


def load_workload(name_or_path: str) -> Workload:
    """The workload of that catalog name, or in that YAML file.

    Raises:
        InputError: there is no such workload, or it is not valid.
    """
    workload: Workload = _simple(Workload, "workload", name_or_path, Path())
    return workload


def load_engine(name_or_path: str, folder: Path | None = None) -> Engine:
    """The engine of that catalog name, or in that YAML file.

    Args:
        name_or_path: NAME or FILE, or either followed by `:` and one of the engine's all-to-all backends.
        folder: What a path is relative to.

    Raises:
        InputError: there is no such engine or backend, or the file is not valid.
    """
    name, colon, backend = name_or_path.rpartition(":")
    if not colon:
        name = name_or_path
    path, source = locate(name, "engine", folder)
    engine: Engine = validate(Engine, parse_yaml(read_text(path, source), source), source)
    if not colon or backend == engine.backend:
        return engine
    if backend not in engine.backends:
        problem = f"{shown(backend)!r} is no all-to-all backend of {engine.label}"
        raise InputError(source, "backend", problem, suggestion(backend, list(engine.backends)))
    return engine.model_copy(update={"backend": backend})


@cache
def generic_engine() -> Engine:
    """The engine of a scenario that names none (an immutable record, read once)."""
    return load_engine("generic")


def _referenced(load: Callable[[str, Path], T], value: str, folder: Path, source: str, field: str) -> T:
    """What a scenario's field names; an error about the name itself says where the name stands."""
    try:
        return load(value, folder)
    except InputError as error:
        if error.field == "" and error.source == shown(value, 200):
            raise InputError(source, field, f"{shown(value)}: {error.problem}", error.mend) from None
        raise


def _simple(kind: Any, word: Kind, name_or_path: str, folder: Path) -> Any:
    path, source = locate(name_or_path, word, folder)
    return validate(kind, parse_yaml(read_text(path, source), source), source)


def _model(name_or_path: str, folder: Path) -> Model:
    path, source = locate(name_or_path, "model", folder)
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):
        is_folder = False
    if is_folder or path.suffix == ".json":
        return read_config(path / "config.json" if is_folder else path, source)
    model: Model = validate(Model, parse_yaml(read_text(path, source), source), source)
    return model


def locate(name_or_path: str, kind: Kind, folder: Path | None = None) -> tuple[Path, str]:
    """The file of a catalog name or path, and its name for messages.

    A catalog name wins over a file of the same name; `./name` is always a file.
    """
    source = shown(name_or_path, 200)
    if not name_or_path.strip():
        raise InputError(f"the {kind}", "", "has an empty name", f"name a {kind} of the catalog, or a file")
    if not is_path(name_or_path):
        found = _in_catalog(name_or_path, kind)
        if found is not None:
            return found, source
    path = (folder or Path()) / name_or_path
    if is_path(name_or_path) or os.path.exists(path):
        return path, source
    raise InputError(source, "", f"no {kind} of that name", suggestion(name_or_path, catalog_names(kind)))


def _in_catalog(name: str, kind: Kind) -> Path | None:
    folder = CATALOG / f"{kind}s"
    stems = {path.stem: path for path in folder.glob("*.yaml")}
    if name in stems:
        return stems[name]
    if kind != "scenario":
        return None
    return next((entry.path for entry in list_catalog(kind) if name in entry.aliases), None)
