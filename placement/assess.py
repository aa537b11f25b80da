"""What a placement yields on a routing: figures of its MoE layers, and the step and throughput that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from placement.cost.throughput import MoeTimes, Prediction, predict
from placement.figures import (
    Figures,
    Placement,
    figures_of,
    moe_times,
    packed_fractions,
    score_placement,
    unpacked_fractions,
)
from placement.plan import Fractions, Plan, StrategyRecord
from placement.problem import LayerProblem, Objective
from placement.problems import layer_problems, phases_of
from placement.routing.statistics import LayerStatistics
from placement.split import Split
from specs.schema import PlannedPhase, Scenario


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
        statistics: Sequence[LayerStatistics],
        objective: Objective = "time",
        tail: float = 1.0,
        failed_gpus: Sequence[int] = (),
    ) -> None:
        """Builds the layer problems of `phase` and of the workload's other phases; see `layer_problems`.

        Raises:
            InputError: see placement.problems.layer_problems.
        """
        self.scenario, self.split, self.phase = scenario, split, phase
        self.problems: dict[PlannedPhase, tuple[LayerProblem, ...]] = {
            each: layer_problems(scenario, split, each, statistics, objective, tail=tail, failed_gpus=failed_gpus)
            for each in dict.fromkeys((phase, *phases_of(scenario)))
        }

    def times(self, placement: Placement) -> MoeTimes:
        """Mean MoE-layer seconds by phase of the workload."""
        return moe_times({each: self._figures(each, placement).moe_layer_s for each in phases_of(self.scenario)})

    def assess(self, placement: Placement) -> Assessment:
        """Figures and prediction of a placement.

        Raises:
            InputError: `planned` dispatch without valid fractions.
        """
        by_phase = {each: self._figures(each, placement) for each in self.problems}
        times = moe_times({each: by_phase[each].moe_layer_s for each in phases_of(self.scenario)})
        return Assessment(by_phase[self.phase], times, predict(self.scenario, self.split, times))

    def _figures(self, phase: PlannedPhase, placement: Placement) -> Figures:
        return figures_of(score_placement(self.problems[phase], placement))


def strategy_record(name: str, assessment: Assessment, placement: Placement | None) -> StrategyRecord:
    """A strategy's figures as the plan file holds them; `placement` None where the plan's layers hold it."""
    figures = assessment.figures
    fractions = None
    if placement is not None and any(part is not None for part in placement.fractions):
        fractions = tuple(
            packed_fractions(slots, part) for slots, part in zip(placement.slots, placement.fractions, strict=True)
        )
    return StrategyRecord(
        name=name,
        balancedness=figures.balancedness,
        nodes_per_token=figures.nodes_per_token,
        remote_nodes_per_token=figures.remote_nodes_per_token,
        cross_node_bytes_per_token=figures.cross_node_bytes_per_token,
        moe_layer_us=figures.moe_layer_us,
        decode_us=_us(assessment.times.decode_s),
        prefill_us=_us(assessment.times.prefill_s),
        tokens_per_s=assessment.prediction.tokens_per_s,
        placements=None if placement is None else tuple(tuple(slots.tolist()) for slots in placement.slots),
        dispatch_fractions=fractions,
    )


def _us(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1e6


def own_placement(plan: Plan) -> Placement:
    """The plan's own placement."""
    return _placement(
        plan,
        [layer.physical_to_logical for layer in plan.layers],
        [layer.dispatch_fractions for layer in plan.layers],
    )


def placement_of(plan: Plan, strategy: StrategyRecord) -> Placement:
    """A strategy's placement in a plan file."""
    if strategy.placements is None:
        return own_placement(plan)
    return _placement(plan, strategy.placements, strategy.dispatch_fractions or [None] * len(plan.layers))


def _placement(plan: Plan, rows: Sequence[Sequence[int]], packed: Sequence[Fractions | None]) -> Placement:
    nodes = plan.topology.gpus // plan.topology.gpus_per_node
    slots = tuple(np.array(row, dtype=np.int64) for row in rows)
    fractions = tuple(unpacked_fractions(row, part, nodes) for row, part in zip(slots, packed, strict=True))
    return Placement(slots, fractions)
