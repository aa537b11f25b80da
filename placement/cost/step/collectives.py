"""Alpha-beta times of collectives over a group of GPUs, and of transfers between pipeline stages."""

from __future__ import annotations

import math

from placement.cost.calibration.efficiency import Efficiency
from specs.cluster import Cluster


def all_gather_s(cluster: Cluster, efficiency: Efficiency, ranks: int, size_bytes: float) -> float:
    """Seconds until each of `ranks` GPUs holds all `size_bytes`, of which each had an equal part.

    Within a node over the fast link, in one hop: all of a node's GPUs reach each other through a switch. A group over
    several nodes gathers across them first (each GPU over its own NIC share, in log2 of the nodes steps), then within
    each node. A reduce-scatter is the same backwards and costs the same.
    """
    if ranks <= 1:
        return 0.0
    inside = min(ranks, cluster.gpus_per_node)
    nodes = math.ceil(ranks / inside)
    time, share = efficiency.collective_overhead_s.value, efficiency.collective_bandwidth.value
    if inside > 1:
        time += cluster.fast.latency_s
        time += size_bytes * (inside - 1) / inside / (cluster.fast.bytes_per_s * share)
    if nodes > 1:
        time += (nodes - 1).bit_length() * cluster.slow.latency_s
        time += size_bytes / inside * (nodes - 1) / nodes / (cluster.slow.bytes_per_s * share)
    return time


def replica_all_reduce_s(
    cluster: Cluster, efficiency: Efficiency, replicas: int, gpus_per_replica: int, size_bytes: float
) -> float:
    """Seconds of an all-reduce between GPUs of equal position in `replicas` groups of `gpus_per_replica` GPUs.

    Replicas that share a node reduce over the fast link; the others over the slow one. Gradients are large: links
    run at their achieved rate.
    """
    if replicas <= 1:
        return 0.0
    inside = max(1, min(replicas, cluster.gpus_per_node // gpus_per_replica))
    nodes = math.ceil(replicas / inside)
    time = 2 * efficiency.collective_overhead_s.value
    if inside > 1:
        time += 2 * cluster.fast.latency_s
        time += 2 * size_bytes * (inside - 1) / inside / cluster.fast.bytes_per_s
    if nodes > 1:
        time += 2 * (nodes - 1).bit_length() * cluster.slow.latency_s
        time += 2 * size_bytes / inside * (nodes - 1) / nodes / cluster.slow.bytes_per_s
    return time


def stage_transfer_s(cluster: Cluster, gpus_per_stage: int, stage: int, size_bytes: float) -> float:
    """Seconds to send `size_bytes` from each GPU of `stage` to the next stage of an instance that starts at a node.

    Over the fast link where both stages lie in one node.
    """
    same_node = (stage + 1) * gpus_per_stage % cluster.gpus_per_node != 0
    link = cluster.fast if same_node else cluster.slow
    return link.latency_s + size_bytes / link.bytes_per_s
