"""Strategies over one or several scenarios: as text, as HTML and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from placement.records.plan import Plan
from placement.records.role import RoleName, RolePlan, StrategyRecord
from placement.report.certainty import sure
from placement.report.screen import engine_lines
from placement.report.strategies import certificate, own_row, strategy_header, strategy_row
from placement.report.text import columns, fields, heading, html, rendered


@dataclass(frozen=True)
class Comparison:
    """Strategies of plans side by side; prints as a table, in a notebook as HTML.

    Attributes:
        current: What runs today, beside the strategies of a plan's role, by the plan's place and the role.
    """

    plans: tuple[Plan, ...]
    current: tuple[tuple[int, RoleName, StrategyRecord], ...] = ()

    def __str__(self) -> str:
        return self.text()

    def text(self, quiet: bool = False) -> str:
        """As it prints; `quiet`: the tables alone."""
        return rendered(self._parts(quiet))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        return html(self._parts())

    def _rows(self, place: int, role: RolePlan) -> list[StrategyRecord]:
        """The role's strategies, and what runs today."""
        return [*role.strategies, *(row for at, name, row in self.current if (at, name) == (place, role.role))]

    def _parts(self, quiet: bool = False) -> list[Any]:
        """A table per scenario; the last column compares MoE-layer times with the plan's own."""
        parts: list[Any] = []
        for i, plan, role in ((i, each, role) for i, each in enumerate(self.plans) for role in each.roles):
            split, routing = role.split, plan.provenance.routing
            own = own_row(role)
            judged = "nothing held out" if routing.judged_on == "all" else "judged on held-out routing"
            parts += [
                heading(
                    ("\n" if parts else "") + plan.scenario.name + (f", {role.role}" if len(plan.roles) > 1 else ""),
                    f"  {role.phase}, TP {split.tp} x EP {split.ep} x PP {split.pp} x DP {split.dp}, "
                    f"{split.redundant} redundant",
                ),
            ]
            facts = [
                *engine_lines(plan.engine, plan.scenario.spec.engine.assumes),
                ("routing", f"{routing.source}; {judged}"),
                ("figures", sure(role.predicted.tokens_per_s)),
            ]
            parts += [
                *([] if quiet else [fields(facts)]),
                columns(
                    (*strategy_header(role), "layer time/ plan's"),
                    [(*strategy_row(role, row), _relative(role, row)) for row in self._rows(i, role)],
                    own,
                ),
                fields([("certificate", certificate(plan, role))]),
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
                        "predicted": role.predicted.model_dump(mode="json", exclude={"breakdown"}),
                        "split": role.split.model_dump(mode="json"),
                        "routing": plan.provenance.routing.model_dump(mode="json"),
                        "strategies": [
                            row.model_dump(mode="json", exclude={"placements", "dispatch_fractions"})
                            for row in self._rows(i, role)
                        ],
                        "certificate": role.certificate.model_dump(mode="json"),
                    }
                    for i, plan in enumerate(self.plans)
                    for role in plan.roles
                ]
            },
            indent=2,
        )


def _relative(role: RolePlan, row: StrategyRecord) -> str:
    own = role.own
    return "-" if own is None or own.moe_layer_us <= 0 else f"{row.moe_layer_us / own.moe_layer_us:.3f}"
