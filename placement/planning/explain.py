"""What one more unit of each limit would buy: the choice of instances made again with one thing changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from placement.errors import PlacementError
from placement.planning.case import Case
from placement.planning.choose import choose
from placement.planning.solve import Planned, read_routing
from placement.records.choice import WhatIfRecord
from specs.errors import InputError
from specs.overrides import overridden
from specs.scenario import Scenario


def explained(case: Case, planned: Planned) -> Planned:
    """The plan with what other limits would gain, each by a choice of its own; training plans stay as they are."""
    choice, workload = planned.plan.choice, case.scenario.workload
    if choice is None or workload.kind != "serving" or case.deployment is not None:
        return planned
    # The question that was answered, which may be of a demand: the case need not have its rate.
    case = replace(case, target_tokens_per_s=choice.target_tokens_per_s)
    routing, found = read_routing(case), []
    changes = list(_changes(case))
    case.report.stage("weighing other limits", len(changes))
    for told, changed in changes:
        try:
            other = choose(replace(changed, told=False), routing, case.effort.stop())
        except (InputError, PlacementError):
            continue
        finally:
            case.report.advance()
        gpus = sum(role.split.gpus for role in other.roles)
        found.append(WhatIfRecord(change=told, tokens_per_s=other.record.priced_tokens_per_s, gpus=gpus))
    weighed = choice.model_copy(update={"what_if": tuple(found)})
    return replace(planned, plan=planned.plan.model_copy(update={"choice": weighed}))


def _changes(case: Case) -> Iterator[tuple[str, Case]]:
    """Each change in words, and the case with it."""
    scenario = case.scenario
    workload, cluster = scenario.workload, scenario.cluster
    if workload.kind != "serving":
        return
    settings: list[tuple[str, dict[str, object]]] = [
        ("TTFT limit +10%", {"workload.ttft_ms": 1.1 * workload.ttft_ms}),
        ("TPOT limit +10%", {"workload.tpot_ms": 1.1 * workload.tpot_ms}),
        ("HBM of a GPU +10%", {"cluster.gpu.hbm_gib": 1.1 * cluster.gpu.hbm_gib}),
        ("HBM bandwidth +10%", {"cluster.gpu.hbm_gb_per_s": 1.1 * cluster.gpu.hbm_gb_per_s}),
        ("links inside nodes twice as fast", {"cluster.fast.gb_per_s": 2 * cluster.fast.gb_per_s}),
    ]
    if case.target_tokens_per_s is None:  # which the nodes that there are reach
        settings.append(("one more node", {"cluster.nodes": cluster.nodes + 1}))
    if cluster.nodes > 1:
        settings.insert(5, ("links between nodes twice as fast", {"cluster.slow.gb_per_s": 2 * cluster.slow.gb_per_s}))
    if scenario.degrees != "any":
        settings.append(("degrees that nobody runs", {"degrees": "any"}))
    for told, values in settings:
        changed = _changed(scenario, values)
        if changed is not None:
            yield told, replace(case, scenario=changed)
    if case.max_kinds is not None:
        yield "any number of kinds of instances", replace(case, max_kinds=None)


def _changed(scenario: Scenario, values: dict[str, object]) -> Scenario | None:
    try:
        return overridden(scenario, set=values)
    except InputError:
        return None
