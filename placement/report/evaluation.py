"""Evaluations of a plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from placement.records.evaluation import Evaluation, Row
from placement.records.plan import Plan
from placement.records.role import RolePlan, role_keys
from placement.report.certainty import sure
from placement.report.screen import engine_lines
from placement.report.strategies import time_cells, time_header
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped, kb, or_dash

HEADER = ("strategy", "balancedness", "nodes/ token", "remote nodes/ token", "cross-node kB/token")


def evaluation_json(path: str, plan: Plan, roles: Sequence[RolePlan], results: Sequence[Evaluation]) -> str:
    """A JSON object: per trace, the figures of `plan` and of each of `baselines`; of several roles under `roles`."""
    parts = {
        key: _role_json(role, i, results) for i, (key, role) in enumerate(zip(role_keys(roles), roles, strict=True))
    }
    return json.dumps(
        {
            "plan": path,
            "scenario": plan.scenario.name,
            "engine": plan.engine.model_dump(mode="json"),
            **(parts.popitem()[1] if len(parts) == 1 else {"roles": parts}),
        },
        indent=2,
    )


def _role_json(role: RolePlan, index: int, results: Sequence[Evaluation]) -> dict[str, Any]:
    return {
        "role": role.role,
        "phase": role.phase,
        "dispatch": role.dispatch,
        "message_rule": role.message_rule,
        "traces": [
            {
                "trace": result.trace,
                "file": result.file,
                "part": result.part,
                "tokens": result.tokens,
                "synthetic": result.synthetic,
                "plan": next((_record(row) for row in result.roles[index].rows if row.own), None),
                "baselines": {row.record.name: _record(row) for row in result.roles[index].rows if not row.own},
            }
            for result in results
        ],
    }


def evaluation_text(
    path: str, plan: Plan, roles: Sequence[RolePlan], results: Sequence[Evaluation], quiet: bool = False
) -> str:
    """A table per trace and role, the plan's own row marked; `quiet`: without what was assumed."""
    routing = plan.provenance.routing
    solved = f"{routing.source}; {'the first half' if routing.solved_on == 'first-half' else 'all of it'}"
    several = len(roles) > 1
    phases = "" if several else f", {roles[0].phase}"
    parts: list[RenderableType] = [heading("plan ", f"{path}: {plan.scenario.name}{phases}")]
    if not quiet:
        facts = [
            *engine_lines(plan.engine, plan.scenario.spec.engine.assumes),
            ("solved on", solved),
            ("figures", sure(plan.predicted.tokens_per_s)),
        ]
        parts.append(fields(facts))
    for result in results:
        kind = "synthetic" if result.synthetic else "recorded"
        parts.append(heading(f"\n{result.trace}", f" ({kind}, {result.part}, {grouped(result.tokens)} tokens)"))
        for key, role, told in zip(role_keys(roles), roles, result.roles, strict=True):
            if several:
                parts.append(heading(f"{key}", f", {role.split.instances} x {role.degrees}"))
            own = next((i for i, row in enumerate(told.rows) if row.own), None)
            header = (*HEADER, *time_header(role), "tokens/s")
            parts.append(columns(header, [_cells(role, row) for row in told.rows], own))
    return rendered(parts)


def _record(row: Row) -> dict[str, Any]:
    return row.record.model_dump(mode="json", exclude={"placements", "dispatch_fractions"})


def _cells(role: RolePlan, row: Row) -> tuple[str, ...]:
    record = row.record
    return (
        record.name,
        or_dash(record.balancedness, 3),
        or_dash(record.nodes_per_token),
        or_dash(record.remote_nodes_per_token),
        kb(record.cross_node_bytes_per_token),
        *time_cells(role, record),
        grouped(record.tokens_per_s),
    )
