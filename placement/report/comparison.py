"""Strategies over one or several scenarios: as text, as HTML and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from placement.records.plan import Plan
from placement.records.role import RolePlan, StrategyRecord
from placement.report.screen import engine_lines
from placement.report.strategies import certificate, own_row, strategy_header, strategy_row
from placement.report.text import columns, fields, heading, html, rendered


@dataclass(frozen=True)
class Comparison:
    """Strategies of plans side by side; prints as a table, in a notebook as HTML."""

    plans: tuple[Plan, ...]

    def __str__(self) -> str:
        return rendered(self._parts())

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html(self._parts())

    def _parts(self) -> list[Any]:
        """A table per scenario; the last column compares MoE-layer times with the plan's own."""
        parts: list[Any] = []
        for plan, role in ((each, role) for each in self.plans for role in each.roles):
            split, routing = role.split, plan.provenance.routing
            own = own_row(role)
            judged = "nothing held out" if routing.judged_on == "all" else "judged on held-out routing"
            parts += [
                heading(
                    ("\n" if parts else "") + plan.scenario.name + (f", {role.role}" if len(plan.roles) > 1 else ""),
                    f"  {role.phase}, TP {split.tp} x EP {split.ep} x PP {split.pp} x DP {split.dp}, "
                    f"{split.redundant} redundant",
                ),
                fields(
                    [
                        *engine_lines(plan.engine, plan.scenario.spec.engine.assumes),
                        ("routing", f"{routing.source}; {judged}"),
                    ]
                ),
                columns(
                    (*strategy_header(role), "layer time/ plan's"),
                    [(*strategy_row(role, row), _relative(role, row)) for row in role.strategies],
                    own,
                ),
                fields([("certificate", certificate(role))]),
            ]
        return parts

    def json(self) -> str:
        """A JSON object with one entry a scenario."""
        return json.dumps(
            {
                "scenarios": [
                    {
                        "scenario": plan.scenario.name,
                        "role": role.role,
                        "phase": role.phase,
                        "engine": plan.engine.model_dump(mode="json"),
                        "split": role.split.model_dump(mode="json"),
                        "routing": plan.provenance.routing.model_dump(mode="json"),
                        "strategies": [
                            row.model_dump(mode="json", exclude={"placements", "dispatch_fractions"})
                            for row in role.strategies
                        ],
                        "certificate": role.certificate.model_dump(mode="json"),
                    }
                    for plan in self.plans
                    for role in plan.roles
                ]
            },
            indent=2,
        )


def _relative(role: RolePlan, row: StrategyRecord) -> str:
    own = role.own
    return "-" if own is None or own.moe_layer_us <= 0 else f"{row.moe_layer_us / own.moe_layer_us:.3f}"
