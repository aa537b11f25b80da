"""The CP-SAT model of one neighbourhood: which experts the free slots of a placement hold.

What stays is constant. A bin that a token set reaches through an expert that stays is reached whatever happens, and in
any other bin the sets with the same free experts are one: their weights add up. A layer of thousands of token sets so
shrinks to some hundred terms. docs/formulation.md states each family under its method's name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from ortools.sat.python import cp_model

from placement.arithmetic import matrix_product, weighted_sum
from placement.problem.arrays import EMPTY, BoolArray, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from placement.problem.moves import moves_between
from solvers.experts.lns.coefficients import Prices

#: Integer units of the incumbent's objective. With coefficients beyond 1e9 OR-Tools 9.15 was seen to call worse answers
#: optimal (docs/performance.md).
OBJECTIVE_UNITS = 10**8
#: Units of a GPU load in the balance cap, and of a window's share of the tail.
LOAD_UNITS = 10**7
TAIL_UNITS = 1000
#: Link rows that can't reach this share of the busiest one, whatever the free slots hold, are left out.
LEAST_LINK = 0.8
#: Weight of the mean of the link rows beside the objective: it tells answers apart where the busiest link stands still.
GUIDE = 0.05

Linear: TypeAlias = Any  # OR-Tools' expressions, variables and numbers mix freely


class NeighbourhoodModel:
    """Variables, constraints and objective of the placements that differ from `slots` in the free slots only."""

    def __init__(
        self, problem: LayerProblem, prices: Prices, slots: IntArray, free: BoolArray, extra: IntArray, cutoff: float
    ) -> None:
        """Args:
        slots: [slots] a valid placement. free: [slots] what may change; no slot that is EMPTY or fixed.
        extra: experts that may get copies though no free slot holds them now (with replicas).
        cutoff: objective that an answer must not exceed, in the scorer's unit.
        """
        self.problem, self.prices, self.slots, self.free = problem, prices, slots, free
        self.model = cp_model.CpModel()
        gpu = problem.hardware.gpu_of_slot
        self.room = np.bincount(gpu[free], minlength=problem.topology.gpus)
        self.gpus: list[int] = np.flatnonzero(self.room).tolist()
        self.experts: list[int] = np.union1d(slots[free], extra).tolist()
        stay = ~free & (slots != EMPTY)
        self.stays = np.zeros((problem.topology.gpus, problem.experts), dtype=bool)
        self.stays[gpu[stay], slots[stay]] = True
        self.before = np.zeros_like(self.stays)
        self.before[gpu[free], slots[free]] = True
        self.copies = np.bincount(slots[slots != EMPTY], minlength=problem.experts)
        self.kept = self.stays.sum(axis=0)
        self.touched_now: dict[str, FloatArray] = {}
        self.kinds: dict[str, _Kinds] = {}
        self.touched: dict[tuple[str, int], cp_model.IntVar] = {}
        self.inside: dict[tuple[str, int, int], cp_model.IntVar] = {}
        self.unit = OBJECTIVE_UNITS / cutoff / (1.0 if problem.objective.tail >= 1.0 else TAIL_UNITS / 10)
        self._add_variables()
        self._add_every_expert_placed()
        self._add_every_slot_filled()
        self._add_copies_chosen()
        if problem.rules.max_moves is not None:
            self._add_move_budget()
        if problem.rules.max_load is not None:
            self._add_load_cap()
        self._add_objective(cutoff)
        self._add_start()

    # Variables

    def _add_variables(self) -> None:
        """x[e][g] for free GPUs; with replicas z[e][r], e has r copies, and y[e][r][g], one of them on free GPU g."""
        model, most = self.model, self.prices.data.most
        self.x: dict[int, dict[int, cp_model.IntVar]] = {}
        self.z: dict[int, dict[int, cp_model.IntVar]] = {}
        self.y: dict[int, dict[int, dict[int, cp_model.IntVar]]] = {}
        for e in self.experts:
            self.x[e] = {g: model.new_bool_var(f"x_{e}_{g}") for g in self.gpus if self._may_hold(e, g)}
            kept = int(self.kept[e])
            counts = range(max(1, kept), min(most, kept + len(self.x[e])) + 1)
            if most == 1 or len(counts) == 1:
                self.y[e] = {counts[0]: self.x[e]}
                self.z[e] = {counts[0]: model.new_constant(1)}
                continue
            self.z[e] = {r: model.new_bool_var(f"z_{e}_{r}") for r in counts}
            self.y[e] = {r: {g: model.new_bool_var(f"y_{e}_{r}_{g}") for g in self.x[e]} for r in counts}

    def _may_hold(self, e: int, g: int) -> bool:
        if self.stays[g, e]:
            return False
        if self.problem.rules.group is None:
            return True
        # Groups stay on their nodes: what changes is where on them.
        mates = np.flatnonzero(self.problem.rules.group == self.problem.rules.group[e])
        m = self.problem.topology.gpus_per_node
        node = slice(g // m * m, g // m * m + m)
        return bool((self.stays | self.before)[node][:, mates].any())

    # Constraints

    def _add_every_expert_placed(self) -> None:
        for e, row in self.x.items():
            if self.prices.data.most == 1:
                self.model.add_exactly_one(row.values())
            elif self.kept[e] == 0:
                self.model.add_at_least_one(row.values())

    def _add_every_slot_filled(self) -> None:
        for g in self.gpus:
            self.model.add(sum(row[g] for row in self.x.values() if g in row) == int(self.room[g]))

    def _add_copies_chosen(self) -> None:
        for e, options in self.z.items():
            if len(options) == 1:
                continue
            self.model.add_exactly_one(options.values())
            copies = sum(r * z for r, z in options.items()) - int(self.kept[e])
            self.model.add(sum(self.x[e].values()) == copies)
            for g, x in self.x[e].items():
                self.model.add(sum(self.y[e][r][g] for r in options) == x)
                for r, z in options.items():
                    self.model.add_implication(self.y[e][r][g], z)

    def _add_move_budget(self) -> None:
        problem, current = self.problem, self.problem.rules.current
        if current is None or problem.rules.max_moves is None:
            return
        rest = np.where(self.free, EMPTY, self.slots)
        spent = moves_between(current, rest, problem.hardware.slots_per_gpu)
        held = {(int(s) // problem.hardware.slots_per_gpu, int(e)) for s, e in enumerate(current) if e != EMPTY}
        new = [x for e, row in self.x.items() for g, x in row.items() if (g, e) not in held]
        self.model.add(sum(new) <= problem.rules.max_moves - spent)

    def _add_load_cap(self) -> None:
        if self.problem.rules.max_load is None:
            return
        speed = self.problem.hardware.relative_speed
        table = self._by_copies(self.prices.data.pooled) * LOAD_UNITS
        now = self._now(table)
        for g, terms in self._on_gpus(table, np.ones(len(speed))).items():
            # Where the incumbent exceeds the cap, it must stay feasible.
            most = max(self.problem.rules.max_load * float(speed[g]) * LOAD_UNITS, float(now[g]))
            self.model.add(sum(terms) <= math.ceil(most))

    # Objective

    def _by_copies(self, load: FloatArray) -> FloatArray:
        """[most + 1, experts] load of one copy by the number of copies."""
        counts = np.maximum(np.arange(self.prices.data.most + 1), 1)
        return np.asarray(load[None, :] / counts[:, None])

    def _now(self, table: FloatArray) -> FloatArray:
        """[gpus] sum of table[copies, expert] over what a GPU holds in `slots`."""
        price = table[np.minimum(self.copies, len(table) - 1), np.arange(table.shape[1])]
        return np.asarray(((self.stays | self.before) * price[None, :]).sum(axis=1))

    def _on_gpus(self, table: FloatArray, divisor: FloatArray) -> dict[int, list[Linear]]:
        """GPU -> terms of the sum of table[copies, expert] / divisor[gpu] over what it holds; GPUs that change only."""
        price = table[np.minimum(self.copies, len(table) - 1), np.arange(table.shape[1])].copy()
        price[self.experts] = 0.0
        fixed = (self.stays * price[None, :]).sum(axis=1)
        out: dict[int, list[Linear]] = {}
        for g in range(len(divisor)):
            terms: list[Linear] = []
            for e in self.experts:
                for r, z in self.z[e].items():
                    value = math.floor(table[r, e] / divisor[g])
                    if self.stays[g, e]:
                        terms.append(value * z)
                    elif g in self.x[e]:
                        terms.append(value * self.y[e][r][g])
            if terms:
                out[g] = [*terms, math.floor(fixed[g] / divisor[g])]
        return out

    def _add_objective(self, cutoff: float) -> None:
        problem, prices, model = self.problem, self.prices, self.model
        data = prices.data
        top, average = 2 * OBJECTIVE_UNITS, problem.objective.tail >= 1.0
        timed = problem.objective.kind == "time"
        value: list[Linear] = []
        guide: list[Linear] = []
        for w in np.flatnonzero(prices.shares > 0):
            scale = self.unit * (float(prices.shares[w]) if average else 1.0)
            works = [self._busiest_gpu(table[:, w, :] * scale, top) for table in data.work]
            if timed and problem.hardware.rates.overlap == "two_batch":
                larger: list[Linear] = []
                for work, share, moved in zip(works, data.shares, data.moved, strict=True):
                    link = model.new_int_var(0, top, "")
                    guide += self._add_links(link, int(w), scale * float(moved))
                    larger.append(model.new_int_var(0, 2 * top, ""))
                    model.add(larger[-1] >= work)
                    model.add(larger[-1] >= link + math.floor(data.fixed * share * scale))
                value.append(sum(larger))
                continue
            link = model.new_int_var(0, top, f"link_{w}")
            guide += self._add_links(link, int(w), scale)
            value.append(sum(works) + link + math.floor(data.fixed * scale))
        whole = sum(value) if average else self._tail_of(value)
        model.add(whole <= math.ceil(cutoff * self.unit * (1 if average or prices.worst else TAIL_UNITS)))
        model.minimize(whole + sum(guide))

    def _busiest_gpu(self, table: FloatArray, top: int) -> cp_model.IntVar:
        """At least every GPU's sum of table[copies, expert] over its speed, in objective units."""
        speed = self.prices.data.speed
        changing = self._on_gpus(table, speed)
        idle = np.delete(self._now(table) / speed, list(changing))
        work = self.model.new_int_var(math.floor(idle.max(initial=0.0)), top, "")
        for terms in changing.values():
            self.model.add(sum(terms) <= work)
        return work

    def _tail_of(self, value: list[Linear]) -> Linear:
        """The mean of the worst `tail` of the windows, in epigraph form (Rockafellar and Uryasev 2000)."""
        top = 4 * OBJECTIVE_UNITS
        eta = self.model.new_int_var(0, top, "eta")
        if self.prices.worst:
            for part in value:
                self.model.add(part <= eta)
            return eta
        excess: list[Linear] = []
        shares = self.prices.shares[self.prices.shares > 0]
        for w, (part, share) in enumerate(zip(value, shares, strict=True)):
            over = self.model.new_int_var(0, top, f"over_{w}")
            self.model.add(over >= part - eta)
            excess.append(math.floor(share * TAIL_UNITS) * over)
        return TAIL_UNITS * eta + sum(excess)

    def _add_links(self, link: cp_model.IntVar, w: int, scale: float) -> list[Linear]:
        """link >= every row that may be the busiest, in objective units; returns the guide's terms."""
        rows = self.prices.links
        now = max((weighted_sum(row.price, self._touch_now(row.level)[w]) for row in rows), default=0.0)
        counted = [row for row in rows if weighted_sum(row.price, self._touch_most(row.level)[w]) >= LEAST_LINK * now]
        for row in counted:
            terms = self._reach(row.level, w, row.price * scale)
            self.model.add(sum(terms) <= link)
        mean: dict[str, FloatArray] = {}
        for row in counted:
            mean[row.level] = mean.get(row.level, 0.0) + row.price * (GUIDE * scale / len(counted))
        return [term for level, price in mean.items() for term in self._reach(level, w, price)]

    def _touch_now(self, level: str) -> FloatArray:
        """[windows, bins] touch chances (or loads) of `slots`."""
        if level not in self.touched_now:
            bins = self.prices.bins(level)
            count = int(bins.max()) + 1
            if self.prices.linear or self.problem.data.sets is None:
                per_copy = self.problem.data.load / np.maximum(self.copies, 1)
                by_gpu = matrix_product(per_copy, (self.stays | self.before).T.astype(np.float64))
                self.touched_now[level] = np.stack([by_gpu[:, bins == b].sum(axis=1) for b in range(count)], axis=1)
            else:
                sets = self.problem.data.sets
                bin_of = np.empty(self.problem.experts, dtype=np.int64)
                gpu, expert = np.nonzero(self.stays | self.before)
                bin_of[expert] = bins[gpu]
                of = bin_of[sets.ids]
                self.touched_now[level] = np.stack(
                    [sets.weight[:, (of == b).any(axis=1)].sum(axis=1) for b in range(count)], axis=1
                )
        return self.touched_now[level]

    def _touch_most(self, level: str) -> FloatArray:
        """[windows, bins] touch chances that no placement of the neighbourhood exceeds."""
        if self.prices.linear or self.problem.data.sets is None:
            return np.full((self.problem.windows, int(self.prices.bins(level).max()) + 1), 1e300)
        kinds = self._kinds(level)
        out = kinds.constant.copy()
        np.add.at(out, kinds.bin, kinds.weight)
        return np.asarray(out.T)

    def _reach(self, level: str, w: int, price: FloatArray) -> list[Linear]:
        """Terms of sum(price[b] * P[w, b]) over bins."""
        if self.prices.linear or self.problem.data.sets is None:
            return self._copies_reach(level, w, price)
        kinds = self._kinds(level)
        terms: list[Linear] = [math.floor(float(weighted_sum(price, kinds.constant[:, w])))]
        values = np.floor(kinds.weight[:, w] * price[kinds.bin])
        return terms + [int(values[i]) * self._touched(level, int(i)) for i in np.flatnonzero(values > 0)]

    def _copies_reach(self, level: str, w: int, price: FloatArray) -> list[Linear]:
        """As `_reach` where messages are copies: linear in what GPUs hold."""
        bins = self.prices.bins(level)
        table = self._by_copies(self.problem.data.load[w])
        changing: list[Linear] = []
        rest = self._now(table)
        for b in np.flatnonzero(price):
            on = self._on_gpus(table * price[b], np.where(bins == b, 1.0, np.inf))
            for g in np.flatnonzero(bins == b):
                if int(g) in on:
                    changing += on[int(g)]
                else:
                    changing.append(math.floor(rest[g] * price[b]))
        return changing

    def _kinds(self, level: str) -> _Kinds:
        """Token sets merged by their free experts, bin by bin, where no expert that stays reaches the bin."""
        if level in self.kinds:
            return self.kinds[level]
        sets = self.problem.data.sets
        if sets is None:
            raise ValueError("token sets are not known")
        bins = self.prices.bins(level)
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

    def _touched(self, level: str, index: int) -> cp_model.IntVar:
        """The literal "a set of this kind reaches its bin"."""
        if (level, index) in self.touched:
            return self.touched[level, index]
        kinds = self._kinds(level)
        b, kind = int(kinds.bin[index]), int(kinds.pattern[index])
        members = [self._inside(e, level, b) for i, e in enumerate(self.experts) if kind >> i & 1]
        touched = members[0]
        if len(members) > 1:
            touched = self.model.new_bool_var(f"touched_{level}_{b}_{kind}")
            for member in members:
                self.model.add_implication(member, touched)
        self.touched[level, index] = touched
        return touched

    def _inside(self, e: int, level: str, b: int) -> cp_model.IntVar:
        """The literal "e is in bin b"."""
        if (level, b, e) in self.inside:
            return self.inside[level, b, e]
        bins = self.prices.bins(level)
        among = [x for g, x in self.x[e].items() if bins[g] == b]
        inside = among[0] if len(among) == 1 else self.model.new_bool_var(f"in_{level}_{b}_{e}")
        if len(among) != 1:
            self.model.add(sum(among) == inside)
        self.inside[level, b, e] = inside
        return inside

    # Answers

    def _add_start(self) -> None:
        """Hints what the free slots hold now."""
        for e, row in self.x.items():
            for g, x in row.items():
                self.model.add_hint(x, int(self.before[g, e]))
            if len(self.z[e]) > 1:
                for r, z in self.z[e].items():
                    self.model.add_hint(z, int(self.copies[e] == r))

    def placement(self, solver: cp_model.CpSolver) -> IntArray:
        """[slots] of the solver's answer; experts that stay on a GPU stay in their slots."""
        out = self.slots.copy()
        gpu = self.problem.hardware.gpu_of_slot
        for g in self.gpus:
            mine = np.flatnonzero(self.free & (gpu == g))
            held = np.array([e for e, row in self.x.items() if g in row and solver.value(row[g])], dtype=np.int64)
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
