"""Fronts of a migration as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import RenderableType

from placement.problem.layer import Objective
from placement.records.plan import RoutingRecord
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped, or_dash, us
from specs.workload import PlannedPhase

HEADER = (
    "moves", "of slots", "transfer ms", "GB", "gain", "held-out gain", "MoE layer us", "balancedness",
    "remote nodes/token",
)  # fmt: skip


@dataclass(frozen=True)
class FrontRow:
    """What a number of moves yields; means over the MoE layers.

    Attributes:
        moves, share: experts that come to a GPU, in all layers, and as a share of all slots.
        transfer_ms: time that the busiest link is taken up. transfer_gb: bytes that arrive at GPUs.
        objective: on the routing solved on (seconds, or max over mean). gain, held_out_gain: share of the full
            re-solve's gain over the running placement, there and on held-out routing; None where that gains nothing.
        moe_layer_us, balancedness, remote_nodes_per_token: on held-out routing (the last NaN without token sets).
    """

    moves: int
    share: float
    transfer_ms: float
    transfer_gb: float
    objective: float
    gain: float | None
    held_out_gain: float | None
    moe_layer_us: float
    balancedness: float
    remote_nodes_per_token: float


@dataclass(frozen=True)
class Migration:
    """A plan's front on new routing.

    Attributes:
        slots: of all layers. forced_moves: what failed GPUs force.
        before: the running placement, None where failed GPUs hold a part of it. rows: the front. chosen: what the
            budget buys, None without one. model_layers: the model's own index of each MoE layer; layers: its chosen
            slots (-1: empty), () without a budget.
    """

    plan: str
    scenario: str
    phase: PlannedPhase
    objective: Objective
    routing: RoutingRecord
    slots: int
    failed_gpus: tuple[int, ...]
    forced_moves: int
    before: FrontRow | None
    rows: tuple[FrontRow, ...]
    chosen: FrontRow | None
    model_layers: tuple[int, ...]
    layers: Sequence[Sequence[int]]


def migration_json(told: Migration) -> str:
    """A JSON object: the front's rows, and the chosen placement of each layer."""
    return json.dumps(
        {
            "plan": told.plan,
            "scenario": told.scenario,
            "phase": told.phase,
            "objective": told.objective,
            "routing": told.routing.model_dump(mode="json"),
            "slots": told.slots,
            "failed_gpus": list(told.failed_gpus),
            "forced_moves": told.forced_moves,
            "running": None if told.before is None else _record(told.before),
            "front": [_record(row) for row in told.rows],
            "chosen": None if told.chosen is None else _record(told.chosen),
            "layers": [
                {"layer": layer, "physical_to_logical": list(slots)}
                for layer, slots in zip(told.model_layers, told.layers, strict=False)
            ],
        },
        indent=2,
        allow_nan=False,
    )


def migration_text(told: Migration) -> str:
    """The front as a table, the chosen row in bold."""
    routing = told.routing
    judged = "the second half of each trace" if routing.judged_on == "second-half" else "the same routing"
    facts = [("new routing", f"{routing.source}; judged on {judged}")]
    if told.failed_gpus:
        lost = ", ".join(str(gpu) for gpu in told.failed_gpus)
        facts.append(("failed GPUs", f"{lost}; {grouped(told.forced_moves)} moves put back what they held"))
    rows = list(told.rows)
    if told.chosen is not None and told.chosen not in rows:
        rows = sorted([*rows, told.chosen], key=lambda row: row.moves)
    cells = [_cells(row) for row in rows]
    strong = None if told.chosen is None else rows.index(told.chosen)
    if told.before is not None:
        cells.insert(0, ("as it runs", *_cells(told.before)[1:]))
        strong = None if strong is None else strong + 1
    parts: list[RenderableType] = [
        heading("migration of ", f"{told.plan}: {told.scenario}, {told.phase}, {grouped(told.slots)} slots"),
        fields(facts),
        heading("\nfront", " (gain: share of what the full re-solve gains)"),
        columns(HEADER, cells, strong),
    ]
    return rendered(parts)


def _record(row: FrontRow) -> dict[str, Any]:
    return {name: None if _missing(value) else value for name, value in asdict(row).items()}


def _missing(value: Any) -> bool:
    return isinstance(value, float) and bool(np.isnan(value))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _cells(row: FrontRow) -> tuple[str, ...]:
    remote = None if _missing(row.remote_nodes_per_token) else row.remote_nodes_per_token
    return (
        grouped(row.moves), f"{row.share:.1%}", f"{row.transfer_ms:.3g}", f"{row.transfer_gb:.3g}", _share(row.gain),
        _share(row.held_out_gain), us(row.moe_layer_us), f"{row.balancedness:.3f}", or_dash(remote),
    )  # fmt: skip
