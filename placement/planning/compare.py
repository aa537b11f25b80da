"""Solves several scenarios alike and sets their strategies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from placement.errors import ParameterError
from placement.planning.case import load_scenario, make_case
from placement.planning.current import current_record
from placement.planning.solve import plan_scenario, read_routing
from placement.report.comparison import Comparison
from specs.scenario import Scenario


def compare_strategies(
    scenarios: Sequence[Scenario | str | Path],
    *,
    current: str | Path | None = None,
    role: str | None = None,
    **asked: Any,
) -> Comparison:
    """Every strategy on every scenario, on held-out routing where there is some.

    Args:
        scenarios: Scenarios, or their names or files.
        current: A file of the engine that runs: its map becomes a row, "current", of the one scenario.
        role: Whose map that is, where the plan has several roles.
        asked: Arguments of `plan_scenario`, the same for every scenario; traces must be of its model.

    Raises:
        InputError, InfeasibleError, NothingFoundError: See `plan_scenario`.
    """
    if current is None and role is not None:
        raise ParameterError("role", "it says whose map `current` is", "leave it out")
    if current is not None and len(scenarios) > 1:
        raise ParameterError("current", "a map is of one scenario, and several are given", "compare one")
    cases = [load_scenario(scenario) for scenario in scenarios]
    plans = tuple(plan_scenario(case, **asked) for case in cases)
    if current is None:
        return Comparison(plans)
    of = plans[0].role(role)
    judged = read_routing(make_case(plans[0].scenario.spec, **asked)).judged_on
    return Comparison(plans, ((0, of.role, current_record(plans[0], of, current, judged)),))
