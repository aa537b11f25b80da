"""The CP-SAT model of one neighbourhood; docs/formulation.md, "Neighbourhoods".

What stays is constant, and sets with the same free experts are one: thousands of token sets shrink to some hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from placement.arithmetic import matrix_product, weighted_sum
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from solvers.experts.cpsat.backend import CpSatBackend, units_of
from solvers.experts.exact.backend import Linear, Value, Variable
from solvers.experts.exact.coefficients import Coefficients, bin_of_gpu
from solvers.experts.exact.model import PlacementModel

#: Integer units of the incumbent's objective. With coefficients beyond 1e9 OR-Tools 9.15 was seen to call worse answers
#: optimal (docs/performance.md).
OBJECTIVE_UNITS = 10**8
#: Link rows that can't reach this share of the busiest one, whatever the free slots hold, are left out.
LEAST_LINK = 0.8
#: Weight of the mean of the link rows beside the objective: it tells answers apart where the busiest link stands still.
GUIDE = 0.05


class NeighbourhoodModel(PlacementModel[CpSatBackend]):
    """The model of the placements that differ from `slots` in the free slots only."""

    def __init__(
        self, problem: LayerProblem, data: Coefficients, slots: IntArray, free: BoolArray, extra: IntArray,
        cutoff: float,
    ) -> None:  # fmt: skip
        """Args:
        data: Of the problem, not `whole`.
        slots: [slots] A valid placement. free: [slots] What may change; no slot that is EMPTY or fixed.
        extra: Experts that may get copies though no free slot holds them now (with replicas).
        cutoff: Objective that an answer must not exceed, in the scorer's unit.
        """
        gpu, stays = problem.hardware.gpu_of_slot, problem.held(np.where(free, EMPTY, slots))
        self.slots, self.free, self.cutoff = slots, free, cutoff
        self.touched_now: dict[str, FloatArray] = {}
        self.kinds: dict[str, _Kinds] = {}
        self.touched: dict[tuple[str, int], Variable] = {}
        self.inside: dict[tuple[str, int, int], Variable] = {}
        self.guide: list[Linear] = []
        super().__init__(
            problem, data, CpSatBackend(), units_of(problem, OBJECTIVE_UNITS / cutoff, 2 * OBJECTIVE_UNITS, 1),
            np.union1d(slots[free], extra), np.bincount(gpu[free], minlength=problem.topology.gpus), slots, stays,
        )  # fmt: skip
        if problem.rules.current is not None:
            rest = np.where(free, EMPTY, slots)
            self.moved = moves_between(problem.rules.current, rest, problem.hardware.slots_per_gpu)
        self._add_move_budget()
        self._add_load_cap()
        self._add_objective()
        self._add_start(self.held & ~stays, self.copies)

    def _may_hold(self, e: int, g: int) -> bool:
        if self.stays[g, e] or self.problem.rules.group is None:
            return not self.stays[g, e]
        # Groups stay on their nodes: what changes is where on them.
        mates = np.flatnonzero(self.problem.rules.group == self.problem.rules.group[e])
        m = self.problem.topology.gpus_per_node
        return bool(self.held[g // m * m : g // m * m + m][:, mates].any())

    # Objective

    def _add_objective(self) -> None:
        value, unit = self._over_windows(), self.units.objective * max(1, self.units.whole)
        self.model.add(value <= self.model.up(self.cutoff * unit))
        self.model.minimize(value + self.model.total(self.guide))

    def _window_value(self, w: int, scale: float) -> Linear:
        value = super()._window_value(w, scale)
        return value if self.tariff.overlapped else value + self.model.down(self.tariff.wait_s * scale)

    def _add_links(self, link: Variable, w: int, scale: float) -> None:
        rows = self.tariff.links
        now = max((weighted_sum(row.price, self._touch_now(row.level)[w]) for row in rows), default=0.0)
        counted = [row for row in rows if weighted_sum(row.price, self._touch_most(row.level)[w]) >= LEAST_LINK * now]
        for row in counted:
            self._hold_below(self._reach(row.level, w, row.price * scale), link)
        mean: dict[str, FloatArray] = {}
        for row in counted:
            mean[row.level] = mean.get(row.level, 0.0) + row.price * (GUIDE * scale / len(counted))
        self.guide += [term for level, price in mean.items() for term in self._reach(level, w, price)]

    def _touch_now(self, level: str) -> FloatArray:
        """[windows, bins] touch chances (or loads) of `slots`."""
        if level not in self.touched_now:
            bins = bin_of_gpu(self.problem.topology, level)
            count = int(bins.max()) + 1
            if self.tariff.linear or self.problem.data.sets is None:
                per_copy = self.problem.data.load / np.maximum(self.copies, 1)
                by_gpu = matrix_product(per_copy, self.held.T.astype(np.float64))
                self.touched_now[level] = np.stack([by_gpu[:, bins == b].sum(axis=1) for b in range(count)], axis=1)
            else:
                sets = self.problem.data.sets
                bin_of = np.empty(self.problem.experts, dtype=np.int64)
                gpu, expert = np.nonzero(self.held)
                bin_of[expert] = bins[gpu]
                of = bin_of[sets.ids]
                self.touched_now[level] = np.stack(
                    [sets.weight[:, (of == b).any(axis=1)].sum(axis=1) for b in range(count)], axis=1
                )
        return self.touched_now[level]

    def _touch_most(self, level: str) -> FloatArray:
        """[windows, bins] touch chances that no placement of the neighbourhood exceeds."""
        if self.tariff.linear or self.problem.data.sets is None:
            return np.full((self.problem.windows, int(bin_of_gpu(self.problem.topology, level).max()) + 1), 1e300)
        kinds = self._kinds(level)
        out = kinds.constant.copy()
        np.add.at(out, kinds.bin, kinds.weight)
        return np.asarray(out.T)

    def _reach(self, level: str, w: int, price: FloatArray) -> list[Linear]:
        """Terms of sum(price[b] * P[w, b]) over bins."""
        if self.tariff.linear or self.problem.data.sets is None:
            return self._copies_reach(level, w, price)
        kinds = self._kinds(level)
        terms: list[Linear] = [self.model.down(float(weighted_sum(price, kinds.constant[:, w])))]
        values = np.floor(kinds.weight[:, w] * price[kinds.bin])
        return terms + [int(values[i]) * self._touched(level, int(i)) for i in np.flatnonzero(values > 0)]

    def _kinds(self, level: str) -> _Kinds:
        """Token sets merged by their free experts, bin by bin, where no expert that stays reaches the bin."""
        if level in self.kinds:
            return self.kinds[level]
        sets = self.problem.data.sets
        if sets is None:
            raise ValueError("token sets are not known")
        bins = bin_of_gpu(self.problem.topology, level)
        count = int(bins.max()) + 1
        bin_of = np.full(self.problem.experts, -1, dtype=np.int64)
        gpu, expert = np.nonzero(self.stays)
        bin_of[expert] = bins[gpu]
        mark = np.zeros(self.problem.experts, dtype=np.int64)
        mark[self.experts] = np.int64(1) << np.arange(len(self.experts))
        pattern = np.bitwise_or.reduce(mark[sets.ids], axis=1)
        of = bin_of[sets.ids]
        constant = np.zeros((count, self.problem.windows))
        found: list[tuple[IntArray, IntArray, FloatArray]] = []
        for b in range(count):
            covered = (of == b).any(axis=1)
            constant[b] = sets.weight[:, covered].sum(axis=1)
            if b not in bins[self.gpus]:
                continue
            left = np.flatnonzero(~covered & (pattern != 0))
            kinds, inverse = np.unique(pattern[left], return_inverse=True)
            weight = np.zeros((len(kinds), self.problem.windows))
            np.add.at(weight, inverse, sets.weight[:, left].T)
            found.append((np.full(len(kinds), b), kinds, weight))
        parts = [np.concatenate(each) for each in zip(*found, strict=True)]
        self.kinds[level] = _Kinds(constant, parts[0], parts[1], parts[2])
        return self.kinds[level]

    def _touched(self, level: str, index: int) -> Variable:
        """The literal "a set of this kind reaches its bin"."""
        if (level, index) in self.touched:
            return self.touched[level, index]
        kinds = self._kinds(level)
        b, kind = int(kinds.bin[index]), int(kinds.pattern[index])
        members = [self._inside(e, level, b) for i, e in enumerate(self.experts) if kind >> i & 1]
        touched = members[0]
        if len(members) > 1:
            touched = self.model.boolean(f"touched_{level}_{b}_{kind}")
            for member in members:
                self.model.implies_any(member, [touched])
        self.touched[level, index] = touched
        return touched

    def _inside(self, e: int, level: str, b: int) -> Variable:
        """The literal "e is in bin b"."""
        if (level, b, e) in self.inside:
            return self.inside[level, b, e]
        bins = bin_of_gpu(self.problem.topology, level)
        among = [x for g, x in self.x[e].items() if bins[g] == b]
        inside = among[0] if len(among) == 1 else self.model.boolean(f"in_{level}_{b}_{e}")
        if len(among) != 1:
            self.model.add(self.model.total(among) == inside)
        self.inside[level, b, e] = inside
        return inside

    # Answers

    def placement(self, value: Value) -> IntArray:
        """[slots] of an answer; experts that stay on a GPU stay in their slots."""
        out = self.slots.copy()
        gpu = self.problem.hardware.gpu_of_slot
        for g in self.gpus:
            mine = np.flatnonzero(self.free & (gpu == g))
            held = np.array([e for e, row in self.x.items() if g in row and value(row[g])], dtype=np.int64)
            stay = np.isin(self.slots[mine], held)
            out[mine[~stay]] = np.setdiff1d(held, self.slots[mine[stay]])
        return out


@dataclass(frozen=True)
class _Kinds:
    """Token sets by the bins they reach at one level.

    Attributes:
        constant: [bins, windows] weight of the sets that reach a bin whatever the free slots hold.
        bin: [kinds] a bin that other sets may reach. pattern: [kinds] their free experts, as bits.
        weight: [kinds, windows] their weight.
    """

    constant: FloatArray
    bin: IntArray
    pattern: IntArray
    weight: FloatArray
