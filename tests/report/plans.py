"""Plans that reports are made of: with names that attack a page, and with two roles made by hand."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from placement.planning.case import load_scenario
from placement.planning.effort import Budget
from placement.planning.solve import plan_scenario
from placement.records.plan import Plan, plan_from_json, plan_json
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
    """A prefill and a decode instance on twice the small cluster."""
    scenario = load_scenario(folder / "tiny.yaml", nodes=4)
    return plan_scenario(scenario, traces=[folder / "a.npz"], mode="disaggregated", **QUICK)
