"""A scenario with other values: what the command line and Python callers override."""

from __future__ import annotations

from typing import Any

from specs.scenario import Pins, Scenario
from specs.validation import validate
from specs.workload import ServingWorkload

#: Fields that an override may name, by the part of the scenario that holds them.
OF_PINS = tuple(Pins.model_fields)
OF_WORKLOAD = ("isl", "osl", "ttft_ms", "tpot_ms")
OF_SCENARIO = ("redundant", "dispatch", "message_rule", "keep_groups", "overlap", "engine", "degrees")
OVERRIDES = (*OF_SCENARIO, *OF_PINS, *OF_WORKLOAD)


def overridden(scenario: Scenario, **changes: Any) -> Scenario:
    """The scenario with other values, checked as a whole.

    Args:
        scenario: The scenario.
        changes: New values by name (see OVERRIDES); None keeps the scenario's own.

    Raises:
        InputError: A value that the scenario can't have, or objectives of a training workload.
        TypeError: A name that is no override.
    """
    unknown = sorted(set(changes) - set(OVERRIDES))
    if unknown:
        raise TypeError(f"{', '.join(unknown)}: no override; choose among {', '.join(OVERRIDES)}")
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        return scenario
    data = scenario.model_dump()
    for name, value in given.items():
        part = data["pins"] if name in OF_PINS else data["workload"] if name in OF_WORKLOAD else data
        if name in OF_WORKLOAD and not isinstance(scenario.workload, ServingWorkload):
            continue
        part[name] = value
    changed: Scenario = validate(Scenario, data, f"{scenario.name} with the given options")
    return changed
