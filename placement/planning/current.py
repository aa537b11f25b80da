"""The placement that an engine runs, from its own file: what plans are judged beside, and migrated from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from placement.cost.assess import Assessor
from placement.cost.figures import Placement
from placement.engines.launch.site import layers_of
from placement.engines.maps.registry import read_map
from placement.errors import ParameterError
from placement.problem.arrays import EMPTY, IntArray
from placement.problem.data import LayerData
from placement.records.convert import strategy_record
from placement.records.plan import Plan
from placement.records.role import RolePlan, StrategyRecord

#: Its row in an evaluation.
CURRENT = "current"


@dataclass(frozen=True)
class Current:
    """A placement that runs.

    Attributes:
        placement: [layers][gpus x most slots of a GPU] experts; slots that a GPU has not are EMPTY.
        capacities: [layers][gpus] slots of each GPU. GPUs and layers may differ, as some engines let them.
        notes: What of the file was left out.
    """

    placement: Placement
    capacities: tuple[IntArray, ...]
    notes: tuple[str, ...]


def read_current(plan: Plan, role: RolePlan, path: str | Path) -> Current:
    """The placement in an engine's file, in whichever format it is.

    Args:
        plan: The plan that it is set beside.
        role: Which role's instances run it.
        path: The engine's file.

    Raises:
        InputError: It can't be read, is no map of this model on so many GPUs, or the plan's dispatch needs shares that
            no file holds.
    """
    if role.dispatch == "planned":
        problem = "the plan has planned dispatch, and an engine's map holds no shares"
        raise ParameterError("current", problem, "plan with another dispatch")
    if role.failed_gpus:
        raise ParameterError(
            "current", "the plan has failed GPUs, an engine's map none", "name them with `failed_gpus`"
        )
    read = read_map(path, layers_of(plan.scenario_of(role)), role.topology.gpus)
    held, repeats = read.experts.without_repeats()
    slots, capacities = [], []
    for row in held.rows:
        capacity = np.array([len(on) for on in row], dtype=np.int64)
        made = np.full((held.gpus, int(capacity.max())), EMPTY, dtype=np.int64)
        for gpu, on in enumerate(row):
            made[gpu, : len(on)] = on
        slots.append(made.ravel())
        capacities.append(capacity)
    notes = read.notes + ((f"{repeats} slots repeat an expert of their GPU, and count once",) if repeats else ())
    return Current(Placement(tuple(slots), (None,) * len(slots)), tuple(capacities), notes)


def current_record(plan: Plan, role: RolePlan, path: str | Path, statistics: Sequence[LayerData]) -> StrategyRecord:
    """The figures of what runs, beside a role's strategies.

    Args:
        plan, role, path: See `read_current`.
        statistics: [layers] the routing that it is judged on.

    Raises:
        InputError: See `read_current`.
    """
    runs = read_current(plan, role, path)
    assessor = Assessor(
        plan.scenario_of(role), role.split.split(), role.phase, statistics, plan.objective, role=role.role, cp=role.cp,
        requests_per_s=role.requests_per_s, capacities=runs.capacities,
    )  # fmt: skip
    return strategy_record(CURRENT, assessor.assess(runs.placement), None)


def check_widths(current: Current, widths: tuple[int, ...], role: RolePlan) -> None:
    """Whether a migration can begin at the placement: it has the slots of the plan, on every GPU.

    Raises:
        ParameterError: It has others.
    """
    for layer, capacity, width in zip(role.layers, current.capacities, widths, strict=True):
        if np.any(capacity != width):
            gpu = int(np.argmax(capacity != width))
            problem = f"layer {layer.layer} has {capacity[gpu]} slots on GPU {gpu}, the plan {width} on each"
            raise ParameterError("current", problem, "plan with as many redundant experts as run")
