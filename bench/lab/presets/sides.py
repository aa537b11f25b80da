"""Outcomes of an instance: under the engine's defaults, and with a preset."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from bench.lab.presets.text import checks_text, entries_text, left_out_text, options_text, sizes_text
from bench.lab.target import Attachment, Drawing, Figure, LabCase, Outcome, Table, fits_serving
from placement.engines.presets.checks import Check, checks_of
from placement.engines.presets.fabric import fabric_of, fabrics, natural_fabric, network_of
from placement.engines.presets.formats import dotenv_text, json_text, kubernetes_text, serve_script, shell_text
from placement.engines.presets.formulas import sizes_of
from placement.engines.presets.messages import Messages, messages_of
from placement.engines.presets.preset import Preset, left_out_of, preset_of
from placement.engines.presets.served import Asked, Served, default_backend, graphless, serve
from placement.engines.presets.smoke import smoke_script
from placement.engines.settings.catalog import EngineName
from placement.errors import InfeasibleError, PlacementError
from placement.records.plan import load_plan
from placement.records.role import RoleName
from specs.errors import InputError
from specs.scenario import Scenario


class PresetOptions(Protocol):
    """What options of both targets have."""

    @property
    def fabric(self) -> str | None:
        """Where the experts' messages go."""

    @property
    def plan(self) -> str:
        """A plan whose role is taken over."""

    @property
    def role(self) -> RoleName:
        """What the instance does."""


def served_of(case: LabCase[Any], engine: EngineName, *, network: bool) -> Served:
    """The instance that a case asks for.

    Args:
        case: The case, with PresetOptions.
        engine: Its engine.
        network: Whether it may lie in several NVLink domains where no fabric is named and one domain is too small.

    Raises:
        InputError: Options that don't go together, or an unreadable plan. InfeasibleError: Nothing fits.
    """
    options: PresetOptions = case.options
    names = set(Asked.__dataclass_fields__) - {"redundant"}
    given = {name: getattr(options, name) for name in names if hasattr(options, name)}
    asked, scenario = Asked(**given), case.scenario
    if options.plan:
        plan = load_plan(Path(options.plan))
        role = plan.role(options.role if len(plan.roles) > 1 else None)
        scenario, asked = plan.scenario_of(role), asked.of_role(role)
    if options.fabric:
        return serve(scenario, engine, fabric_of(options.fabric), asked)
    return _natural(scenario, engine, asked, network)


def fits_preset(scenario: Scenario, *, network: bool) -> str:
    """Why no instance is found for a scenario where no fabric is named, or ""; `network`: as for served_of."""
    if reason := fits_serving(scenario):
        return reason
    try:
        _natural(scenario, "vllm", Asked(), network)
    except (InputError, PlacementError) as error:
        return str(error)
    return ""


def _natural(scenario: Scenario, engine: EngineName, asked: Asked, network: bool) -> Served:
    """The instance inside the NVLink domains; with `network`, over the network where none of them holds one."""
    try:
        return serve(scenario, engine, natural_fabric(scenario.cluster), asked)
    except InfeasibleError:
        if not network:
            raise
        return serve(scenario, engine, network_of(scenario.cluster), asked)


def plain(served: Served) -> Outcome:
    """The same instance with nothing set, under the default backend, or the one that was asked for."""
    own = served if served.asked.backend else default_backend(served)
    what = "nothing set" if served.asked.backend else "defaults"
    label = f"{own.engine}, {what}: {own.backend}"
    return Outcome(label=label, **_priced(own), notes=(f"{_instance(own)}; no variable is set.",))


def with_preset(served: Served, given: Scenario, *, launch: bool) -> Outcome:
    """The instance with its preset.

    Args:
        served: The instance.
        given: The scenario that was asked about.
        launch: Whether the whole launch is meant, or what is about messages of experts alone.
    """
    preset = preset_of(served, launch=launch)
    checks = checks_of(served, preset)
    return Outcome(
        label=f"preset for {served.fabric}: {served.backend}",
        **_priced(served),
        tables=(_messages_table(served), _checks_table(checks)),
        drawings=tuple(_drawings(served, preset, checks)),
        notes=tuple(_notes(served, given)),
        attachments=tuple(_attachments(served, preset, checks, launch)),
        tie=_tie(served),
        production=tuple(_production(served, preset, launch)),
    )


def _tie(served: Served) -> str:
    """Why the preset is no faster; "" where it is."""
    own = default_backend(served)
    guard = "settings guard against slow paths and failures, and are not priced"
    if served.asked.backend:
        gain = served.predicted().tokens_per_s / own.predicted().tokens_per_s - 1
        return f"both sides run {served.backend}, which was asked for ({gain:+.1%} to {own.backend}): {guard}"
    if served.backend == own.backend:
        return f"{own.backend} is the engine's default already, and the fastest on {served.fabric}: {guard}"
    return ""


def _priced(served: Served) -> dict[str, Any]:
    made = served.predicted()
    figures = []
    for each in messages_of(served):
        figures.append(Figure(f"{each.phase} all-to-all", (each.dispatch_s + each.combine_s) * 1e6, "us", "lower"))
    held = sum(size.number for size in sizes_of(served) if size.unit == "bytes")
    if held:
        figures.append(Figure("message buffers of a GPU", held / 1e9, "GB", ""))
    step = made.decode_step_s
    return {
        "step_ms": None if step is None else step * 1e3,
        "throughput": made.tokens_per_s,
        "figures": tuple(figures),
    }


def _instance(served: Served) -> str:
    split = served.split
    degrees = f"TP {split.tp}, EP {split.ep}, PP {split.pp}, DP {split.dp}"
    return f"{split.gpus_per_instance} GPUs of {served.scenario.cluster.name} ({degrees}), batch {split.batch}"


def _messages_table(served: Served) -> Table:
    """The messages of a layer, beside the sizes at which NCCL changes its way of sending."""
    rows = []
    for each in messages_of(served):
        peer = each.peer_bytes / 2**10
        rows.append(
            (
                each.phase, each.rule, f"{each.tokens:,.0f}", f"{peer:,.1f}", f"{each.fast_bytes / 1e6:,.2f}",
                f"{each.slow_bytes / 1e6:,.2f}", f"{each.dispatch_s * 1e6:,.1f}", f"{each.combine_s * 1e6:,.1f}",
            )
        )  # fmt: skip
    header = ("phase", "rule", "tokens", "KiB/peer", "MB NVLink", "MB NIC", "dispatch us", "combine us")
    return Table("A GPU's messages in a layer (dispatch)", header, tuple(rows))


def _checks_table(checks: tuple[Check, ...]) -> Table:
    rows = [(each.name, f"{each.expected:g} {each.unit}") for each in checks if each.expected is not None]
    return Table("What a sound fabric measures", ("check", "expected"), tuple(rows))


def _drawings(served: Served, preset: Preset, checks: tuple[Check, ...]) -> Iterator[Drawing]:
    if preset.variables:
        yield Drawing("Variables that are set", entries_text(preset.variables))
    if preset.options:
        yield Drawing("Options that are set", options_text(preset.options))
    if preset.ask_the_site:
        yield Drawing("Ask the site", entries_text(preset.ask_the_site))
    if preset.measure_first:
        yield Drawing("Measure first", entries_text(preset.measure_first))
    if sizes := sizes_of(served):
        yield Drawing("What the backend allocates", sizes_text(sizes))
    yield Drawing("Left out", left_out_text(left_out_of(served)))
    yield Drawing("How to check, and how to read less", checks_text(checks))


def _notes(served: Served, given: Scenario) -> Iterator[str]:
    cluster = served.scenario.cluster
    yield f"{_instance(served)}: {served.nodes} OS node(s) of {served.node_gpus} GPUs."
    if cluster.name != given.cluster.name:
        yield f"{given.cluster.name} has no {served.fabric}: {cluster.name} stands for it."
    if served.fabric == "nvl72":
        yield served.rack_note
        if served.engine == "vllm":
            yield (
                "vLLM counts ranks of other OS nodes as remote: DeepEP takes NVLink between them only with "
                "VLLM_DEEPEP_LOW_LATENCY_USE_MNNVL=1, and its bulk kernels don't."
            )
    for backend in fabrics()[served.fabric].backends[served.engine]:
        if graphless(backend, served.serves):
            yield (
                f"{backend} is not chosen for decode: vLLM turns CUDA graphs off with it (config/compilation.py), "
                "which predictions leave out. It is for instances that prefill (--role prefill)."
            )
    yield from (_in_nccl(each) for each in messages_of(served))
    yield "Uniform routing; a plan that places experts together sends less between nodes."


def _in_nccl(messages: Messages) -> str:
    """How a message to a peer compares with NCCL's defaults (user guide, Environment Variables)."""
    size = messages.peer_bytes
    protocol = "at most 16 KiB: the low-latency protocol" if size <= 16 * 2**10 else "more than 16 KiB: plain copies"
    return (
        f"{messages.phase.capitalize()}: {size / 2**10:,.1f} KiB from a GPU to a GPU ({protocol}), "
        f"{math.ceil(size / (128 * 2**10)):,} network messages of 128 KiB, {size / (4 * 2**20):.0%} of a 4 MiB buffer."
    )


def _attachments(served: Served, preset: Preset, checks: tuple[Check, ...], launch: bool) -> Iterator[Attachment]:
    yield Attachment("env.sh", "shell exports", shell_text(preset))
    yield Attachment("preset.env", ".env file", dotenv_text(preset))
    yield Attachment("env.yaml", "env of a Kubernetes container", kubernetes_text(preset))
    yield Attachment("preset.json", "the preset with options, reasons and documents", json_text(preset))
    yield Attachment("checks.txt", "measurements, with what to expect", checks_text(checks, urls=True) + "\n")
    if launch and served.engine == "vllm":
        yield Attachment("serve.sh", "launch script of an OS node", serve_script(served, preset))
        yield Attachment("smoke.sh", "smoke test of the answers", smoke_script())


def _production(served: Served, preset: Preset, launch: bool) -> Iterator[str]:
    yield "Run checks.txt on the nodes of an instance; below a figure, do what it says."
    if preset.ask_the_site:
        yield f"Ask the site: {', '.join(entry.name for entry in preset.ask_the_site)}."
    yield "Set env.sh on every OS node (Docker: preset.env; Kubernetes: env.yaml)."
    if launch and served.engine == "vllm":
        rank = "NODE_RANK=... HEAD_ADDRESS=... " if served.nodes > 1 else ""
        model = "MODEL=... " if preset.model == "$MODEL" else ""
        yield f"On each OS node: {rank}{model}bash serve.sh"
        yield "bash smoke.sh HOST PORT: all four answers must be ok."
    if preset.measure_first:
        yield "Try what is to be measured first one at a time; keep what pays twice."
