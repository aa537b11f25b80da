"""Small plans of every engine, and one of two roles."""

from __future__ import annotations

import copy
from typing import Any

from placement import Budget, Plan, load_scenario, plan_scenario
from specs.scenario import Scenario
from specs.validation import validate
from tests.cli.conftest import TINY

#: 4 GPUs on 2 OS nodes, each an attention rank; 12 slots for 8 experts, in layers 1 and 2 of 3.
ENGINES = {"sglang": "sglang:deepep", "vllm": "vllm:deepep_low_latency", "trtllm": "trtllm", "generic": ""}


def scenario(engine: str = "", **changes: Any) -> Scenario:
    """The tiny scenario for an engine, with other fields."""
    data: dict[str, Any] = {**copy.deepcopy(TINY), **changes}
    if engine:
        data["engine"] = engine
    found: Scenario = validate(Scenario, data, "tiny")
    return found


def plan(engine: str = "", **changes: Any) -> Plan:
    """A plan of it, made in a moment."""
    case = load_scenario(scenario(engine, **changes))
    return plan_scenario(case, strategy="search", budget=Budget(0.1), workers=1)


def two_roles(made: Plan) -> Plan:
    """The same instances, as prefill and decode apart."""
    (role,) = made.roles
    roles = tuple(role.model_copy(update={"role": name}) for name in ("prefill", "decode"))
    return made.model_copy(update={"mode": "disaggregated", "roles": roles})
