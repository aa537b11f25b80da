"""The named ways to place experts and to choose instances that `placement scenario` plans: all of them, in one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from placement.errors import InputError, ParameterError
from placement.planning.case import Mode, load_scenario, make_case
from placement.planning.solve import solve
from placement.problem.layer import Objective
from placement.records.plan import Plan
from specs.scenario import Scenario
from specs.validation import suggestion


@dataclass(frozen=True)
class Stance:
    """A way to plan.

    Attributes:
        summary: What it does, and when to take it.
        strategy, objective, mode: As of plan_scenario.
        workload: The kind of workload that it needs; "" for any.
    """

    summary: str
    strategy: str = "auto"
    objective: Objective | None = None
    mode: Mode = "auto"
    workload: str = ""


STANCES: Mapping[str, Stance] = {
    "hash": Stance("experts by a hash: what a system does that knows no loads", strategy="hash"),
    "grouped": Stance("neighbouring experts together: the engines' own order of experts", strategy="linear"),
    "locality": Stance(
        "experts that serve the same tokens on one node: least bytes between nodes", objective="traffic"
    ),
    "balanced": Stance("equal load on every GPU, by the balancer that engines have (EPLB)", strategy="eplb"),
    "solved": Stance("least time: locality and balance weighed by the cost model"),
    "disaggregated": Stance("prefill and decode on instances of their own", mode="disaggregated", workload="serving"),
    "training": Stance("a training step: pipeline, experts and optimizer under HBM", workload="training"),
}


def stance(name: str) -> Stance:
    """The stance of a name.

    Raises:
        ParameterError: There is none.
    """
    if name not in STANCES:
        raise ParameterError("scenario", f"{name!r} is no way to plan", suggestion(name, list(STANCES)))
    return STANCES[name]


def plan_stance(name: str, scenario: Scenario | str, **asked: Any) -> Plan:
    """The plan of a stance.

    Args:
        name: A name of STANCES. scenario: A scenario, or its name or file.
        asked: Further arguments of plan_scenario, such as `budget` and `seed`.

    Raises:
        ParameterError: No such stance, or one that the workload does not fit.
        InputError, InfeasibleError, NothingFoundError: See plan_scenario.
    """
    told, scenario = stance(name), load_scenario(scenario)
    kind = scenario.workload.kind
    if told.workload not in ("", kind):
        fitting = [each for each, other in STANCES.items() if other.workload in ("", kind)]
        problem = f"{name} needs a {told.workload} workload, and {scenario.name} has {kind}"
        raise ParameterError("scenario", problem, f"choose {', '.join(fitting)}, or give another `spec`")

    def made(objective: Objective | None) -> Plan:
        case = make_case(scenario, strategy=told.strategy, objective=objective, mode=told.mode, **asked)
        return solve(replace(case, told=False)).plan

    try:
        return made(told.objective)
    except InputError as error:
        # Bytes between nodes are no objective where every instance lies inside one: then all placements are local.
        if told.objective is None or error.field != "objective":
            raise
        return made(None)
