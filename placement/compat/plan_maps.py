"""The expert maps of a plan file, one a role, in the form that an engine asks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from placement.problem.arrays import EMPTY, IntArray
from placement.records.plan import load_plan


@dataclass(frozen=True)
class PlanMap:
    """The map of one role.

    Attributes:
        role: the plan's name of it. gpus: its expert-parallel ranks.
        hidden_layers: layers of the model, dense ones too. layers: those with experts, by the model's own index.
        experts: [MoE layers] logical experts. rows: [MoE layers][slots] logical expert of each slot.
    """

    role: str
    gpus: int
    hidden_layers: int
    layers: tuple[int, ...]
    experts: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]

    def misfit(self, layers: int, experts: int, slots: int, gpus: int) -> str | None:
        """Why an engine with these sizes can't take the map, in words; None where it can."""
        if self.gpus != gpus:
            return f"{self.gpus} GPUs"
        if layers not in (len(self.rows), self.hidden_layers):
            return f"{len(self.rows)} MoE layers of {self.hidden_layers} layers"
        if set(self.experts) != {experts}:
            return f"layers of {' and '.join(str(count) for count in sorted(set(self.experts)))} experts"
        widths = sorted({len(row) for row in self.rows})
        if widths != [slots]:
            return f"layers of {' and '.join(str(width) for width in widths)} slots"
        if any(EMPTY in row for row in self.rows):
            return "empty slots, of GPUs that have failed"
        return None

    def slots(self, layers: int) -> IntArray:
        """[layers, slots] logical expert of each slot, for an engine of as many layers that `misfit` lets pass.

        An engine that counts dense layers gets experts in turn there: nobody reads them.
        """
        rows = np.asarray(self.rows, dtype=np.int64)
        if layers == len(rows):
            return rows
        found = np.tile(np.arange(rows.shape[1]) % self.experts[0], (layers, 1))
        found[list(self.layers)] = rows
        return found


def plan_maps(path: Path) -> tuple[PlanMap, ...]:
    """The map of every role of a plan file.

    Raises:
        InputError: the file is no plan.
    """
    plan = load_plan(path)
    model = plan.scenario.spec.model
    experts = tuple(moe.experts for moe in model.moes)
    return tuple(
        PlanMap(
            role.role,
            role.split.ep,
            model.whole_layers,
            model.moe_layers,
            experts,
            tuple(layer.physical_to_logical for layer in role.layers),
        )
        for role in plan.roles
    )
