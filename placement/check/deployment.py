"""Checks of a deployment from outside: instances on nodes, memory and objectives, without code of the solvers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from placement.cost.memory.hbm import memory_of
from placement.problem.engine_rules import Layout, load_problem, most_sequences
from placement.problem.split import Split
from specs.scenario import Scenario

#: Objectives are met to this relative tolerance.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class HeldGpus:
    """GPUs of one node that instances of one kind take, on `nodes` alike nodes of a pool."""

    pool: int
    nodes: int
    gpus: Mapping[int, int]


@dataclass(frozen=True)
class Kind:
    """Instances of one kind: pool, role, split, how many, and predicted latencies in s (None: not of its role)."""

    pool: int
    role: str
    split: Split
    count: int
    ttft_s: float | None
    tpot_s: float | None


def deployment_faults(
    scenarios: Sequence[Scenario], kinds: Sequence[Kind], held: Sequence[HeldGpus]
) -> tuple[str, ...]:
    """Every rule that a deployment breaks, one line each: room of nodes and pools, all GPUs of instances placed, what
    the engine loads, HBM, TTFT and TPOT; empty if it is valid.

    Args:
        scenarios: the scenario on each pool's cluster. held: what the nodes hold, by index of `kinds`.
    """
    faults = []
    for index, scenario in enumerate(scenarios):
        mine = [group for group in held if group.pool == index]
        nodes = sum(group.nodes for group in mine)
        if nodes > scenario.cluster.nodes:
            faults.append(f"pool {index} has {scenario.cluster.nodes} nodes, the deployment takes {nodes}")
        for group in mine:
            used = sum(group.gpus.values())
            if used > scenario.cluster.gpus_per_node:
                faults.append(f"pool {index}: a node of {scenario.cluster.gpus_per_node} GPUs holds {used}")
    for i, kind in enumerate(kinds):
        lies = sum(group.nodes * group.gpus.get(i, 0) for group in held if group.pool == kind.pool)
        needs = kind.count * kind.split.gpus_per_instance
        if lies != needs:
            faults.append(f"instances {i} need {needs} GPUs and lie on {lies}")
        scenario = scenarios[kind.pool]
        refused = load_problem(scenario, Layout.of(scenario, kind.split), kind.role)
        if refused:
            faults.append(f"instances {i}: {refused}")
        most = most_sequences(scenario, kind.split.tp, kind.split.pp)
        if most is not None and kind.split.batch > most:
            faults.append(f"instances {i} have batch {kind.split.batch}, the engine takes {most}")
        report = memory_of(scenario, kind.split)
        if not report.fits:
            faults.append(f"instances {i} exceed HBM by {-report.headroom_bytes / 1e9:.3g} GB")
        workload = scenario.workload
        if workload.kind == "serving":
            for name, seconds, limit in (
                ("TTFT", kind.ttft_s, workload.ttft_ms),
                ("TPOT", kind.tpot_s, workload.tpot_ms),
            ):
                if seconds is not None and seconds * 1e3 > limit * (1 + TOLERANCE):
                    faults.append(f"instances {i} take {name} {seconds * 1e3:.6g} ms, over {limit:.6g} ms")
    return tuple(faults)
