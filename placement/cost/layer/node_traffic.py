"""What nodes send each other for one MoE layer."""

from __future__ import annotations

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import dispatch_shares
from placement.cost.layer.links import messages_per_token
from placement.cost.layer.messages import effective_rule
from placement.cost.layer.touch import touch
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem


def node_traffic(problem: LayerProblem, slots: IntArray, fractions: FloatArray | None = None) -> FloatArray:
    """[nodes, nodes] expected bytes from node to node in the mean pass, mean over windows; the diagonal is 0.

    A row sends. It sends its own tokens in dispatch, and in combine the results of the tokens that it served.

    Args:
        problem: The layer.
        slots: [slots] logical expert of each slot, or EMPTY; valid by placement.check.layer.check_layer.
        fractions: [nodes, slots] shares by home node, for `planned` dispatch.

    Raises:
        InputError: `planned` dispatch without valid fractions.
    """
    topology, rates = problem.topology, problem.hardware.rates
    shares = dispatch_shares(problem, np.asarray(slots, dtype=np.int64), fractions)
    to_gpu, to_node = messages_per_token(problem, touch(problem, shares))
    if not effective_rule(problem).forwards:
        to_node = to_gpu.reshape(*to_gpu.shape[:2], topology.nodes, -1).sum(axis=3)
    by_class = weighted_sum(problem.data.window_weight, to_node.transpose(1, 0, 2))
    sent = problem.hardware.home_tokens[:, None] * by_class[shares.class_of_gpu]
    messages = sent.reshape(topology.nodes, topology.gpus_per_node, topology.nodes).sum(axis=1)
    np.fill_diagonal(messages, 0.0)
    return np.asarray(messages * rates.dispatch_bytes + messages.T * rates.combine_bytes)
