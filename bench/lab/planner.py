"""Plans for the lab's targets: budgets by profile, and nothing planned twice in a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from bench.lab.target import Profile
    from placement.planning.case import Case
    from placement.planning.effort import Budget
    from placement.planning.progress import OnProgress
    from placement.records.plan import Plan
    from placement.routing.holdout import Routing
    from specs.scenario import Scenario

#: Effort of the search, tokens of synthetic routing at most, and load windows of each trace. Searching a little is
#: quicker than proving that there is nothing to find: no gap is good enough.
MINIMAL_WORK, MINIMAL_TOKENS, MINIMAL_WINDOWS, MINIMAL_GAP = 0.1, 1024, 1, 0.0


T = TypeVar("T")


class Planner:
    """Plans a scenario; the same question is answered once."""

    def __init__(
        self, profile: Profile = "minimal", seed: int = 0, workers: int = 0, on_progress: OnProgress | None = None
    ) -> None:
        self.profile = profile
        self.seed = seed
        self.workers = workers
        self._on_progress = on_progress
        self._made: dict[Any, Any] = {}

    @property
    def budget(self) -> Budget:
        """When solving stops."""
        from placement.planning.effort import Budget

        return Budget(work=MINIMAL_WORK, gap=MINIMAL_GAP) if self.profile == "minimal" else Budget()

    def sized(self, scenario: Scenario) -> Scenario:
        """The scenario with no more synthetic routing than the profile takes."""
        from placement.planning.tokens import with_tokens

        if self.profile == "full" or scenario.routing.tokens <= MINIMAL_TOKENS:
            return scenario
        return with_tokens(scenario, MINIMAL_TOKENS)

    def plan(self, scenario: Scenario, **asked: Any) -> Plan:
        """A plan by `placement.plan_scenario`.

        Args:
            scenario: What is planned.
            asked: Arguments of plan_scenario, such as `strategy="hash"`, `mode="aggregated"` or `deployment=plan`
                (which keeps a plan's instances and places experts anew); budget, seed and workers are the planner's.
                `told=True` also prices runners-up and published recipes, as the full profile always does.

        Raises:
            InputError, InfeasibleError, NothingFoundError: see plan_scenario.
        """
        from placement.planning.solve import solve

        key = ("plan", scenario.model_dump_json(), *sorted((name, _key(value)) for name, value in asked.items()))

        def made() -> Plan:
            told = asked.pop("told", self.profile == "full")
            # Runners-up, recipes and the strongest bounds take as long as the plan.
            return solve(replace(self.case(scenario, **asked), told=told, certify=self.profile == "full")).plan

        return self.once(key, made)

    def case(self, scenario: Scenario, **asked: Any) -> Case:
        """The planner's question, with the profile's budget; see `plan`. Its synthetic routing is made once for all."""
        from placement.planning.case import make_case

        if self.profile == "minimal":
            asked = {"windows": MINIMAL_WINDOWS, **asked}
        made = make_case(
            self.sized(scenario), budget=self.budget, seed=self.seed, workers=self.workers,
            on_progress=self._on_progress, **asked,
        )  # fmt: skip
        model, knobs = made.scenario.model, made.scenario.routing
        key = ("sources", model.model_dump_json(), knobs.model_dump_json())
        return made if made.sources else replace(made, sources=self.once(key, made.routing_sources))

    def routing(self, scenario: Scenario, windows: int | None = None) -> Routing:
        """The routing that the scenario's plan is solved and judged on, the judging part in so many windows."""
        from placement.planning.solve import read_routing
        from placement.routing.holdout import routing_of

        posed = self.case(scenario)
        # A plan's own scenario is sized already: it has the routing of the scenario that was asked.
        asked = posed.scenario.model_dump_json()
        if windows is None:
            return self.once(("routing", asked), lambda: read_routing(posed))

        def cut() -> Routing:
            return routing_of(posed.routing_sources(), scenario.model.moe.computed_top_k, judged_windows=windows)

        return self.once(("routing", asked, windows), cut)

    def once(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made once for its key."""
        if key not in self._made:
            self._made[key] = make()
        found: T = self._made[key]
        return found


def _key(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    return str(dump()) if dump is not None else repr(value)
