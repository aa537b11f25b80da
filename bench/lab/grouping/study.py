"""Four ways to group experts, judged by the scorer on routing that none of them saw."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.lab.harness import TIE
from bench.lab.render import shown
from bench.lab.studies import role_name, step_ms, studied
from bench.lab.target import Figure, LabCase, Outcome, Table
from placement.cost.assess import Assessor
from placement.cost.figures import Placement, score_placement
from placement.cost.own_batch import BatchFit
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import at_batch
from placement.planning.progress import Reporter
from placement.planning.strategies import place, placement_of_answers
from placement.records.convert import placement_of, tokens_per_s
from placement.records.plan import Plan
from placement.records.role import RolePlan

#: The ways, in the order of the table: what a plan's strategies are called, and what they are.
WAYS: Mapping[str, str] = {
    "hash": "naive (hash)", "locality": "locality-aware", "eplb": "latency-balanced", "solved": "solved",
}  # fmt: skip


@dataclass(frozen=True)
class Grouped:
    """One way on the studied role.

    Attributes:
        nodes: Distinct nodes that serve a token. tail_us: p99 over windows of a mean MoE layer.
        throughput: Tokens/s of the whole plan. rate: Of the studied role's instances by themselves.
    """

    name: str
    throughput: float
    rate: float
    step_ms: float | None
    nodes: float | None
    balancedness: float
    cross_bytes: float
    layer_us: float
    tail_us: float
    placement: Placement = field(compare=False, repr=False)


@dataclass(frozen=True)
class Study:
    """All ways on one scenario."""

    plan: Plan
    role: RolePlan
    ways: tuple[Grouped, ...]
    note: str

    def hashed(self) -> Outcome:
        """The baseline."""
        return self._outcome(self.ways[0])

    def best(self) -> Outcome:
        """The way that serves most; the solver's where several do."""
        return self._outcome(self.winner, whole=True)

    @property
    def winner(self) -> Grouped:
        """The way that serves most."""
        return max(reversed(self.ways), key=lambda way: way.throughput)

    def _outcome(self, way: Grouped, whole: bool = False) -> Outcome:
        figures = [
            Figure("balancedness", way.balancedness, "", "higher"),
            Figure("MoE layer", way.layer_us, "us", "lower"),
            Figure("MoE layer p99", way.tail_us, "us", "lower"),
            Figure("bytes between nodes a token", way.cross_bytes, "B", "lower"),
        ]
        if way.nodes is not None:
            figures.insert(0, Figure("nodes per token", way.nodes, "", "lower"))
        made = Outcome(WAYS[way.name], way.step_ms, way.throughput, figures=tuple(figures))
        if not whole:
            return made
        rows = tuple(
            (
                WAYS[each.name], shown(each.throughput), shown(each.nodes), f"{each.balancedness:.3f}",
                shown(each.layer_us), shown(each.tail_us),
            )
            for each in self.ways
        )  # fmt: skip
        header = ("grouping", "tokens/s", "nodes a token", "balancedness", "layer us", "p99 us")
        table = Table(f"{role_name(self.role)}, on routing held out", header, rows, self.ways.index(way))
        spec = self.plan.scenario.name
        return Outcome(
            made.label, made.step_ms, made.throughput, figures=made.figures, tables=(table,),
            notes=(self.note,) if self.note else (), tie=self._tie(way),
            production=(
                "placement trace record --help        # routing of your own traffic first",
                f"placement solve --spec {spec} --trace trace.npz --out plan.json",
                "placement verify plan.json && placement export plan.json --to vllm --out deploy",
            ),
        )  # fmt: skip

    def _tie(self, way: Grouped) -> str:
        """Why no grouping serves more than the hash does."""
        role, first = self.role, self.ways[0]
        if role.topology.gpus == 1:
            return "each instance of the plan has all experts on one GPU: there is nothing to group"
        gain = max(each.rate for each in self.ways) / first.rate - 1
        others = [each.role for each in self.plan.roles if each is not role]
        if others and gain > TIE:
            return f"{' and '.join(others)} instances limit the whole: {role.role} alone would serve {gain:.1%} more"
        if way.layer_us < first.layer_us:
            limits = ", ".join(role.binds) or "another limit"
            return (
                f"the layers are {1 - way.layer_us / first.layer_us:.1%} quicker, but {limits} allows no larger batch"
            )
        return "the layers' time is the same however experts are grouped"


def study(case: LabCase[Any], windows: int) -> Study:
    """The ways on a case; what both sides ask is computed once."""
    return case.planner.once(("grouping", case.scenario.model_dump_json(), windows), lambda: _study(case, windows))


def _study(case: LabCase[Any], windows: int) -> Study:
    plan = case.plan()
    at = studied(plan)
    role = plan.roles[at]
    posed, note = case.planner.case(case.scenario), ""
    scenario, split = plan.scenario_of(role), role.split.split()
    routing, tails = case.planner.routing(case.scenario), case.planner.routing(case.scenario, windows)
    placements: dict[str, Placement] = {}
    for name in WAYS:
        found = role.strategy(name)
        if found is not None:
            placements[name] = placement_of(role, found)
    if role.topology.gpus > role.topology.gpus_per_node:
        near = layer_problems(scenario, split, role.phase, routing.solved_on, "traffic")
        stop = posed.effort.stop()
        answers = place(near, "search", stop, posed.effort, Reporter(), posed.balance_floor, certify=False)
        placements["locality"] = placement_of_answers(answers)
    else:
        note = "All experts of an instance lie inside one node: there is no locality between nodes to gain."
    problems = layer_problems(scenario, split, role.phase, tails.judged_on)
    ways = []
    for name in WAYS:
        if name not in placements:
            continue
        strategy = role.strategy(name)
        if strategy is None:
            rate, step = _rate(plan, at, placements[name], case)
        else:
            own = strategy.at_own_batch
            rate = strategy.tokens_per_s if own is None else own.tokens_per_s
            step = own.tpot_ms if own is not None else None
            if role.role == "training":
                step = step_ms(plan, (name,))
        rates = {i: each.predicted.tokens_per_s.value for i, each in enumerate(plan.roles)} | {at: rate}
        scores = score_placement(problems, placements[name])
        tail = float(np.percentile(np.mean([score.window_value for score in scores], axis=0), 99)) * 1e6
        judged = layer_problems(scenario, split, role.phase, routing.judged_on)
        told = score_placement(judged, placements[name])
        nodes = float(np.mean([score.nodes_per_token for score in told]))
        ways.append(
            Grouped(
                name, tokens_per_s(plan.scenario.spec, plan.roles, rates), rate, step,
                None if np.isnan(nodes) else nodes,
                float(np.mean([score.balancedness for score in told])),
                float(np.mean([score.cross_node_bytes_per_token for score in told])),
                float(np.mean([score.time_s for score in told])) * 1e6, tail, placements[name],
            )
        )  # fmt: skip
    return Study(plan, role, tuple(ways), note)


def _rate(plan: Plan, at: int, placement: Placement, case: LabCase[Any]) -> tuple[float, float | None]:
    """(Tokens/s of a role, milliseconds of its step) with a placement at its own batch, on the routing held out."""
    role, routing = plan.roles[at], case.planner.routing(case.scenario)
    scenario, split = plan.scenario_of(role), role.split.split()
    if role.role == "training":
        made = Assessor(scenario, split, role.phase, routing.judged_on, role="training").assess(placement).prediction
        return made.tokens_per_s, None if made.step is None else made.step.step_s * 1e3
    found = BatchFit(scenario, role.role, split, routing.solved_on, cp=role.cp).fit(placement, role.posed_batch)
    judge = BatchFit(scenario, role.role, at_batch(split, found.batch), routing.judged_on, cp=role.cp)
    made = judge.operated(placement, found).prediction
    return made.tokens_per_s, None if made.tpot_s is None else made.tpot_s * 1e3
