"""The degrees that a split may have: every (tp, ep, pp, dp) that divides the model, lies on nodes and is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from placement.problem.engine_rules import Layout, load_problem, usual
from placement.problem.split import (
    ep_problem,
    least_redundant,
    redundant_problem,
    stage_problem,
    tp_layout_problem,
    tp_problem,
)
from specs.scenario import Pins, Scenario

#: Above this many candidates the enumeration thins itself out (and says so): a plan must come in seconds.
MAX_CANDIDATES = 30_000
#: Up to these sizes every value is tried; beyond, stages and node counts are taken from sparser lists.
DENSE_DEPTHS = 128
DENSE_NODES = 64


@dataclass(frozen=True)
class Degrees:
    """Degrees of one candidate with its redundant experts."""

    tp: int
    ep: int
    pp: int
    dp: int
    redundant: int


@dataclass(frozen=True)
class Candidates:
    """Candidates in a fixed order; `thinned` tells that some were left out to bound their number."""

    degrees: tuple[Degrees, ...]
    thinned: bool


def divisors(number: int) -> list[int]:
    """All divisors, ascending."""
    low = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return sorted({*low, *(number // d for d in low)})


def list_candidates(scenario: Scenario, pins: Pins, redundant: int | None) -> Candidates:
    """Every candidate, thinned out by stages where there are more than MAX_CANDIDATES.

    Args:
        redundant: redundant experts, or None for the smallest count that divides.
    """
    for level in range(3):
        found = tuple(islice(_candidates(scenario, pins, redundant, level), MAX_CANDIDATES + 1))
        if len(found) <= MAX_CANDIDATES:
            return Candidates(found, level > 0 or _sparse(scenario))
    return Candidates(found[:MAX_CANDIDATES], True)


def sparse_first(degrees: Sequence[Degrees]) -> tuple[Degrees, ...]:
    """The same candidates, those whose stages and GPUs of a stage are powers of two in front."""
    sparse = [d.pp & (d.pp - 1) == 0 and d.tp * d.dp & (d.tp * d.dp - 1) == 0 for d in degrees]
    return tuple(d for wanted in (True, False) for d, found in zip(degrees, sparse, strict=True) if found is wanted)


def _sparse(scenario: Scenario) -> bool:
    return (
        scenario.cluster.nodes > DENSE_NODES or min(scenario.model.whole_layers, scenario.cluster.gpus) > DENSE_DEPTHS
    )


def stage_sizes(scenario: Scenario, level: int = 0) -> list[int]:
    """GPUs that a stage may have: divisors of a node, whole nodes, and powers of two that fill OS nodes of one."""
    cluster = scenario.cluster
    m, n = cluster.gpus_per_node, cluster.nodes
    powers = [2**i for i in range(n.bit_length()) if 2**i <= n]
    if level >= 2:
        counts = powers
    elif n <= DENSE_NODES:
        counts = list(range(1, n + 1))
    else:
        counts = sorted({*divisors(n), *powers})
    halves = [2**i for i in range(m.bit_length()) if not stage_problem(cluster, 2**i)]
    return sorted({*divisors(m), *halves, *(m * count for count in counts)})


def depths(layers: int, room: int, level: int = 0) -> list[int]:
    """Numbers of stages: each up to `room`, or of those with equally deep largest stages only the first."""
    most = min(layers, room)
    if level >= 2:
        return [2**i for i in range(most.bit_length()) if 2**i <= most]
    if level == 0 and most <= DENSE_DEPTHS:
        return list(range(1, most + 1))
    return sorted({-(-layers // size) for size in {-(-layers // pp) for pp in range(1, most + 1)}})


def _candidates(scenario: Scenario, pins: Pins, redundant: int | None, level: int) -> Iterator[Degrees]:
    model, cluster = scenario.model, scenario.cluster
    sizes = stage_sizes(scenario, level)
    if pins.tp and pins.dp and pins.tp * pins.dp not in sizes and not stage_problem(cluster, pins.tp * pins.dp):
        sizes = [pins.tp * pins.dp]
    for size in sizes:
        room = cluster.gpus // size
        if room < 1:
            continue
        deep = (
            depths(model.whole_layers, room, level)
            if pins.pp is None
            else [pins.pp] * (pins.pp <= min(room, model.whole_layers))
        )
        deep = [pp for pp in deep if not stage_problem(cluster, size, pp)]
        parts = divisors(size)
        ranks = [
            (ep, extra)
            for ep in parts
            if pins.ep in (None, ep)
            and not ep_problem(model, cluster, size, ep)
            and (level == 0 or pins.ep is not None or size // ep in (1, size))
            for extra in (least_redundant(model.moe.experts, ep) if redundant is None else redundant,)
            if not redundant_problem(model, ep, extra)
        ]
        for tp in parts:
            if pins.tp not in (None, tp) or pins.dp not in (None, size // tp):
                continue
            if tp_problem(model, tp) or tp_layout_problem(cluster, tp):
                continue
            for ep, extra in ranks:
                for pp in deep:
                    layout = Layout(model, cluster, tp, ep, pp, size // tp, extra)
                    if usual(scenario, pins, layout) and not load_problem(scenario, layout):
                        yield Degrees(tp, ep, pp, size // tp, extra)
