"""Plans for the lab's targets: budgets by profile, and nothing planned twice in a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.lab.target import Profile
    from placement.planning.effort import Budget
    from placement.planning.progress import OnProgress
    from placement.records.plan import Plan
    from specs.scenario import Scenario

#: Effort of the search, and tokens of synthetic routing at most.
MINIMAL_WORK, MINIMAL_TOKENS = 0.1, 1024
#: Share of tokens/s within which a heuristic is taken as it stands.
MINIMAL_GAP = 0.03


class Planner:
    """Plans a scenario; the same question is answered once."""

    def __init__(
        self, profile: Profile = "minimal", seed: int = 0, workers: int = 0, on_progress: OnProgress | None = None
    ) -> None:
        self.profile = profile
        self.seed = seed
        self.workers = workers
        self._on_progress = on_progress
        self._plans: dict[tuple[Any, ...], Plan] = {}

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

        Raises:
            InputError, InfeasibleError, NothingFoundError: see plan_scenario.
        """
        from placement.planning.solve import plan_scenario

        key = (scenario.model_dump_json(), *sorted((name, _key(value)) for name, value in asked.items()))
        if key not in self._plans:
            self._plans[key] = plan_scenario(
                self.sized(scenario), budget=self.budget, seed=self.seed, workers=self.workers,
                on_progress=self._on_progress, **asked,
            )  # fmt: skip
        return self._plans[key]


def _key(value: Any) -> str:
    dump = getattr(value, "model_dump_json", None)
    return str(dump()) if dump is not None else repr(value)
