"""Fronts of a migration as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import RenderableType

from placement.records.migration import FrontRow, Migration
from placement.records.plan import Plan
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import counted, gb, grouped, or_dash, us

#: The row of a migrated plan for what ran before.
RUNNING = "running"
HEADER = (
    "moves", "of slots", "transfer ms", "GB", "gain", "held-out gain", "MoE layer us", "balancedness",
    "remote nodes/token",
)  # fmt: skip


def migration_json(told: Migration, path: str) -> str:
    """A JSON object: the front's rows, and the chosen placement of each layer; `path` names the plan that runs."""
    return json.dumps(
        {
            "plan": path,
            "scenario": told.scenario,
            "engine": told.engine.model_dump(mode="json"),
            "role": told.role,
            "phase": told.phase,
            "objective": told.objective,
            "routing": told.routing.model_dump(mode="json"),
            "slots": told.slots,
            "failed_gpus": list(told.failed_gpus),
            "forced_moves": told.forced_moves,
            "gpus_before": told.gpus_before,
            "gpus": told.gpus,
            "batch_before": told.batch_before,
            "batch": told.batch,
            "running": None if told.before is None else _record(told.before),
            "front": [_record(row) for row in told.rows],
            "chosen": None if told.chosen is None else _record(told.chosen),
            "layers": [
                {"layer": layer.layer, "physical_to_logical": list(layer.physical_to_logical)}
                for layer in (told.plan.role(told.role).layers if told.plan is not None else ())
            ],
        },
        indent=2,
        allow_nan=False,
    )


def migration_text(told: Migration, path: str, quiet: bool = False) -> str:
    """The front as a table, the chosen row marked; `path` names the plan that runs; `quiet`: without the facts."""
    routing = told.routing
    judged = "the second half of each trace" if routing.judged_on == "second-half" else "the same routing"
    facts = [("engine", told.engine.label), ("new routing", f"{routing.source}; judged on {judged}")]
    if told.gpus_before is not None:
        forced = f"{grouped(told.forced_moves)} moves put experts back and fill free slots"
        facts.append(("GPUs", f"{told.gpus_before} to {told.gpus}; {forced}"))
        if told.batch != told.batch_before:
            facts.append(("batch", f"{told.batch_before} to {told.batch}: HBM, TTFT and TPOT allow no more"))
    elif told.failed_gpus:
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
        heading("migration of ", f"{path}: {told.scenario}, {told.phase}, {grouped(told.slots)} slots"),
        *([] if quiet else [fields(facts)]),
        heading("\nfront", " (gain: share of what the full re-solve gains)"),
        columns(HEADER, cells, strong),
    ]
    if told.chosen is not None and told.plan is not None:
        parts += ["", fields([("chosen", _chosen(told, told.chosen, told.plan))])]
    return rendered(parts)


def _chosen(told: Migration, chosen: FrontRow, plan: Plan) -> str:
    """What the chosen moves cost and buy."""
    role = plan.role(told.role)
    before, after = role.strategy(RUNNING), role.own
    line = f"{counted(chosen.moves, 'move')} ({chosen.share:.1%} of the slots), {gb(chosen.transfer_gb * 1e9)}"
    if before is None or after is None:
        return f"{line}; what ran before does not run any more"
    return (
        f"{line}; tokens/s {grouped(before.tokens_per_s)} -> {grouped(after.tokens_per_s)}, "
        f"MoE layer {us(before.moe_layer_us)} -> {us(after.moe_layer_us)} us, on held-out routing"
    )


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
