"""`rebalance_experts` with the arguments and results of DeepSeek's balancer (github.com/deepseek-ai/EPLB).

    from placement.compat.eplb import rebalance_experts
    physical_to_logical, logical_to_physical, counts = rebalance_experts(weight, 288, 8, 4, 32)

Loads alone count here: the busiest GPU's load is made small, copies of an expert share its load alike. The first call
of a process loads compiled code, and the first on a machine compiles it: call `warm_up()` before it matters.
"""

from __future__ import annotations

import math
import operator
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from placement.errors import InputError
from placement.problem.arrays import FloatArray, IntArray, plain

if TYPE_CHECKING:
    from solvers.experts.loads.layer import Work

Effort = Literal["fast", "best"]

SOURCE = "rebalance_experts"
#: Slots of all layers; more are a slip.
MAX_SLOTS = 2**28
#: Sums of loads are at most about this.
LARGEST = np.finfo(np.float64).max / 2
#: Elementary steps (a millisecond) below which a thread costs more than it saves.
THREAD = 250_000
_POSITIVE = "is no positive whole number"


#: Groups on nodes are worth a warning if they make the busiest GPU heavier by this factor, in so many layers of a call.
COSTLY, LOOKED_AT = 1.1, 2


class GroupsWarning(UserWarning):
    """Expert groups on nodes cost balance: the message says how much."""


@dataclass(frozen=True)
class _Budget:
    """How long the search goes on.

    Attributes:
        kicks: most kicks a layer. near: the factor of the lower bound at which it stops.
        steps_per_slot, steps: most elementary steps (some 4 ns) for each slot of a layer, and for all layers. The first
            keeps the search shorter than what engines' own functions do in Python for each slot.
    """

    kicks: int
    near: float
    steps_per_slot: float = math.inf
    steps: float = math.inf


BUDGETS: dict[str, _Budget] = {
    "fast": _Budget(10, 1.0005, steps_per_slot=160),
    "best": _Budget(1000, 1.0002, steps=3e8),
}


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    old_map: Any = None,
    *,
    effort: Effort = "fast",
    workers: int | None = None,
    seed: int = 0,
    time_limit: float | None = None,
    old_gpus: int | None = None,
) -> tuple[Any, Any, Any]:
    """Replicates and places the experts of every layer so that the busiest GPU of each has little to do.

    Where `num_groups` is a multiple of `num_nodes` the placement is hierarchical: experts come in groups of as many
    in turn, and every group has all its copies on one node. Else it is global. Copies of an expert are on distinct
    GPUs, save where a GPU has more slots than there are experts for it. In every layer the busiest GPU has at most the
    load that DeepSeek's placement gives its own, once copies that share a GPU there are held apart.

    Args:
        weight: [layers, experts] load of each expert, a numpy array (or nested lists) or a torch tensor of any type
            and device; in any unit, not negative.
        num_replicas: slots (physical experts) of a layer, a multiple of num_gpus and at least the experts.
        num_groups, num_nodes, num_gpus: expert groups, nodes, GPUs of all nodes.
        old_map: [layers, slots] a physical_to_logical in use, or None. -1, or any other whole number that is no
            expert, is a free slot; what comes to it is a change. One of other GPUs or slots counts as far as it goes:
            GPUs keep their numbers, and the slots that both have. A layer is then placed anew and, if that
            changes fewer slots, the one in use is changed only until it is as balanced. GPUs take names (within a
            node, and nodes as wholes, in a hierarchical placement; any names in a global one) and experts slots of
            their GPU such that the fewest slots change. No layer is less balanced than without it.
        effort: "fast" (milliseconds for a model) or "best" (up to a second or two).
        workers: threads; by default as many as there are cores for this process, and one where the work is too little
            to share. No influence on the result.
        seed: of the search, a whole number.
        time_limit: seconds after which nothing more is searched, or None. The result then depends on the clock.
        old_gpus: GPUs of old_map; None: num_gpus where it has num_replicas slots, else those that have as many slots
            as now, if such a number divides it.

    Returns:
        (physical_to_logical [layers, num_replicas], logical_to_physical [layers, experts, most copies] padded with -1,
        logical_count [layers, experts]), int64; tensors on the device of `weight` if that is a tensor, else arrays.

    Warns:
        GroupsWarning: a global placement would be much more balanced than this one, with groups on nodes.

    Raises:
        InputError: an argument of another kind, out of range, or counts that do not divide as they must.
    """
    loads = plain(_numbers(weight, "weight"))
    counts = {"num_replicas": num_replicas, "num_groups": num_groups, "num_nodes": num_nodes, "num_gpus": num_gpus}
    replicas, groups, nodes, gpus = (_whole(value, name, _POSITIVE, 1) for name, value in counts.items())
    sizes = _checked(loads, replicas, groups, nodes, gpus)
    before = None
    if old_map is not None:
        had = None if old_gpus is None else _whole(old_gpus, "old_gpus", _POSITIVE, 1)
        before = _fitted_map(_numbers(old_map, "old_map"), loads, replicas, gpus, had)
    if not isinstance(effort, str) or effort not in BUDGETS:
        problem = f"no effort is called {repr(effort)[:60]}"
        raise InputError(SOURCE, "effort", problem, f"choose one of {', '.join(BUDGETS)}")
    threads = None if workers is None else _whole(workers, "workers", "threads are no positive whole number", 1)
    start, limit = _whole(seed, "seed", "is no whole number"), _limit(time_limit)
    slots, busiest = _placed(loads, before, replicas, sizes, gpus, BUDGETS[effort], threads, start, limit)
    if sizes[1] > 1:
        _warn_of_groups(loads, busiest, replicas, groups, nodes, gpus)
    from solvers.experts.loads.layer import reverse_map

    table, copies = reverse_map(slots, loads.shape[1])
    if not _is_tensor(weight):
        return slots, table, copies
    # Quicker than the tensor's own new_tensor, which looks at every number.
    from_numpy, device = sys.modules["torch"].from_numpy, weight.device
    return from_numpy(slots).to(device), from_numpy(table).to(device), from_numpy(copies).to(device)


def _is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor; torch itself is never imported here, a tensor brings what is needed."""
    return type(value).__module__.split(".")[0] == "torch"


def _numbers(value: Any, name: str) -> np.ndarray[Any, Any]:
    """A tensor or array-like as a matrix of real numbers."""
    try:
        if _is_tensor(value):
            value = value.detach().cpu()
            # As numpy has no bfloat16.
            value = (value.double() if value.is_floating_point() else value).numpy()
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError):  # such as rows of unlike lengths, or a sparse tensor
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf" or array.ndim != 2:
        raise InputError(SOURCE, name, f"must be a matrix of numbers, not {_kind(array)}", "give one row a layer")
    return array


def _kind(array: np.ndarray[Any, Any]) -> str:
    return f"of shape {array.shape}" if array.dtype.kind in "iuf" else f"of type {array.dtype}"


def _whole(value: Any, name: str, words: str, least: int | None = None) -> int:
    """A whole number of Python, numpy or torch; an InputError says `words` of what is none, or below `least`."""
    if type(value) is int and (least is None or value >= least):
        return value  # What nearly all are; the rest takes longer.
    try:
        number = operator.index(value)
    except (TypeError, ValueError, RuntimeError):
        number = None
    truth = isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool")
    if number is None or truth or (least is not None and number < least):
        mend = "give a whole number" if least is None else f"give at least {least}"
        raise InputError(SOURCE, name, f"{repr(value)[:60]} {words}", mend)
    return number


def _checked(loads: FloatArray, replicas: int, groups: int, nodes: int, gpus: int) -> tuple[int, int]:
    """(Groups, nodes) that the placement minds: 1 and 1 where it is global.

    Raises:
        InputError: Loads or counts are out of range, or do not divide as the balancer needs it.
    """
    layers, experts = loads.shape
    if layers == 0 or experts == 0:
        raise InputError(SOURCE, "weight", f"has shape {loads.shape}", "give at least one layer and one expert")
    least, most = loads.min(), loads.max()
    # Not so where one of them is nan.
    if not (least >= 0 and most < np.inf):
        layer, expert = np.argwhere(~(np.isfinite(loads) & (loads >= 0)))[0]
        raise InputError(
            SOURCE, "weight", f"layer {layer}, expert {expert} has load {loads[layer, expert]}",
            "loads are finite and not negative",
        )  # fmt: skip
    if most > LARGEST / experts:
        with np.errstate(over="ignore"):
            over = np.flatnonzero(np.isinf(loads.sum(axis=1)))
        if len(over):
            raise InputError(SOURCE, "weight", f"layer {over[0]} has loads whose sum overflows", "use a larger unit")
    if layers * replicas > MAX_SLOTS:
        raise InputError(
            SOURCE, "num_replicas", f"{layers} layers of {replicas} slots are too many", f"use {MAX_SLOTS} in all"
        )
    if replicas < experts:
        raise InputError(
            SOURCE, "num_replicas", f"{replicas} slots cannot hold {experts} experts", "give a slot to every expert"
        )
    if replicas % gpus:
        fits = [str(near) for near in (replicas // gpus * gpus, -(-replicas // gpus) * gpus) if near >= experts]
        raise InputError(
            SOURCE, "num_replicas", f"{replicas} slots are not shared out evenly over {gpus} GPUs",
            f"use {' or '.join(fits)}",
        )  # fmt: skip
    if gpus % nodes:
        raise InputError(SOURCE, "num_gpus", f"{gpus} GPUs do not fill {nodes} nodes", "use whole nodes")
    if groups % nodes:
        return 1, 1
    if experts % groups:
        raise InputError(
            SOURCE, "num_groups", f"{experts} experts are not {groups} groups of one size", "use a divisor, or 1"
        )
    return groups, nodes


def _fitted_map(
    old: np.ndarray[Any, Any], loads: FloatArray, replicas: int, gpus: int, old_gpus: int | None
) -> IntArray:
    """[layers, replicas] what an older map holds on these GPUs and slots; -1 where it holds nothing."""
    layers, slots = old.shape
    if layers != len(loads) or slots == 0 or old.dtype.kind not in "iu":
        raise InputError(
            SOURCE, "old_map", f"has shape {old.shape} and type {old.dtype}",
            f"give whole numbers of shape {(len(loads), replicas)}",
        )  # fmt: skip
    width = replicas // gpus
    had = old_gpus or (gpus if slots == replicas or slots % width else slots // width)
    if slots % had:
        if old_gpus is not None:
            told = f"{slots} slots of old_map are not shared out evenly over {had} GPUs"
            raise InputError(SOURCE, "old_gpus", told, "give the GPUs that old_map was made for")
        # Nothing tells which slots were a GPU's: what there is stays where it is.
        old, had = np.pad(old[:, :replicas], ((0, 0), (0, max(0, replicas - slots))), constant_values=-1), gpus
    fitted = np.full((layers, gpus, width), -1, dtype=np.int64)
    by_gpu = old.reshape(layers, had, -1)[:, :gpus, :width]
    fitted[:, : by_gpu.shape[1], : by_gpu.shape[2]] = by_gpu
    return fitted.reshape(layers, replicas)


def _limit(seconds: Any) -> float | None:
    """A time limit in seconds, or None."""
    if seconds is None:
        return None
    try:
        limit = float(seconds) if isinstance(seconds, Real) and not isinstance(seconds, bool) else math.nan
    except OverflowError:
        limit = math.inf
    if not 0 < limit < math.inf:
        raise InputError(SOURCE, "time_limit", f"{repr(seconds)[:60]} is no positive number", "give seconds, or None")
    return limit


def _warn_of_groups(loads: FloatArray, busiest: FloatArray, replicas: int, groups: int, nodes: int, gpus: int) -> None:
    """Warns where groups on nodes cost balance, by a few layers that are placed globally, too."""
    rows = slice(len(loads) // (2 * LOOKED_AT), None, -(-len(loads) // LOOKED_AT))
    looked = plain(loads[rows])
    mean = looked.sum(axis=1) / gpus
    # A layer without loads is balanced however it is placed, and counts as nothing.
    mean[mean == 0] = np.inf
    here = (busiest[rows] / mean).sum() / len(mean)
    if here <= COSTLY:
        return
    from solvers.experts.loads.layer import Work, place_layers

    there = (place_layers(looked, replicas, 1, 1, gpus, 1.0, Work(0), 0)[1] / mean).sum() / len(mean)
    if here > there * COSTLY:
        warnings.warn(
            f"num_groups {groups} on num_nodes {nodes}: the busiest GPU has {here:.3f} times the mean load; placed "
            f"without groups it would have {there:.3f} times. Give num_groups=1 unless tokens are routed by groups of "
            "nodes", GroupsWarning, stacklevel=3,
        )  # fmt: skip


def warm_up() -> None:
    """Loads the compiled code that `rebalance_experts` runs, or compiles it (seconds, once on a machine)."""
    from solvers.ahead import (
        LOADS_PARTS,
        compile_loads_pairs,
        compile_loads_search,
        compile_loads_start,
        compiling,
        loads_compiled,
    )
    from solvers.stop import Stop

    with compiling(*(() if loads_compiled() else LOADS_PARTS)) as wait:
        compile_loads_start()
        wait(Stop())
    compile_loads_search()
    compile_loads_pairs()


def _placed(
    weight: FloatArray, old: IntArray | None, slots: int, sizes: tuple[int, int], gpus: int, budget: _Budget,
    workers: int | None, seed: int, limit: float | None,
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """([layers, slots] placements, [layers] what their busiest GPUs have at most). Layers go in blocks over threads:
    the search releases the interpreter lock."""
    layers, experts = weight.shape
    if old is None and slots == experts == gpus:
        # One expert a GPU: all placements are alike.
        return np.tile(np.arange(slots), (layers, 1)), weight.max(axis=1)
    from solvers.experts.loads.layer import Work, place_layers
    from solvers.stop import Stop

    work = Work(budget.kicks, min(budget.steps_per_slot * slots, budget.steps / layers), Stop.after(limit))

    def block(first: int, end: int) -> tuple[IntArray, FloatArray]:
        load = weight[first:end]
        placed, busiest = place_layers(load, slots, *sizes, gpus, budget.near, work, seed + first)
        if old is not None:
            for i in range(end - first):
                turn = (seed + first + i) % 2**63
                placed[i] = _nearest(placed[i], old[first + i], load[i], sizes, gpus, busiest[i], work, turn)
        return placed, busiest

    threads = threads_for(work, layers) if workers is None else min(workers, layers)
    if threads == 1:
        return block(0, layers)
    # Several blocks a thread, as some take longer.
    blocks = min(layers, 4 * threads)
    edges = [layers * i // blocks for i in range(blocks + 1)]
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(block, edges[:-1], edges[1:]))
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def threads_for(work: Work, layers: int) -> int:
    """Threads that are worth it for layers of so much work each."""
    worth = layers * work.steps / THREAD
    return 1 if worth < 2 else int(min(len(os.sched_getaffinity(0)), layers, worth))


def _nearest(
    placed: IntArray, old: IntArray, load: FloatArray, sizes: tuple[int, int], gpus: int, target: float, work: Work,
    seed: int,
) -> IntArray:  # fmt: skip
    """[slots] one layer, placed anew or mended to be as balanced, whichever changes fewer slots of `old`."""
    from solvers.experts.loads.layer import mend_layer
    from solvers.experts.relabel import relabel

    groups, nodes = sizes
    choices = [placed, mend_layer(load, old, groups, nodes, gpus, target, work, seed)]
    named = [relabel(found, old, len(load), nodes, gpus) for found in choices if found is not None]
    return min(named, key=lambda found: int((found != old).sum()))
