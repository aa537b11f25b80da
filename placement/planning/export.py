"""Writes a plan as the folder that an engine is started from, and checks an engine's file against a plan."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from placement.cost.memory.draft import speculation_of
from placement.engines.launch import megatron
from placement.engines.launch.manifests import compose, kubernetes
from placement.engines.launch.readme import figures_note, readme
from placement.engines.launch.registry import catalog_engine, launcher_of
from placement.engines.launch.scripts import launch_script, script_name
from placement.engines.launch.seats import FILE, seats, seats_file
from placement.engines.launch.site import Site, layers_of, map_of
from placement.engines.launch.starting import HOST, INSTANCE, ROUTER, host_script, instance_script, router_script
from placement.engines.maps.base import Extras, MapFormat
from placement.engines.maps.registry import FORMATS, get_format, read_map, uneven_problem
from placement.errors import CheckFailedError, InputError, ParameterError
from placement.planning.other_engine import on_engine
from placement.records.plan import Plan, plan_json
from placement.records.role import role_keys
from specs.documents import shown

#: The target that has arguments and no map.
MEGATRON = "megatron"


@dataclass(frozen=True)
class Exported:
    """A folder that was written. `files`: paths below it, in order. `notes`: what its user must know."""

    folder: str
    files: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """An engine's file that holds what a plan does. `notes`: what of the file was left out."""

    file: str
    format: str
    layers: int
    gpus: int
    slots: int
    notes: tuple[str, ...]


def export_plan(
    plan: Plan,
    to: str,
    out: str | Path,
    *,
    engine: str | None = None,
    architecture: str = "",
    next_token_layers: int = 0,
) -> Exported:
    """Writes the folder that an engine is started from: maps, launch commands, manifests, README.md.

    The folder is written whole or not at all.

    Args:
        plan: The plan. One that was made for another engine is exported where this one loads its split and dispatch.
        to: The engine or format: sglang, trtllm, vllm, vllm-record, vllm-hygon, vllm-ascend, omni or deepseek; for a
            training plan megatron.
        out: The folder, which must not be there yet, or be empty.
        engine: The engine of the catalog with its backend, NAME[:BACKEND]; None: the plan's own where that is the one.
        architecture: The model's class, as config.json has it in `architectures`; some formats ask for it.
        next_token_layers: Layers of a next-token module that get rows, too, where the engine looks for them.

    Raises:
        InputError: The engine can't load the plan, or the folder can't be written.
        InfeasibleError: The plan exceeds the HBM that the engine leaves.
    """
    target = _new_folder(out)
    if to == MEGATRON:
        held = dict(_training(plan))
        _write_folder(target, held, out)
        return Exported(str(out), tuple(held), tuple(megatron.notes(_training_site(plan))))
    made = get_format(to)
    if next_token_layers and made.name != "trtllm":
        raise ParameterError("next_token_layers", f"{made.name} has no rows of theirs", "leave it out")
    drafts = speculation_of(plan.scenario.spec)
    if made.name == "trtllm" and drafts is not None and drafts.method == "mtp":
        # A module that drafts is loaded, and its rows are looked for.
        next_token_layers = max(1, next_token_layers)
    adapted = _for_engine(plan, made, engine)
    foreign = figures_note(plan.engine, adapted.engine)
    if foreign:
        cautions = (foreign, *adapted.provenance.cautions)
        provenance = adapted.provenance.model_copy(update={"cautions": cautions})
        adapted = adapted.model_copy(update={"provenance": provenance})
    content = dict(_content(adapted, made, Extras(architecture, next_token_layers), foreign))
    # The plan as it was made: its figures are of its own engine.
    content |= {name: (data, ()) for name, data in _own_files(plan)}
    _write_folder(target, {name: data for name, (data, _) in content.items()}, out)
    told = [*adapted.engine.notes, *(note for _, told in content.values() for note in told)]
    notes = tuple(dict.fromkeys([*([foreign] if foreign else []), *told]))
    return Exported(str(out), tuple(content), notes)


def check_export(plan: Plan, file: str | Path, to: str, *, role: str | None = None) -> Compared:
    """Reads an engine's file back, as strictly as the engine does, and compares it with a plan.

    Args:
        plan: The plan.
        file: The engine's file.
        to: The format that it is in.
        role: Which role it is of, where the plan has several.

    Raises:
        InputError: The engine would not load the file, or not as a map of this model.
        CheckFailedError: It holds something else than the plan; the message has the first difference.
    """
    of = plan.role(role)
    scenario = plan.scenario_of(of)
    read = read_map(file, layers_of(scenario), of.topology.gpus, get_format(to).name)
    held, repeats = read.experts.without_repeats()
    difference = held.first_difference(map_of(of, scenario))
    if difference:
        raise CheckFailedError(f"{shown(str(file), 200)}: {difference} as in the plan")
    notes = read.notes + ((f"{repeats} slots repeat an expert of their GPU",) if repeats else ())
    slots = sum(len(on) for row in read.experts.rows for on in row)
    return Compared(str(file), to, len(held.layers), held.gpus, slots, notes)


def _training_site(plan: Plan) -> Site:
    role = plan.role()
    return Site(role, plan.scenario_of(role), role.role, "")


def _training(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """The folder of a training plan: arguments, and no map."""
    site = _training_site(plan)
    yield f"{site.folder}/{megatron.FILE}", megatron.script(site).encode()
    yield "README.md", megatron.readme(site).encode()
    yield from _own_files(plan)


def _own_files(plan: Plan) -> Iterator[tuple[str, bytes]]:
    """The plan and, where it is at hand, what proves its bounds."""
    yield "plan.json", plan_json(plan).encode()
    if plan.witness is not None and (proof := plan.witness_bytes()) is not None:
        yield f"plan{plan.witness.suffix}", proof


def _for_engine(plan: Plan, made: MapFormat, engine: str | None = None) -> Plan:
    """The plan as the format's engine runs it; `engine`: NAME[:BACKEND] of the catalog.

    Raises:
        InputError: The engine does not load it.
    """
    wanted = catalog_engine(made.name)
    if plan.mode == "training" and wanted is not None:
        raise ParameterError("to", f"{made.name} serves, and the plan trains", f"export it to {MEGATRON}")
    problem = uneven_problem(made.name)
    if problem and any(role.split.layer_redundant is not None for role in plan.roles):
        able = " or ".join(each.name for each in FORMATS.values() if each.uneven)
        mend = f"plan it without `redundant_by_layer`, or export it to {able}"
        raise ParameterError("to", f"{problem}, the plan other numbers", mend)
    if engine is not None or (wanted is not None and plan.engine.name != wanted):
        plan = on_engine(plan, engine or wanted)
    if wanted is not None and plan.engine.name != wanted:
        raise ParameterError("engine", f"{plan.engine.name} is not {wanted}", f"name a backend of {wanted}")
    for role in plan.roles:
        if role.dispatch == "planned":
            problem = f"{made.name} takes no planned dispatch shares"
            raise ParameterError("to", problem, "plan it with --dispatch nearest or even, or name the engine")
        if role.cp > 1 and wanted is not None and plan.scenario.spec.engine.shares_prompts == "never":
            problem = f"the {role.role} role shares a prompt over {role.cp} attention ranks"
            raise ParameterError("to", f"{problem}, for which no launch is known", "plan it with prefill_cp 1")
    return plan


def _sites(plan: Plan, made: MapFormat, architecture: str = "") -> Iterator[Site]:
    """The roles, each with a folder of its own."""
    stages = max((role.split.pp for role in plan.roles if role.role == "prefill"), default=1)
    for folder, role in zip(role_keys(plan.roles), plan.roles, strict=True):
        map_file = made.file if role.topology.gpus > 1 else ""
        yield Site(role, plan.scenario_of(role), folder, map_file, architecture, stages)


def _content(
    plan: Plan, made: MapFormat, extras: Extras, foreign: str
) -> Iterator[tuple[str, tuple[bytes, tuple[str, ...]]]]:
    """Every file of the folder, with what its user must know; `foreign`: see figures_note."""
    launcher, sites = launcher_of(made.name), tuple(_sites(plan, made, extras.architecture))
    held = () if launcher is None else seats(plan, sites)
    managed = () if launcher is None else tuple(site for site in sites if launcher.scripts(site) == site.nodes)
    many = len({(seat.folder, seat.instance) for seat in held}) > 1
    for site in sites:
        files = _role_files(plan, made, extras, site, many)
        yield from ((f"{site.folder}/{name}", written) for name, written in files)
    routed = ""
    if launcher is not None and many:
        yield FILE, (seats_file(held).encode(), ())
        yield INSTANCE, (instance_script(launcher).encode(), ())
        if managed:
            yield HOST, (host_script(managed).encode(), ())
        if router := router_script(launcher, sites):
            yield ROUTER, (router.encode(), ())
            routed = ROUTER
    if launcher is not None and managed:
        yield "kubernetes.yaml", (kubernetes(launcher, managed).encode(), ())
        yield "compose.yaml", (compose(launcher, managed, routed).encode(), ())
    yield "README.md", (readme(plan, made, launcher, sites, held, foreign).encode(), ())


def _role_files(
    plan: Plan, made: MapFormat, extras: Extras, site: Site, many: bool
) -> Iterator[tuple[str, tuple[bytes, tuple[str, ...]]]]:
    launcher, layers = launcher_of(made.name), layers_of(site.scenario)
    if site.map_file:
        held = map_of(site.role, site.scenario)
        held.check(layers, plan.scenario.name)
        yield site.map_file, (made.write(held, layers, extras), ())
    if launcher is None:
        return
    for node in range(launcher.scripts(site)):
        which = f"{site.folder}: " if len(plan.roles) > 1 else ""
        notes = tuple(which + note for note in launcher.notes(site))
        yield script_name(node), (launch_script(launcher, site, node, many).encode(), notes)
    for name, text in launcher.files(site).items():
        yield name, (text.encode(), ())
    # What a plug-in inside the engine reads: this role alone, so that no other of the same sizes is taken for it.
    yield (
        "plan.json",
        (plan_json(plan.model_copy(update={"roles": (site.role,), "nodes": (), "witness": None})).encode(), ()),
    )


def _new_folder(out: str | Path) -> Path:
    path = Path(out)
    where = shown(str(out), 200)
    if not str(out).strip():
        raise ParameterError("out", "is empty", "name a folder")
    if path.exists() and not path.is_dir():
        raise ParameterError("out", f"{where} is a file", "name a folder")
    if path.is_dir() and any(path.iterdir()):
        raise ParameterError("out", f"{where} is not empty", "name a new folder")
    if not path.absolute().parent.is_dir():
        raise ParameterError("out", f"{where} lies in a folder that is not there", "make that first")
    return path


def _write_folder(target: Path, files: dict[str, bytes], out: str | Path) -> None:
    """Writes all files beside the target, and moves them there at once."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name[:40]}.", dir=target.absolute().parent) as beside:
            whole = Path(beside) / "whole"
            for name, data in files.items():
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                if path.suffix == ".sh":
                    path.chmod(0o755)
            if target.is_dir():
                target.rmdir()
            shutil.move(whole, target)
    except OSError as error:
        reason = shown(error.strerror or type(error).__name__)
        raise InputError(
            "`out`", shown(str(out), 200), f"can't be written: {reason}", "choose another folder"
        ) from None
