"""Layouts by the names that recipes give them, such as DEP8, and what keeps one from a scenario."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from placement.problem.engine_rules import Layout, load_problem
from placement.problem.split import (
    ep_problem,
    least_redundant,
    redundant_problem,
    stage_problem,
    tp_layout_problem,
    tp_problem,
)
from solvers.split.degrees import Degrees
from specs.scenario import Pins, Scenario

#: Attention and experts of a layout's family: TP n, TEP n, DEP n, DTP n.
FAMILIES = ("TP", "TEP", "DEP", "DTP")

_FAMILY = re.compile(r"(TP|TEP|DEP|DTP)(\d+)(?:xPP(\d+))?")
_MIXED = re.compile(r"TP(\d+)(?:DP(\d+))?(?:EP(\d+))?(?:xPP(\d+))?")


@lru_cache(maxsize=1024)
def named(name: str) -> Degrees:
    """The degrees of a layout's name, without redundant experts.

    Raises:
        ValueError: no recipe names a layout so.
    """
    family = _FAMILY.fullmatch(name)
    if family is not None:
        kind, n, pp = family[1], int(family[2]), int(family[3] or 1)
        tp, dp = (n, 1) if kind in ("TP", "TEP") else (1, n)
        return Degrees(tp, n if kind in ("TEP", "DEP") else 1, pp, dp, 0)
    mixed = _MIXED.fullmatch(name)
    if mixed is None:
        raise ValueError(f"{name!r} names no layout")
    tp, dp, ep, pp = (int(degree or 1) for degree in mixed.groups())
    return Degrees(tp, ep, pp, dp, 0)


def name_of(degrees: Degrees) -> str:
    """The shortest name of a layout."""
    tp, ep, dp = degrees.tp, degrees.ep, degrees.dp
    if dp == 1:
        name = f"TP{tp}" if ep == 1 else f"TEP{tp}" if ep == tp else f"TP{tp}EP{ep}"
    elif tp == 1:
        name = f"DTP{dp}" if ep == 1 else f"DEP{dp}" if ep == dp else f"TP1DP{dp}EP{ep}"
    else:
        name = f"TP{tp}DP{dp}" if ep == 1 else f"TP{tp}DP{dp}EP{ep}"
    return name if degrees.pp == 1 else f"{name}xPP{degrees.pp}"


def gpus_of(name: str) -> int:
    """GPUs of an instance of a layout."""
    degrees = named(name)
    return degrees.tp * degrees.dp * degrees.pp


def families(sizes: Iterable[int], kinds: Iterable[str] = FAMILIES) -> tuple[str, ...]:
    """Every family at every size, less those that are the same on one GPU."""
    kinds = tuple(kinds)
    names = [name_of(named(f"{kind}{size}")) for size in sizes for kind in kinds]
    return tuple(dict.fromkeys(names))


def powers(most: int) -> tuple[int, ...]:
    """Powers of two up to `most`."""
    return tuple(2**i for i in range(most.bit_length()) if 2**i <= most)


def layout_problem(scenario: Scenario, pins: Pins, degrees: Degrees) -> str:
    """Why a layout can't be had of a scenario's model, GPUs, engine and pins; "" where it can."""
    model, cluster = scenario.model, scenario.cluster
    stage = degrees.tp * degrees.dp
    pinned = next(
        (
            f"{name} is pinned to {pin}"
            for name, pin in (("tp", pins.tp), ("ep", pins.ep), ("pp", pins.pp), ("dp", pins.dp))
            if pin not in (None, getattr(degrees, name))
        ),
        "",
    )
    if pinned or stage * degrees.pp > cluster.gpus:
        return pinned or f"there are {cluster.gpus} GPUs"
    return (
        tp_problem(model, degrees.tp)
        or tp_layout_problem(cluster, degrees.tp)
        or stage_problem(cluster, stage, degrees.pp)
        or (f"the model has {model.whole_layers} layers" if degrees.pp > model.whole_layers else "")
        or ep_problem(model, cluster, stage, degrees.ep)
        or redundant_problem(model, degrees.ep, degrees.redundant)
        or load_problem(
            scenario,
            Layout(model, cluster, degrees.tp, degrees.ep, degrees.pp, degrees.dp, degrees.redundant),
        )
    )


def with_slots(scenario: Scenario, degrees: Degrees) -> Degrees:
    """The layout with the scenario's redundant experts, or the fewest that divide."""
    asked = scenario.redundant
    redundant = least_redundant(scenario.model.moe.experts, degrees.ep) if asked == "auto" else asked
    return Degrees(degrees.tp, degrees.ep, degrees.pp, degrees.dp, redundant)
