"""Messages and bytes of tokens with concrete homes and copies, where the scorer has expectations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.cost.layer.dispatch import dispatch_shares, policy_of
from placement.cost.layer.dispatch.token_hash import token_hashes
from placement.cost.layer.links import LinkLoad, busiest_links
from placement.cost.layer.messages import MESSAGE_RULES
from placement.cost.layer.tariff import tariff_of
from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem


@dataclass(frozen=True)
class ConcreteMessages:
    """Token messages of one dispatch; combine carries the same ones back.

    Attributes:
        across: [gpus, gpus] messages between GPUs of unlike nodes.
        within: [gpus, gpus] messages between GPUs of one node, those passed on for other nodes' homes included; on the
            diagonal what a home sends to itself (no link is used).
    """

    across: IntArray
    within: IntArray

    @property
    def matrix(self) -> IntArray:
        """[gpus, gpus] all messages."""
        return np.asarray(self.across + self.within)


def draw_slots(
    problem: LayerProblem,
    slots: IntArray,
    fractions: FloatArray | None,
    ids: IntArray,
    home: IntArray,
    seed: int,
) -> IntArray:
    """[tokens, k] slot that serves each expert of each token, drawn by the problem's dispatch policy.

    For each token and expert by itself, or once for each home GPU and expert (`DispatchPolicy.drawn_once`), or of all
    experts by the hash of a token's place among its home's (`DispatchPolicy.together`).

    Args:
        slots: [slots] logical experts. fractions: [nodes, slots] for `planned`, else None.
        ids: [tokens, k] logical experts. home: [tokens] home GPU of each token.

    Raises:
        InputError: `planned` dispatch without valid fractions, or a home beyond the GPUs.
    """
    _check_home(problem, home, len(ids))
    shares = dispatch_shares(problem, slots, fractions)
    count = np.diff(shares.start)
    row = shares.class_of_gpu[home][:, None] * problem.experts + ids.astype(np.int64)
    if shares.together:
        return np.asarray(shares.slot[shares.start[row] + token_hashes(turn_at_home(home))[:, None] % count[row]])
    most = int(count.max())
    place = np.arange(most)[None, :]
    held = place < count[:, None]
    entry = np.where(held, shares.start[:-1, None] + place, shares.start[:-1, None])
    share = np.where(held, shares.fraction[entry], 0.0)
    # [rows, copies] chance that a draw lies at or before a copy; none is drawn beyond the last copy with a share.
    upto = np.cumsum(share, axis=1)
    last = most - 1 - np.argmax(share[:, ::-1] > 0, axis=1)
    upto[place >= last[:, None]] = np.inf
    rng = np.random.default_rng(seed)
    drawn = rng.random(len(count))[row] if policy_of(problem).drawn_once else rng.random(row.shape)
    pick = np.zeros(row.shape, dtype=np.int64)
    for copy in range(most - 1):
        pick += drawn >= upto[row, copy]
    return np.asarray(shares.slot[shares.start[row] + pick])


def concrete_messages(problem: LayerProblem, home: IntArray, served: IntArray) -> ConcreteMessages:
    """The messages of one dispatch under the problem's message rule.

    Args:
        home: [tokens] home GPU of each token.
        served: [tokens, k] slot that serves each of its experts (see `draw_slots`).

    Raises:
        InputError: a home or slot that does not exist.
    """
    _check_home(problem, home, len(served))
    if served.size and not 0 <= served.min() <= served.max() < problem.slots:
        raise InputError("dispatch", "served", "names slots that do not exist", f"use 0 to {problem.slots - 1}")
    topology = problem.topology
    gpus, m, nodes = topology.gpus, topology.gpus_per_node, topology.nodes
    across, within = np.zeros((gpus, gpus), dtype=np.int64), np.zeros((gpus, gpus), dtype=np.int64)
    rule = MESSAGE_RULES[problem.rules.message]
    gpu = (served // problem.hardware.slots_per_gpu).astype(np.int64)
    token, to = rule.reached(gpu, np.flatnonzero(problem.hardware.alive))
    source = home[token].astype(np.int64)
    away = source // m != to // m
    np.add.at(within, (source[~away], to[~away]), 1)
    if not rule.forwards:
        np.add.at(across, (source[away], to[away]), 1)
        return ConcreteMessages(across, within)
    node = to[away] // m
    enters = entry_gpus(problem, home)[token[away], node]
    passed = enters != to[away]
    np.add.at(within, (enters[passed], to[away][passed]), 1)
    _, first = np.unique(token[away] * nodes + node, return_index=True)
    np.add.at(across, (source[away][first], enters[first]), 1)
    return ConcreteMessages(across, within)


def entry_gpus(problem: LayerProblem, home: IntArray) -> IntArray:
    """[tokens, nodes] GPU at which a token enters a node that is not its home's (a message rule that forwards).

    That of its home's local rank; where that GPU has failed, the home deals its tokens to the node's others in turn, so
    that each gets its `entry_share`.
    """
    topology = problem.topology
    node, rank = np.arange(topology.nodes), home[:, None] % topology.gpus_per_node
    alive = problem.hardware.alive.reshape(topology.nodes, -1)
    # Homes begin at unlike GPUs.
    turn = home + turn_at_home(home)
    others = np.argsort(~alive, axis=1, kind="stable")
    dealt = others[node, turn[:, None] % np.maximum(alive.sum(axis=1), 1)]
    return np.asarray(node * topology.gpus_per_node + np.where(alive[node, rank], rank, dealt))


def turn_at_home(home: IntArray) -> IntArray:
    """[tokens] how many tokens before it have the same home."""
    count, turn = np.bincount(home), np.empty(len(home), dtype=np.int64)
    turn[np.argsort(home, kind="stable")] = np.arange(len(home)) - np.repeat(np.cumsum(count) - count, count)
    return turn


def concrete_bytes(problem: LayerProblem, messages: ConcreteMessages) -> tuple[IntArray, IntArray]:
    """([gpus, gpus], [gpus, gpus]) bytes from GPU to GPU in dispatch and in combine, hidden states alone.

    Exact: whole bytes of these tokens.
    """
    rates, matrix = problem.hardware.rates, messages.matrix
    return matrix * round(rates.dispatch_bytes), np.ascontiguousarray(matrix.T) * round(rates.combine_bytes)


def concrete_seconds(problem: LayerProblem, messages: ConcreteMessages) -> tuple[float, float]:
    """(dispatch, combine) seconds of these messages on the problem's links, by the formulas of `score_layer`."""
    links = matrix_loads(problem, messages.matrix[None].astype(np.float64))
    dispatch, combine = tariff_of(problem).message_seconds(links)
    return float(dispatch[0]), float(combine[0])


def matrix_loads(problem: LayerProblem, messages: FloatArray) -> LinkLoad:
    """The busiest links of a [windows, gpus, gpus] message matrix."""
    topology = problem.topology
    same = topology.node_of_gpu[:, None] == topology.node_of_gpu[None, :]
    fast = np.where(same & ~np.eye(topology.gpus, dtype=bool), messages, 0.0)
    slow = np.where(same, 0.0, messages)
    return busiest_links(problem, fast.sum(axis=2), fast.sum(axis=1), slow.sum(axis=2), slow.sum(axis=1))


def _check_home(problem: LayerProblem, home: IntArray, tokens: int) -> None:
    if home.shape != (tokens,) or (tokens and not 0 <= home.min() <= home.max() < problem.topology.gpus):
        raise InputError(
            "dispatch", "home", f"needs a GPU of 0 to {problem.topology.gpus - 1} for each of {tokens} tokens",
            "deal the tokens to the plan's GPUs",
        )  # fmt: skip
