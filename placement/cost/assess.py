"""What a placement yields on a routing: figures of its MoE layers, and the step and throughput that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

from placement.cost.figures import Figures, Placement, figures_of, moe_times, score_placement
from placement.cost.pose import layer_problems
from placement.cost.step.role_figures import predict_role
from placement.cost.step.throughput import MoeTimes, Prediction
from placement.problem.arrays import IntArray
from placement.problem.data import LayerData
from placement.problem.engine_rules import role_phases
from placement.problem.layer import LayerProblem, Objective
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import PlannedPhase


@dataclass(frozen=True)
class Assessment:
    """Figures of the MoE layers in the plan's phase, their mean seconds in each phase of the workload, and the
    prediction that follows from these."""

    figures: Figures
    times: MoeTimes
    prediction: Prediction


class Assessor:
    """Assesses placements of one scenario and split on one routing; immutable after construction."""

    def __init__(
        self,
        scenario: Scenario,
        split: Split,
        phase: PlannedPhase,
        statistics: Sequence[LayerData],
        objective: Objective = "time",
        tail: float = 1.0,
        failed_gpus: Sequence[int] = (),
        role: str = "",
        cp: int = 1,
        requests_per_s: float | None = None,
        capacities: Sequence[IntArray] | None = None,
    ) -> None:
        """Builds the layer problems of `phase` and of the role's other phases; see `layer_problems`, `predict_role`.

        Raises:
            InputError: see placement.cost.pose.layer_problems.
        """
        self.scenario, self.split, self.phase = scenario, split, phase
        self.role, self.cp, self.requests_per_s = role, cp, requests_per_s
        self.phases = role_phases(scenario, role)
        self.problems: dict[PlannedPhase, tuple[LayerProblem, ...]] = {
            each: layer_problems(scenario, split, each, statistics, objective, tail, failed_gpus, capacities)
            for each in dict.fromkeys((phase, *self.phases))
        }

    def times(self, placement: Placement) -> MoeTimes:
        """Mean MoE-layer seconds by phase of the workload."""
        return moe_times({each: self._figures(each, placement).moe_layer_s for each in self.phases})

    def assess(self, placement: Placement) -> Assessment:
        """Figures and prediction of a placement.

        Raises:
            InputError: `planned` dispatch without valid fractions.
        """
        by_phase = {each: self._figures(each, placement) for each in self.problems}
        times = moe_times({each: by_phase[each].moe_layer_s for each in self.phases})
        made = predict_role(self.scenario, self.role, self.split, times, cp=self.cp, requests_per_s=self.requests_per_s)
        return Assessment(self._mixed(by_phase), times, made)

    def as_served(self) -> Assessor | None:
        """The same by the rule that the engine serves by; None where copies are planned for that rule, or there is one
        of each expert."""
        served = self.scenario.dispatch_served
        if served == self.scenario.dispatch_in_use or not self.split.redundant:
            return None
        made = copy(self)
        made.problems = {
            phase: tuple(problem.with_rules(dispatch=served) for problem in problems)
            for phase, problems in self.problems.items()
        }
        return made

    def _mixed(self, by_phase: Mapping[PlannedPhase, Figures]) -> Figures:
        """The figures of the plan's phase; a layer's mean pass of "serving" is of each phase under its own messages."""
        figures, kinds = by_phase[self.phase], self.problems[self.phase][0].hardware.rates.kinds
        if len(kinds) == 1 or len({problems[0].rules.message for problems in self.problems.values()}) == 1:
            return figures
        parts = zip(kinds, self.phases, strict=True)
        return replace(figures, moe_layer_s=sum(kind.share * by_phase[phase].moe_layer_s for kind, phase in parts))

    def _figures(self, phase: PlannedPhase, placement: Placement) -> Figures:
        return figures_of(score_placement(self.problems[phase], placement))
