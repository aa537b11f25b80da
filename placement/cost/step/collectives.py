"""Alpha-beta times of collectives over a group of GPUs, and of transfers between pipeline stages."""

from __future__ import annotations

import math

from placement.cost.calibration.efficiency import Efficiency
from specs.cluster import Cluster


def all_gather_s(cluster: Cluster, efficiency: Efficiency, ranks: int, size_bytes: float, apart: int = 1) -> float:
    """Seconds until each of `ranks` GPUs holds all `size_bytes`, of which each had an equal part.

    Within a node in one hop, over the narrowest link that the group crosses there. A group over several nodes gathers
    across them first (each GPU over its own NIC share, in log2 of the nodes steps), then within each node. A
    reduce-scatter is the same backwards and costs the same.

    Args:
        apart: GPUs from one of the group to the next; more than 1 only within a node.
    """
    if ranks <= 1:
        return 0.0
    inside = min(ranks, cluster.gpus_per_node)
    nodes, link = math.ceil(ranks / inside), cluster.inside(inside * apart)
    time, share = efficiency.collective_overhead_s.value, efficiency.collective_bandwidth.value
    if inside > 1:
        time += link.latency_s
        time += size_bytes * (inside - 1) / inside / (link.bytes_per_s * share)
    if nodes > 1:
        time += (nodes - 1).bit_length() * cluster.slow.latency_s
        time += size_bytes / inside * (nodes - 1) / nodes / (cluster.slow.bytes_per_s * share)
    return time


def replica_all_reduce_s(
    cluster: Cluster, efficiency: Efficiency, replicas: int, gpus_per_replica: int, size_bytes: float
) -> float:
    """Seconds of an all-reduce between GPUs of equal position in `replicas` groups of `gpus_per_replica` GPUs.

    Replicas that share a node reduce over the narrowest link between them; the others over the slow one. Gradients are
    large: links run at their achieved rate.
    """
    if replicas <= 1:
        return 0.0
    inside = max(1, min(replicas, cluster.gpus_per_node // gpus_per_replica))
    nodes, link = math.ceil(replicas / inside), cluster.inside(inside * gpus_per_replica)
    time = 2 * efficiency.collective_overhead_s.value
    if inside > 1:
        time += 2 * link.latency_s
        time += 2 * size_bytes * (inside - 1) / inside / link.bytes_per_s
    if nodes > 1:
        time += 2 * (nodes - 1).bit_length() * cluster.slow.latency_s
        time += 2 * size_bytes / inside * (nodes - 1) / nodes / cluster.slow.bytes_per_s
    return time


def stage_transfer_s(cluster: Cluster, gpus_per_stage: int, stage: int, size_bytes: float) -> float:
    """Seconds to send `size_bytes` from each GPU of `stage` to the next stage of an instance that starts at a node.

    Over the link of the innermost level that holds both stages.
    """
    edge = (stage + 1) * gpus_per_stage
    if edge % cluster.gpus_per_node == 0:
        link = cluster.slow
    else:
        held = (level for level in cluster.inner if level.gpus % gpus_per_stage == 0 and edge % level.gpus)
        link = next(held, cluster.fast)
    return link.latency_s + size_bytes / link.bytes_per_s


def slowest_edge(cluster: Cluster, gpus_per_stage: int, stages: int) -> int:
    """The stage whose transfer crosses the outermost level, in an instance that starts at a node."""
    sizes = (*(level.gpus for level in cluster.inner), cluster.gpus_per_node)
    crossed = max((size for size in sizes if size < gpus_per_stage * stages), default=0)
    return max(1, crossed // gpus_per_stage) - 1
