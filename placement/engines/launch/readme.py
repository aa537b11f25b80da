"""The README.md of an exported folder: how to start it, how to check it, and what every option is for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from placement.engines.launch.base import Launcher
from placement.engines.launch.manifests import MANIFEST_PLACEHOLDERS
from placement.engines.launch.scripts import PORTS, launch_script
from placement.engines.launch.seats import FILE, Seat, seats_table
from placement.engines.launch.site import Site
from placement.engines.launch.starting import HOST, ROUTER, ROUTER_PORT, router_script
from placement.engines.launch.switches import PLACEHOLDERS
from placement.engines.maps.base import MapFormat
from placement.records.layout import EngineName
from placement.records.plan import Plan


def readme(
    plan: Plan,
    made: MapFormat,
    launcher: Launcher | None,
    sites: Sequence[Site],
    held: Sequence[Seat],
    foreign: str,
) -> str:
    """The text; without a launcher it is about the maps alone.

    Args:
        plan: As the engine runs it.
        held: The GPUs of every instance.
        foreign: What to know of figures that are of another engine; see figures_note.
    """
    lines = [f"# {plan.scenario.name} on {made.name}", "", *_summary(plan, sites, foreign), ""]
    if launcher is not None:
        lines += [*_start(launcher, sites, held), ""]
        if _many(held):
            lines += [*_machines(held), ""]
    lines += [*_check(made, launcher, sites), ""]
    if plan.engine.notes:
        lines += ["## What the plan says of the engine", "", *(f"- {note}" for note in plan.engine.notes), ""]
    for site in sites:
        lines += [f"## {site.folder}", ""]
        if launcher is None:
            lines += [_map_line(site, made), ""]
            continue
        lines += [f"- {note}" for note in launcher.notes(site)]
        lines += [f"- {note}" for note in (site.rack_note, _prefixes(launcher, site)) if note]
        lines += ["", "| option | why |", "|---|---|", *_options(launcher, site), ""]
    return "\n".join(lines)


def figures_note(planned: EngineName, runs: EngineName) -> str:
    """Says of which engine a plan's figures are, where another one runs it; else ""."""
    if planned.label == runs.label:
        return ""
    anew = f"solve --engine {runs.name}:{runs.backend} plans anew"
    return f"planned for {planned.label}: its figures are of that engine; {anew}"


def _summary(plan: Plan, sites: Sequence[Site], foreign: str) -> Iterator[str]:
    if foreign:
        yield f"Set up for {plan.engine.label}. {foreign[0].upper()}{foreign[1:]}."
    else:
        yield f"Planned for {plan.engine.label}."
    yield "Every instance of a role has the same layout."
    yield ""
    yield f"| role | instances | an instance | OS nodes x GPUs | slots a layer | {_rate_column(sites)} |"
    yield "|---|---|---|---|---|---|"
    for site in sites:
        role = site.role
        yield (
            f"| {site.folder} | {role.split.instances} | {role.degrees} | {site.nodes} x {site.node_gpus} | "
            f"{role.slots_per_gpu * role.topology.gpus} | {role.predicted.tokens_per_s.value:,.0f} (predicted) |"
        )
    if len(sites) > 1:
        yield ""
        yield (
            "Each role's tokens/s are what it keeps up with alone. Together the roles serve "
            f"{plan.predicted.tokens_per_s.value:,.0f} tokens/s (predicted)."
        )


def _rate_column(sites: Sequence[Site]) -> str:
    return "tokens/s, all instances" + (" of this role alone" if len(sites) > 1 else "")


def _start(launcher: Launcher, sites: Sequence[Site], held: Sequence[Seat]) -> Iterator[str]:
    scripts = [launch_script(launcher, site, node) for site in sites for node in range(launcher.scripts(site))]
    asked = {
        name: meaning for name, meaning in PLACEHOLDERS.items() if any(f"${{{name}:" in script for script in scripts)
    }
    yield "## Start"
    yield ""
    yield "Set these variables on every machine:"
    yield ""
    many = _many(held)
    managed = tuple(site for site in sites if launcher.scripts(site) == site.nodes)
    # Of many instances `instance.sh` knows machines and ports.
    loaded = {name: PLACEHOLDERS[name] for site in sites for name in site.checkpoints}
    for name, meaning in (loaded if many else asked).items():
        yield f"- `{name}`: {meaning}" + (f" (default {PORTS[name]})" if name in PORTS else "")
    if many and "$PROXY" in launcher.router(sites):
        yield "- `PROXY`: where the router runs, the path of the proxy that is named below"
    if not many and any(site.disaggregated for site in sites):
        yield "- `NODE_ADDRESS`: this machine's own address, where it is not node 0"
    yield ""
    if many:
        hosts = max(seat.host for seat in held) + 1
        yield f"Write the names of your machines into `hosts.txt` in this folder, one a line: {hosts} lines, in the"
        yield "order of the table below."
        yield ""
        if managed:
            yield "Then run on each of them, N being its line counted from 0:"
            yield ""
            yield "```sh"
            yield f"bash {HOST} N"
            yield "```"
            yield ""
        if len(managed) < len(sites):
            yield "Instances that start under MPI are started one by one, as below: `srun -w` takes their machines."
            yield ""
        if router_script(launcher, sites):
            yield f"When all instances serve, start the router on any machine; it serves on port {ROUTER_PORT}:"
            yield ""
            yield "```sh"
            yield f"bash {ROUTER}"
            yield "```"
        else:
            yield "The engine brings no router: put any HTTP load balancer before node 0 of each instance."
        yield ""
        yield f"`{FILE}` says which GPUs and ports an instance takes: instance i of a role alone is started by these,"
        yield "with `INSTANCE=i` before the command:"
    else:
        yield "Then run:"
    yield ""
    yield "```sh"
    for site in sites:
        yield from launcher.start(site)
    yield "```"
    if managed:
        yield ""
        yield "With Docker Compose, on each machine: `docker compose --profile NAME up`, NAME being one of"
        yield f"{', '.join(f'`{site.folder}-{node}`' for site in managed for node in range(site.nodes))}."
        if many:
            yield "For instance i: `INSTANCE=i docker compose -p ROLE-i --profile NAME up`; `hosts.txt` lies in this"
            yield "folder." + (
                " The router: `docker compose --profile router up`." if router_script(launcher, sites) else ""
            )
        yield ""
        needed = {**loaded, **MANIFEST_PLACEHOLDERS}
        yield "With Kubernetes and its LeaderWorkerSet, all instances at once (`replicas` is their number):"
        yield ""
        yield "```sh"
        yield f"envsubst '{' '.join('$' + name for name in needed)}' < kubernetes.yaml | kubectl apply -f -"
        yield "```"
        yield ""
        for name, meaning in needed.items():
            yield f"- `{name}`: {meaning}"
        if many:
            yield ""
            yield "There `hosts.txt` is not used: each pod has GPUs and an address of its own, and node 0 of every"
            yield f"instance serves on port {PORTS['PORT']}."
            if router_script(launcher, sites):
                yield "The router, in a pod of its own, takes their addresses:"
                yield ""
                yield "```sh"
                for site in managed:
                    chosen = f"role={site.folder},leaderworkerset.sigs.k8s.io/worker-index=0"
                    get = f"kubectl get pods -l {chosen} -o jsonpath='{{.items[*].status.podIP}}'"
                    yield f'export {site.role.role.upper()}="$({get})"'
                yield f"bash {ROUTER}"
                yield "```"


def _many(held: Sequence[Seat]) -> bool:
    """Whether there is more than one instance."""
    return len({(seat.folder, seat.instance) for seat in held}) > 1


def _machines(held: Sequence[Seat]) -> Iterator[str]:
    yield "## Which instance on which machine"
    yield ""
    yield "Hosts are the lines of `hosts.txt`, counted from 0. Hosts of one fast-link domain must share it."
    yield ""
    yield from seats_table(held)


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


def _prefixes(launcher: Launcher, site: Site) -> str:
    """What the engine does about prompts that begin alike, and what was planned; "" where it keeps nothing of them."""
    if site.serves == "decode" and not site.scenario.engine.decode_prefix_cache:
        return ""
    found = site.workload.prefix_hit
    planned = (
        f"the plan counts on {found:.1%} of the input tokens being found there"
        if found
        else "the plan counts on nothing there (`--prefix-hit` says how much), so that prompts that begin alike are "
        "served sooner than planned"
    )
    return (
        f"The prefix cache is on by default, for models that the engine can keep one for; {planned}. To switch it off: "
        f"`{launcher.no_prefix_cache}`."
    )


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
