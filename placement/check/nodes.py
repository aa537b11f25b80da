"""How the work of nodes limits what they serve, where homes draw what they do not hold; without the solvers' code.

The argument is in docs/formulation.md, "Messages and work".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from placement.arithmetic import weighted_sum
from placement.check.messages import Reach, least_link_s
from placement.check.work import copy_costs
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class NodeWork:
    """Of nodes that are alike: `share` [experts] of all work, if each expert had one copy; `limit` of the busiest
    node's work over the mean; `worth`: remote nodes of a token that take as long as 1 more of it."""

    share: FloatArray
    limit: float
    worth: float


def node_work(problem: LayerProblem, reach: Reach, work: FloatArray) -> NodeWork | None:
    """What work [kinds, windows] at least says of nodes; None where nodes may differ, or work does not follow copies.

    Args:
        reach: what a token needs, in each window.
    """
    hardware, tariff = problem.hardware, tariff_of(problem)
    rule, topology = problem.rules.dispatch, problem.topology
    sglang = rule in ("sglang_static", "sglang_dynamic") and topology.os_gpus == topology.gpus_per_node
    served_at_home = (rule == "nearest" or sglang) and not tariff.alike and topology.nodes > 1
    in_turn = tariff.timed and hardware.rates.overlap == "none"
    alike = hardware.uniform_home and np.ptp(tariff.speeds) == 0
    if not (served_at_home and in_turn and alike and (hardware.capacities == hardware.slots_per_gpu).all()):
        return None
    none, one = (
        float(tariff.moved_seconds(least_link_s(problem, problem.data.mean_load[None, :], at))[0])
        for at in (replace(reach, remote_nodes=0.0), replace(reach, remote_nodes=1.0))
    )
    each = weighted_sum(problem.data.window_weight, copy_costs(problem)[:, 0].sum(axis=0))
    mean = each.sum() / tariff.speeds.sum()
    least = weighted_sum(problem.data.window_weight, work.T).sum()
    if not (one > none and mean > 0):
        return None
    return NodeWork(each / each.sum(), max(1.0, float(least / mean)), float(mean / (one - none)) * (1 - 1e-9))
