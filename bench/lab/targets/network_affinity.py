"""Paths between GPUs, and which of them expert traffic takes."""

from __future__ import annotations

from dataclasses import dataclass

from bench.lab.target import LabCase, Outcome, Target, option


@dataclass(frozen=True)
class Options:
    """Extra arguments."""

    topology: str = option("", "Text of `nvidia-smi topo -m`, or NCCL's topology XML, of one machine of the cluster.")
    nodes: int = option(2, "Nodes of that cluster.", least=1, most=1024)


def baseline(case: LabCase[Options]) -> Outcome:
    """Experts by a hash: the network is not looked at."""
    from bench.lab.affinity.study import outcome

    return outcome(case, case.options.topology, case.options.nodes, aware=False)


def optimized(case: LabCase[Options]) -> Outcome:
    """The placement that serves most on this network."""
    from bench.lab.affinity.study import outcome

    return outcome(case, case.options.topology, case.options.nodes, aware=True)


TARGET = Target(
    "network_affinity",
    "The path between each pair of GPUs, and the bytes that experts send over each kind, blind and aware.",
    baseline,
    optimized,
    options=Options,
    spec="deepseek_v2_lite_h100_ib",
    example="--topology topo.txt --nodes 2",
)
