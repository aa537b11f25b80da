"""Sequential linear programming of a dispatch plan: messages, work and windows as the scorer prices them.

An LP by the slopes near a plan, within a box around it; the box grows or shrinks with what placement.cost says of its
answer (the method of approximation programming of Griffith and Stewart 1961). docs/formulation.md, "Dispatch".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_matrix

from placement.arithmetic import matrix_product, weighted_sum
from placement.cost.layer.score import score_layer
from placement.cost.layer.tariff import tariff_of
from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.dispatch.marginals import marginals
from solvers.experts.merit import merit

#: First half-width of the box, and the least at which another round is tried.
FIRST_BOX, LEAST_BOX = 1.0, 0.02
#: A round counts as a gain from this relative change on.
GAIN = 1e-6


def refine(
    problem: LayerProblem, slots: IntArray, fractions: FloatArray, rounds: int, value: tuple[float, float]
) -> tuple[FloatArray, tuple[float, float]]:
    """([nodes, slots] a plan at least as good as `fractions` by `merit`, its merit), after up to so many LPs.

    Args:
        fractions: [nodes, slots] a plan. value: its merit.
    """
    shape = _Shape.of(problem, slots)
    best, box, model = fractions, FIRST_BOX, None
    for _ in range(rounds if len(shape.slot) else 0):
        if model is None:
            model = _Linear.near(problem, shape, slots, best)
        tried = model.solve(box)
        if tried is None:
            break
        found = merit(problem, score_layer(problem, slots, tried))
        if found[0] <= value[0] and found[1] < value[1] * (1 - GAIN):
            best, value, model = tried, found, None
        else:
            box /= 3
            if box < LEAST_BOX:
                break
    return best, value


@dataclass(frozen=True)
class _Shape:
    """What does not change from round to round.

    Attributes:
        slot: [columns] slots whose expert has several copies; a variable for each home and column, home by home.
        expert, gpu: [columns] what they hold and where.
        bin: [gpus] where messages are counted (tariff.Bins). bins: how many there are.
        amount: [windows, homes, columns] tokens of a home for the expert of a slot.
        into, out: [homes, bins] seconds that a link spends for a token's chance to reach a bin; ingress of the bin's
            link group, egress of the home (or, in one node, of every GPU: the whole node's mean). For objective
            "traffic" bytes, all of them into one group.
        group: [bins] link group.
    """

    slot: IntArray
    expert: IntArray
    gpu: IntArray
    bin: IntArray
    bins: int
    amount: FloatArray
    into: FloatArray
    out: FloatArray
    group: IntArray

    @staticmethod
    def of(problem: LayerProblem, slots: IntArray) -> _Shape:
        tariff, nodes = tariff_of(problem), problem.topology.nodes
        bins = tariff.bins
        copies = np.bincount(slots[slots != EMPTY], minlength=problem.experts)
        slot = np.flatnonzero((slots != EMPTY) & (copies[slots] > 1))
        away = bins.node[None, :] != np.arange(nodes)[:, None]
        # In one node a GPU's own tokens for itself cross no link, and each GPU sends what the others get.
        out = bins.out[:, None] * away if nodes > 1 else bins.into / int(problem.hardware.alive.sum())
        # "traffic": one link for the bytes of all homes, per token.
        group = np.zeros_like(bins.in_group) if problem.objective.kind == "traffic" else bins.in_group
        share = tariff.home_share[None, :, None]
        amount = share * problem.data.load[:, None, slots[slot]] * tariff.rates.tokens_per_gpu * problem.topology.gpus
        gpu = slot // problem.hardware.slots_per_gpu
        return _Shape(slot, slots[slot], gpu, bins.of_gpu, bins.count, amount, bins.into, out, group)


@dataclass(frozen=True)
class _Linear:
    """The layer's prices near a plan, as an LP over [homes * columns] shares and a few values of each window.

    Attributes:
        start: [variables] the plan's shares. upper, limit: rows upper @ x <= limit. equal, sums: upper's like for =.
        price: [columns of upper] what is minimized.
    """

    problem: LayerProblem
    shape: _Shape
    fractions: FloatArray
    start: FloatArray
    upper: csr_matrix
    limit: FloatArray
    equal: csr_matrix
    price: FloatArray

    @staticmethod
    def near(problem: LayerProblem, shape: _Shape, slots: IntArray, fractions: FloatArray) -> _Linear:
        """The prices near `fractions` [nodes, slots]."""
        homes, columns = problem.topology.nodes, len(shape.slot)
        start = fractions[:, shape.slot].reshape(-1)
        rows = _Rows(homes * columns, problem)
        if problem.objective.kind != "traffic":
            _add_work(rows, problem, shape, slots, fractions, start)
        if problem.objective.kind != "load":
            _add_links(rows, problem, shape, slots, fractions, start)
        _add_cap(rows, problem, shape, slots, fractions, start)
        of, place = np.unique(shape.expert, return_inverse=True)
        row = (np.arange(homes)[:, None] * len(of) + place[None, :]).reshape(-1)
        width = rows.width
        equal = csr_matrix((np.ones(len(row)), (row, np.arange(len(row)))), shape=(homes * len(of), width))
        upper, limit = rows.built()
        return _Linear(problem, shape, fractions, start, upper, limit, equal, rows.price)

    def solve(self, box: float) -> FloatArray | None:
        """[nodes, slots] the LP's plan with every share within `box` of the plan's, or None where HiGHS finds none."""
        free = self.upper.shape[1] - len(self.start)
        low = np.concatenate([np.maximum(self.start - box, 0.0), np.zeros(free)])
        high = np.concatenate([np.minimum(self.start + box, 1.0), np.full(free, np.inf)])
        sums = self.equal.dot(np.concatenate([self.start, np.zeros(free)]))
        answer = linprog(
            self.price, A_ub=self.upper, b_ub=self.limit, A_eq=self.equal, b_eq=sums,
            bounds=np.stack([low, high], axis=1), method="highs",
        )  # fmt: skip
        if answer.status != 0:
            return None
        shares = np.clip(np.asarray(answer.x)[: len(self.start)].reshape(-1, len(self.shape.slot)), 0.0, 1.0)
        out = self.fractions.copy()
        for home, row in enumerate(shares):
            total = np.bincount(self.shape.expert, row, minlength=self.problem.experts)
            out[home, self.shape.slot] = row / total[self.shape.expert]
        return out


class _Rows:
    """Rows of an LP as triplets, and its price: after the shares come, for each window, its work and the larger of
    that and the messages (`two_batch`) in each kind of pass, its messages and its value; then the tail's threshold and
    each window's excess over it."""

    def __init__(self, shares: int, problem: LayerProblem) -> None:
        windows, kinds = problem.windows, problem.hardware.rates.kinds
        self.work, self.link = shares, shares + 2 * len(kinds) * windows
        larger, part, tail = shares + len(kinds) * windows, self.link + windows, self.link + 2 * windows
        self.width = tail + 1 + windows
        self.row: list[IntArray] = []
        self.column: list[IntArray] = []
        self.value: list[FloatArray] = []
        self.limit: list[FloatArray] = []
        self.count = 0
        self.price = np.zeros(self.width)
        tariff = tariff_of(problem)
        wait = tariff.wait_s
        weight = problem.data.window_weight / problem.data.window_weight.sum()
        for w in range(windows):
            work, each = (range(of + w * len(kinds), of + (w + 1) * len(kinds)) for of in (self.work, larger))
            if tariff.overlapped:
                for k, kind in enumerate(kinds):
                    self.add([work[k], each[k]], [1.0, -1.0], 0.0)
                    self.add([self.link + w, each[k]], [kind.share * kind.tokens, -1.0], -kind.share * wait)
                self.add([*each, part + w], [*np.ones(len(each)), -1.0], 0.0)
            else:
                self.add([*work, self.link + w, part + w], [*np.ones(len(work)), 1.0, -1.0], -wait)
            if problem.objective.tail < 1.0:
                self.add([part + w, tail, tail + 1 + w], [1.0, -1.0, -1.0], 0.0)
        if problem.objective.tail >= 1.0:
            self.price[part : part + windows] = weight
        else:
            # A tail thinner than any window's weight is the worst window: no excess pays.
            self.price[tail] = 1.0
            self.price[tail + 1 :] = weight / max(problem.objective.tail, float(weight[weight > 0].min()) * 0.5)

    def add(self, columns: list[int], values: list[float], limit: float) -> None:
        """One row."""
        self.extend(np.zeros(len(columns), np.int64), np.array(columns), np.array(values), np.array([limit]))

    def extend(self, row: IntArray, column: IntArray, value: FloatArray, limit: FloatArray) -> None:
        """Rows numbered from 0 on."""
        self.row.append(row + self.count)
        self.column.append(column)
        self.value.append(value)
        self.limit.append(limit)
        self.count += len(limit)

    def under(self, group: IntArray, value: FloatArray, now: FloatArray, start: FloatArray, target: int) -> None:
        """now[row] + sum(value * (share - start) over the shares of a row) <= the column `target`; group: [shares] row
        of each share, value: [shares] slopes, now: [rows] what the plan has."""
        rows, shares = len(now), np.flatnonzero(value)
        at = np.bincount(group[shares], value[shares] * start[shares], minlength=rows)
        self.extend(
            np.concatenate([group[shares], np.arange(rows)]), np.concatenate([shares, np.full(rows, target)]),
            np.concatenate([value[shares], np.full(rows, -1.0)]), at - now,
        )  # fmt: skip

    def built(self) -> tuple[csr_matrix, FloatArray]:
        """(matrix, right sides)."""
        index = (np.concatenate(self.row), np.concatenate(self.column))
        shape = (self.count, self.width)
        return csr_matrix((np.concatenate(self.value), index), shape=shape), np.concatenate(self.limit)


def _slot_tokens(problem: LayerProblem, slots: IntArray, fractions: FloatArray) -> FloatArray:
    """[windows, slots] expected tokens of each slot."""
    share = weighted_sum(tariff_of(problem).home_share, fractions)
    load = np.where(slots != EMPTY, problem.data.load[:, slots], 0.0)
    return np.asarray(load * share * problem.hardware.rates.tokens_per_gpu * problem.topology.gpus)


def _add_work(
    rows: _Rows, problem: LayerProblem, shape: _Shape, slots: IntArray, fractions: FloatArray, start: FloatArray
) -> None:
    """Every GPU's work, at the slopes of its slots' times."""
    tariff, homes = tariff_of(problem), problem.topology.nodes
    tokens, speed = _slot_tokens(problem, slots, fractions), tariff.speeds
    x = tokens[:, shape.slot]
    if tariff.timed:
        time, slope, scale = tariff.slot_times(tokens), tariff.slot_slopes(x), np.ones(len(x))
    else:
        time, slope = tokens[None], np.ones((1, *x.shape))
        scale = problem.hardware.alive.sum() / (problem.data.load.sum(axis=1) * tariff.all_tokens)
    gpu, kinds = np.tile(shape.gpu, homes), len(time)
    by_gpu = time.reshape(kinds, problem.windows, problem.topology.gpus, -1).sum(axis=3)
    for w, k in product(range(problem.windows), range(kinds)):
        value = (shape.amount[w] * slope[k, w][None, :] / speed[shape.gpu][None, :]).reshape(-1) * scale[w]
        rows.under(gpu, value, by_gpu[k, w] / speed * scale[w], start, rows.work + w * len(tariff.rates.kinds) + k)


def _add_links(
    rows: _Rows, problem: LayerProblem, shape: _Shape, slots: IntArray, fractions: FloatArray, start: FloatArray
) -> None:
    """Every ingress and egress, at the slopes of the touch chances."""
    homes, columns, tariff = problem.topology.nodes, len(shape.slot), tariff_of(problem)
    if tariff.constant_links is not None:
        for w in range(problem.windows):
            rows.add([rows.link + w], [-1.0], -tariff.least_link)
        return
    goes = np.zeros((homes, problem.experts, shape.bins))
    used = np.flatnonzero(slots != EMPTY)
    bin_of_slot = shape.bin[problem.hardware.gpu_of_slot]
    for h in range(homes):
        np.add.at(goes[h], (slots[used], bin_of_slot[used]), fractions[h, used])
    if problem.data.sets is None or tariff.linear:
        touched = np.stack([matrix_product(problem.data.load, each) for each in goes])
        slope = np.broadcast_to(problem.data.load[None, :, :, None], (homes, *problem.data.load.shape, shape.bins))
    else:
        touched, slope = marginals(problem.data.sets.ids, problem.data.sets.weight, np.maximum(1.0 - goes, 0.0))
    bins = shape.bin[shape.gpu]
    home = np.repeat(np.arange(homes), columns)
    for w in range(problem.windows):
        reach = slope[:, w, shape.expert, bins].reshape(-1)
        into, out = shape.into[home, np.tile(bins, homes)], shape.out[home, np.tile(bins, homes)]
        groups = int(shape.group.max()) + 1
        by_bin = (shape.into * touched[:, w]).sum(axis=0)
        entering = np.bincount(shape.group, by_bin, minlength=groups).astype(np.float64)
        rows.under(np.tile(shape.group[bins], homes), reach * into, entering, start, rows.link + w)
        rows.under(home, reach * out, (shape.out * touched[:, w]).sum(axis=1), start, rows.link + w)


def _add_cap(
    rows: _Rows, problem: LayerProblem, shape: _Shape, slots: IntArray, fractions: FloatArray, start: FloatArray
) -> None:
    """GPU loads averaged over the windows keep `max_load`, or what the plan has where that is more."""
    if problem.rules.max_load is None:
        return
    speed = problem.hardware.relative_speed
    tokens = weighted_sum(problem.data.window_weight, _slot_tokens(problem, slots, fractions))
    now = tokens.reshape(problem.topology.gpus, -1).sum(axis=1) / speed
    most = max(
        problem.rules.max_load * float((now * speed).sum()) / float(problem.hardware.alive.sum()), float(now.max())
    )
    value = weighted_sum(problem.data.window_weight, shape.amount) / speed[shape.gpu][None, :]
    gpu, value = np.tile(shape.gpu, problem.topology.nodes), value.reshape(-1)
    at = np.bincount(gpu, value * start, minlength=len(now))
    rows.extend(gpu, np.arange(len(gpu)), value, most - now + at)
