"""Evaluations of a plan as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType

from placement.figures import Figures
from placement.plan import Plan
from placement.report.text import columns, fields, heading, rendered
from placement.report.units import grouped, kb, or_dash, us

HEADER = (
    "strategy", "balancedness", "nodes/token", "remote nodes/token", "cross-node kB/token", "MoE layer us", "tokens/s",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One strategy's figures; `own` marks the plan's."""

    name: str
    own: bool
    figures: Figures
    tokens_per_s: float


@dataclass(frozen=True)
class Evaluation:
    """One trace's figures.

    Attributes:
        trace, file: its name, and its path as given. part: which sequences count. tokens: how many tokens they have.
        rows: the strategies of the plan, in its order.
    """

    trace: str
    file: str
    part: str
    tokens: int
    synthetic: bool
    rows: tuple[Row, ...]


def evaluation_json(path: str, plan: Plan, results: Sequence[Evaluation]) -> str:
    """A JSON object: per trace, the figures of `plan` and of each of `baselines`."""
    return json.dumps(
        {
            "plan": path,
            "scenario": plan.scenario.name,
            "phase": plan.phase,
            "dispatch": plan.dispatch,
            "message_rule": plan.message_rule,
            "traces": [
                {
                    "trace": result.trace,
                    "file": result.file,
                    "part": result.part,
                    "tokens": result.tokens,
                    "synthetic": result.synthetic,
                    "plan": next((_record(row) for row in result.rows if row.own), None),
                    "baselines": {row.name: _record(row) for row in result.rows if not row.own},
                }
                for result in results
            ],
        },
        indent=2,
    )


def evaluation_text(path: str, plan: Plan, results: Sequence[Evaluation]) -> str:
    """A table per trace, the plan's own row in bold."""
    routing = plan.provenance.routing
    solved = f"{routing.source}; {'the first half' if routing.solved_on == 'first-half' else 'all of it'}"
    parts: list[RenderableType] = [
        heading("plan ", f"{path}: {plan.scenario.name}, {plan.phase}"),
        fields([("solved on", solved)]),
    ]
    for result in results:
        kind = "synthetic" if result.synthetic else "recorded"
        own = next((i for i, row in enumerate(result.rows) if row.own), None)
        parts.append(heading(f"\n{result.trace}", f" ({kind}, {result.part}, {grouped(result.tokens)} tokens)"))
        parts.append(columns(HEADER, [_cells(row) for row in result.rows], own))
    return rendered(parts)


def _record(row: Row) -> dict[str, float | str | None]:
    figures = row.figures
    return {
        "name": row.name,
        "balancedness": figures.balancedness,
        "nodes_per_token": figures.nodes_per_token,
        "remote_nodes_per_token": figures.remote_nodes_per_token,
        "cross_node_bytes_per_token": figures.cross_node_bytes_per_token,
        "moe_layer_us": figures.moe_layer_us,
        "tokens_per_s": row.tokens_per_s,
    }


def _cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    return (
        row.name,
        or_dash(figures.balancedness, 3),
        or_dash(figures.nodes_per_token),
        or_dash(figures.remote_nodes_per_token),
        kb(figures.cross_node_bytes_per_token),
        us(figures.moe_layer_us),
        grouped(row.tokens_per_s),
    )
