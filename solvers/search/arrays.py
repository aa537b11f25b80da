"""From a layer problem and a start to the compiled search's constants."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.problem import EMPTY, BoolArray, FloatArray, IntArray, LayerProblem, TokenSets
from solvers.search.state import EVEN, NEAREST, PLANNED, Data
from solvers.search.terms import bins_of

_POLICY = {"even": EVEN, "nearest": NEAREST, "planned": PLANNED}


def by_home(problem: LayerProblem) -> bool:
    """Whether homes on different nodes dispatch differently."""
    replicas = problem.usable_slots > problem.experts
    return problem.dispatch != "even" and replicas and problem.topology.nodes > 1


def search_data(problem: LayerProblem, start: IntArray, rows: SetRows | None = None) -> Data:
    """The constants of `problem`.

    Args:
        start: [slots] a valid placement: it says on which node a group is kept, and which slots are fixed.
        rows: the problem's token sets, where they are at hand already.
    """
    topology, rates = problem.topology, problem.rates
    gpus, nodes, m = topology.gpus, topology.nodes, topology.gpus_per_node
    used = np.flatnonzero(problem.usable)
    gpu_of_slot = used // problem.slots_per_gpu
    bins = bins_of(problem)
    homes_differ = by_home(problem)
    of_node = problem.homes.reshape(nodes, m).sum(axis=1)
    home = of_node if homes_differ else np.ones(1)
    node_of_bin = np.zeros(bins.count, dtype=np.int64)
    node_of_bin[bins.of_gpu] = topology.node_of_gpu
    timed = problem.objective == "time"
    in_s, out_s = (bins.in_s, bins.out_s) if timed else (0.0, 0.0)
    in_size = np.bincount(bins.in_group)[bins.in_group]
    others = max(nodes - 1, 1)
    if homes_differ:
        away = np.arange(nodes)[:, None] != node_of_bin[None, :]
        in_rate = (away * (home * nodes)[:, None] * in_s / others / in_size[None, :]).reshape(-1)
        out_rate = out_s * nodes * home
    else:
        sent = nodes * (1.0 - of_node[node_of_bin]) / others if nodes > 1 else np.ones(bins.count)
        in_rate = in_s * sent / in_size
        out_rate = np.full(int(bins.out_group.max()) + 1, out_s)
        if nodes > 1:
            out_rate *= nodes * of_node
    mean = problem.load.sum(axis=1, keepdims=True) / max(1, int(problem.alive.sum()))
    load = problem.load / mean
    tokens = rates.tokens_per_gpu * gpus * problem.load
    weight_s, token_s, work_share = rates.weight_s, rates.token_s, 1.0 / problem.speeds
    if not timed:
        tokens, weight_s, token_s, work_share = load, 0.0, 1.0, 1.0 / problem.relative_speed
    linear = bins.linear or problem.sets is None or not timed
    if linear or rows is None:
        rows = SetRows.of(None if linear else problem.sets, problem.experts, problem.windows)
    slots = np.asarray(start)[used]
    was, max_moves = _budget(problem)
    return Data(
        gpu_of_slot=gpu_of_slot,
        node_of_gpu=topology.node_of_gpu,
        bin_of_gpu=bins.of_gpu,
        node_of_bin=node_of_bin,
        in_group=bins.in_group,
        out_group=bins.out_group,
        in_rate=np.ascontiguousarray(in_rate),
        out_rate=out_rate,
        policy=_POLICY[problem.dispatch] if homes_differ else EVEN,
        home=np.ascontiguousarray(home),
        tokens=np.ascontiguousarray(tokens),
        share_load=np.array(problem.load),
        mean_load=np.ascontiguousarray(problem.window_weight @ load),
        work_share=np.ascontiguousarray(work_share),
        load_share=np.ascontiguousarray(1.0 / problem.relative_speed),
        weight_s=float(weight_s),
        token_s=float(token_s),
        linear=linear,
        set_start=rows.start,
        set_index=rows.index,
        pair_start=rows.pair_start,
        pair_index=rows.pair_index,
        ids=rows.ids,
        weight_start=rows.weight_start,
        weight_window=rows.weight_window,
        weight_value=rows.weight_value,
        window_weight=np.array(problem.window_weight),
        tail=float(problem.tail),
        overlap=rates.overlap == "two_batch",
        cap=float("inf") if problem.max_load is None else float(problem.max_load),
        reach_scale=0.5 * (in_s + out_s * max(bins.count - 1, 1)) / (bins.count * len(home)),
        allowed=_allowed(problem, gpu_of_slot, slots),
        fixed=_fixed(problem, gpu_of_slot, slots),
        was=was,
        max_moves=max_moves,
    )


def _budget(problem: LayerProblem) -> tuple[BoolArray, int]:
    """([gpus, experts] what a GPU held, most moves); without a budget nothing is a move."""
    gpus = problem.topology.gpus
    if problem.current is None or problem.max_moves is None:
        return np.ones((gpus, problem.experts), dtype=bool), problem.slots
    was = np.zeros((gpus, problem.experts), dtype=bool)
    held = problem.current != EMPTY
    was[problem.gpu_of_slot[held], problem.current[held]] = True
    return was, problem.max_moves


def _allowed(problem: LayerProblem, gpu_of_slot: IntArray, slots: IntArray) -> BoolArray:
    """[nodes, experts] where an expert may lie: anywhere, or where the start has its group."""
    nodes = problem.topology.nodes
    if problem.group is None:
        return np.ones((nodes, problem.experts), dtype=bool)
    allowed = np.zeros((nodes, int(problem.group.max()) + 1), dtype=bool)
    allowed[gpu_of_slot // problem.topology.gpus_per_node, problem.group[slots]] = True
    return np.ascontiguousarray(allowed[:, problem.group])


def _fixed(problem: LayerProblem, gpu_of_slot: IntArray, slots: IntArray) -> BoolArray:
    """[usable slots] whether the start's expert must stay there."""
    if problem.fixed is None:
        return np.zeros(len(slots), dtype=bool)
    pairs = np.zeros((problem.topology.gpus, problem.experts), dtype=bool)
    pairs[problem.fixed_pairs] = True
    return np.asarray(pairs[gpu_of_slot, slots])


@dataclass(frozen=True)
class SetRows:
    """Token sets in compressed rows: by expert, by pair of experts (row a * experts + b, a < b), and their weights."""

    ids: IntArray
    start: IntArray
    index: IntArray
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
