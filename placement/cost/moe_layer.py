"""The price of one MoE layer under a placement: the only place where an objective is computed (docs/cost-model.md)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.cost.dispatch import Shares, dispatch_shares
from placement.cost.touch import Touch, touch
from placement.problem import FloatArray, IntArray, LayerProblem, LayerRates
from specs.schema import MessageRule


@dataclass(frozen=True)
class LayerScore:
    """One layer's figures; means over the problem's windows, by their weights.

    Attributes:
        objective: what the problem asks for: seconds ("time") or max/mean GPU load ("load").
        time_s, dispatch_s, experts_s, combine_s: seconds of the layer and of its parts.
        balancedness: mean over max GPU load, at most 1. imbalance: max over mean.
        pooled_imbalance: max over mean of the GPU loads averaged over the windows; what `max_load` bounds.
        nodes_per_token: distinct nodes that serve a token (nan without token sets).
        remote_nodes_per_token: of these, the ones other than its home, mean over homes (nan without token sets).
        cross_node_bytes_per_token: bytes that cross nodes for one token, dispatch and combine together.
        gpu_load: [windows, gpus] expected copies of a token per GPU.
    """

    objective: float
    time_s: float
    dispatch_s: float
    experts_s: float
    combine_s: float
    balancedness: float
    imbalance: float
    pooled_imbalance: float
    nodes_per_token: float
    remote_nodes_per_token: float
    cross_node_bytes_per_token: float
    gpu_load: FloatArray


def slot_time(tokens: FloatArray, rates: LayerRates) -> FloatArray:
    """Seconds that slots with an expected number of tokens take (any shape).

    The roofline max(weights read once if touched, tokens multiplied), with the chance that a Poisson count of that
    mean is not 0 for "touched".
    """
    x = np.asarray(tokens, dtype=np.float64)
    return np.asarray(np.maximum(-np.expm1(-x) * rates.weight_s, x * rates.token_s))


def latency_s(problem: LayerProblem) -> float:
    """Seconds before the first byte of a dispatch or a combine: one hop on each kind of link that is used."""
    fast = problem.rates.fast_latency_s if problem.topology.gpus_per_node > 1 else 0.0
    slow = problem.rates.slow_latency_s if problem.topology.nodes > 1 else 0.0
    return fast + slow


def effective_rule(problem: LayerProblem) -> MessageRule:
    """The message rule that can be counted: without token sets only copies per expert are known."""
    return "per_expert" if problem.sets is None else problem.rule


def message_matrix(problem: LayerProblem, reach: Touch, shares: Shares) -> FloatArray:
    """[windows, gpus, gpus] expected token messages from GPU to GPU in one dispatch, both hops of `per_node` included.

    `per_node`: a token goes once to each other node, to the GPU with its home's local rank there, which passes it on
    to the GPUs of its node that need it.
    """
    topology, rule = problem.topology, effective_rule(problem)
    gpus, m, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
    source = reach.load if rule == "per_expert" else reach.gpu
    rows = problem.rates.tokens_per_gpu * source[shares.class_of_gpu].transpose(1, 0, 2)
    if rule != "per_node":
        return np.ascontiguousarray(rows)
    windows = problem.windows
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    messages = np.where(same[None], rows, 0.0)
    # [windows, home node, local rank, destination node, destination local rank]
    split = rows.reshape(windows, nodes, m, nodes, m)
    away = ~np.eye(nodes, dtype=bool)
    to_node = problem.rates.tokens_per_gpu * reach.node[shares.class_of_gpu].transpose(1, 0, 2)
    to_node = to_node.reshape(windows, nodes, m, nodes) * away[None, :, None, :]
    grid = messages.reshape(windows, nodes, m, nodes, m)
    rank = np.arange(m)
    # First hop: home (h, l) -> (j, l). Advanced indices on axes 2 and 4 put the rank first.
    grid[:, :, rank, :, rank] += to_node.transpose(2, 0, 1, 3)
    # Second hop: (j, l) -> (j, d), summed over the other home nodes h.
    passed = np.einsum("whljd,hj->wjld", split, away)
    node = np.arange(nodes)
    grid[:, node, :, node, :] += passed.transpose(1, 0, 2, 3)
    # What a forwarding GPU keeps for itself is no message.
    forwarded = grid.reshape(windows, gpus, gpus)
    own = rows[:, np.arange(gpus), np.arange(gpus)]
    forwarded[:, np.arange(gpus), np.arange(gpus)] = own
    return forwarded


@dataclass(frozen=True)
class LinkLoad:
    """[windows] busiest link of each kind, in messages per GPU: what a dispatch waits for."""

    fast: FloatArray
    slow: FloatArray


def busiest_links(problem: LayerProblem, messages: FloatArray) -> LinkLoad:
    """The largest ingress or egress of any GPU on its fast link and of any NIC group (averaged over its GPUs)."""
    topology = problem.topology
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    fast = np.where(same & ~np.eye(topology.gpus, dtype=bool), messages, 0.0)
    slow = np.where(same, 0.0, messages)
    trays = (len(messages), -1, topology.gpus_per_tray)
    return LinkLoad(
        np.maximum(fast.sum(axis=1).max(axis=1), fast.sum(axis=2).max(axis=1)),
        np.maximum(
            slow.sum(axis=1).reshape(trays).mean(axis=2).max(axis=1),
            slow.sum(axis=2).reshape(trays).mean(axis=2).max(axis=1),
        ),
    )


def score_layer(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> LayerScore:
    """Scores a placement.

    Args:
        problem: the layer.
        slots: [slots] logical expert of each slot; valid by placement.verify.check_layer.
        fractions: [nodes, slots] shares by home node, for `planned` dispatch.

    Raises:
        InputError: `planned` dispatch without valid fractions.
    """
    slots = np.asarray(slots, dtype=np.int64)
    shares = dispatch_shares(
        slots, problem.experts, problem.slots_per_gpu, problem.topology, problem.dispatch, fractions
    )
    reach = touch(problem, shares)
    rates, weight = problem.rates, problem.window_weight
    messages = message_matrix(problem, reach, shares)
    links = busiest_links(problem, messages)
    link_s = np.maximum(links.slow / rates.slow_bytes_per_s, links.fast / rates.fast_bytes_per_s)
    dispatch = latency_s(problem) + rates.dispatch_bytes * link_s
    combine = latency_s(problem) + rates.combine_bytes * link_s
    total_tokens = rates.tokens_per_gpu * problem.topology.gpus
    per_gpu = slot_time(total_tokens * reach.slot_load, rates)
    experts = per_gpu.reshape(problem.windows, problem.topology.gpus, -1).sum(axis=2).max(axis=1)
    moved = dispatch + combine
    time = np.maximum(moved, experts) if rates.overlap == "two_batch" else moved + experts

    gpu_load = reach.slot_load.reshape(problem.windows, problem.topology.gpus, -1).sum(axis=2)
    largest, mean = gpu_load.max(axis=1), gpu_load.mean(axis=1)
    imbalance = float(weight @ (largest / mean))
    pooled = weight @ gpu_load
    nodes, remote = _nodes_per_token(problem, reach, shares)
    across = _cross_node(problem, messages)
    time_s = float(weight @ time)
    return LayerScore(
        objective=time_s if problem.objective == "time" else imbalance,
        time_s=time_s,
        dispatch_s=float(weight @ dispatch),
        experts_s=float(weight @ experts),
        combine_s=float(weight @ combine),
        balancedness=float(weight @ (mean / largest)),
        imbalance=imbalance,
        pooled_imbalance=float(pooled.max() / pooled.mean()),
        nodes_per_token=nodes,
        remote_nodes_per_token=remote,
        cross_node_bytes_per_token=across / total_tokens * (rates.dispatch_bytes + rates.combine_bytes),
        gpu_load=gpu_load,
    )


def objective_value(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> float:
    """The problem's objective for a placement: seconds, or max/mean GPU load."""
    return score_layer(problem, slots, fractions).objective


def byte_matrix(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """([gpus, gpus], [gpus, gpus]) expected bytes from GPU to GPU in dispatch and in combine, mean over windows.

    Both hops of `per_node` are included; the diagonal (a GPU's tokens for itself) crosses no link.
    """
    slots = np.asarray(slots, dtype=np.int64)
    shares = dispatch_shares(
        slots, problem.experts, problem.slots_per_gpu, problem.topology, problem.dispatch, fractions
    )
    messages = message_matrix(problem, touch(problem, shares), shares)
    mean = np.einsum("w,wgd->gd", problem.window_weight, messages)
    return mean * problem.rates.dispatch_bytes, mean.T * problem.rates.combine_bytes


def _cross_node(problem: LayerProblem, messages: FloatArray) -> float:
    node = problem.topology.node_of_gpu
    across = np.where(node[:, None] == node[None, :], 0.0, messages).sum(axis=(1, 2))
    return float(problem.window_weight @ across)


def _nodes_per_token(problem: LayerProblem, reach: Touch, shares: Shares) -> tuple[float, float]:
    if problem.sets is None:
        return float("nan"), float("nan")
    by_home = np.einsum("w,cwn->cn", problem.window_weight, reach.node)[shares.class_of_gpu]
    home = by_home[np.arange(problem.topology.gpus), problem.topology.node_of_gpu]
    total = by_home.sum(axis=1)
    return float(total.mean()), float((total - home).mean())
