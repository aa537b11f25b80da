"""The exact model of a layer's placement, whatever language it is written in; docs/formulation.md names its methods.

Coefficients are rounded down and limits up where a language counts in integers (Backend.down, Backend.up): the integer
optimum then never exceeds the true one, and the solver's bound, scaled back, is valid as it is.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np

from placement.arithmetic import weighted_sum
from placement.cost.layer.tariff import BinLevel
from placement.problem.arrays import FloatArray, IntArray
from placement.problem.layer import LayerProblem
from solvers.base import Features
from solvers.experts.exact.backend import Backend, Linear, Value, Variable
from solvers.experts.exact.coefficients import (
    bin_of_gpu,
    coefficients_of,
    expert_sets,
    gpus_of_bins,
    numbers_of,
    slots_from,
)
from solvers.experts.exact.patterns import Patterns

Language = TypeVar("Language", bound=Backend)

#: What the solvers of this model can take into account.
EXACT = Features(
    traffic=True, dispatch=("even", "nearest", "token_hash", "sglang_static", "sglang_dynamic"), groups=True,
    moves=True, fixed=True, uneven=True, windows=True, tails=True, proves=True, note="exact on small layers",
)  # fmt: skip


class LayerModel(Generic[Language]):
    """The model of a layer: variables, constraints and objective.

    Raises:
        UnsupportedError: See solvers.experts.exact.coefficients.coefficients_of.
    """

    def __init__(self, problem: LayerProblem, model: Language) -> None:
        self.problem, self.data, self.model = problem, coefficients_of(problem), model
        self.units, self.tariff = model.units(problem, self.data), self.data.tariff
        self.experts = range(problem.experts)
        self.gpus: list[int] = np.flatnonzero(problem.hardware.capacities).tolist()
        self._touch: dict[BinLevel, list[list[Linear]]] = {}
        self._add_variables()
        self._add_every_expert_placed()
        self._add_every_slot_filled()
        self._add_copies_chosen()
        self._add_groups_on_one_node()
        self._add_fixed_experts()
        self._add_move_budget()
        self._add_load_cap()
        if problem.rules.current is None:
            self._add_symmetry_breaking()
        self.model.minimize(self._over_windows())

    # Variables

    def _add_variables(self) -> None:
        """x[e][g]: e is on g; with replicas z[e][r]: its copies lie in way r, and y[e][r][g]: and one of them is on g.

        A way is how many copies there are; where homes dispatch differently, it is a pattern.
        """
        self.x: dict[int, dict[int, Variable]] = {}
        self.z: dict[int, dict[int, Variable]] = {}
        self.y: dict[int, dict[int, dict[int, Variable]]] = {}
        for e in self.experts:
            self.x[e] = {g: self.model.boolean(f"x_{e}_{g}") for g in self.gpus}
            if self.data.patterns is not None:
                ways = self.data.patterns.holds
                self.z[e] = {r: self.model.implied(f"z_{e}_{r}") for r in range(len(ways))}
                self.y[e] = {r: dict.fromkeys(np.flatnonzero(ways[r]).tolist(), z) for r, z in self.z[e].items()}
                continue
            counts = range(1, min(self.tariff.most_copies, len(self.gpus)) + 1)
            if len(counts) == 1:
                self.y[e], self.z[e] = {1: self.x[e]}, {1: self.model.constant(1)}
                continue
            self.z[e] = {r: self.model.boolean(f"z_{e}_{r}") for r in counts}
            self.y[e] = {r: {g: self.model.implied(f"y_{e}_{r}_{g}") for g in self.gpus} for r in counts}

    # Constraints

    def _add_every_expert_placed(self) -> None:
        for row in self.x.values():
            if self.tariff.most_copies == 1:
                self.model.exactly_one(row.values())
            else:
                self.model.add(self.model.total(row.values()) >= 1)

    def _add_every_slot_filled(self) -> None:
        for g in self.gpus:
            room = int(self.problem.hardware.capacities[g])
            self.model.add(self.model.total(row[g] for row in self.x.values()) == room)

    def _add_copies_chosen(self) -> None:
        total = self.model.total
        for e, options in self.z.items():
            if len(options) == 1:
                continue
            self.model.exactly_one(options.values())
            if self.data.patterns is None:
                self.model.add(total(self.x[e].values()) == total(r * z for r, z in options.items()))
            for g, x in self.x[e].items():
                self.model.add(total(y[g] for y in self.y[e].values() if g in y) == x)
                for r, z in options.items() if self.data.patterns is None else ():
                    self.model.implies_any(self.y[e][r][g], [z])

    def _add_groups_on_one_node(self) -> None:
        group = self.problem.rules.group
        if group is None:
            return
        for value in np.unique(group):
            on = [self.model.boolean(f"group_{value}_{n}") for n in range(self.problem.topology.nodes)]
            self.model.exactly_one(on)
            for e in np.flatnonzero(group == value).tolist():
                for g, x in self.x[e].items():
                    self.model.implies_any(x, [on[g // self.problem.topology.gpus_per_node]])

    def _add_fixed_experts(self) -> None:
        for g, e in zip(*self.problem.fixed_pairs, strict=True):
            self.model.add(self.x[int(e)][int(g)] == 1)

    def _add_move_budget(self) -> None:
        held = self.data.held
        if held is not None and self.problem.rules.max_moves is not None:
            new = [x for e, row in self.x.items() for g, x in row.items() if not held[g, e]]
            self.model.add(self.model.total(new) <= self.problem.rules.max_moves)

    def _add_load_cap(self) -> None:
        if self.problem.rules.max_load is None:
            return
        speed, table = self.problem.hardware.relative_speed, self.data.by_way(self.data.pooled) * self.units.load
        for g in self.gpus:
            most = self.model.up(self.problem.rules.max_load * float(speed[g]) * self.units.load)
            self.model.add(self.model.total(self._on_gpu(g, table)) <= most)

    def _add_symmetry_breaking(self) -> None:
        """Neighbours that could change places, nodes and GPUs of a node, are ordered by their lowest expert."""
        m = self.problem.topology.gpus_per_node
        for e, row in self.x.items():
            for g, x in row.items():
                if self.data.gpu_alike[g]:
                    self.model.implies_any(x, [self.x[d][g - 1] for d in range(e + 1)])
                if self.data.node_alike[g // m]:
                    before = range((g // m - 1) * m, g // m * m)
                    lower = [self.x[d][h] for d in range(e + 1) for h in before if h in self.x[d]]
                    self.model.implies_any(x, lower)

    # Objective

    def _over_windows(self) -> Linear:
        """The mean of the windows, or of the worst `tail` of them in epigraph form (Rockafellar and Uryasev 2000)."""
        units, total = self.units, self.model.total
        mean = self.problem.objective.tail >= 1.0
        windows = [w for w in range(self.problem.windows) if units.shares[w] > 0]
        # For the mean a window's weight is in its prices.
        values = [self._window_value(w, units.objective * (units.shares[w] if mean else 1.0)) for w in windows]
        if mean:
            return total(values)
        top = 2 * units.top + self.model.up(self.tariff.wait_s * units.objective)
        eta, excess = self.model.amount("eta", top), []
        for w, value in zip(windows, values, strict=True):
            if units.whole == 0:
                self.model.add(value <= eta)
                continue
            over = self.model.amount(f"over_{w}", top)
            self.model.add(over >= value - eta)
            excess.append(units.shares[w] * over)
        return max(1, units.whole) * eta + total(excess)

    def _window_value(self, w: int, scale: float) -> Linear:
        """At least the window's value, without what no placement changes unless that may hide behind work."""
        works = [self._busiest_gpu(table[:, w] * scale) for table in self.data.work]
        if not self.tariff.overlapped:
            return self.model.total(works) + self._busiest_link(w, scale)
        larger: list[Linear] = []
        for work, share, moved in zip(works, self.data.shares, self.data.moved, strict=True):
            # Latency counts with the messages; `fixed` is added back in the bound.
            wait = self.model.down(self.tariff.wait_s * float(share) * scale)
            larger.append(self.model.amount(f"larger_{w}", 2 * self.units.top + wait))
            self.model.add(larger[-1] >= work)
            self.model.add(larger[-1] >= self._busiest_link(w, scale * float(moved)) + wait)
        return self.model.total(larger)

    def _busiest_gpu(self, table: FloatArray) -> Variable:
        """At least every GPU's sum of table[way, expert, gpu] over its speed."""
        work = self.model.amount("work", self.units.top)
        for g in self.gpus:
            self.model.add(self.model.total(self._on_gpu(g, table, float(self.tariff.speeds[g]))) <= work)
        return work

    def _busiest_link(self, w: int, scale: float) -> Variable:
        """At least every link's price in window w, times `scale`."""
        link = self.model.amount(f"link_{w}", self.units.top, self.model.down(self.tariff.least_link * scale))
        for row in self.data.links:
            terms = self._reach(row.level, w, row.price * scale)
            if terms:
                self.model.add(self.model.total(terms) <= link)
        return link

    def _on_gpu(self, g: int, table: FloatArray, divisor: float = 1.0) -> list[Linear]:
        """Terms of the sum of table[way, expert, gpu] / divisor over what g holds."""
        down = self.model.down
        return [
            down(float(table[r, e, g]) / divisor) * y[g] for e in self.experts for r, y in self.y[e].items() if g in y
        ]

    def _reach(self, level: BinLevel, w: int, price: FloatArray) -> list[Linear]:
        """Terms of sum(price[b] * P[w, b]) over bins, or places of the patterns."""
        sets, load, patterns = self.problem.data.sets, self.problem.data.load[w], self.data.patterns
        if self.tariff.linear or sets is None:
            # P counts copies: linear in what GPUs hold.
            if patterns is not None:
                cost, down = weighted_sum(price, patterns.shares[level].T), self.model.down
                return [down(float(load[e] * cost[r])) * z for e in self.experts for r, z in self.z[e].items()]
            bins, table = bin_of_gpu(self.problem.topology, level), self.data.by_way(load)
            holds = [(b, g) for b in np.flatnonzero(price) for g in self.gpus if bins[g] == b]
            return [term for b, g in holds for term in self._on_gpu(g, table * price[b])]
        if self.tariff.most_copies == 1:
            touched, units = self._touched_single, 1
        elif self.tariff.together:
            touched, units = self._touched_together, numbers_of(self.tariff)
        else:
            touched, units = self._touched_chain, self.units.chance
        if level not in self._touch:
            self._touch[level] = touched(level)
        touch = self._touch[level]
        return [
            self.model.down(float(sets.weight[w, s]) * float(price[b]) / units) * touch[s][b]
            for b in np.flatnonzero(price)
            for s in np.flatnonzero(sets.weight[w])
        ]

    def _touched_single(self, level: BinLevel) -> list[list[Linear]]:
        """[set][bin] whether a set touches the bin, where every expert has one copy."""
        out = []
        for s, experts in enumerate(expert_sets(self.problem)):
            row: list[Linear] = []
            for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
                touched = self.model.implied(f"touched_{level}_{s}_{b}")
                for e in experts:
                    self.model.add(self.model.total(self.x[e][g] for g in gpus if g in self.x[e]) <= touched)
                row.append(touched)
            out.append(row)
        return out

    def _touched_together(self, level: BinLevel) -> list[list[Linear]]:
        """[set][bin] with how many of the numbers that pick copies (Tariff.together) a set touches the bin."""
        takes, numbers = [self._copies_in_order(e) for e in self.experts], range(numbers_of(self.tariff))
        out = []
        for s, experts in enumerate(expert_sets(self.problem)):
            row: list[Linear] = []
            for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
                touched = [self.model.implied(f"touched_{level}_{s}_{b}_{u}") for u in numbers]
                for e in experts:
                    for u in numbers:
                        served = [n[u % r][g] for r, n in takes[e].items() for g in gpus if g in n[u % r]]
                        self.model.add(self.model.total(served) <= touched[u])
                row.append(self.model.total(touched))
            out.append(row)
        return out

    def _copies_in_order(self, e: int) -> dict[int, list[dict[int, Variable]]]:
        """For each number r of copies, n[i][g]: expert e has r copies, and the i-th in the order of GPUs is on g."""
        found, total = {}, self.model.total
        for r, z in self.z[e].items():
            n = [{g: self.model.implied(f"copy_{e}_{r}_{i}_{g}") for g in self.gpus} for i in range(r)]
            for i, row in enumerate(n):
                self.model.add(total(row.values()) == z)
                for g, here in row.items() if i else ():
                    self.model.add(here <= total(n[i - 1][h] for h in self.gpus if h < g))
            for g in self.gpus:
                self.model.add(total(row[g] for row in n) == self.y[e][r][g])
            found[r] = n
        return found

    def _touched_chain(self, level: BinLevel) -> list[list[Linear]]:
        """[set][bin or place] chance of a touch: miss_i <= (1 - share of expert i) miss_(i-1), touched = 1 - miss_k."""
        alike, patterns = self._copies_in, self.data.patterns
        shares = [alike(level, e) if patterns is None else self._patterns_in(patterns, level, e) for e in self.experts]
        one, out = self.units.chance, []
        for s, experts in enumerate(expert_sets(self.problem)):
            row: list[Linear] = []
            for b in range(len(shares[0])):
                before: Linear = one
                for e in experts:
                    miss = self.model.amount(f"miss_{level}_{s}_{b}_{e}", one)
                    self.model.add(miss <= before)
                    for held, r, j in shares[e][b]:
                        slack = j * one * (1 - held) + (r - 1) * self.model.product_slack
                        self.model.add(r * miss <= (r - j) * before + slack)
                    before = miss
                row.append(one - before)
            out.append(row)
        return out

    def _copies_in(self, level: BinLevel, e: int) -> list[list[tuple[Variable, int, int]]]:
        """For each bin, literals "expert e has r copies, j >= 1 of them in the bin" with r and j."""
        out = []
        for b, gpus in enumerate(gpus_of_bins(self.problem.topology, level)):
            found: list[tuple[Variable, int, int]] = []
            among = [g for g in gpus if g in self.x[e]]
            for r, z in self.z[e].items() if among else ():
                if len(among) == 1:
                    found.append((self.y[e][r][among[0]], r, 1))
                    continue
                counts = [self.model.boolean(f"in_{level}_{e}_{b}_{r}_{j}") for j in range(min(r, len(among)) + 1)]
                self.model.add(self.model.total(counts) == z)
                inside = self.model.total(j * c for j, c in enumerate(counts))
                self.model.add(inside == self.model.total(self.y[e][r][g] for g in among))
                found += [(c, r, j) for j, c in enumerate(counts) if j > 0]
            out.append(found)
        return out

    def _patterns_in(self, patterns: Patterns, level: BinLevel, e: int) -> list[list[tuple[Variable, int, int]]]:
        """As `_copies_in` for each place: literals "expert e's copies lie so that j/r of its tokens go there"."""
        out = []
        for n, by_share in enumerate(patterns.by_share(level)):
            found: list[tuple[Variable, int, int]] = []
            for share, lie in by_share.items():
                r, j = share.denominator, share.numerator
                found.append((self.model.implied(f"in_{level}_{e}_{n}_{r}_{j}"), r, j))
                self.model.add(found[-1][0] == self.model.total(self.z[e][p] for p in lie.tolist()))
            out.append(found)
        return out

    # Answers

    def add_start(self, slots: IntArray) -> None:
        """Hints a placement [slots]."""
        held = self.problem.held(slots)
        for e, row in self.x.items():
            for g, x in row.items():
                self.model.hint(x, int(held[g, e]))
            if len(self.z[e]) > 1:
                patterns = self.data.patterns
                way = int(held[:, e].sum()) if patterns is None else patterns.pattern_of(held[:, e])
                for r, z in self.z[e].items():
                    self.model.hint(z, int(way == r))

    def placement(self, value: Value) -> IntArray:
        """[slots] of an answer."""
        holds = np.zeros((self.problem.experts, self.problem.topology.gpus))
        for e, row in self.x.items():
            for g, x in row.items():
                holds[e, g] = value(x)
        return slots_from(holds, self.problem)

    def bound(self, value: float) -> float:
        """A bound of the model's objective in the scorer's unit."""
        fixed = 0.0 if self.tariff.overlapped else self.tariff.wait_s
        return value / (self.units.objective * max(1, self.units.whole)) + fixed
