"""Strategies over one or several scenarios: as text, as HTML and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from placement.records.plan import Plan, StrategyRecord
from placement.report.screen import certificate, engine_lines, strategy_header, strategy_row
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
        for plan in self.plans:
            split, routing = plan.split, plan.provenance.routing
            own = next((i for i, strategy in enumerate(plan.strategies) if strategy.placements is None), None)
            judged = "nothing held out" if routing.judged_on == "all" else "judged on held-out routing"
            parts += [
                heading(
                    ("\n" if parts else "") + plan.scenario.name,
                    f"  {plan.phase}, TP {split.tp} x EP {split.ep} x PP {split.pp} x DP {split.dp}, "
                    f"{split.redundant} redundant",
                ),
                fields(
                    [
                        *engine_lines(plan.engine, plan.scenario.spec.engine.assumes),
                        ("routing", f"{routing.source}; {judged}"),
                    ]
                ),
                columns(
                    (*strategy_header(plan), "time/plan"),
                    [(*strategy_row(plan, row), _relative(plan, row)) for row in plan.strategies],
                    own,
                ),
                fields([("certificate", certificate(plan))]),
            ]
        return parts

    def json(self) -> str:
        """A JSON object with one entry a scenario."""
        return json.dumps(
            {
                "scenarios": [
                    {
                        "scenario": plan.scenario.name,
                        "phase": plan.phase,
                        "engine": plan.engine.model_dump(mode="json"),
                        "split": plan.split.model_dump(mode="json"),
                        "routing": plan.provenance.routing.model_dump(mode="json"),
                        "strategies": [
                            row.model_dump(mode="json", exclude={"placements", "dispatch_fractions"})
                            for row in plan.strategies
                        ],
                        "certificate": plan.certificate.model_dump(mode="json"),
                    }
                    for plan in self.plans
                ]
            },
            indent=2,
        )


def _relative(plan: Plan, row: StrategyRecord) -> str:
    own = plan.own
    return "-" if own is None or own.moe_layer_us <= 0 else f"{row.moe_layer_us / own.moe_layer_us:.3f}"
