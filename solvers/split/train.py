"""The recompute mode of a training candidate: the one that fits HBM at the least time, all layers alike."""

from __future__ import annotations

from dataclasses import replace

from placement.cost.calibration.efficiency import Efficiency
from placement.cost.memory.hbm import MemoryModel
from placement.cost.memory.local import LocalParameters
from placement.cost.memory.recompute import MODES
from placement.problem.pieces import StageTable
from placement.problem.split import Split
from specs.scenario import Scenario
from specs.workload import Recompute, TrainingWorkload


def fitting_mode(
    scenario: Scenario,
    workload: TrainingWorkload,
    split: Split,
    efficiency: Efficiency,
    stages: StageTable,
    local: LocalParameters,
) -> tuple[Split, float]:
    """The fastest recompute mode, all layers alike, that fits HBM under the even cut; else the one that keeps least.

    Returns:
        The split and the bytes by which it exceeds HBM (0 or less: it fits).
    """

    def over(candidate: Split) -> float:
        memory = MemoryModel(scenario, candidate, efficiency, stages, local)
        return memory.total_bytes(candidate.batch) - memory.capacity_bytes

    if workload.recompute != "auto":
        return split, over(split)
    # What keeps least rules most candidates out at once.
    least = uniform(scenario, split, "full")
    excess = over(least)
    if excess > 0:
        return least, excess
    for mode in MODES[:-1]:
        candidate = uniform(scenario, split, mode)
        kept = over(candidate)
        if kept <= 0:
            return candidate, kept
    return least, excess


def uniform(scenario: Scenario, split: Split, mode: Recompute) -> Split:
    """The split with one recompute mode for all layers."""
    return replace(split, recompute=(mode,) * scenario.model.layers)
