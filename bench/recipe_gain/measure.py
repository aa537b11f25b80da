"""One scenario: the planner's answer and every recipe's, from columns that are priced alike, by the same master."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.cost.step.roles import Role, kv_bytes_per_request
from placement.errors import InfeasibleError, NothingFoundError
from placement.routing.holdout import routing_of, synthetic_source
from solvers.deploy.balance import PlacedLayers
from solvers.deploy.close import ClosePrices, settle
from solvers.deploy.columns import list_columns, pool_of
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.rivals.layouts import name_of
from solvers.deploy.rivals.rate import Rival, best_rival, nearest_rivals, rivals_of, settle_with
from solvers.split.degrees import Degrees
from specs.scenario import Scenario

ROLES: tuple[Role, ...] = ("aggregated", "prefill", "decode")
#: Kinds of instances that people operate: one that prefills and one that decodes, or two that serve.
FEW = 2
#: Rates within this share of each other are the same.
SAME = 1e-4
#: Recipes that are priced with every layer placed: the best by quick prices.
CLOSELY = 4

Kinds = tuple[tuple[Column, int], ...]


@dataclass(frozen=True)
class Answer:
    """The planner's deployment and the best recipes', with as many kinds of instances; best recipe first.

    Attributes:
        kinds: empty where nothing is feasible, and then why.
    """

    kinds: Kinds
    requests_per_s: float
    gpus: int
    rivals: tuple[Rival, ...]
    why: str = ""

    @property
    def best(self) -> Rival | None:
        """The best recipe."""
        return best_rival(self.rivals)

    @property
    def gain(self) -> float | None:
        """The planner's rate over the best recipe's; None where no recipe is feasible."""
        return self.requests_per_s / self.best.requests_per_s if self.best else None


@dataclass(frozen=True)
class Row:
    """A scenario: answers of at most FEW kinds of instances and of any number, and seconds of planner and rivals."""

    name: str
    kind: str
    gpus: int
    osl: int
    few: Answer
    any: Answer
    plan_s: float
    rivals_s: float


def measure(name: str, kind: str, pools: Sequence[Scenario]) -> Row:
    """The planner and all recipes on one scenario.

    Args:
        pools: the scenario on each pool's cluster.
    """
    scenario = pools[0]
    workload = scenario.workload
    if workload.kind != "serving":
        raise TypeError(f"{name} does not serve")
    source = synthetic_source(scenario, 0)
    statistics = routing_of((source,), scenario.model.moe.computed_top_k, windows=1, mixture=False).solved_on
    layers, close = PlacedLayers(statistics), ClosePrices(pools, statistics)
    started = time.perf_counter()
    redundant = None if scenario.redundant == "auto" else int(scenario.redundant)
    columns = list_columns(pools, ROLES, scenario.pins, redundant, layers).columns
    problem = MasterProblem(tuple(pool_of(pool) for pool in pools), columns, kv_bytes_per_request(scenario))
    planned = time.perf_counter() - started
    answers, took = [], 0.0
    for few in (True, False):
        asked = replace(problem, max_kinds=FEW) if few else problem
        started = time.perf_counter()
        quick = rivals_of(pools, asked, ROLES, layers)
        took = max(took, time.perf_counter() - started)
        nearest = nearest_rivals(quick, asked, close, CLOSELY)
        rivals = (*nearest, *(rival for rival in quick if not rival.feasible))
        answers.append(_answer(asked, close, rivals))
    gpus = sum(pool.cluster.gpus for pool in pools)
    return Row(name, kind, gpus, workload.osl, answers[0], answers[1], planned, took)


def _answer(problem: MasterProblem, close: ClosePrices, rivals: tuple[Rival, ...]) -> Answer:
    if not problem.columns:
        return Answer((), 0.0, 0, rivals, "no configuration is feasible")
    try:
        settled = settle(problem, close)
    except (InfeasibleError, NothingFoundError) as error:
        return Answer((), 0.0, 0, rivals, str(error))
    settled = settle_with(settled, rivals, close)
    found = settled.answer
    if found.requests_per_s <= 0:
        return Answer((), 0.0, 0, rivals, "no instances that serve whole requests fit the nodes together")
    kinds = tuple((c, n) for c, n in zip(settled.problem.columns, found.counts, strict=True) if n)
    return Answer(kinds, found.requests_per_s, found.gpus, rivals)


def layout_of(column: Column) -> str:
    """A column's layout by its short name."""
    split = column.split
    name = name_of(Degrees(split.tp, split.ep, split.pp, split.dp, 0))
    return f"{name} CP{column.cp}" if column.cp > 1 else name


def told(kinds: Kinds) -> str:
    """A deployment in words: counts, layouts and roles."""
    order = sorted(kinds, key=lambda kind: (kind[0].role, -kind[0].gpus * kind[1]))
    return ", ".join(f"{n} {c.role} {layout_of(c)}" for c, n in order)


def reason(answer: Answer) -> str:
    """Why the planner's deployment beats the best recipe: what each role's instances yield per GPU, and idle GPUs."""
    best = answer.best
    if best is None:
        return "no recipe is feasible: " + next((rival.why for rival in answer.rivals), "")
    if not answer.kinds:
        return answer.why
    if abs(answer.requests_per_s / best.requests_per_s - 1) <= SAME:
        return "the recipe is as good"
    parts = []
    for role in ROLES:
        mine, theirs = ([(c, n) for c, n in kinds if c.role == role] for kinds in (answer.kinds, best.kinds))
        if not mine or not theirs:
            if mine or theirs:
                parts.append(f"{role} {'is added' if mine else 'is left out'}")
            continue
        ratio = _per_gpu(mine) / _per_gpu(theirs)
        names = [" + ".join(dict.fromkeys(layout_of(c) for c, _ in kinds)) for kinds in (mine, theirs)]
        if names[0] != names[1] or abs(ratio - 1) > SAME:
            parts.append(f"{role} {names[0]} for {names[1]} ({ratio:.2f}x a GPU)")
    if answer.gpus != best.gpus:
        parts.append(f"{answer.gpus} GPUs in use for {best.gpus}")
    return "; ".join(parts) or "other counts of the same instances"


def _per_gpu(kinds: Sequence[tuple[Column, int]]) -> float:
    return sum(c.point.requests_per_s * n for c, n in kinds) / sum(c.gpus * n for c, n in kinds)
