"""Plans that reports are made of: with names that attack a page, and with two roles made by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from placement.check.case import PlanCase, sources_of
from placement.planning.effort import Budget
from placement.planning.solve import plan_scenario
from placement.records.convert import engine_name, figures_record, placement_of, predicted_record, strategy_record
from placement.records.layout import EngineRecord
from placement.records.plan import Plan, plan_from_json, plan_json
from placement.records.role import RolePlan
from placement.routing.holdout import load_trace
from placement.routing.trace import Trace
from specs.scenario import Scenario
from specs.validation import validate
from tests.cli.conftest import TINY

#: What would be a tag, an attribute, an entity, a formula, Markdown, or a change of direction.
HOSTILE = "\"><script>alert('1')</script>&amp;$\\frac{|`*_[x](y)\u202e"
QUICK: dict[str, Any] = {"strategy": "search", "budget": Budget(work=0.02), "workers": 1}


def changed(plan: Plan, change: Callable[[dict[str, Any]], None]) -> Plan:
    """The plan of a file whose data `change` has changed."""
    data = json.loads(plan_json(plan))
    change(data)
    return plan_from_json(json.dumps(data), "changed")


def hostile_plan(folder: Path) -> tuple[Plan, list[Trace]]:
    """A plan that bears HOSTILE wherever a name may stand and all its checks still pass, and its routing."""
    fields = copy.deepcopy(TINY)
    for part in (fields, fields["model"], fields["cluster"], fields["cluster"]["gpu"], fields["workload"]):
        part["name"] = HOSTILE
    scenario: Scenario = validate(Scenario, fields, "hostile")
    read = [load_trace(folder / name) for name in ("a.npz", "b.npz")]
    traces = [replace(trace, name=HOSTILE) for trace in read if isinstance(trace, Trace)]
    return plan_scenario(scenario, traces=traces, **QUICK), traces


def two_roles(folder: Path) -> Plan:
    """A prefill and a decode instance, each on the small cluster: two solves, each judged as its role."""
    trace = folder / "a.npz"
    roles, plans = [], [plan_scenario(folder / "tiny.yaml", traces=[trace], phase=kind, **QUICK) for kind in _KINDS]
    for kind, plan in zip(_KINDS, plans, strict=True):
        cluster = None if kind == "prefill" else plan.scenario.spec.cluster.model_copy(update={"name": "decode_pool"})
        role = plan.roles[0].model_copy(update={"role": kind, "cluster": cluster})
        roles.append(_judged(plan.model_copy(update={"roles": (role,)}), trace))
    scenario = plans[0].scenario.spec
    return plans[0].model_copy(
        update={
            "mode": "disaggregated", "roles": tuple(roles), "engine": engine_name(scenario, roles),
            "predicted": figures_record(scenario, roles),
        }
    )  # fmt: skip


_KINDS = ("prefill", "decode")


def _judged(plan: Plan, trace: Path) -> RolePlan:
    role = plan.roles[0]
    case = PlanCase(plan, 0, *sources_of(plan, [trace]))
    rows, predicted = [], role.predicted
    for row in role.strategies:
        placed = placement_of(role, row)
        assessment = case.judge.assess(placed)
        rows.append(strategy_record(row.name, assessment, None if row.placements is None else placed))
        if row.placements is None:
            predicted = predicted_record(assessment.prediction)
    messages = EngineRecord.of(case.scenario, case.split, role.role).messages
    return role.model_copy(update={"strategies": tuple(rows), "predicted": predicted, "messages": messages})
