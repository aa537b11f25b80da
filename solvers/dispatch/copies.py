"""The dispatch LP in copies: exact where messages are counted by expert, a start elsewhere."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem


def copy_fractions(problem: LayerProblem, slots: IntArray) -> FloatArray | None:
    """[nodes, slots] the LP's plan for the window-mean loads, or None where it is not solved (docs/formulation.md,
    "Dispatch")."""
    topology, tariff = problem.topology, tariff_of(problem)
    nodes, gpus = topology.nodes, topology.gpus
    used = np.flatnonzero(slots != EMPTY)
    total = len(used)
    share = tariff.home_share
    load = problem.data.mean_load * tariff.rates.tokens_per_gpu * gpus
    home = np.repeat(np.arange(nodes), total)
    slot = np.tile(used, nodes)
    gpu = slot // problem.hardware.slots_per_gpu
    node = gpu // topology.gpus_per_node
    variables = nodes * total
    amount = load[slots[slot]] * share[home]
    remote = home != node
    columns = np.arange(variables)
    rows = [gpu, gpus + node[remote]]
    cols = [columns, columns[remote]]
    data = [amount / problem.hardware.speeds[gpu], (amount * tariff.crowding[0][node])[remote]]
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
    price[variables] = tariff.rates.token_s
    if tariff.constant_links is None:
        price[variables + 1] = tariff.slow_s / topology.gpus_per_node
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
