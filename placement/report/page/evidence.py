"""What a role's placement does to its routing, layer by layer: worked out again by the scorer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from placement.arithmetic import weighted_sum
from placement.check.case import PlanCase
from placement.cost.figures import Placement, score_placement
from placement.cost.layer.node_traffic import node_traffic
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.records.convert import own_placement, placement_of
from placement.records.role import RolePlan
from placement.routing.holdout import Source, routing_of
from placement.routing.trace import LoadCounts
from specs.workload import PlannedPhase

#: A strategy whose balancedness is shown beside the plan's own.
RIVAL = "eplb"


@dataclass(frozen=True)
class Balance:
    """[layers] balancedness of one strategy, or of the plan's own in one window."""

    name: str
    layers: FloatArray


@dataclass(frozen=True)
class PhaseTraffic:
    """[nodes, nodes] bytes from node to node for a mean MoE layer in one pass of a phase.

    `tokens`: of a GPU in the pass.
    """

    phase: PlannedPhase
    tokens: float
    between: FloatArray


@dataclass(frozen=True)
class Evidence:
    """A role on the routing that judges it.

    Attributes:
        heat: [layers, experts] load over the layer's mean load of an expert; nan beyond a layer's experts.
        gpu_load: [layers, gpus] load over the layer's mean load of a GPU, both over its relative speed.
        balance: Of the plan's own placement, then of `RIVAL` where the plan has it.
        windows: Of the plan's own placement in each window, those of a trace together.
        traffic: By phase; empty where all GPUs are on one node.
    """

    heat: FloatArray
    gpu_load: FloatArray
    balance: tuple[Balance, ...]
    windows: tuple[Balance, ...]
    traffic: tuple[PhaseTraffic, ...]


def evidence_of(case: PlanCase, windows: int) -> Evidence:
    """The evidence of a plan's role that passes its checks.

    Args:
        case: The role with its routing.
        windows: Load windows that each trace's judging part is cut into; load counts bring their own.

    Raises:
        MissingError: The routing is not at hand.
    """
    role, own = case.role, own_placement(case.role)
    problems = case.judge.problems[role.phase]
    scores = score_placement(problems, own)
    balance = [Balance(_name(role), np.array([score.balancedness for score in scores]))]
    rival = role.strategy(RIVAL)
    if rival is not None and rival.placements is not None:
        rivals = score_placement(problems, placement_of(role, rival))
        balance.append(Balance(RIVAL, np.array([score.balancedness for score in rivals])))
    speed = problems[0].hardware.relative_speed
    loads = [
        weighted_sum(problem.data.window_weight, score.gpu_load)
        for score, problem in zip(scores, problems, strict=True)
    ]
    alive = int(problems[0].hardware.alive.sum())
    return Evidence(
        heat=_padded([problem.data.mean_load / problem.data.mean_load.mean() for problem in problems]),
        gpu_load=np.array([load / speed / (load.sum() / alive) for load in loads]),
        balance=tuple(balance),
        windows=tuple(_by_window(case, own, windows)),
        traffic=tuple(_traffic(case, own)),
    )


def copies_of(role: RolePlan) -> FloatArray:
    """[layers, experts] copies of each expert; nan beyond a layer's experts."""
    return _padded([np.bincount(slots[slots != EMPTY]).astype(np.float64) for slots in own_placement(role).slots])


def places_of(role: RolePlan, gpus_per_place: int) -> FloatArray:
    """[layers, experts] node (or GPU) of each expert's first copy; nan beyond a layer's experts."""
    rows = []
    for slots in own_placement(role).slots:
        width = len(slots) // role.topology.gpus
        found = _first_slots(slots) // (width * gpus_per_place)
        rows.append(found.astype(np.float64))
    return _padded(rows)


def _first_slots(slots: IntArray) -> IntArray:
    """[experts] lowest slot of each."""
    held, first = np.unique(slots, return_index=True)
    return np.asarray(first[held != EMPTY])


def _name(role: RolePlan) -> str:
    return role.own.name if role.own is not None else "this plan"


def _padded(rows: list[FloatArray]) -> FloatArray:
    wide = np.full((len(rows), max(map(len, rows))), np.nan)
    for i, row in enumerate(rows):
        wide[i, : len(row)] = row
    return wide


def _by_window(case: PlanCase, own: Placement, windows: int) -> Iterator[Balance]:
    """Each source by itself, so that a window's name says whose it is."""
    record, top_k = case.plan.provenance.routing, case.scenario.model.moe.computed_top_k
    for source in case.sources:
        held_out = record.judged_on != "all" and not isinstance(source.routing, LoadCounts)
        judged = routing_of([source], top_k, held_out, judged_windows=windows).judged_on
        problems = case.assessor_on(judged).problems[case.role.phase]
        scores = score_placement(problems, own)
        count = len(scores[0].window_balancedness)
        for i in range(count):
            layers = np.array([score.window_balancedness[i] for score in scores])
            yield Balance(_window_name(source, i, count, len(case.sources)), layers)


def _window_name(source: Source, i: int, count: int, sources: int) -> str:
    place = f"{i + 1}/{count}"
    return place if sources == 1 else f"{source.routing.name} {place}"


def _traffic(case: PlanCase, own: Placement) -> Iterator[PhaseTraffic]:
    topology = case.judge.problems[case.role.phase][0].topology
    if topology.nodes == 1:
        return
    for phase in case.judge.phases:
        problems = case.judge.problems[phase]
        parts = [
            node_traffic(problem, slots, fractions)
            for problem, slots, fractions in zip(problems, own.slots, own.fractions, strict=True)
        ]
        yield PhaseTraffic(phase, problems[0].hardware.rates.tokens_per_gpu, np.mean(parts, axis=0))
