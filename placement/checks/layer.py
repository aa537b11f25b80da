"""Whether one layer's placement keeps the rules; nothing here is shared with the solvers."""

from __future__ import annotations

import numpy as np

from placement.problem import IntArray, LayerProblem


def slot_faults(slots: IntArray, experts: int, slots_per_gpu: int, gpus: int) -> tuple[str, ...]:
    """Broken rules of a placement's shape: its length, ids in range, every expert present, copies on distinct GPUs."""
    array = np.asarray(slots)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        return (f"slots must be a list of whole numbers, not of shape {array.shape} and type {array.dtype}",)
    if len(array) != gpus * slots_per_gpu:
        return (f"{len(array)} slots, but {gpus} GPUs of {slots_per_gpu} slots have {gpus * slots_per_gpu}",)
    if len(array) and (int(array.min()) < 0 or int(array.max()) >= experts):
        slot = int(np.flatnonzero((array < 0) | (array >= experts))[0])
        return (f"slot {slot} holds expert {array[slot]}, but there are experts 0 to {experts - 1}",)
    faults = []
    missing = np.setdiff1d(np.arange(experts), array)
    if len(missing):
        faults.append(f"{len(missing)} experts have no copy, the first is expert {missing[0]}")
    by_gpu = np.sort(array.reshape(gpus, slots_per_gpu), axis=1)
    gpu, place = np.nonzero(by_gpu[:, 1:] == by_gpu[:, :-1])
    if len(gpu):
        faults.append(f"GPU {gpu[0]} holds two copies of expert {by_gpu[gpu[0], place[0]]} ({len(gpu)} such pairs)")
    return tuple(faults)


def layer_faults(problem: LayerProblem, slots: IntArray) -> tuple[str, ...]:
    """Every hard rule of `problem` that a placement breaks, as one line each; empty if it is valid.

    `max_load` is no rule of the placement's shape but a cap on a figure, and is left to the scorer.
    """
    gpus, per_gpu = problem.topology.gpus, problem.slots_per_gpu
    faults = list(slot_faults(slots, problem.experts, per_gpu, gpus))
    if faults:
        return tuple(faults)
    array = np.asarray(slots)
    if problem.group is not None:
        node = np.arange(len(array)) // (per_gpu * problem.topology.gpus_per_node)
        group_of_slot = np.asarray(problem.group)[array]
        for group in np.unique(group_of_slot):
            nodes = np.unique(node[group_of_slot == group])
            if len(nodes) > 1:
                faults.append(f"group {group} lies on {len(nodes)} nodes ({', '.join(map(str, nodes[:4]))})")
    if problem.max_moves is not None and problem.current is not None:
        before = np.asarray(problem.current).reshape(gpus, per_gpu)
        moves = sum(len(set(new) - set(old)) for new, old in zip(array.reshape(gpus, per_gpu), before, strict=True))
        if moves > problem.max_moves:
            faults.append(f"{moves} slots move, but the budget is {problem.max_moves}")
    return tuple(faults)
