"""The dispatch LP: which share of each home node's tokens goes to which copy, for `planned` dispatch."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from placement.cost.dispatch import dispatch_shares
from placement.cost.moe_layer import objective_value
from placement.problem import EMPTY, FloatArray, IntArray, LayerProblem


def needs_fractions(problem: LayerProblem) -> bool:
    """Whether a score needs solved fractions: `planned` dispatch with replicas."""
    return problem.dispatch == "planned" and problem.usable_slots > problem.experts


def plan_fractions(problem: LayerProblem, slots: IntArray, given: FloatArray | None = None) -> FloatArray:
    """[nodes, slots] shares by home node, the best by score of up to four plans.

    The LP minimizes token_s * (largest GPU's tokens) + (bytes / slow rate) * (busiest node ingress in copies) for the
    window-mean loads; copies stand for messages, which depend on products of shares. Another plan splits each expert
    evenly over the copies on the home's node, else over all. A third sends a home's tokens of an expert to one node,
    chosen by local search under the layer's own objective, so that experts used together are served together.

    Args:
        given: [nodes, slots] one more plan, such as the search's own.
    """
    plans = [near_fractions(problem, slots), _solve(problem, slots), _directed(problem, slots), given]
    found = [plan for plan in plans if plan is not None]
    values = [objective_value(problem, slots, plan) for plan in found]
    return found[int(np.argmin(values))]


def target_fractions(problem: LayerProblem, slots: IntArray, target: IntArray) -> FloatArray:
    """[nodes, slots] shares where a home's tokens go evenly to the copies on one node.

    Args:
        target: [nodes, experts] that node by home node.
    """
    node = problem.gpu_of_slot // problem.topology.gpus_per_node
    used = slots != EMPTY
    fractions = np.zeros((problem.topology.nodes, problem.slots))
    for home in range(problem.topology.nodes):
        serves = used & (target[home][slots] == node)
        copies = np.bincount(slots[serves], minlength=problem.experts)
        fractions[home] = np.where(serves, 1.0 / np.maximum(copies[slots], 1), 0.0)
    return fractions


def rounded_fractions(fractions: FloatArray, slots: IntArray, levels: int = 16) -> FloatArray:
    """[nodes, slots] shares as whole multiples of 1 / levels, as engines with integer weights need them.

    Each expert's shares are rounded down and the rest given to the largest remainders (Hamilton's method), so that they
    still sum to 1.
    """
    out = np.floor(fractions * levels + 1e-9)
    for home in range(len(out)):
        rest = fractions[home] * levels - out[home]
        used = np.flatnonzero(slots != EMPTY)
        sums = np.bincount(slots[used], out[home][used])
        order = used[np.lexsort((-rest[used], slots[used]))]
        first = np.concatenate([[0], np.cumsum(np.bincount(slots[used]))])
        place = np.arange(len(order)) - first[slots[order]]
        out[home][order] += place < (levels - sums[slots[order]])
    return np.asarray(out / levels)


def _directed(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """The local search's plan for copies that stay where they are; None without token sets."""
    if problem.sets is None or problem.objective != "time":
        return None
    from solvers.search.run import redirect

    return target_fractions(problem, slots, redirect(problem, slots))


def near_fractions(problem: LayerProblem, slots: IntArray) -> FloatArray:
    """[nodes, slots] even over the home node's copies, else over all."""
    topology = problem.topology
    node = problem.gpu_of_slot // topology.gpus_per_node
    fractions = np.zeros((topology.nodes, problem.slots))
    used = slots != EMPTY
    copies = np.bincount(slots[used], minlength=problem.experts)
    for home in range(topology.nodes):
        own = used & (node == home)
        here = np.bincount(slots[own], minlength=problem.experts)
        local = here[slots] > 0
        share = np.where(local, own / np.maximum(here[slots], 1), 1.0 / np.maximum(copies[slots], 1))
        fractions[home] = np.where(used, share, 0.0)
    return fractions


def _solve(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """The LP's plan, or None where it is not solved."""
    topology, rates = problem.topology, problem.rates
    nodes, gpus = topology.nodes, topology.gpus
    used = np.flatnonzero(slots != EMPTY)
    total = len(used)
    share = problem.homes.reshape(nodes, -1).sum(axis=1)
    load = problem.mean_load * rates.tokens_per_gpu * gpus
    home = np.repeat(np.arange(nodes), total)
    slot = np.tile(used, nodes)
    gpu = slot // problem.slots_per_gpu
    node = gpu // topology.gpus_per_node
    variables = nodes * total
    amount = load[slots[slot]] * share[home]
    remote = home != node
    columns = np.arange(variables)
    rows = [gpu, gpus + node[remote]]
    cols = [columns, columns[remote]]
    data = [amount / problem.speeds[gpu], amount[remote]]
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
    found = np.clip(np.asarray(answer.x[:variables]).reshape(nodes, total), 0.0, 1.0)
    fractions = np.zeros((nodes, problem.slots))
    for h in range(nodes):
        sums = np.bincount(slots[used], found[h], minlength=problem.experts)
        fractions[h, used] = found[h] / sums[slots[used]]
    return fractions


def fractions_for(problem: LayerProblem, slots: IntArray, given: FloatArray | None = None) -> FloatArray | None:
    """The fractions that scoring `slots` needs: solved for `planned` dispatch with replicas, else None.

    Args:
        given: a plan at hand, kept if none is better.
    """
    if not needs_fractions(problem):
        return None
    fractions = plan_fractions(problem, slots, given)
    dispatch_shares(slots, problem.experts, problem.slots_per_gpu, problem.topology, "planned", fractions)
    return fractions
