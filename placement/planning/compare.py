"""Solves several scenarios alike and sets their strategies side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from placement.planning.case import load_scenario
from placement.planning.solve import plan_scenario
from placement.report.comparison import Comparison
from specs.scenario import Scenario


def compare_strategies(scenarios: Sequence[Scenario | str | Path], **asked: Any) -> Comparison:
    """Every strategy on every scenario, on held-out routing where there is some.

    Args:
        scenarios: Scenarios, or their names or files.
        asked: Arguments of `plan_scenario`, the same for every scenario; traces must be of its model.

    Raises:
        InputError, InfeasibleError, NothingFoundError: See `plan_scenario`.
    """
    cases = [load_scenario(scenario) for scenario in scenarios]
    return Comparison(tuple(plan_scenario(case, **asked) for case in cases))
