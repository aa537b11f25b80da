"""The CP-SAT model of one layer. docs/formulation.md states each family under the name of its method here.

Every coefficient is rounded down and every product up to its favourable side, so that the integer optimum never
exceeds the true one: the solver's bound, scaled back, is valid as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from ortools.sat.python import cp_model

from placement.problem.arrays import EMPTY, FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.exact.coefficients import (
    Coefficients,
    coefficients_of,
    expert_sets,
    gpus_of_bins,
    slots_from,
    tail_shares,
)

#: Integer units of the objective's scale. Not more: with coefficients of 1e10 and beyond OR-Tools 9.15 was seen to
#: call worse answers optimal (tests/solvers/test_exact.py holds 200 layers against brute force).
OBJECTIVE_UNITS = 10**9
#: Most units of a chance; fewer where they make every product of shares a whole number.
CHANCE_UNITS = 10**4
#: Most units of a window's share of the tail; fewer where they make every share a whole number.
TAIL_UNITS = 1000
#: Units of a GPU load in the balance cap.
LOAD_UNITS = 10**7

Linear: TypeAlias = Any  # OR-Tools' expressions, variables and numbers mix freely


class CpSatModel:
    """Variables, constraints and objective of one layer."""

    def __init__(self, problem: LayerProblem) -> None:
        self.problem = problem
        self.data: Coefficients = coefficients_of(problem)
        self.model = cp_model.CpModel()
        width = 1 if problem.data.sets is None else problem.data.sets.ids.shape[1]
        self.chance = min(CHANCE_UNITS, math.lcm(*range(1, self.data.most + 1)) ** min(width, 16))
        # No placement of a layer costs more than all its work on one GPU and all its messages on one link.
        links = max((float(row.price.sum()) for row in self.data.links), default=0.0)
        largest = float(self.data.work[:, 1].sum(axis=(0, 2)).max()) / float(
            self.data.speed[problem.hardware.alive].min()
        )
        largest += links * float(problem.data.load.sum(axis=1).max())
        self.shares, self.whole, self.exact = _tail_units(problem)
        # `whole` units of the objective stand for one of a window's value: both are to stay small.
        self.unit = OBJECTIVE_UNITS / max(largest, 1e-300) / max(1.0, self.whole / 10)
        self._add_variables()
        self._add_every_expert_placed()
        self._add_every_slot_filled()
        self._add_copies_chosen()
        if problem.rules.group is not None:
            self._add_groups_on_one_node()
        self._add_fixed_experts()
        if problem.rules.max_moves is not None:
            self._add_move_budget()
        if problem.rules.max_load is not None:
            self._add_load_cap()
        if problem.rules.current is None:
            self._add_symmetry_breaking()
        self._add_objective()

    # Variables

    def _add_variables(self) -> None:
        problem, most = self.problem, self.data.most
        experts, gpus = range(problem.experts), range(problem.topology.gpus)
        model = self.model
        self.x = [[model.new_bool_var(f"x_{e}_{g}") for g in gpus] for e in experts]
        # z[e][r - 1]: expert e has r copies; y[e][r - 1][g]: and one of them is on GPU g.
        if most == 1:
            self.y = [[self.x[e]] for e in experts]
            self.z: list[list[cp_model.IntVar]] = [[] for _ in experts]
        else:
            self.z = [[model.new_bool_var(f"z_{e}_{r}") for r in range(1, most + 1)] for e in experts]
            self.y = [
                [[model.new_bool_var(f"y_{e}_{r}_{g}") for g in gpus] for r in range(1, most + 1)] for e in experts
            ]

    # Constraints

    def _add_every_expert_placed(self) -> None:
        for row in self.x:
            if self.data.most == 1:
                self.model.add_exactly_one(row)
            else:
                self.model.add_at_least_one(row)

    def _add_every_slot_filled(self) -> None:
        for g in range(self.problem.topology.gpus):
            self.model.add(sum(row[g] for row in self.x) == int(self.problem.hardware.capacities[g]))

    def _add_copies_chosen(self) -> None:
        if self.data.most == 1:
            return
        for e, row in enumerate(self.x):
            self.model.add_exactly_one(self.z[e])
            self.model.add(sum(row) == sum((r + 1) * z for r, z in enumerate(self.z[e])))
            for g, x in enumerate(row):
                self.model.add(sum(self.y[e][r][g] for r in range(self.data.most)) == x)
                for r in range(self.data.most):
                    self.model.add_implication(self.y[e][r][g], self.z[e][r])

    def _add_groups_on_one_node(self) -> None:
        problem = self.problem
        group = problem.rules.group if problem.rules.group is not None else np.zeros(0, dtype=np.int64)
        for value in np.unique(group):
            on = [self.model.new_bool_var(f"group_{value}_{n}") for n in range(problem.topology.nodes)]
            self.model.add_exactly_one(on)
            for e in np.flatnonzero(group == value):
                for g, node in enumerate(problem.topology.node_of_gpu):
                    self.model.add_implication(self.x[e][g], on[node])

    def _add_fixed_experts(self) -> None:
        for g, e in zip(*self.problem.fixed_pairs, strict=True):
            self.model.add(self.x[e][g] == 1)

    def _add_move_budget(self) -> None:
        held = self.data.held
        if held is not None and self.problem.rules.max_moves is not None:
            new = [self.x[e][g] for g in range(held.shape[0]) for e in range(held.shape[1]) if not held[g, e]]
            self.model.add(sum(new) <= self.problem.rules.max_moves)

    def _add_load_cap(self) -> None:
        cap = self.problem.rules.max_load if self.problem.rules.max_load is not None else math.inf
        speed = self.problem.hardware.relative_speed
        for g in range(self.problem.topology.gpus):
            load: list[Linear] = [
                math.floor(self.data.pooled[e] / (r + 1) * LOAD_UNITS) * self.y[e][r][g]
                for e in range(self.problem.experts)
                for r in range(self.data.most)
            ]
            self.model.add(sum(load) <= math.ceil(cap * float(speed[g]) * LOAD_UNITS))

    def _add_symmetry_breaking(self) -> None:
        """Neighbours that could change places, nodes and GPUs of a node, are ordered by their lowest expert."""
        topology = self.problem.topology
        m = topology.gpus_per_node
        for e in range(self.problem.experts):
            for g in range(topology.gpus):
                if self.data.gpu_alike[g]:
                    self.model.add_bool_or([self.x[e][g].negated(), *(self.x[d][g - 1] for d in range(e + 1))])
                if self.data.node_alike[g // m]:
                    before = range((g // m - 1) * m, g // m * m)
                    lower = [self.x[d][h] for d in range(e + 1) for h in before]
                    self.model.add_bool_or([self.x[e][g].negated(), *lower])

    # Objective

    def _add_objective(self) -> None:
        problem, data, model = self.problem, self.data, self.model
        touch = self._touch_chances()
        value: list[Linear] = []
        top = 4 * OBJECTIVE_UNITS
        for w in range(problem.windows):
            # For the mean a window's weight is in its prices, else in the objective.
            scale = self.unit * float(
                problem.data.window_weight[w] if problem.objective.tail >= 1.0 else self.shares[w] > 0
            )
            works = [self._busiest_gpu(table[:, w] * scale, top) for table in data.work]
            if problem.hardware.rates.overlap == "two_batch" and problem.objective.kind == "time":
                larger: list[Linear] = []
                for work, share, moved in zip(works, data.shares, data.moved, strict=True):
                    # Latency counts with the messages; `fixed` is added back in the bound.
                    wait = math.floor(data.fixed * share * scale)
                    larger.append(model.new_int_var(0, 2 * top + wait, ""))
                    model.add(larger[-1] >= work)
                    model.add(larger[-1] >= self._busiest_link(touch, w, scale * moved, top) + wait)
                value.append(sum(larger))
            else:
                value.append(sum(works) + self._busiest_link(touch, w, scale, top))
        if problem.objective.tail >= 1.0:
            model.minimize(sum(value))
        else:
            model.minimize(self._tail_of(value, 2 * top + math.ceil(data.fixed * self.unit)))

    def _busiest_gpu(self, table: FloatArray, top: int) -> cp_model.IntVar:
        """At least every GPU's sum of table[copies, expert], in objective units."""
        work = self.model.new_int_var(0, top, "")
        for g in range(self.problem.topology.gpus):
            terms: list[Linear] = [
                math.floor(table[r + 1, e] / float(self.data.speed[g])) * self.y[e][r][g]
                for e in range(self.problem.experts)
                for r in range(self.data.most)
            ]
            self.model.add(sum(terms) <= work)
        return work

    def _busiest_link(self, touch: _Touch, w: int, scale: float, top: int) -> cp_model.IntVar:
        """At least every link's price in window w, times `scale`, in objective units."""
        link = self.model.new_int_var(0, top, "")
        for row in self.data.links:
            parts: list[Linear] = []
            for b in np.flatnonzero(row.price):
                parts += self._reach(touch, row.level, int(b), w, float(row.price[b]) * scale)
            if parts:
                self.model.add(sum(parts) <= link)
        return link

    def _tail_of(self, value: list[Linear], top: int) -> Linear:
        """The mean of the worst `tail` of the windows, in epigraph form, in `whole` units per unit of value."""
        eta = self.model.new_int_var(0, top, "eta")
        excess: list[Linear] = []
        for w, part in enumerate(value):
            if self.shares[w] == 0:
                continue
            if self.whole == 0:
                self.model.add(part <= eta)
                continue
            over = self.model.new_int_var(0, top, f"over_{w}")
            self.model.add(over >= part - eta)
            excess.append(self.shares[w] * over)
        return max(1, self.whole) * eta + sum(excess)

    def _reach(self, touch: _Touch, level: str, b: int, w: int, price: float) -> list[Linear]:
        """Terms of price * P[b] in window w, in objective units."""
        problem = self.problem
        if self.data.linear:
            gpus = gpus_of_bins(self.problem.topology, level)[b]
            return [
                math.floor(problem.data.load[w, e] / (r + 1) * price) * self.y[e][r][g]
                for e in range(problem.experts)
                for r in range(self.data.most)
                for g in gpus
            ]
        sets = problem.data.sets
        if sets is None:
            return []
        units = 1 if self.data.most == 1 else self.chance
        return [
            math.floor(sets.weight[w, s] * price / units) * touch[level][s][b]
            for s in range(len(sets.ids))
            if sets.weight[w, s] > 0
        ]

    def _touch_chances(self) -> _Touch:
        """[level][set][bin] chance of touching the bin: in units of self.chance, or 0 and 1 without replicas."""
        if self.problem.data.sets is None or self.data.linear:
            return {}
        levels = sorted({row.level for row in self.data.links})
        build = self._touched_single if self.data.most == 1 else self._touched_chain
        return {level: build(level) for level in levels}

    def _touched_single(self, level: str) -> list[list[Linear]]:
        model, out = self.model, []
        ids = expert_sets(self.problem)
        for s in range(len(ids)):
            row: list[Linear] = []
            for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
                touched = model.new_bool_var(f"touched_{level}_{s}_{b}")
                for e in ids[s]:
                    model.add(sum(self.x[e][g] for g in gpus) <= touched)
                row.append(touched)
            out.append(row)
        return out

    def _touched_chain(self, level: str) -> list[list[Linear]]:
        """miss_i <= (1 - share of expert i) * miss_(i-1), rounded up; touched = 1 - miss_k."""
        model, out = self.model, []
        shares = [self._copies_in(level, e) for e in range(self.problem.experts)]
        ids = expert_sets(self.problem)
        for s in range(len(ids)):
            row: list[Linear] = []
            for b in range(len(gpus_of_bins(self.problem.topology, level))):
                before: Linear = self.chance
                for e in ids[s]:
                    miss = model.new_int_var(0, self.chance, f"miss_{level}_{s}_{b}_{e}")
                    model.add(miss <= before)
                    for held, (r, j) in shares[e][b]:
                        slack = j * self.chance * (1 - held) + (r - 1)
                        model.add(r * miss <= (r - j) * before + slack)
                    before = miss
                row.append(self.chance - before)
            out.append(row)
        return out

    def _copies_in(self, level: str, e: int) -> list[list[tuple[cp_model.IntVar, tuple[int, int]]]]:
        """For each bin, literals "expert e has r copies, j >= 1 of them in the bin" with (r, j)."""
        most, out = self.data.most, []
        for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
            found: list[tuple[cp_model.IntVar, tuple[int, int]]] = []
            for r in range(1, most + 1):
                if len(gpus) == 1:
                    found.append((self.y[e][r - 1][gpus[0]], (r, 1)))
                    continue
                counts = [self.model.new_bool_var(f"in_{level}_{e}_{b}_{r}_{j}") for j in range(min(r, len(gpus)) + 1)]
                self.model.add(sum(counts) == self.z[e][r - 1])
                self.model.add(sum(j * c for j, c in enumerate(counts)) == sum(self.y[e][r - 1][g] for g in gpus))
                found += [(c, (r, j)) for j, c in enumerate(counts) if j > 0]
            out.append(found)
        return out

    # Answers

    def add_start(self, slots: IntArray) -> None:
        """Hints a placement, its copies and where they lie."""
        holds = np.zeros((self.problem.experts, self.problem.topology.gpus), dtype=np.int64)
        used = slots != EMPTY
        holds[slots[used], self.problem.hardware.gpu_of_slot[used]] = 1
        for e, row in enumerate(self.x):
            for g, x in enumerate(row):
                self.model.add_hint(x, int(holds[e, g]))
            for r, z in enumerate(self.z[e]):
                self.model.add_hint(z, int(holds[e].sum() == r + 1))

    def placement(self, solver: cp_model.CpSolver) -> IntArray:
        """[slots] of the solver's answer."""
        holds: FloatArray = np.array([[solver.value(x) for x in row] for row in self.x], dtype=np.float64)
        return slots_from(holds, self.problem)

    def bound(self, best_bound: float) -> float:
        """The solver's bound in the scorer's unit."""
        fixed = 0.0 if self.problem.hardware.rates.overlap == "two_batch" else self.data.fixed
        return best_bound / (self.unit * max(1, self.whole)) + fixed


def _tail_units(problem: LayerProblem) -> tuple[list[int], int, bool]:
    """([windows] shares of the tail, units of a whole share, whether they are exact).

    Shares are rounded down, so that the integer objective never exceeds the true one. A whole of 0 stands for the worst
    window alone, where shares only say which windows count.
    """
    if problem.objective.tail >= 1.0:
        return [1] * problem.windows, 0, True
    shares, worst = tail_shares(problem)
    if worst:
        return [int(share > 0) for share in shares], 0, True
    near = [Fraction(float(share)).limit_denominator(TAIL_UNITS) for share in shares]
    whole = math.lcm(*(f.denominator for f in near))
    if whole <= TAIL_UNITS and all(abs(f - share) < 1e-12 for f, share in zip(near, shares, strict=True)):
        return [int(f * whole) for f in near], whole, True
    return [math.floor(share * TAIL_UNITS) for share in shares], TAIL_UNITS, False


_Touch = dict[str, Sequence[Sequence[Linear]]]
