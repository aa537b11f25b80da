"""The dispatch LP: which share of each home node's tokens goes to which copy, for `planned` dispatch."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from placement.cost.dispatch import dispatch_shares
from placement.cost.moe_layer import objective_value
from placement.problem import FloatArray, IntArray, LayerProblem


def plan_fractions(problem: LayerProblem, slots: IntArray) -> FloatArray:
    """[nodes, slots] shares by home node, the better by score of two plans.

    The LP minimizes token_s * (largest GPU's tokens) + (bytes / slow rate) * (busiest node ingress in copies) for the
    window-mean loads; copies stand for messages, which depend on products of shares. The other plan splits each
    expert evenly over the copies on the home's node, else over all.
    """
    near = _near(problem, slots)
    solved = _solve(problem, slots)
    if solved is None or objective_value(problem, slots, near) <= objective_value(problem, slots, solved):
        return near
    return solved


def _near(problem: LayerProblem, slots: IntArray) -> FloatArray:
    """Even over the home node's copies, else over all."""
    topology = problem.topology
    node = np.arange(problem.slots) // (problem.slots_per_gpu * topology.gpus_per_node)
    fractions = np.zeros((topology.nodes, problem.slots))
    copies = np.bincount(slots, minlength=problem.experts)
    for home in range(topology.nodes):
        here = np.bincount(slots[node == home], minlength=problem.experts)
        local = here[slots] > 0
        fractions[home] = np.where(local, (node == home) / np.maximum(here[slots], 1), 1.0 / copies[slots])
    return fractions


def _solve(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    topology, rates = problem.topology, problem.rates
    nodes, total, gpus = topology.nodes, problem.slots, topology.gpus
    load = problem.mean_load * rates.tokens_per_gpu * gpus / nodes
    home = np.repeat(np.arange(nodes), total)
    slot = np.tile(np.arange(total), nodes)
    gpu = slot // problem.slots_per_gpu
    node = gpu // topology.gpus_per_node
    variables = nodes * total
    amount = load[slots[slot]]
    remote = home != node
    columns = np.arange(variables)
    rows = [gpu, gpus + node[remote]]
    cols = [columns, columns[remote]]
    data = [amount, amount[remote]]
    for offset, column, count in ((0, variables, gpus), (gpus, variables + 1, nodes)):
        rows.append(offset + np.arange(count))
        cols.append(np.full(count, column))
        data.append(np.full(count, -1.0))
    upper = coo_matrix((np.concatenate(data), (np.concatenate(rows), np.concatenate(cols))))
    equal = coo_matrix(
        (np.ones(variables), (home * problem.experts + slots[slot], columns)),
        shape=(nodes * problem.experts, variables + 2),
    )
    price = np.zeros(variables + 2)
    price[variables] = rates.token_s
    price[variables + 1] = (
        (rates.dispatch_bytes + rates.combine_bytes) / rates.slow_bytes_per_s / topology.gpus_per_node
    )
    # A small price on every remote copy, so that ties stay at home.
    price[:variables] = 1e-3 * price[variables + 1] * amount * remote / nodes
    answer = linprog(
        price, A_ub=upper.tocsr(), b_ub=np.zeros(gpus + nodes), A_eq=equal.tocsr(),
        b_eq=np.ones(nodes * problem.experts), bounds=(0, None), method="highs",
    )  # fmt: skip
    if answer.status != 0:
        return None
    fractions = np.clip(np.asarray(answer.x[:variables]).reshape(nodes, total), 0.0, 1.0)
    sums = np.zeros((nodes, problem.experts))
    for h in range(nodes):
        np.add.at(sums[h], slots, fractions[h])
    return np.asarray(fractions / sums[:, slots])


def fractions_for(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """The fractions that scoring `slots` needs: solved for `planned` dispatch with replicas, else None."""
    if problem.dispatch != "planned" or problem.slots == problem.experts:
        return None
    fractions = plan_fractions(problem, slots)
    dispatch_shares(slots, problem.experts, problem.slots_per_gpu, problem.topology, "planned", fractions)
    return fractions
