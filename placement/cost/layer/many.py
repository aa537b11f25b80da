"""Many placements of one layer, each priced as `score_layer` would: windows of one dispatch, in compiled loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from placement.cost.layer.dispatch import Shares, shares_of_each
from placement.cost.layer.residues import touched_together
from placement.cost.layer.risk import tail_mean
from placement.cost.layer.score import window_figures
from placement.cost.layer.touch import Touch, add_loads, add_touched, homes_of_classes, keep_rows
from placement.kernels import lean_kernel
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem

#: Numbers in the largest array of one compiled call.
PART = 1_000_000


def score_many(problem: LayerProblem, placements: IntArray) -> tuple[FloatArray, FloatArray]:
    """Prices placements under a dispatch that needs no plan.

    Args:
        placements: [placements, slots] logical expert of each slot, or EMPTY; valid by `check_layer`.

    Returns:
        ([placements], [placements]) objective and pooled imbalance, as LayerScore has them.

    Raises:
        InputError: `planned` dispatch of experts with several copies.
    """
    gpus, objective, pooled = problem.topology.gpus, [], []
    part = max(1, PART // (gpus * problem.windows * max(gpus, problem.experts)))
    for first in range(0, len(placements), part):
        some = placements[first : first + part]
        shares = shares_of_each(problem, some)
        found = window_figures(problem, _touch(problem, shares, len(some)), shares)
        weight, tail = problem.data.window_weight, problem.objective.tail
        objective += [tail_mean(value, weight, tail) for value in found.value.reshape(len(some), -1)]
        load = (weight[None, :, None] * found.gpu_load.reshape(len(some), -1, gpus)).sum(axis=1)
        largest = (load / problem.hardware.relative_speed).max(axis=1)
        pooled.append(largest / (load.sum(axis=1) / int(problem.hardware.alive.sum())))
    return np.array(objective), np.concatenate([np.zeros(0), *pooled])


def _touch(problem: LayerProblem, shares: Shares, many: int) -> Touch:
    """As placement.cost.layer.touch.touch; window p * windows + w is window w of placement p."""
    topology, windows = problem.topology, problem.windows
    classes, rows = shares.classes, many * problem.experts
    gpu = shares.slot // problem.hardware.slots_per_gpu
    homes, load = homes_of_classes(problem, shares), np.zeros((classes, many * windows, topology.gpus))
    slot_load = np.zeros((many * windows, problem.slots))
    starts = [shares.start[c * rows : (c + 1) * rows + 1] for c in range(classes)]
    for c, start in enumerate(starts):
        _add_loads_of_each(
            problem.data.load, start, shares.slot, gpu, shares.fraction, float(homes[c]), load[c], slot_load
        )
    sets = problem.data.sets
    if sets is None:
        return Touch(load, load, load.reshape(*load.shape[:2], topology.nodes, -1).sum(axis=3), slot_load)

    def touched(place: IntArray, places: int, classes: range) -> FloatArray:
        if shares.together:
            return touched_together(sets, shares, place, places, problem.experts, many)[None]
        out = np.zeros((len(classes), many * windows, places))
        scratch = np.ones((problem.experts, places)), np.ones(places)
        for row, c in enumerate(classes):
            _add_touched_of_each(sets.ids, sets.weight, starts[c], place, shares.fraction, *scratch, out[row])
        return out

    node_of = topology.node_of_gpu
    by_node = touched(node_of[gpu], topology.nodes, range(0, classes, shares.alike))
    by_node = by_node[np.arange(classes) // shares.alike]
    return Touch(load, touched(gpu, topology.gpus, range(classes)), by_node, slot_load)


@lean_kernel
def _add_loads_of_each(
    load: NDArray[np.float64], start: NDArray[np.int64], slot: NDArray[np.int64], gpu: NDArray[np.int64],
    fraction: NDArray[np.float64], home: float, by_gpu: NDArray[np.float64], by_slot: NDArray[np.float64],
) -> None:  # fmt: skip
    windows, experts = load.shape
    for p in range((len(start) - 1) // experts):
        rows, own = slice(p * windows, (p + 1) * windows), start[p * experts : (p + 1) * experts + 1]
        add_loads(load, own, slot, gpu, fraction, home, by_gpu[rows], by_slot[rows])


@lean_kernel
def _add_touched_of_each(
    ids: NDArray[np.int32], weight: NDArray[np.float64], start: NDArray[np.int64], place: NDArray[np.int64],
    fraction: NDArray[np.float64], keep: NDArray[np.float64], miss: NDArray[np.float64], out: NDArray[np.float64],
) -> None:  # fmt: skip
    """Adds the chances of each placement to out [placements * windows, places]; keep, miss: scratch."""
    windows, (experts, places) = len(weight), keep.shape
    for p in range((len(start) - 1) // experts):
        for e in range(experts):
            for x in range(places):
                keep[e, x] = 1.0
        keep_rows(start[p * experts : (p + 1) * experts + 1], place, fraction, keep)
        add_touched(ids, weight, keep, miss, out[p * windows : (p + 1) * windows], 0, len(ids))
