"""The bandwidth that an expert-parallel group's links need against what they have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.figures import Placement
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.links import link_loads
from placement.cost.layer.score import score_layer
from placement.cost.layer.touch import touch
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class LinkNeed:
    """A link's load from expert messages, of its busiest GPU in one direction, mean over the MoE layers.

    Attributes:
        link: "fast" (inside a node) or "slow" (a NIC).
        bytes: In one layer's dispatch and combine.
        needs_bytes_per_s: At which messages take as long as the experts do: with more, they can hide behind them.
        has_bytes_per_s: What the link achieves.
    """

    link: str
    bytes: float
    needs_bytes_per_s: float
    has_bytes_per_s: float


@dataclass(frozen=True)
class RoleNeeds:
    """Links of one role.

    Attributes:
        experts: Of the MoE layers' messages.
        kv_needs_bytes_per_s, kv_has_bytes_per_s: Of a GPU's NIC, for the KV caches that move from prefill to decode; 0
            where none move.
    """

    role: str
    experts: tuple[LinkNeed, ...]
    kv_needs_bytes_per_s: float = 0.0
    kv_has_bytes_per_s: float = 0.0


def link_needs(problems: Sequence[LayerProblem], placement: Placement) -> tuple[LinkNeed, ...]:
    """What each kind of link needs under a placement; a group of one GPU needs none, one of one node no NIC.

    Args:
        problems: One an MoE layer. placement: Of these layers.
    """
    topology, rates = problems[0].topology, problems[0].hardware.rates
    if topology.gpus == 1:
        return ()
    fast, slow, experts = [], [], []
    for problem, slots, fractions in zip(problems, placement.slots, placement.fractions, strict=True):
        own = problem.hardware.rates
        shares = dispatch_shares(problem, slots, fractions)
        loads = link_loads(problem, touch(problem, shares), shares)
        both = own.dispatch_bytes + own.combine_bytes
        fast.append(float(weighted_sum(problem.data.window_weight, loads.fast)) * both)
        slow.append(float(weighted_sum(problem.data.window_weight, loads.slow)) * both)
        experts.append(score_layer(problem, slots, fractions).experts_s)
    seconds = float(np.mean(experts))
    links = [("fast", float(np.mean(fast)), rates.fast_bytes_per_s)]
    if topology.nodes > 1:
        links.append(("slow", float(np.mean(slow)), rates.slow_bytes_per_s))
    return tuple(LinkNeed(name, size, size / seconds if seconds else 0.0, has) for name, size, has in links)
