"""Token messages of one dispatch: the matrix from GPU to GPU, and the busiest links without building it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numba import njit
from numpy.typing import NDArray

from placement.arithmetic import matrix_product
from placement.cost.layer.dispatch import Shares
from placement.cost.layer.touch import Touch
from placement.problem.arrays import FloatArray
from placement.problem.layer import LayerProblem
from specs.engine import MessageRule


def effective_rule(problem: LayerProblem) -> MessageRule:
    """The message rule that can be counted: without token sets only copies per expert are known."""
    return "per_expert" if problem.data.sets is None else problem.rules.message


def message_matrix(problem: LayerProblem, reach: Touch, shares: Shares) -> FloatArray:
    """[windows, gpus, gpus] expected token messages from GPU to GPU in one dispatch, both hops of `per_node` included.

    `per_node`: a token goes once to each other node, to the GPU with its home's local rank there (or as `entry_share`
    has it), which passes it on to the GPUs of its node that need it.
    """
    topology, rule = problem.topology, effective_rule(problem)
    gpus, m, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
    tokens = problem.hardware.home_tokens[None, :, None]
    rows = tokens * _source(problem, reach)[shares.class_of_gpu].transpose(1, 0, 2)
    if rule != "per_node":
        return np.ascontiguousarray(rows)
    windows = problem.windows
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    messages = np.where(same[None], rows, 0.0)
    # [windows, home node, local rank, destination node, destination local rank]
    split = rows.reshape(windows, nodes, m, nodes, m)
    away = ~np.eye(nodes, dtype=bool)
    to_node = tokens * reach.node[shares.class_of_gpu].transpose(1, 0, 2)
    to_node = to_node.reshape(windows, nodes, m, nodes) * away[None, :, None, :]
    grid = messages.reshape(windows, nodes, m, nodes, m)
    # [windows, node, home's rank, destination rank] what other nodes' homes have for a GPU.
    passed = (split * away[None, :, None, :, None]).sum(axis=1).transpose(0, 2, 1, 3)
    entry = problem.hardware.entry_share
    # First hop: home (h, rank) -> (j, entry). Second hop: (j, entry) -> (j, d), summed over the other home nodes.
    grid += to_node[..., None] * entry.transpose(1, 0, 2)
    for w, j in product(range(windows), range(nodes)):
        grid[w, j, :, j] += matrix_product(entry[j].T, passed[w, j])
    # What a forwarding GPU keeps for itself is no message.
    forwarded = grid.reshape(windows, gpus, gpus)
    own = rows[:, np.arange(gpus), np.arange(gpus)]
    forwarded[:, np.arange(gpus), np.arange(gpus)] = own
    return forwarded


def _source(problem: LayerProblem, reach: Touch) -> FloatArray:
    """[classes, windows, gpus] messages per token to each GPU."""
    return reach.load if effective_rule(problem) == "per_expert" else reach.gpu


@dataclass(frozen=True)
class LinkLoad:
    """Messages on links in one dispatch.

    Attributes:
        fast: [windows] busiest fast link of a GPU, one direction.
        slow: [windows] busiest NIC group, one direction, averaged over the group's GPUs.
        across: [windows] all messages that cross nodes.
    """

    fast: FloatArray
    slow: FloatArray
    across: FloatArray


def link_loads(problem: LayerProblem, reach: Touch, shares: Shares) -> LinkLoad:
    """The busiest links of a dispatch; as `matrix_loads` of `message_matrix`, in a fraction of its time and memory."""
    source = _source(problem, reach)
    if shares.classes == 1:
        parts = _one_class(problem, source[0], reach.node[0])
    else:
        parts = _by_home(
            source, reach.node, shares.class_of_gpu, problem.hardware.home_tokens, problem.topology.gpus_per_node,
            problem.hardware.entry_share, effective_rule(problem) == "per_node",
        )  # fmt: skip
    fast_out, fast_in, slow_out, slow_in = (part.reshape(problem.windows, -1) for part in parts)
    return _busiest(problem, fast_out, fast_in, slow_out, slow_in)


def matrix_loads(problem: LayerProblem, messages: FloatArray) -> LinkLoad:
    """The busiest links of a [windows, gpus, gpus] message matrix; the plain reference for `link_loads`."""
    topology = problem.topology
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    fast = np.where(same & ~np.eye(topology.gpus, dtype=bool), messages, 0.0)
    slow = np.where(same, 0.0, messages)
    return _busiest(problem, fast.sum(axis=2), fast.sum(axis=1), slow.sum(axis=2), slow.sum(axis=1))


def _busiest(
    problem: LayerProblem, fast_out: FloatArray, fast_in: FloatArray, slow_out: FloatArray, slow_in: FloatArray
) -> LinkLoad:
    """From [windows, gpus] messages out of and into each GPU."""
    trays = (problem.windows, -1, problem.topology.gpus_per_tray)
    return LinkLoad(
        np.maximum(fast_in.max(axis=1), fast_out.max(axis=1)),
        np.maximum(slow_in.reshape(trays).mean(axis=2).max(axis=1), slow_out.reshape(trays).mean(axis=2).max(axis=1)),
        slow_out.sum(axis=1),
    )


def entering_tokens(problem: LayerProblem) -> FloatArray:
    """[nodes, ranks] tokens of other nodes that enter a node at each of its GPUs if they need the node (`per_node`)."""
    topology = problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)
    others = tokens.sum(axis=0) - tokens
    return np.asarray((others[:, :, None] * problem.hardware.entry_share).sum(axis=1))


def crowding(problem: LayerProblem) -> tuple[FloatArray, FloatArray]:
    """([nodes], [nodes]) tokens per GPU that enter and that leave a node at its busiest NIC group (`per_node`), over
    the mean of the node's GPUs: 1 where all GPUs are the home of as many tokens and none has failed."""
    topology = problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)

    def busiest(each: FloatArray) -> FloatArray:
        by_tray = each.reshape(topology.nodes, -1, topology.gpus_per_tray).mean(axis=2)
        return np.asarray(by_tray.max(axis=1) / np.maximum(by_tray.mean(axis=1), 1e-300))

    return busiest(entering_tokens(problem)), busiest(tokens)


def _one_class(problem: LayerProblem, gpu: FloatArray, node: FloatArray) -> tuple[FloatArray, ...]:
    """([windows, nodes, ranks] fast out, fast in, slow out, slow in) where all homes dispatch alike.

    Args:
        gpu: [windows, gpus], node: [windows, nodes] messages per token to each.
    """
    topology = problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)
    to = gpu.reshape(problem.windows, topology.nodes, topology.gpus_per_node)
    to_node = to.sum(axis=2)
    if effective_rule(problem) == "per_node":
        enters = entering_tokens(problem)
        passed = tokens + enters
        return (
            passed * (to_node[:, :, None] - to),
            to * (passed.sum(axis=1, keepdims=True) - passed),
            tokens * (node.sum(axis=1, keepdims=True) - node)[:, :, None],
            node[:, :, None] * enters,
        )
    of_node = tokens.sum(axis=1, keepdims=True)
    return (
        tokens * (to_node[:, :, None] - to),
        to * (of_node - tokens),
        tokens * (to_node.sum(axis=1, keepdims=True) - to_node)[:, :, None],
        to * (of_node.sum() - of_node),
    )


@njit(cache=True, nogil=True)
def _by_home(
    source: NDArray[np.float64],
    node: NDArray[np.float64],
    class_of_gpu: NDArray[np.int64],
    tokens: NDArray[np.float64],
    m: int,
    entry: NDArray[np.float64],
    by_node: bool,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """([windows, gpus] fast out, fast in, slow out, slow in), home by home; entry: see `entry_share`."""
    windows, gpus = source.shape[1], source.shape[2]
    fast_out, fast_in = np.zeros((windows, gpus)), np.zeros((windows, gpus))
    slow_out, slow_in = np.zeros((windows, gpus)), np.zeros((windows, gpus))
    for home in range(gpus):
        c, own, rank = class_of_gpu[home], home // m, home % m
        for w in range(windows):
            for j in range(gpus // m):
                hops = j != own and by_node
                # Local ranks at which it enters: its own, or where that GPU has failed all others.
                first, last = (0, m) if hops and entry[j, rank, rank] == 0.0 else (rank, rank + 1)
                for r in range(first, last):
                    enters, part = home, tokens[home]
                    if hops:
                        enters, part = j * m + r, tokens[home] * entry[j, rank, r]
                        slow_out[w, home] += part * node[c, w, j]
                        slow_in[w, enters] += part * node[c, w, j]
                    for g in range(j * m, j * m + m):
                        if g == enters:
                            continue
                        sent = part * source[c, w, g]
                        if j != own and not by_node:
                            slow_out[w, home] += sent
                            slow_in[w, g] += sent
                        else:
                            fast_out[w, enters] += sent
                            fast_in[w, g] += sent
    return fast_out, fast_in, slow_out, slow_in
