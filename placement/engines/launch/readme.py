"""The README.md of an exported folder: how to start it, how to check it, and what every option is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from placement.engines.launch.base import Launcher
from placement.engines.launch.manifests import MANIFEST_PLACEHOLDERS
from placement.engines.launch.scripts import PORTS, launch_script
from placement.engines.launch.site import Site
from placement.engines.launch.switches import PLACEHOLDERS
from placement.engines.maps.base import MapFormat
from placement.records.plan import Plan


def readme(plan: Plan, made: MapFormat, launcher: Launcher | None, sites: Sequence[Site]) -> str:
    """The text; without a launcher it is about the maps alone."""
    lines = [f"# {plan.scenario.name} on {made.name}", "", *_summary(plan, sites), ""]
    if launcher is not None:
        lines += [*_start(launcher, sites), ""]
    lines += [*_check(made, launcher, sites), ""]
    if plan.engine.notes:
        lines += ["## What the plan says of the engine", "", *(f"- {note}" for note in plan.engine.notes), ""]
    for site in sites:
        lines += [f"## {site.folder}", ""]
        if launcher is None:
            lines += [_map_line(site, made), ""]
            continue
        lines += [f"- {note}" for note in launcher.notes(site)]
        lines += [f"- {site.rack_note}"] if site.rack_note else []
        lines += ["", "| option | why |", "|---|---|", *_options(launcher, site), ""]
    return "\n".join(lines)


def _summary(plan: Plan, sites: Sequence[Site]) -> Iterator[str]:
    yield f"Planned for {plan.engine.label}; every instance of a role has the same layout."
    yield ""
    yield "| role | instances | an instance | OS nodes x GPUs | slots a layer | tokens/s, all instances |"
    yield "|---|---|---|---|---|---|"
    for site in sites:
        role = site.role
        yield (
            f"| {site.folder} | {role.split.instances} | {role.degrees} | {site.nodes} x {site.node_gpus} | "
            f"{role.slots_per_gpu * role.topology.gpus} | {role.predicted.tokens_per_s.value:,.0f} (predicted) |"
        )


def _start(launcher: Launcher, sites: Sequence[Site]) -> Iterator[str]:
    scripts = [launch_script(launcher, site, node) for site in sites for node in range(launcher.scripts(site))]
    asked = {
        name: meaning for name, meaning in PLACEHOLDERS.items() if any(f"${{{name}:" in script for script in scripts)
    }
    yield "## Start"
    yield ""
    yield "Set these variables on every machine:"
    yield ""
    for name, meaning in asked.items():
        yield f"- `{name}`: {meaning}" + (f" (default {PORTS[name]})" if name in PORTS else "")
    if any(site.disaggregated for site in sites):
        yield "- `NODE_ADDRESS`: this machine's own address, where it is not node 0"
    yield ""
    yield "Then, for each instance, run:"
    yield ""
    yield "```sh"
    for site in sites:
        yield from launcher.start(site)
    yield "```"
    yield ""
    yield "Instances that share a machine need their own GPUs (`CUDA_VISIBLE_DEVICES`) and ports."
    managed = tuple(site for site in sites if launcher.scripts(site) == site.nodes)
    if managed:
        yield ""
        yield "With Docker Compose, on each machine: `docker compose --profile NAME up`, NAME being one of"
        yield f"{', '.join(f'`{site.folder}-{node}`' for site in managed for node in range(site.nodes))}."
        yield ""
        needed = {"MODEL": PLACEHOLDERS["MODEL"], **MANIFEST_PLACEHOLDERS}
        yield "With Kubernetes and its LeaderWorkerSet, all instances at once:"
        yield ""
        yield "```sh"
        yield f"envsubst '{' '.join('$' + name for name in needed)}' < kubernetes.yaml | kubectl apply -f -"
        yield "```"
        yield ""
        for name, meaning in needed.items():
            yield f"- `{name}`: {meaning}"


def _check(made: MapFormat, launcher: Launcher | None, sites: Sequence[Site]) -> Iterator[str]:
    yield "## Check that the map was taken"
    yield ""
    for site in sites:
        if site.map_file:
            role = f" --role {site.role.role}" if len(sites) > 1 else ""
            yield "The file holds what was planned, as the engine reads it:"
            yield ""
            yield "```sh"
            yield f"placement export --check {site.folder}/{site.map_file} --to {made.name} --plan plan.json{role}"
            yield "```"
            yield ""
        if launcher is not None:
            yield from (f"- {site.folder}: {step}" for step in launcher.taken(site))
    yield ""
    yield f"Loaded by: {made.loaded_by}."


def _map_line(site: Site, made: MapFormat) -> str:
    if not site.map_file:
        return "Without expert parallelism (EP 1) there is no map."
    split = site.split
    return (
        f"`{site.map_file}`: {split.ep} ranks, TP {split.tp}, DP {split.dp}, PP {split.pp}. Launch commands are not "
        f"written for {made.name}: give it these degrees and this file."
    )


def _options(launcher: Launcher, site: Site) -> Iterator[str]:
    for option in launcher.options(site, 0):
        value = "" if option.value is None else " " + option.value.replace("|", "\\|")
        yield f"| `{option.name}{value}` | {option.reason} |"
    for variable in launcher.variables(site, 0):
        value = variable.value.replace("|", "\\|")
        yield f"| `{variable.name}={value}` | {variable.reason} |"
