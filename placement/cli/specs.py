"""`placement specs`: lists the catalog, shows one spec resolved, describes the fields of a spec file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from placement.cli.command import Command
from placement.cli.options import scenario_options, variant_options
from placement.cli.running import emit

if TYPE_CHECKING:
    from specs.kinds import Kind
    from specs.model import Model

# Kept beside specs.kinds.KINDS (a test compares them) so that --help needs no import of the schema.
KINDS = ("scenario", "model", "cluster", "workload", "engine")


@click.group("specs")
def specs() -> None:
    """The models, clusters, workloads, engines and scenarios that can be planned."""


@specs.command("list")
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(kind: Kind | None, as_json: bool) -> None:
    """List the catalog."""
    from placement.report.text import fields, rendered
    from specs.loading import list_catalog

    entries = [entry for each in KINDS if kind in (None, each) for entry in list_catalog(each)]  # type: ignore[arg-type]
    if as_json:
        records = [
            {"kind": e.kind, "name": e.name, "aliases": list(e.aliases), "summary": e.summary, "path": str(e.path)}
            for e in entries
        ]
        click.echo(json.dumps(records, indent=2))
        return
    rows: list[tuple[str, str]] = []
    for each in (each for each in KINDS if kind in (None, each)):
        rows.append((f"{each}s", ""))
        for entry in (entry for entry in entries if entry.kind == each):
            alias = f" (also {', '.join(entry.aliases)})" if entry.aliases else ""
            rows.append((f"  {entry.name}", f"{entry.summary}{alias}"))
    emit(rendered([fields(rows)]))


@specs.command("show", cls=Command)
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), help="What NAME is; by default a scenario, else the first kind it fits."
)
@variant_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_command(name: str, kind: Kind | None, as_json: bool, **options: Any) -> None:
    """Show spec NAME (a catalog name or a file), every default filled in, with the model's parameter counts.

    What is printed is a spec file again. Paths of --set start at what is shown.
    """
    from specs.documents import yaml_text
    from specs.loading import find_kind, load
    from specs.overrides import overridden_spec

    found = kind or find_kind(name)
    record: Any = overridden_spec(found, load(found, name), **scenario_options(options))
    model = record.model if found == "scenario" else record if found == "model" else None
    resolved: dict[str, Any] = {"kind": found, "spec": record.model_dump(mode="json")}
    if model is not None:
        resolved["parameters"] = _parameters(model)
    if as_json:
        click.echo(json.dumps(resolved, indent=2))
        return
    click.echo(f"# {found} {record.name}")
    if model is not None:
        counts = resolved["parameters"]
        total_b, active_b = counts["total"] / 1e9, counts["active"] / 1e9
        click.echo(f"# parameters: {total_b:.2f}B in total, {active_b:.2f}B active per token")
    click.echo(yaml_text(resolved["spec"]), nl=False)


@specs.command("schema")
@click.argument("kind", type=click.Choice(KINDS), default="scenario")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON Schema.")
def schema_command(kind: Kind, as_json: bool) -> None:
    """Describe every field of a spec file of KIND (by default a scenario): values, unit, default, meaning."""
    from specs.schema import json_schema, schema_text

    click.echo(json.dumps(json_schema(kind), indent=2) if as_json else schema_text(kind))


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
