"""Token messages of one dispatch: the busiest links, without the matrix from GPU to GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch import Shares
from placement.cost.layer.messages import effective_rule
from placement.cost.layer.touch import Touch
from placement.kernels import lean_kernel
from placement.problem.arrays import FloatArray, plain
from placement.problem.layer import LayerProblem


def messages_per_token(problem: LayerProblem, reach: Touch) -> tuple[FloatArray, FloatArray]:
    """([classes, windows, gpus], [classes, windows, nodes]) expected messages of a token to each GPU and node."""
    rule, alive = effective_rule(problem), problem.hardware.alive.astype(np.float64)
    usable = alive.reshape(problem.topology.nodes, -1).max(axis=1)
    # No rule sends copies by node.
    return rule.per_token(reach.gpu, reach.load, alive), rule.per_token(reach.node, reach.node, usable)


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
    """The busiest links of a dispatch."""
    to_gpu, to_node = messages_per_token(problem, reach)
    if shares.classes == 1:
        return loads_of_one_class(problem, to_gpu[0], to_node[0])
    gpus, m = problem.topology.gpus, problem.topology.gpus_per_node
    to_gpu, to_node = plain(to_gpu), plain(to_node)
    windows = to_gpu.shape[1]
    parts = tuple(np.zeros((windows, gpus)) for _ in range(4))
    each = max(1, PART // (windows * gpus))
    for first in range(0, gpus, each):
        _add_homes(
            to_gpu, to_node, shares.class_of_gpu, problem.hardware.home_tokens, m, problem.hardware.entry_share,
            effective_rule(problem).forwards, parts, first, min(first + each, gpus),
        )  # fmt: skip
    return busiest_links(problem, *parts)


def busiest_links(
    problem: LayerProblem, fast_out: FloatArray, fast_in: FloatArray, slow_out: FloatArray, slow_in: FloatArray
) -> LinkLoad:
    """From [windows, gpus] messages out of and into each GPU."""
    trays = (len(fast_in), -1, problem.topology.gpus_per_tray)
    return LinkLoad(
        np.maximum(fast_in.max(axis=1), fast_out.max(axis=1)),
        np.maximum(slow_in.reshape(trays).mean(axis=2).max(axis=1), slow_out.reshape(trays).mean(axis=2).max(axis=1)),
        slow_out.sum(axis=1),
    )


class LinkParts(NamedTuple):
    """[homes, bins, gpus] messages out of and into each GPU, for each that a token of a home sends to a bin."""

    fast_out: FloatArray
    fast_in: FloatArray
    slow_out: FloatArray
    slow_in: FloatArray


def link_parts(problem: LayerProblem) -> tuple[LinkParts, LinkParts]:
    """What `link_loads` adds up where homes dispatch differently, for bins that are GPUs and bins that are nodes."""
    topology, forwards = problem.topology, effective_rule(problem).forwards
    gpus, nodes = topology.gpus, topology.nodes
    both = []
    for to_gpu, to_node in (
        (np.eye(gpus), np.zeros((gpus, nodes))), (np.zeros((nodes, gpus)), np.eye(nodes)),
    ):  # fmt: skip
        homes = [tuple(np.zeros((len(to_gpu), gpus)) for _ in range(4)) for _ in range(gpus)]
        for home, parts in enumerate(homes):
            _add_homes(
                to_gpu[None], to_node[None], np.zeros(gpus, dtype=np.int64), problem.hardware.home_tokens,
                topology.gpus_per_node, problem.hardware.entry_share, forwards, parts, home, home + 1,
            )  # fmt: skip
        both.append(LinkParts(*(np.stack(part) for part in zip(*homes, strict=True))))
    return both[0], both[1]


def entering_tokens(problem: LayerProblem) -> FloatArray:
    """[nodes, ranks] tokens of other nodes that enter a node at each of its GPUs if they need the node."""
    topology = problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)
    others = tokens.sum(axis=0) - tokens
    return np.asarray((others[:, :, None] * problem.hardware.entry_share).sum(axis=1))


def loads_of_one_class(problem: LayerProblem, gpu: FloatArray, node: FloatArray) -> LinkLoad:
    """The busiest links where all homes dispatch alike.

    Args:
        gpu: [windows, gpus], node: [windows, nodes] messages per token to each.
    """
    topology = problem.topology
    tokens = problem.hardware.home_tokens.reshape(topology.nodes, topology.gpus_per_node)
    to = gpu.reshape(len(gpu), topology.nodes, topology.gpus_per_node)
    to_node = to.sum(axis=2)
    if effective_rule(problem).forwards:
        enters = entering_tokens(problem)
        passed = tokens + enters
        parts = (
            passed * (to_node[:, :, None] - to),
            to * (passed.sum(axis=1, keepdims=True) - passed),
            tokens * (node.sum(axis=1, keepdims=True) - node)[:, :, None],
            node[:, :, None] * enters,
        )
    else:
        of_node = tokens.sum(axis=1, keepdims=True)
        parts = (
            tokens * (to_node[:, :, None] - to),
            to * (of_node - tokens),
            tokens * (to_node.sum(axis=1, keepdims=True) - to_node)[:, :, None],
            to * (of_node.sum() - of_node),
        )
    return busiest_links(problem, *(part.reshape(len(gpu), -1) for part in parts))


#: Elementary steps of one compiled call: between them an interrupt is heard.
PART = 30_000_000


@lean_kernel
def _add_homes(
    source: NDArray[np.float64], node: NDArray[np.float64], class_of_gpu: NDArray[np.int64],
    tokens: NDArray[np.float64], m: int, entry: NDArray[np.float64], by_node: bool,
    parts: tuple[NDArray[np.float64], ...], begin: int, end: int,
) -> None:  # fmt: skip
    """Adds what the homes `begin` to `end` send to parts, [windows, gpus] fast out, fast in, slow out, slow in; entry:
    see `entry_share`."""
    fast_out, fast_in, slow_out, slow_in = parts
    windows, gpus = fast_out.shape
    for home in range(begin, end):
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
