"""From a layer problem and a start to the compiled search's constants."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.dispatch import alike_homes
from placement.cost.layer.tariff import Tariff, tariff_of
from placement.problem.arrays import BoolArray, FloatArray, IntArray
from placement.problem.data import TokenSets
from placement.problem.layer import LayerProblem
from solvers.experts.search.state import (
    EVEN,
    LARGER,
    LINK,
    NEAREST,
    OS_NODE,
    PLANNED,
    SUM,
    TOGETHER,
    Data,
    Goal,
    Links,
    Places,
    Rules,
    Work,
)

#: Objective "traffic": what an imbalance of 1 counts in the guide's smooth part, in messages of a token.
BALANCE = 1.2
#: Weight of the mean traffic in the guide's smooth part, beside the norm of links that are as busy as one another.
REACH = 0.05
_POLICY = {
    "even": EVEN, "nearest": NEAREST, "planned": PLANNED, "token_hash": TOGETHER, "sglang_static": OS_NODE,
    "sglang_dynamic": OS_NODE,
}  # fmt: skip
#: Classes of tokens by their number, the most first: copies whose count divides them are told apart exactly. The first
#: is taken that makes at most so many cells.
RESIDUES, MOST_CELLS = (12, 6, 4, 2), 48


def by_home(problem: LayerProblem) -> bool:
    """Whether homes on different nodes dispatch differently."""
    return not alike_homes(problem) and problem.topology.nodes > 1


def residues(problem: LayerProblem) -> int:
    """Classes that the tokens' numbers fall into, where these pick the copies (Shares.together); else 1."""
    tariff = tariff_of(problem)
    if not tariff.together:
        return 1
    needed = math.lcm(*range(1, min(tariff.most_copies, 4) + 1))
    return next((n for n in RESIDUES if n <= needed and n * tariff.bins.count <= MOST_CELLS), RESIDUES[-1])


def cells(problem: LayerProblem) -> int:
    """Cells of the search: classes of tokens by bins."""
    bins = tariff_of(problem).bins.count
    return bins * (problem.topology.nodes if by_home(problem) else residues(problem))


def search_data(
    problem: LayerProblem, start: IntArray, rows: SetRows | None = None, least_copies: IntArray | None = None
) -> Data:
    """The constants of `problem`.

    Args:
        start: [slots] a valid placement: it says on which node a group is kept, and which slots are fixed.
        rows: the problem's token sets, where they are at hand already.
        least_copies: [experts] copies below which none is dropped; None: one.
    """
    topology, tariff = problem.topology, tariff_of(problem)
    used = np.flatnonzero(problem.hardware.usable)
    gpu_of_slot = used // problem.hardware.slots_per_gpu
    bins, homes_differ, timed = tariff.bins, by_home(problem), problem.objective.kind != "traffic"
    if tariff.linear or rows is None:
        rows = SetRows.of(None if tariff.linear else problem.data.sets, problem.experts, problem.windows)
    slots = np.asarray(start)[used]
    numbers = residues(problem)
    home = tariff.home_share if homes_differ else np.full(numbers, 1.0 / numbers)
    # Objective "traffic" has one link for the bytes of all homes. It holds the whole objective, so that the guide needs
    # no mean beside.
    in_group = bins.in_group if timed else np.zeros(bins.count, dtype=np.int64)
    reach = REACH * (bins.in_s + bins.out_s * max(bins.count - 1, 1)) / (bins.count * len(home)) if timed else 0.0
    policy = _POLICY[problem.rules.dispatch]
    if policy == OS_NODE:
        # In one node homes are one class, and where it is one OS node copies share alike.
        policy = (
            OS_NODE if problem.hardware.usable_slots > problem.experts and topology.os_gpus < topology.gpus else EVEN
        )
    elif not homes_differ and numbers == 1:
        policy = EVEN
    # Where homes are alike, each class has its share of all links.
    out_of_cell, in_rate = np.tile(bins.out_group, numbers), np.tile(bins.into.sum(axis=0) / numbers, numbers)
    if homes_differ:
        out_of_cell, in_rate = np.repeat(np.arange(len(home)), bins.count), bins.into.reshape(-1)
    of_gpu = problem.hardware.homes / np.maximum(tariff.home_share[topology.node_of_gpu], 1e-300)
    work, kind_moved = _work(tariff)
    was, max_moves = _budget(problem)
    return Data(
        Places(
            gpu_of_slot,
            topology.node_of_gpu,
            bins.of_gpu,
            bins.node,
            policy,
            home,
            topology.os_gpus,
            of_gpu,
            of_gpu.reshape(-1, topology.os_gpus).sum(axis=1),
        ),
        work,
        Links(
            in_of_cell=np.tile(in_group, len(home)),
            out_of_cell=out_of_cell,
            in_rate=in_rate,
            linear=tariff.linear,
            share_load=np.array(problem.data.load),
        ),
        rows,
        Goal(
            window_weight=np.array(problem.data.window_weight),
            tail=float(problem.objective.tail),
            join=_join(problem),
            kind_moved=kind_moved,
            cap=float("inf") if problem.rules.max_load is None else float(problem.rules.max_load),
            reach_scale=float(reach),
            out_rate=bins.out / numbers,
            classes=len(home) if homes_differ else 1,
        ),
        Rules(
            allowed=_allowed(problem, gpu_of_slot, slots),
            fixed=_fixed(problem, gpu_of_slot, slots),
            least_copies=np.ones(problem.experts, dtype=np.int64) if least_copies is None else least_copies,
            was=was,
            max_moves=max_moves,
        ),
    )


def _join(problem: LayerProblem) -> int:
    if problem.objective.kind == "traffic":
        return LINK
    return LARGER if problem.hardware.rates.overlap == "two_batch" else SUM


def _work(tariff: Tariff) -> tuple[Work, FloatArray]:
    """(Prices of slots: seconds, or loads over the mean; Goal.kind_moved)."""
    problem, rates, load = tariff.problem, tariff.rates, tariff.relative_load
    mean, load_share = weighted_sum(problem.data.window_weight, load), 1.0 / problem.hardware.relative_speed
    if not tariff.timed:
        each = 1.0 if problem.objective.kind == "load" else BALANCE * tariff.both_bytes
        nothing, price = np.zeros(len(load)), np.full(len(load), float(each))
        loads = np.ascontiguousarray(load)
        return Work(loads, mean, 1.0 / tariff.speeds, load_share, nothing, price), np.ones(1)
    share, relative = np.array([(kind.share, kind.tokens) for kind in rates.kinds]).T
    tokens = tariff.all_tokens * problem.data.load
    work = Work(
        np.ascontiguousarray(tokens[:, None, :] * relative[:, None]).reshape(-1, problem.experts), mean,
        1.0 / tariff.speeds, load_share, np.tile(share * rates.weight_s, len(load)),
        np.tile(share * rates.token_s, len(load)),
    )  # fmt: skip
    return work, share * relative


def _budget(problem: LayerProblem) -> tuple[BoolArray, int]:
    """([gpus, experts] what a GPU held, most moves); without a budget nothing is a move."""
    if problem.rules.current is None or problem.rules.max_moves is None:
        return np.ones((problem.topology.gpus, problem.experts), dtype=bool), problem.slots
    return problem.held(problem.rules.current), problem.rules.max_moves


def _allowed(problem: LayerProblem, gpu_of_slot: IntArray, slots: IntArray) -> BoolArray:
    """[nodes, experts] where an expert may lie: anywhere, or where the start has its group."""
    nodes = problem.topology.nodes
    if problem.rules.group is None:
        return np.ones((nodes, problem.experts), dtype=bool)
    allowed = np.zeros((nodes, int(problem.rules.group.max()) + 1), dtype=bool)
    allowed[gpu_of_slot // problem.topology.gpus_per_node, problem.rules.group[slots]] = True
    return np.ascontiguousarray(allowed[:, problem.rules.group])


def _fixed(problem: LayerProblem, gpu_of_slot: IntArray, slots: IntArray) -> BoolArray:
    """[usable slots] whether the start's expert must stay there."""
    if problem.rules.fixed is None:
        return np.zeros(len(slots), dtype=bool)
    pairs = np.zeros((problem.topology.gpus, problem.experts), dtype=bool)
    pairs[problem.fixed_pairs] = True
    return np.asarray(pairs[gpu_of_slot, slots])


class SetRows(NamedTuple):
    """Token sets [sets, k] in compressed rows: those that hold an expert (set_...), or a pair of experts (pair_..., row
    a * experts + b, a < b), and each set's weights that are not 0."""

    ids: IntArray
    set_start: IntArray
    set_index: IntArray
    pair_start: IntArray
    pair_index: IntArray
    weight_start: IntArray
    weight_window: IntArray
    weight_value: FloatArray

    @classmethod
    def of(cls, sets: TokenSets | None, experts: int, windows: int) -> SetRows:
        """The rows of `sets`; none of them without sets."""
        none = np.zeros(0, dtype=np.int64)
        if sets is None:
            ids = np.zeros((0, 1), dtype=np.int64)
            empty = np.zeros(experts + 1, dtype=np.int64)
            return cls(ids, empty, none, np.zeros(1, np.int64), none, np.zeros(1, np.int64), none, np.zeros(0))
        ids = sets.ids.astype(np.int64)
        k = ids.shape[1]
        start, index = _rows(ids.reshape(-1), experts, k)
        left, right = np.triu_indices(k, 1)
        pairs = (ids[:, left] * experts + ids[:, right]).reshape(-1)
        pair_start, pair_index = _rows(pairs, experts * experts, max(1, len(left)))
        window, where = np.nonzero(sets.weight)
        order = np.lexsort((window, where))
        weight_start = np.concatenate([[0], np.cumsum(np.bincount(where, minlength=len(ids)))]).astype(np.int64)
        return cls(
            ids, start, index, pair_start, pair_index, weight_start, window[order],
            np.ascontiguousarray(sets.weight[window[order], where[order]]),
        )  # fmt: skip


def _rows(keys: IntArray, count: int, width: int) -> tuple[IntArray, IntArray]:
    """Compressed rows: for each of `count` keys the rows of the [rows, width] table, flattened, that hold it."""
    start = np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)
    return start, np.argsort(keys, kind="stable") // width
