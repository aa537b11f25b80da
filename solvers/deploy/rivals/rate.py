"""Every recipe at its best: its layouts priced as the planner's columns are, and counts by the same master problem."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from placement.cost.step.kernels import KernelTables
from placement.cost.step.roles import Role
from placement.errors import InfeasibleError, NothingFoundError
from solvers.deploy.close import ClosePrices, Settled, settle
from solvers.deploy.columns import Placed, Priced, price_layout
from solvers.deploy.dominance import undominated
from solvers.deploy.problem import Column, MasterProblem
from solvers.deploy.rivals.book import Allowed, Recipe, recipes_of
from solvers.deploy.rivals.layouts import gpus_of, layout_problem, named, with_slots
from specs.scenario import Scenario


@dataclass(frozen=True)
class Rival:
    """A recipe's best deployment.

    Attributes:
        kinds: columns in use and how many instances of each. requests_per_s, gpus: of all of them.
        columns: its layouts, among which they were chosen.
        why: what keeps the recipe from a deployment; "" where it has one.
    """

    name: str
    source: str
    kinds: tuple[tuple[Column, int], ...] = ()
    requests_per_s: float = 0.0
    gpus: int = 0
    columns: tuple[Column, ...] = ()
    why: str = ""

    @property
    def feasible(self) -> bool:
        """Whether the recipe has a deployment."""
        return bool(self.kinds)

    @property
    def ttft_s(self) -> float | None:
        """The slowest of its instances."""
        return max((c.point.ttft_s for c, _ in self.kinds if c.point.ttft_s is not None), default=None)

    @property
    def tpot_s(self) -> float | None:
        """The slowest of its instances."""
        return max((c.point.tpot_s for c, _ in self.kinds if c.point.tpot_s is not None), default=None)


def rivals_of(
    pools: Sequence[Scenario],
    problem: MasterProblem,
    roles: Sequence[Role],
    placed: Placed | None = None,
    kernels: KernelTables | None = None,
    time_limit: float | None = None,
) -> tuple[Rival, ...]:
    """Every recipe's best deployment: best first, then those that have none.

    Args:
        pools: the scenario on each pool's cluster.
        problem: the planner's own, for pools, goal, target and most kinds of instances; its columns are not used.
        roles: that instances may have.
        placed, kernels: what the planner prices its columns with; give it the same.
        time_limit: seconds of each master problem.

    Raises:
        InputError: a training scenario.
    """
    prices = _Prices(pools, placed, kernels)
    found = [_best(recipe, problem, prices, time_limit) for recipe in recipes_of(pools, roles)]
    return tuple(sorted(found, key=lambda rival: _order(problem, rival)))


def settle_with(
    settled: Settled, rivals: Sequence[Rival], close: ClosePrices | None, time_limit: float | None = None
) -> Settled:
    """The answer, made again with the best rival's layouts beside the columns where that rival is better.

    A layout may be worth more with every layer placed than quick prices tell.
    """
    problem, answer = settled.problem, settled.answer
    best = best_rival(rivals)
    if best is None:
        return settled
    better = best.gpus < answer.gpus if problem.goal == "gpus" else best.requests_per_s > answer.requests_per_s
    more = tuple(column for column, _ in best.kinds if column not in problem.columns)
    return settle(replace(problem, columns=problem.columns + more), close, time_limit) if better and more else settled


def best_rival(rivals: Sequence[Rival]) -> Rival | None:
    """The first that has a deployment; None where none has."""
    return next((rival for rival in rivals if rival.feasible), None)


def _order(problem: MasterProblem, rival: Rival) -> tuple[bool, float]:
    return (not rival.feasible, -rival.requests_per_s if problem.goal == "rate" else float(rival.gpus))


class _Prices:
    """Layouts priced once, in whichever recipe they are."""

    def __init__(self, pools: Sequence[Scenario], placed: Placed | None, kernels: KernelTables | None) -> None:
        self.pools, self.placed, self.kernels = pools, placed, kernels
        self._known: dict[tuple[int, str, Role], Priced] = {}

    def __call__(self, pool: int, name: str, role: Role) -> Priced:
        """A layout's columns in a role, or why there are none."""
        key = (pool, name, role)
        if key not in self._known:
            self._known[key] = self._price(pool, name, role)
        return self._known[key]

    def _price(self, pool: int, name: str, role: Role) -> Priced:
        scenario = self.pools[pool]
        pins = scenario.of_role(role).pins
        degrees = with_slots(scenario, named(name))
        problem = layout_problem(scenario, pins, degrees)
        if problem:
            return Priced((), ((role, problem),), False)
        return price_layout(pool, scenario, degrees, pins, (role,), self.placed, self.kernels)


def _best(recipe: Recipe, problem: MasterProblem, prices: _Prices, time_limit: float | None) -> Rival:
    """The best deployment of a recipe's layouts, or why it has none."""
    columns: list[Column] = []
    lacking: dict[Role, Counter[str]] = {}
    for allowed in recipe.allowed:
        reasons = lacking.setdefault(allowed.role, Counter())
        for priced in _priced(allowed, prices):
            columns += priced.columns
            reasons.update(reason for _, reason in priced.lacking)
    kept = [
        column
        for index, pool in enumerate(problem.pools)
        for column in undominated([c for c in columns if c.pool == index], pool.gpus_per_node, Counter())
    ]
    failed = Rival(recipe.name, recipe.source)
    asked = replace(problem, columns=tuple(kept))
    if not asked.serves:
        roles = {column.role for column in kept}
        return replace(failed, why="; ".join(_told(role, why) for role, why in lacking.items() if role not in roles))
    return _answered(failed, asked, None, time_limit)


def _answered(rival: Rival, problem: MasterProblem, close: ClosePrices | None, time_limit: float | None) -> Rival:
    """The recipe with the best deployment of the problem's columns."""
    try:
        settled = settle(problem, close, time_limit)
    except (InfeasibleError, NothingFoundError) as error:
        return replace(rival, kinds=(), why=str(error))
    found = settled.answer
    if found.requests_per_s <= 0:
        return replace(rival, kinds=(), why="its instances do not fit the nodes together")
    kinds = tuple((column, n) for column, n in zip(settled.problem.columns, found.counts, strict=True) if n)
    return replace(
        rival, kinds=kinds, requests_per_s=found.requests_per_s, gpus=found.gpus, columns=settled.problem.columns
    )


def nearest_rivals(
    rivals: Sequence[Rival],
    problem: MasterProblem,
    close: ClosePrices | None,
    most: int,
    time_limit: float | None = None,
) -> tuple[Rival, ...]:
    """The first `most` rivals that have a deployment, no two alike, at close prices: best first.

    Args:
        rivals: of `rivals_of`. problem: see there. close: prices of what they use; None: theirs stand.
    """
    apart: dict[tuple[object, ...], Rival] = {}
    for rival in rivals:
        # Several recipes may come to the same instances: the first names them.
        key = tuple((c.pool, c.role, c.cp, replace(c.split, batch=1, microbatches=1), n) for c, n in rival.kinds)
        if rival.feasible and len(apart) < most:
            apart.setdefault(key, rival)
    found = [_answered(rival, replace(problem, columns=rival.columns), close, time_limit) for rival in apart.values()]
    return tuple(sorted((rival for rival in found if rival.feasible), key=lambda rival: _order(problem, rival)))


def _told(role: Role, reasons: Counter[str]) -> str:
    return f"{role}: " + (reasons.most_common(1)[0][0] if reasons else "no layout")


def _priced(allowed: Allowed, prices: _Prices) -> list[Priced]:
    """The allowed layouts; where only the smallest are, those on the fewest GPUs that hold the model or on twice."""
    found = []
    least: int | None = None
    for name in allowed.layouts:
        gpus = gpus_of(name)
        if allowed.smallest and least is not None and gpus > 2 * least:
            break
        priced = prices(allowed.pool, name, allowed.role)
        if priced.fits and least is None:
            least = gpus
        found.append(priced)
    return found
