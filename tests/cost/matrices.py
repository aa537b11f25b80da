"""The expected messages from GPU to GPU, built whole: the plain reference for the scorer's busiest links."""

from itertools import product

import numpy as np

from placement.arithmetic import matrix_product, weighted_sum
from placement.cost.layer.dispatch import Shares, dispatch_shares
from placement.cost.layer.links import messages_per_token
from placement.cost.layer.messages import effective_rule
from placement.cost.layer.touch import Touch, touch
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem


def message_matrix(problem: LayerProblem, reach: Touch, shares: Shares) -> FloatArray:
    """[windows, gpus, gpus] expected token messages from GPU to GPU in one dispatch, both hops of a rule that forwards.

    There a token goes once to each other node, to the GPU with its home's local rank there (or as `entry_share` has
    it), which passes it on to the GPUs of its node that need it.
    """
    topology, (to_gpu, to_home_node) = problem.topology, messages_per_token(problem, reach)
    gpus, m, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
    tokens = problem.hardware.home_tokens[None, :, None]
    rows = tokens * to_gpu[shares.class_of_gpu].transpose(1, 0, 2)
    if not effective_rule(problem).forwards:
        return np.ascontiguousarray(rows)
    windows = problem.windows
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    messages = np.where(same[None], rows, 0.0)
    # [windows, home node, local rank, destination node, destination local rank]
    split = rows.reshape(windows, nodes, m, nodes, m)
    away = ~np.eye(nodes, dtype=bool)
    to_node = tokens * to_home_node[shares.class_of_gpu].transpose(1, 0, 2)
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


def byte_matrix(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """([gpus, gpus], [gpus, gpus]) expected bytes from GPU to GPU in dispatch and in combine, mean over windows.

    Both hops of a rule that forwards are included; the diagonal (a GPU's tokens for itself) crosses no link.
    """
    slots = np.asarray(slots, dtype=np.int64)
    shares = dispatch_shares(problem, slots, fractions)
    messages = message_matrix(problem, touch(problem, shares), shares)
    mean = weighted_sum(problem.data.window_weight, messages)
    return mean * problem.hardware.rates.dispatch_bytes, mean.T * problem.hardware.rates.combine_bytes
