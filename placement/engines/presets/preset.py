"""A preset: what is set for an instance on a fabric, with reasons and documents; and what is not, with why."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from placement.engines.launch.switches import Option
from placement.engines.launch.vllm import VllmLauncher, degrees, limits
from placement.engines.presets.formulas import FORMULAS
from placement.engines.presets.served import Served
from placement.engines.settings.catalog import EngineName, Fabric, LeftOut, Need, Setting, catalog
from placement.engines.settings.names import Software, names_of
from placement.records.base import Record, Text

SCHEMA: Literal["placement.preset/1"] = "placement.preset/1"


class Entry(Record):
    """A variable or an option with its value.

    Attributes:
        value: None for an option without one.
        formula: How the value follows from the instance, with numbers; "" where it does not.
    """

    name: Text
    kind: Literal["option", "variable"]
    software: Software
    value: Text | None
    need: Need
    reason: Text
    formula: Text = ""
    document: Text


class Preset(Record):
    """What is set for an instance.

    Attributes:
        versions: Of the software whose names are used.
        os_nodes: OS nodes of an instance. gpus: Of each.
        variables, options: What is set.
        measure_first: What may pay: to be set where a measurement says so.
        ask_the_site: What should be set, once the site's value is known.
    """

    schema_: Annotated[Literal["placement.preset/1"], Field(alias="schema")] = SCHEMA
    engine: EngineName
    versions: dict[Software, Text]
    model: Text
    fabric: Fabric
    cluster: Text
    backend: Text
    instance: Text
    os_nodes: Annotated[int, Field(ge=1)]
    gpus: Annotated[int, Field(ge=1)]
    variables: tuple[Entry, ...]
    options: tuple[Entry, ...]
    measure_first: tuple[Entry, ...]
    ask_the_site: tuple[Entry, ...]


#: What stands for the site's value until it is known, by what it is of.
_SITE = {
    "hca": "names of the compute NICs (ibstat -l)",
    "interface": "name of the network interface that all nodes share (ip -brief address)",
    "service_level": "service level that the subnet manager keeps for these messages",
    "traffic_class": "traffic class that switches keep lossless: 4 x DSCP",
}


def preset_of(served: Served, *, launch: bool = True) -> Preset:
    """The preset of an instance.

    Args:
        served: The instance.
        launch: Whether the whole launch command is meant, or what is about messages of experts alone.
    """
    chosen = [
        each
        for each in catalog().settings
        if each.about(served.fabric, served.backend)
        and served.engine in each.engines
        and each.software in (served.engine, "nccl", "nvshmem")
        and (launch or each.alltoall)
        and not (each.alltoall and served.split.ep == 1)
    ]
    entries = [(each, _entry(served, each)) for each in chosen]
    known = [(each, entry) for each, entry in entries if entry is not None]
    unsaid = [entry for each, entry in known if each.site is not None and entry.value is None]
    said = [entry for each, entry in known if each.site is None or entry.value is not None]
    active = [entry for entry in said if entry.need != "measure_first"]
    used: tuple[Software, ...] = (served.engine, "nccl", "nvshmem")
    options = _launch_entries(served, launch) if served.engine == "vllm" else ()
    return Preset(
        engine=served.engine,
        versions={name: names_of(name).version for name in used},
        model=served.asked.model or "$MODEL",
        fabric=served.fabric,
        cluster=served.scenario.cluster.name,
        backend=served.backend,
        instance=f"{served.split.gpus_per_instance} GPUs, {_degrees(served)}",
        os_nodes=served.nodes,
        gpus=served.node_gpus,
        variables=tuple(entry for entry in active if entry.kind == "variable"),
        options=(*options, *(entry for entry in active if entry.kind == "option")),
        measure_first=tuple(entry for entry in said if entry.need == "measure_first"),
        ask_the_site=tuple(unsaid),
    )


def left_out_of(served: Served) -> tuple[tuple[LeftOut, str], ...]:
    """What is often set and is not, with its document."""
    found = (each for each in catalog().left_out if each.about(served.fabric, served.backend))
    return tuple((each, catalog().document(each)) for each in found)


def command_options(served: Served, node: int) -> tuple[Option, ...]:
    """The options of vLLM's command on an OS node of an instance."""
    switches, split = VllmLauncher.switches, served.split
    found = list(degrees(switches, served, node))
    if split.ep > 1:
        found.append(
            switches.option("--all2all-backend", served.backend, reason="the most predicted tokens/s on this fabric")
        )
    found += limits(switches, served, node)
    return tuple(found)


def _launch_entries(served: Served, launch: bool) -> tuple[Entry, ...]:
    found = []
    for option in command_options(served, 0):
        setting = catalog().setting(option.name)
        if setting is None:
            raise ValueError(f"{option.name} has no entry in the catalog of settings")
        if launch or setting.alltoall:
            found.append(_made(setting, option.value, setting.reason or option.reason))
    return tuple(found)


def _entry(served: Served, setting: Setting) -> Entry | None:
    """A setting with its value; the site's value is None where it is not said; None where it does not apply."""
    if setting.formula is not None:
        sized = FORMULAS[setting.formula](served)
        return None if sized is None else _made(setting, sized.value, setting.reason, sized.formula)
    if setting.site is not None:
        if setting.site == "interface" and served.nodes == 1:
            return None
        value = _site_value(served, setting)
        return _made(setting, value, setting.reason, "" if value is not None else _SITE[setting.site])
    return None if setting.value is None else _made(setting, setting.value, setting.reason)


def _site_value(served: Served, setting: Setting) -> str | None:
    asked = served.asked
    if setting.site == "hca":
        return f"={asked.hca}" if asked.hca else None
    if setting.site == "interface":
        exact = "=" if setting.software == "nccl" else ""
        return f"{exact}{asked.interface}" if asked.interface else None
    given = asked.service_level if setting.site == "service_level" else asked.traffic_class
    return None if given is None else str(given)


def _made(setting: Setting, value: str | None, reason: str, formula: str = "") -> Entry:
    return Entry(
        name=setting.name, kind=setting.kind, software=setting.software, value=value, need=setting.need,
        reason=f"{reason[0].upper()}{reason[1:]}".rstrip("."), formula=formula, document=catalog().document(setting),
    )  # fmt: skip


def _degrees(served: Served) -> str:
    return ", ".join(_named(served))


def _named(served: Served) -> Iterator[str]:
    split = served.split
    for name, degree in (("TP", split.tp), ("EP", split.ep), ("PP", split.pp), ("DP", split.dp)):
        yield f"{name} {degree}"
    yield f"batch {split.batch} per attention rank"
