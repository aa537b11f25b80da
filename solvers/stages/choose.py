"""The best cut of a split, priced again by placement.cost: never worse than the split as it came."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.calibration.fitted import efficiency_of
from placement.cost.memory.hbm import memory_of
from placement.cost.stage_prices import stage_problem
from placement.cost.step.throughput import predict
from placement.problem.split import Split
from placement.problem.stages import StageCut, StageProblem
from solvers.stages.answer import StageAnswer
from solvers.stages.dynamic import cut_by_dynamic_programming
from solvers.stages.excess import least_excess
from solvers.stop import Stop
from specs.scenario import Scenario

#: Where a rank has several pieces, the closed forms of the schedules are up to 3.5% below pipelines of very uneven
#: pieces that are run pass by pass: a cut has to gain more than that over the even one.
LEAST_GAIN = 0.04


@dataclass(frozen=True)
class CutChoice:
    """A split with its cut.

    Attributes:
        split: the better of the split as it came and the solved one; tokens_per_s: its rate.
        before: rate of the split as it came, None where that exceeds HBM or misses an objective.
        answer: the stage solver's answer; None where it found none.
    """

    split: Split
    tokens_per_s: float
    before: float | None
    answer: StageAnswer | None

    @property
    def gain(self) -> float | None:
        """Rate over that of the split as it came, less 1; None where that does not fit."""
        return None if self.before is None else self.tokens_per_s / self.before - 1.0


def best_cut(
    scenario: Scenario, split: Split, efficiency: Efficiency | None = None, stop: Stop | None = None
) -> CutChoice | None:
    """The split with its best cut and recompute choice, at the same degrees and batch.

    Both candidates are priced and their memory summed by placement.cost, whatever the stage solver says.

    Returns:
        None where neither is feasible.
    """
    constants = efficiency or efficiency_of(scenario)
    came = _rate(scenario, split, constants)
    if not _worth_cutting(scenario, split):
        return None if came is None else CutChoice(split, came, came, None)
    problem = stage_problem(scenario, split, constants)
    answer = solve_cut(problem, stop)
    solved = None if answer is None else with_cut(scenario, split, answer.answer)
    rate = None if solved is None else _rate(scenario, solved, constants)
    least = 0.0 if came is None else came if problem.single else came * (1 + LEAST_GAIN)
    if solved is not None and rate is not None and rate > least:
        return CutChoice(solved, rate, came, answer)
    return None if came is None else CutChoice(split, came, came, answer)


def solve_cut(problem: StageProblem, stop: Stop | None = None) -> StageAnswer | None:
    """The exact dynamic program where ranks have one piece each, else CP-SAT; None where no cut was found to fit."""
    if problem.single:
        return cut_by_dynamic_programming(problem)
    # OR-Tools loads pandas: only for who needs it.
    from solvers.stages.model import cut_by_cpsat

    return cut_by_cpsat(problem, stop)


def with_cut(scenario: Scenario, split: Split, answer: StageCut) -> Split:
    """The split with an answer's cut and, in training, its recompute choice."""
    workload = scenario.workload
    if workload.kind == "serving" or workload.recompute != "auto":
        return replace(split, cut=answer.cut)
    problem = stage_problem(scenario, split)
    modes = tuple(
        problem.kinds[kind].options[option].recompute or "full"
        for kind, option in zip(problem.layers, answer.options, strict=True)
    )
    return replace(split, cut=answer.cut, recompute=modes)


def cut_fits(scenario: Scenario, split: Split, efficiency: Efficiency | None = None) -> bool:
    """Whether some cut of the split may fit HBM; exact where ranks have one piece each."""
    return least_excess(stage_problem(scenario, split, efficiency)).over_bytes <= 0


def _worth_cutting(scenario: Scenario, split: Split) -> bool:
    """Whether there is a choice: stages to cut (layers of several blocks are cut evenly), or recompute modes."""
    workload = scenario.workload
    if scenario.model.blocks_per_layer > 1:
        return False
    return split.pp > 1 or (workload.kind == "training" and workload.recompute == "auto")


def _rate(scenario: Scenario, split: Split, constants: Efficiency) -> float | None:
    """Predicted tokens/s of the cluster; None where HBM is exceeded or an objective is missed."""
    if not memory_of(scenario, split, constants).fits:
        return None
    predicted, workload = predict(scenario, split, None, constants), scenario.workload
    if workload.kind == "serving":
        ttft_ms, tpot_ms = (math.inf if time is None else time * 1e3 for time in (predicted.ttft_s, predicted.tpot_s))
        if ttft_ms > workload.ttft_ms or tpot_ms > workload.tpot_ms:
            return None
    return predicted.tokens_per_s
