"""Evaluations of a plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from placement.records.evaluation import Evaluation, Row
from placement.records.plan import Plan
from placement.records.role import RolePlan
from placement.report.screen import engine_lines
from placement.report.strategies import time_cells, time_header
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped, kb, or_dash

HEADER = ("strategy", "balancedness", "nodes/ token", "remote nodes/ token", "cross-node kB/token")


def evaluation_json(path: str, plan: Plan, role: RolePlan, results: Sequence[Evaluation]) -> str:
    """A JSON object: per trace, the figures of `plan` and of each of `baselines`."""
    return json.dumps(
        {
            "plan": path,
            "scenario": plan.scenario.name,
            "role": role.role,
            "phase": role.phase,
            "engine": plan.engine.model_dump(mode="json"),
            "dispatch": role.dispatch,
            "message_rule": role.message_rule,
            "traces": [
                {
                    "trace": result.trace,
                    "file": result.file,
                    "part": result.part,
                    "tokens": result.tokens,
                    "synthetic": result.synthetic,
                    "plan": next((_record(row) for row in result.rows if row.own), None),
                    "baselines": {row.record.name: _record(row) for row in result.rows if not row.own},
                }
                for result in results
            ],
        },
        indent=2,
    )


def evaluation_text(path: str, plan: Plan, role: RolePlan, results: Sequence[Evaluation], quiet: bool = False) -> str:
    """A table per trace, the plan's own row marked; `quiet`: without what was assumed."""
    routing = plan.provenance.routing
    solved = f"{routing.source}; {'the first half' if routing.solved_on == 'first-half' else 'all of it'}"
    parts: list[RenderableType] = [heading("plan ", f"{path}: {plan.scenario.name}, {role.phase}")]
    if not quiet:
        facts = [*engine_lines(plan.engine, plan.scenario.spec.engine.assumes), ("solved on", solved)]
        parts.append(fields(facts))
    header = (*HEADER, *time_header(role), "tokens/s")
    for result in results:
        kind = "synthetic" if result.synthetic else "recorded"
        own = next((i for i, row in enumerate(result.rows) if row.own), None)
        parts.append(heading(f"\n{result.trace}", f" ({kind}, {result.part}, {grouped(result.tokens)} tokens)"))
        parts.append(columns(header, [_cells(role, row) for row in result.rows], own))
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
