"""Dispatch policies by name. A new policy is a file here, its line below and its name in specs.engine."""

from __future__ import annotations

import numpy as np

from placement.cost.layer.dispatch.base import DispatchPolicy as DispatchPolicy
from placement.cost.layer.dispatch.base import Shares as Shares
from placement.cost.layer.dispatch.even import Even
from placement.cost.layer.dispatch.nearest import Nearest, NearestOnOsNode
from placement.cost.layer.dispatch.planned import Planned
from placement.cost.layer.dispatch.token_hash import TokenHash
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.topology import Topology
from specs.engine import Dispatch

DISPATCH_POLICIES: dict[Dispatch, DispatchPolicy] = {
    "even": Even(),
    "nearest": Nearest(),
    "planned": Planned(),
    "token_hash": TokenHash(),
    "sglang_static": NearestOnOsNode("sglang_static", drawn_once=True),
    "sglang_dynamic": NearestOnOsNode("sglang_dynamic", drawn_once=False),
}


def policy_of(problem: LayerProblem) -> DispatchPolicy:
    """The problem's dispatch policy."""
    return DISPATCH_POLICIES[problem.rules.dispatch]


def alike_homes(problem: LayerProblem) -> bool:
    """Whether in every placement all homes dispatch in equal shares: the policy says so, or experts have one copy."""
    return policy_of(problem).alike or problem.hardware.usable_slots == problem.experts


def dispatch_shares(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> Shares:
    """The shares of the problem's dispatch policy, in expectation over its fair draws.

    Args:
        slots: [slots] Experts; EMPTY slots serve nothing. fractions: [nodes, slots] Shares by home node, for `planned`.

    Raises:
        InputError: `planned` without fractions, or fractions of an expert that don't sum to 1.
    """
    copies, count = _copies(np.asarray(slots, dtype=np.int64), problem.experts)
    policy = DISPATCH_POLICIES["even"] if bool((count == 1).all()) else policy_of(problem)
    return policy.shares(problem.topology, problem.hardware.slots_per_gpu, copies, count, fractions)


def shares_of_each(problem: LayerProblem, placements: IntArray) -> Shares:
    """The shares of [placements, slots] under a policy that needs no plan: expert e of placement p is row p * experts +
    e of each home class."""
    many, slots = placements.shape
    rows = np.where(placements == EMPTY, EMPTY, placements + problem.experts * np.arange(many)[:, None])
    copies, count = _copies(rows.reshape(-1), many * problem.experts)
    policy = policy_of(problem) if problem.hardware.usable_slots > problem.experts else DISPATCH_POLICIES["even"]
    return policy.shares(problem.topology, problem.hardware.slots_per_gpu, copies % slots, count, None)


def planned_shares(slots: IntArray, experts: int, topology: Topology, fractions: FloatArray | None) -> Shares:
    """The shares of `planned` dispatch ([nodes, slots] `fractions` by home node) of [slots] experts, or EMPTY.

    Raises:
        InputError: No fractions, or fractions of an expert that don't sum to 1.
    """
    copies, count = _copies(slots, experts)
    return DISPATCH_POLICIES["planned"].shares(topology, len(slots) // topology.gpus, copies, count, fractions)


def _copies(slots: IntArray, experts: int) -> tuple[IntArray, IntArray]:
    """[experts, most copies] slots of each expert (padded with 0) and [experts] their count."""
    order = np.argsort(slots, kind="stable").astype(np.int64)
    order = order[np.searchsorted(slots[order], 0) :]  # EMPTY comes first
    expert = slots[order]
    count = np.bincount(expert, minlength=experts).astype(np.int64)
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    table = np.zeros((experts, int(count.max())), dtype=np.int64)
    table[expert, np.arange(len(order)) - first[expert]] = order
    return table, count
