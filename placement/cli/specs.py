"""`placement specs`: lists the catalog, shows one spec resolved, prints the JSON Schema of a spec file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from specs.loading import Kind
    from specs.model import Model

# Kept beside specs.loading.KINDS (a test compares them) so that --help needs no import of the schema.
KINDS = ("scenario", "model", "cluster", "workload", "engine")


@click.group("specs")
def specs() -> None:
    """The models, clusters, workloads, engines and scenarios that can be planned."""


@specs.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(kind: Kind | None, as_json: bool) -> None:
    """List the catalog."""
    from specs.loading import list_catalog

    entries = [entry for each in KINDS if kind in (None, each) for entry in list_catalog(each)]  # type: ignore[arg-type]
    if as_json:
        records = [
            {"kind": e.kind, "name": e.name, "aliases": list(e.aliases), "summary": e.summary, "path": str(e.path)}
            for e in entries
        ]
        click.echo(json.dumps(records, indent=2))
        return
    width = max(len(entry.name) for entry in entries)
    for each in KINDS:
        of_kind = [entry for entry in entries if entry.kind == each]
        if not of_kind:
            continue
        click.echo(f"{each}s")
        for entry in of_kind:
            alias = f" (also {', '.join(entry.aliases)})" if entry.aliases else ""
            click.echo(f"  {entry.name:<{width}}  {entry.summary}{alias}")


@specs.command("show")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), help="What NAME is; by default a scenario, else the first kind it fits."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, kind: Kind | None, as_json: bool) -> None:
    """Show spec NAME (a catalog name or a file), every default filled in, with the model's parameter counts."""
    from specs import loading

    found = kind or _kind_of(name)
    loaders = {
        "scenario": loading.load_scenario,
        "model": loading.load_model,
        "cluster": loading.load_cluster,
        "workload": loading.load_workload,
        "engine": loading.load_engine,
    }
    record: Any = loaders[found](name)
    model = record.model if found == "scenario" else record if found == "model" else None
    resolved: dict[str, Any] = {"kind": found, "spec": record.model_dump(mode="json")}
    if model is not None:
        resolved["parameters"] = _parameters(model)
    if as_json:
        click.echo(json.dumps(resolved, indent=2))
        return
    import yaml

    click.echo(f"# {found} {record.name}")
    if model is not None:
        counts = resolved["parameters"]
        total_b, active_b = counts["total"] / 1e9, counts["active"] / 1e9
        click.echo(f"# parameters: {total_b:.2f}B in total, {active_b:.2f}B active per token")
    click.echo(yaml.safe_dump(resolved["spec"], sort_keys=False, default_flow_style=None, width=110), nl=False)


@specs.command("schema")
@click.argument("kind", type=click.Choice(KINDS), default="scenario")
def schema_command(kind: Kind) -> None:
    """Print the JSON Schema of a spec file of KIND (by default a scenario)."""
    click.echo(json.dumps(json_schema(kind), indent=2))


def json_schema(kind: Kind) -> dict[str, Any]:
    """JSON Schema (2020-12) of a YAML file of `kind`; a scenario's parts may be names or paths instead of fields."""
    from pydantic import TypeAdapter

    from specs.cluster import Cluster
    from specs.engine import Engine
    from specs.model import Model
    from specs.scenario import Scenario
    from specs.workload import Workload

    types: dict[str, Any] = {
        "scenario": Scenario, "model": Model, "cluster": Cluster, "workload": Workload, "engine": Engine,
    }  # fmt: skip
    schema: dict[str, Any] = TypeAdapter(types[kind]).json_schema()
    if kind == "scenario":
        for part in ("model", "cluster", "workload", "engine"):
            name = {"type": "string", "minLength": 1, "description": f"a catalog name, or the path of a {part} file"}
            schema["properties"][part] = {"anyOf": [name, schema["properties"][part]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _kind_of(name: str) -> Kind:
    """The first kind whose catalog has `name`; for a file, what its fields look like."""
    import os

    from specs.documents import parse_yaml, read_text, shown
    from specs.errors import InputError
    from specs.loading import KINDS as ALL_KINDS
    from specs.loading import catalog_names, is_path, locate
    from specs.validation import suggestion

    names = {kind: catalog_names(kind) for kind in ALL_KINDS}
    for kind in ALL_KINDS:
        if name in names[kind]:
            return kind
    if not is_path(name) and not os.path.exists(name):
        known = [known for kind in ALL_KINDS for known in names[kind]]
        raise InputError(shown(name, 200) or "NAME", "", "no spec of that name", suggestion(name, known))
    path, source = locate(name, "scenario")
    if path.suffix == ".json" or path.is_dir():
        return "model"
    fields = parse_yaml(read_text(path, source), source)
    marks: tuple[tuple[str, Kind], ...] = (
        ("moe", "model"),
        ("gpu", "cluster"),
        ("kind", "workload"),
        ("backends", "engine"),
    )
    return next((kind for field, kind in marks if field in fields), "scenario")


def _parameters(model: Model) -> dict[str, int]:
    """The counts of `specs.parameters`, with the totals."""
    from dataclasses import asdict

    from specs.parameters import count_parameters

    counts = count_parameters(model)
    return {
        "total": counts.total,
        "active": counts.active,
        "active_with_embedding": counts.active_counting(embedding=True, head=True),
        **asdict(counts),
    }
