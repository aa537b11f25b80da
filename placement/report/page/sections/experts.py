"""How hot experts are, where they lie, and how even the load of GPUs is."""

from __future__ import annotations

import numpy as np

from placement.problem.arrays import FloatArray
from placement.records.role import RolePlan
from placement.report.page.blocks import Block, Curve, Heat, Lines, Prose, Section, Table, Warn
from placement.report.page.evidence import Evidence, copies_of, places_of
from placement.report.page.sections.words import counted, told

#: More nodes than this are told by an amount of colour, fewer each by a colour of its own.
MOST_KINDS = 8
#: Layers whose hottest experts are listed: the most uneven ones.
LISTED = 8


def placement_section(role: RolePlan, evidence: Evidence | None, why_not: str) -> Section:
    """Heat of experts and where their copies lie."""
    blocks: list[Block] = []
    if evidence is None:
        blocks.append(Warn(f"The heat of experts {why_not}"))
    else:
        blocks += [_heat(role, evidence.heat), _hottest(role, evidence.heat)]
    copies = copies_of(role)
    if np.nanmax(copies) > 1:
        blocks.append(_copies(role, copies))
    if role.topology.gpus > 1:
        blocks.append(_places(role))
    failed = f" GPUs {', '.join(map(str, role.failed_gpus))} have failed and hold none." if role.failed_gpus else ""
    ranks = counted(role.topology.gpus, "expert-parallel rank")
    nodes = counted(role.topology.gpus // role.topology.gpus_per_node, "node")
    extra, width = role.split.layer_redundant, role.slots_per_gpu
    slots_a_gpu = counted(width, "slot")
    if extra is not None:
        low, high = (width + (end(extra) - role.split.redundant) // role.split.ep for end in (min, max))
        slots_a_gpu = f"{low} to {high} slots"
    slots = (
        f"Each MoE layer has {ranks} of {slots_a_gpu} on {nodes}.{failed} The plan file has "
        "every slot (physical_to_logical)."
    )
    return Section("Experts and their places", (Prose(slots), *blocks))


def balance_section(role: RolePlan, evidence: Evidence | None, why_not: str) -> Section:
    """Balancedness by layer, by window, and the load of each GPU."""
    if evidence is None:
        return Section("Balance", (Warn(f"Balancedness by layer and window {why_not}"),))
    blocks: list[Block] = [
        Prose(
            "Balancedness is the mean load of a GPU over the largest: 1 is even. It is judged on routing that the "
            "plan was not solved on, where there is some."
        ),
        _by_layer(role, evidence),
    ]
    blocks += [_by_window(role, evidence), _gpu_load(role, evidence.gpu_load)]
    return Section("Balance", tuple(blocks))


def _layers(role: RolePlan) -> tuple[str, ...]:
    return tuple(str(layer.layer) for layer in role.layers)


def _heat(role: RolePlan, heat: FloatArray) -> Heat:
    layer, expert = np.unravel_index(np.nanargmax(heat), heat.shape)
    most = float(heat[layer, expert])
    return Heat(
        "Heat of experts",
        f"The hottest is expert {expert} of layer {role.layers[int(layer)].layer}: {most:.1f} times the mean load.",
        "layer", "expert", "times the mean load of an expert", heat, _layers(role), least=0.0,
    )  # fmt: skip


def _hottest(role: RolePlan, heat: FloatArray) -> Table:
    most = np.nanmax(heat, axis=1)
    rows = []
    for i in sorted(np.argsort(-most, kind="stable")[:LISTED]):
        order = np.argsort(-np.nan_to_num(heat[i], nan=-1.0), kind="stable")[:3]
        hot = ", ".join(f"{expert} ({heat[i, expert]:.1f}x)" for expert in order)
        rows.append((str(role.layers[int(i)].layer), f"{most[i]:.2f}", hot))
    caption = f"The {len(rows)} most uneven layers" if len(rows) < len(heat) else "Layers"
    return Table(caption, ("layer", "max / mean", "hottest experts (times the mean load)"), tuple(rows))


def _copies(role: RolePlan, copies: FloatArray) -> Heat:
    several = np.nansum(copies > 1) / len(copies)
    return Heat(
        "Copies of experts",
        f"In the mean {several:.1f} experts of a layer have several copies; the most are {np.nanmax(copies):.0f}.",
        "layer", "expert", "copies", copies, _layers(role),
    )  # fmt: skip


def _places(role: RolePlan) -> Heat:
    topology = role.topology
    nodes = topology.gpus // topology.gpus_per_node
    size, kind, count = (topology.gpus_per_node, "node", nodes) if nodes > 1 else (1, "GPU", topology.gpus)
    names = tuple(f"{kind} {i}" for i in range(count)) if count <= MOST_KINDS else ()
    return Heat(
        f"{kind[:1].upper()}{kind[1:]} of each expert",
        f"One colour is one {kind}; of several copies the first counts. Experts of one colour are close to each other.",
        "layer", "expert", "" if names else kind, places_of(role, size), _layers(role), names=names,
    )  # fmt: skip


def _by_layer(role: RolePlan, evidence: Evidence) -> Lines:
    own = evidence.balance[0].layers
    worst = int(own.argmin())
    return Lines(
        "Balancedness by layer",
        f"The plan's mean is {own.mean():.3f}; its worst layer is {role.layers[worst].layer} with {own[worst]:.3f}.",
        "layer", "balancedness", tuple(layer.layer for layer in role.layers),
        tuple(Curve(told(each.name, 40), tuple(map(float, each.layers))) for each in evidence.balance),
    )  # fmt: skip


def _by_window(role: RolePlan, evidence: Evidence) -> Heat:
    values = np.array([each.layers for each in evidence.windows])
    mean = values.mean(axis=1)
    worst = int(mean.argmin())
    return Heat(
        "Balancedness by window",
        f"Each row is a stretch of the routing that judges. The worst one is {told(evidence.windows[worst].name, 60)}, "
        f"with a mean of {mean[worst]:.3f} over the layers. Shorter stretches are less even: they have fewer tokens.",
        "window", "layer", "balancedness", values,
        tuple(told(each.name, 24) for each in evidence.windows), _layers(role),
    )  # fmt: skip


def _gpu_load(role: RolePlan, load: FloatArray) -> Heat:
    layer, gpu = np.unravel_index(load.argmax(), load.shape)
    return Heat(
        "Load of each GPU",
        f"The busiest is GPU {gpu} in layer {role.layers[int(layer)].layer}: {load[layer, gpu]:.2f} times the mean.",
        "layer", "GPU", "times the mean load of a GPU", load, _layers(role),
    )  # fmt: skip
