"""Fronts of a migration as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import RenderableType

from placement.records.migration import FrontRow, Migration, RoleMigration
from placement.records.role import RUNNING, RolePlan, role_keys
from placement.report.certainty import sure
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import counted, gb, grouped, or_dash, us

HEADER = (
    "moves", "of slots", "transfer ms", "GB", "gain", "held-out gain", "MoE layer us", "balancedness",
    "remote nodes/token",
)  # fmt: skip


def migration_json(told: Migration, path: str) -> str:
    """A JSON object: the front's rows, and the chosen placement of each layer, of several roles under `roles`.

    Args:
        path: Names the plan that runs.
    """
    parts = {key: _role_json(role) for key, role in zip(role_keys(told.roles), told.roles, strict=True)}
    return json.dumps(
        {
            "plan": path,
            "scenario": told.scenario,
            "engine": told.engine.model_dump(mode="json"),
            "objective": told.objective,
            "routing": told.routing.model_dump(mode="json"),
            **(parts.popitem()[1] if len(parts) == 1 else {"roles": parts}),
        },
        indent=2,
        allow_nan=False,
    )


def _role_json(told: RoleMigration) -> dict[str, Any]:
    return {
        "role": told.role,
        "phase": told.phase,
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
            for layer in (told.plan.layers if told.plan is not None else ())
        ],
    }


def migration_text(told: Migration, path: str, quiet: bool = False) -> str:
    """Each role's front as a table, the chosen row marked; `path` names the plan that runs; `quiet`: no facts."""
    routing = told.routing
    judged = "the second half of each trace" if routing.judged_on == "second-half" else "the same routing"
    facts = [("engine", told.engine.label), ("new routing", f"{routing.source}; judged on {judged}")]
    figures = [role.plan.predicted.tokens_per_s for role in told.roles if role.plan is not None]
    facts += [("figures", sure(figures[0]))] if figures else []
    if len(told.roles) == 1:
        (only,) = told.roles
        facts += _facts(only)
        what = f", {only.phase}, {grouped(only.slots)} slots"
    else:
        what = ""
    parts: list[RenderableType] = [heading("migration of ", f"{path}: {told.scenario}{what}")]
    parts += [] if quiet else [fields(facts)]
    if len(told.roles) == 1:
        return rendered([*parts, *_front(told.roles[0], "front")])
    for key, role in zip(role_keys(told.roles), told.roles, strict=True):
        parts += [heading(f"\n{key}", f", an instance's {counted(role.slots, 'slot')}"), *_front(role)]
    return rendered(parts)


def _facts(told: RoleMigration) -> list[tuple[str, str]]:
    """GPUs that came, left or failed."""
    if told.gpus_before is not None:
        forced = f"{grouped(told.forced_moves)} moves put experts back and fill free slots"
        facts = [("GPUs", f"{told.gpus_before} to {told.gpus}; {forced}")]
        if told.batch != told.batch_before:
            facts.append(("batch", f"{told.batch_before} to {told.batch}: HBM, TTFT and TPOT allow no more"))
        return facts
    if not told.failed_gpus:
        return []
    lost = ", ".join(str(gpu) for gpu in told.failed_gpus)
    return [("failed GPUs", f"{lost}; {grouped(told.forced_moves)} moves put back what they held")]


def _front(told: RoleMigration, title: str = "") -> list[RenderableType]:
    if told.gpus == 1:
        return ["every GPU holds all experts: there is nothing to move"]
    rows = list(told.rows)
    if told.chosen is not None and told.chosen not in rows:
        rows = sorted([*rows, told.chosen], key=lambda row: row.moves)
    cells = [_cells(row) for row in rows]
    strong = None if told.chosen is None else rows.index(told.chosen)
    if told.before is not None:
        cells.insert(0, ("as it runs", *_cells(told.before)[1:]))
        strong = None if strong is None else strong + 1
    parts: list[RenderableType] = [
        *([heading(f"\n{title}", " (gain: share of what the full re-solve gains)")] if title else []),
        columns(HEADER, cells, strong),
    ]
    if told.chosen is not None and told.plan is not None:
        parts += ["", fields([("chosen", _chosen(told.chosen, told.plan))])]
    return parts


def _chosen(chosen: FrontRow, role: RolePlan) -> str:
    """What the chosen moves cost and buy."""
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
