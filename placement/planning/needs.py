"""What a plan's links need, role by role, on the routing that judges it."""

from __future__ import annotations

from placement.cost.pose import layer_problems
from placement.cost.step.link_needs import RoleNeeds, link_needs
from placement.cost.step.roles import kv_bytes_per_request
from placement.planning.case import make_case
from placement.planning.solve import read_routing
from placement.records.convert import own_placement
from placement.records.plan import Plan
from specs.workload import PlannedPhase


def needs_of(plan: Plan) -> tuple[RoleNeeds, ...]:
    """The needs of each role of a plan on synthetic routing, as it was planned."""
    spec, told = plan.scenario.spec, plan.provenance
    case = make_case(spec, seed=told.seed, windows=told.routing.windows_per_trace)
    routing = read_routing(case)
    workload, found = spec.workload, []
    for role in plan.roles:
        scenario, split = plan.scenario_of(role), role.split.split()
        phase: PlannedPhase = "decode" if role.role == "aggregated" else role.phase
        problems = layer_problems(scenario, split, phase, routing.judged_on)
        needs = kv = 0.0
        if workload.kind == "serving" and role.role in ("prefill", "decode"):
            requests = plan.predicted.tokens_per_s.value / workload.osl
            needs, kv = requests * kv_bytes_per_request(spec) / role.gpus, scenario.cluster.slow.bytes_per_s
        found.append(RoleNeeds(role.role, link_needs(problems, own_placement(role)), needs, kv))
    return tuple(found)
