"""The mixed-integer model of one layer, in PuLP. Families as in docs/formulation.md, under the same names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pulp

from placement.arithmetic import weighted_sum
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.experts.exact.coefficients import (
    Coefficients,
    coefficients_of,
    expert_sets,
    gpus_of_bins,
    slots_from,
    tail_shares,
)


class MilpModel:
    """Variables, constraints and objective of one layer. The objective is scaled so that its size is about 1."""

    def __init__(self, problem: LayerProblem) -> None:
        self.problem = problem
        self.data: Coefficients = coefficients_of(problem)
        self.model = pulp.LpProblem("layer", pulp.LpMinimize)
        mean = (
            float(weighted_sum(problem.data.window_weight, self.data.work[:, 1].sum(axis=(0, 2))))
            / problem.topology.gpus
        )
        links = max((float(row.price.sum()) for row in self.data.links), default=0.0)
        speed = float(self.data.speed[problem.hardware.alive].mean())
        self.scale = max(mean / speed + links / problem.topology.gpus, 1e-300)
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
        most, experts, gpus = self.data.most, range(self.problem.experts), range(self.problem.topology.gpus)
        self.x = [[pulp.LpVariable(f"x_{e}_{g}", cat="Binary") for g in gpus] for e in experts]
        if most == 1:
            self.z: list[list[pulp.LpVariable]] = [[] for _ in experts]
            self.y = [[self.x[e]] for e in experts]
        else:
            copies = range(1, most + 1)
            self.z = [[pulp.LpVariable(f"z_{e}_{r}", cat="Binary") for r in copies] for e in experts]
            # Integral by itself once x and z are.
            self.y = [[[pulp.LpVariable(f"y_{e}_{r}_{g}", 0, 1) for g in gpus] for r in copies] for e in experts]

    # Constraints

    def _add_every_expert_placed(self) -> None:
        for row in self.x:
            if self.data.most == 1:
                self.model += pulp.lpSum(row) == 1
            else:
                self.model += pulp.lpSum(row) >= 1

    def _add_every_slot_filled(self) -> None:
        for g in range(self.problem.topology.gpus):
            self.model += pulp.lpSum(row[g] for row in self.x) == int(self.problem.hardware.capacities[g])

    def _add_copies_chosen(self) -> None:
        if self.data.most == 1:
            return
        for e, row in enumerate(self.x):
            self.model += pulp.lpSum(self.z[e]) == 1
            self.model += pulp.lpSum(row) == pulp.lpSum((r + 1) * z for r, z in enumerate(self.z[e]))
            for g, x in enumerate(row):
                self.model += pulp.lpSum(self.y[e][r][g] for r in range(self.data.most)) == x
                for r in range(self.data.most):
                    self.model += self.y[e][r][g] <= self.z[e][r]

    def _add_groups_on_one_node(self) -> None:
        problem = self.problem
        group = problem.rules.group if problem.rules.group is not None else np.zeros(0, dtype=np.int64)
        for value in np.unique(group):
            on = [pulp.LpVariable(f"group_{value}_{n}", cat="Binary") for n in range(problem.topology.nodes)]
            self.model += pulp.lpSum(on) == 1
            for e in np.flatnonzero(group == value):
                for g, node in enumerate(problem.topology.node_of_gpu):
                    self.model += self.x[e][g] <= on[node]

    def _add_fixed_experts(self) -> None:
        for g, e in zip(*self.problem.fixed_pairs, strict=True):
            self.model += self.x[e][g] == 1

    def _add_move_budget(self) -> None:
        held = self.data.held
        if held is not None and self.problem.rules.max_moves is not None:
            new = [self.x[e][g] for g in range(held.shape[0]) for e in range(held.shape[1]) if not held[g, e]]
            self.model += pulp.lpSum(new) <= self.problem.rules.max_moves

    def _add_load_cap(self) -> None:
        cap = self.problem.rules.max_load if self.problem.rules.max_load is not None else float("inf")
        speed = self.problem.hardware.relative_speed
        for g in range(self.problem.topology.gpus):
            terms = [
                float(self.data.pooled[e]) / (r + 1) * self.y[e][r][g]
                for e in range(self.problem.experts)
                for r in range(self.data.most)
            ]
            self.model += pulp.lpSum(terms) <= cap * float(speed[g])

    def _add_symmetry_breaking(self) -> None:
        """Neighbours that could change places, nodes and GPUs of a node, are ordered by their lowest expert."""
        topology = self.problem.topology
        m = topology.gpus_per_node
        for e in range(self.problem.experts):
            for g in range(topology.gpus):
                if self.data.gpu_alike[g]:
                    self.model += self.x[e][g] <= pulp.lpSum(self.x[d][g - 1] for d in range(e + 1))
                if self.data.node_alike[g // m]:
                    before = range((g // m - 1) * m, g // m * m)
                    lower = [self.x[d][h] for d in range(e + 1) for h in before]
                    self.model += self.x[e][g] <= pulp.lpSum(lower)

    # Objective

    def _add_objective(self) -> None:
        problem, data = self.problem, self.data
        touch = self._touch_chances()
        value = []
        for w in range(problem.windows):
            works = [self._busiest_gpu(table[:, w], f"{w}_{k}") for k, table in enumerate(data.work)]
            link = self._busiest_link(touch, w)
            part = pulp.lpSum(works) + link
            if problem.hardware.rates.overlap == "two_batch" and problem.objective.kind == "time":
                larger = [pulp.LpVariable(f"larger_{w}_{k}", 0) for k in range(len(works))]
                for each, work, share, moved in zip(larger, works, data.shares, data.moved, strict=True):
                    self.model += each >= work
                    self.model += each >= float(moved) * link + float(share) * data.fixed / self.scale
                part = pulp.lpSum(larger)
            value.append(part)
        self.model.setObjective(self._over_windows(value))

    def _busiest_gpu(self, table: FloatArray, name: str) -> pulp.LpVariable:
        """At least every GPU's sum of table[copies, expert]."""
        work = pulp.LpVariable(f"work_{name}", 0)
        for g in range(self.problem.topology.gpus):
            terms = [
                float(table[r + 1, e]) / (self.scale * float(self.data.speed[g])) * self.y[e][r][g]
                for e in range(self.problem.experts)
                for r in range(self.data.most)
            ]
            self.model += pulp.lpSum(terms) <= work
        return work

    def _busiest_link(self, touch: _Touch, w: int) -> pulp.LpVariable:
        """At least every link's price in window w."""
        link = pulp.LpVariable(f"link_{w}", 0)
        for row in self.data.links:
            parts: list[pulp.LpAffineExpression] = []
            for b in np.flatnonzero(row.price):
                parts += self._reach(touch, row.level, int(b), w, float(row.price[b]) / self.scale)
            self.model += pulp.lpSum(parts) <= link
        return link

    def _over_windows(self, value: list[pulp.LpAffineExpression]) -> pulp.LpAffineExpression:
        """The mean of the worst `tail` of the windows, in epigraph form."""
        problem = self.problem
        if problem.objective.tail >= 1.0:
            return pulp.lpSum(
                float(weight) * part for weight, part in zip(problem.data.window_weight, value, strict=True)
            )
        shares, worst = tail_shares(problem)
        eta = pulp.LpVariable("eta", 0)
        excess = []
        for w, part in enumerate(value):
            if shares[w] <= 0:
                continue
            if worst:
                self.model += part <= eta
                continue
            over = pulp.LpVariable(f"over_{w}", 0)
            self.model += over >= part - eta
            excess.append(float(shares[w]) * over)
        return eta + pulp.lpSum(excess)

    def _reach(self, touch: _Touch, level: str, b: int, w: int, price: float) -> list[pulp.LpAffineExpression]:
        """Terms of price * P[b] in window w."""
        problem = self.problem
        if self.data.linear:
            return [
                float(problem.data.load[w, e]) / (r + 1) * price * self.y[e][r][g]
                for e in range(problem.experts)
                for r in range(self.data.most)
                for g in gpus_of_bins(self.problem.topology, level)[b]
            ]
        sets = problem.data.sets
        if sets is None:
            return []
        return [float(sets.weight[w, s]) * price * touch[level][s][b] for s in range(len(sets.ids))]

    def _touch_chances(self) -> _Touch:
        """[level][set][bin] chance that a token of the set touches the bin."""
        if self.problem.data.sets is None or self.data.linear:
            return {}
        levels = sorted({row.level for row in self.data.links})
        build = self._touched_single if self.data.most == 1 else self._touched_chain
        return {level: build(level) for level in levels}

    def _touched_single(self, level: str) -> list[list[pulp.LpAffineExpression]]:
        out = []
        for s, experts in enumerate(expert_sets(self.problem)):
            row = []
            for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
                touched = pulp.LpVariable(f"touched_{level}_{s}_{b}", 0, 1)
                for e in experts:
                    self.model += touched >= pulp.lpSum(self.x[e][g] for g in gpus)
                row.append(touched)
            out.append(row)
        return out

    def _touched_chain(self, level: str) -> list[list[pulp.LpAffineExpression]]:
        """miss_i <= v * miss_(i-1) + (1 - v)(1 - literal) for every v = 1 - j/r that expert i's share can leave."""
        shares = [self._copies_in(level, e) for e in range(self.problem.experts)]
        out = []
        for s, experts in enumerate(expert_sets(self.problem)):
            row = []
            for b in range(len(gpus_of_bins(self.problem.topology, level))):
                before: pulp.LpVariable | float = 1.0
                for e in experts:
                    miss = pulp.LpVariable(f"miss_{level}_{s}_{b}_{e}", 0, 1)
                    self.model += miss <= before
                    for held, v in shares[e][b]:
                        self.model += miss <= v * before + (1 - v) * (1 - held)
                    before = miss
                row.append(1 - before)
            out.append(row)
        return out

    def _copies_in(self, level: str, e: int) -> list[list[tuple[pulp.LpVariable, float]]]:
        """For each bin, literals "expert e has r copies, j >= 1 of them in the bin" with the 1 - j/r it leaves."""
        out = []
        for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
            found = []
            for r in range(1, self.data.most + 1):
                if len(gpus) == 1:
                    found.append((self.y[e][r - 1][gpus[0]], 1 - 1 / r))
                    continue
                counts = [
                    pulp.LpVariable(f"in_{level}_{e}_{b}_{r}_{j}", cat="Binary") for j in range(min(r, len(gpus)) + 1)
                ]
                self.model += pulp.lpSum(counts) == self.z[e][r - 1]
                self.model += pulp.lpSum(j * c for j, c in enumerate(counts)) == pulp.lpSum(
                    self.y[e][r - 1][g] for g in gpus
                )
                found += [(c, 1 - j / r) for j, c in enumerate(counts) if j > 0]
            out.append(found)
        return out

    # Answers

    def placement(self) -> IntArray:
        """[slots] of the solved model."""
        holds: FloatArray = np.array([[x.value() or 0.0 for x in row] for row in self.x], dtype=np.float64)
        return slots_from(holds, self.problem)

    def bound(self, value: float) -> float:
        """A bound of the scaled objective in the scorer's unit."""
        fixed = 0.0 if self.problem.hardware.rates.overlap == "two_batch" else self.data.fixed
        return value * self.scale + fixed


_Touch = dict[str, Sequence[Sequence[pulp.LpAffineExpression]]]
