"""Whether one layer's placement keeps the rules; nothing here is shared with the solvers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from placement.problem.arrays import EMPTY, IntArray
from placement.problem.layer import LayerProblem


def slot_faults(
    slots: IntArray, experts: int, slots_per_gpu: int, gpus: int, capacity: Sequence[int] | IntArray | None = None
) -> tuple[str, ...]:
    """Broken rules of a placement's shape: length, ids in range, EMPTY in the slots beyond a GPU's capacity and nowhere
    else, every expert present, copies on distinct GPUs.

    Args:
        capacity: [gpus] usable slots of each GPU, or None for all of them.
    """
    array = np.asarray(slots)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        return (f"slots must be a list of whole numbers, not of shape {array.shape} and type {array.dtype}",)
    if len(array) != gpus * slots_per_gpu:
        return (f"{len(array)} slots, but {gpus} GPUs of {slots_per_gpu} slots have {gpus * slots_per_gpu}",)
    array = array.astype(np.int64)
    room = np.full(gpus, slots_per_gpu) if capacity is None else np.asarray(capacity)
    usable = (np.arange(slots_per_gpu)[None, :] < room[:, None]).reshape(-1)
    wrong = np.flatnonzero(~usable & (array != EMPTY))
    if len(wrong):
        gpu = wrong[0] // slots_per_gpu
        return (f"slot {wrong[0]} holds expert {array[wrong[0]]}, but GPU {gpu} can use {room[gpu]} slots only",)
    wrong = np.flatnonzero(usable & ((array < 0) | (array >= experts)))
    if len(wrong):
        return (f"slot {wrong[0]} holds expert {array[wrong[0]]}, but there are experts 0 to {experts - 1}",)
    faults = []
    missing = np.setdiff1d(np.arange(experts), array)
    if len(missing):
        faults.append(f"{len(missing)} experts have no copy, the first is expert {missing[0]}")
    by_gpu = np.sort(array.reshape(gpus, slots_per_gpu), axis=1)
    gpu, place = np.nonzero((by_gpu[:, 1:] == by_gpu[:, :-1]) & (by_gpu[:, 1:] != EMPTY))
    if len(gpu):
        faults.append(f"GPU {gpu[0]} holds two copies of expert {by_gpu[gpu[0], place[0]]} ({len(gpu)} such pairs)")
    return tuple(faults)


def check_layer(problem: LayerProblem, slots: IntArray) -> tuple[str, ...]:
    """Every hard rule of `problem` that a placement breaks, as one line each; empty if it is valid.

    `max_load` is no rule of the placement's shape but a cap on a figure, and is left to the scorer.
    """
    gpus, per_gpu = problem.topology.gpus, problem.hardware.slots_per_gpu
    faults = list(slot_faults(slots, problem.experts, per_gpu, gpus, problem.hardware.capacity))
    if faults:
        return tuple(faults)
    array = np.asarray(slots)
    if problem.rules.group is not None:
        held = array[array != EMPTY]
        node = np.flatnonzero(array != EMPTY) // (per_gpu * problem.topology.gpus_per_node)
        group_of_slot = np.asarray(problem.rules.group)[held]
        for group in np.unique(group_of_slot):
            nodes = np.unique(node[group_of_slot == group])
            if len(nodes) > 1:
                faults.append(f"group {group} lies on {len(nodes)} nodes ({', '.join(map(str, nodes[:4]))})")
    if problem.rules.current is None:
        return tuple(faults)
    before = [set(row) - {EMPTY} for row in problem.rules.current.reshape(gpus, per_gpu).tolist()]
    after = [set(row) - {EMPTY} for row in array.reshape(gpus, per_gpu).tolist()]
    if problem.rules.fixed is not None:
        # From the fields themselves, not from the helpers that solvers use.
        for slot in np.flatnonzero(problem.rules.fixed):
            expert, gpu = int(problem.rules.current[slot]), int(slot) // per_gpu
            if expert != EMPTY and expert not in after[gpu]:
                faults.append(f"expert {expert} is fixed on GPU {gpu} but is not there")
    if problem.rules.max_moves is not None:
        moves = sum(len(new - old) for new, old in zip(after, before, strict=True))
        if moves > problem.rules.max_moves:
            faults.append(f"{moves} slots move, but the budget is {problem.rules.max_moves}")
    return tuple(faults)
