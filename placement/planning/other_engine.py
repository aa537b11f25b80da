"""A plan as another engine would run it."""

from __future__ import annotations

from placement.cost.memory.hbm import memory_of
from placement.cost.step.role_figures import at_batch, moe_stake
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.problem.engine_rules import Layout, load_problem
from placement.records.convert import engine_name, memory_record
from placement.records.layout import EngineRecord
from placement.records.plan import Plan
from placement.records.role import RolePlan
from specs.overrides import overridden
from specs.scenario import Scenario


def on_engine(plan: Plan, engine: str | None) -> Plan:
    """The plan with its split and placements, under what another engine dispatches, sends and keeps of HBM.

    Args:
        plan: The plan; its figures stay those of its own engine.
        engine: NAME or FILE of the engine, either with `:` and a backend; None: the plan as it is.

    Raises:
        InputError: There is no such engine, or it does not load the plan's split or dispatch.
        InfeasibleError: The split exceeds the HBM that the engine leaves.
    """
    if engine is None:
        return plan
    if any(role.dispatch == "planned" for role in plan.roles):
        raise ParameterError("engine", "the plan has planned dispatch, which is its own engine's", "plan it anew")
    own = plan.scenario.spec.model_copy(update={"dispatch": None, "message_rule": None, "overlap": None})
    scenario = overridden(own, engine=engine)
    moved = plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"spec": scenario})})
    roles = tuple(as_run(role, moved.scenario_of(role), plan.scenario.name) for role in plan.roles)
    return moved.model_copy(update={"engine": engine_name(scenario, roles), "roles": roles})


def as_run(role: RolePlan, scenario: Scenario, name: str) -> RolePlan:
    """A role with what follows from its split under a scenario: dispatch, messages, tokens and memory.

    Args:
        name: Of the scenario, in messages.

    Raises:
        InputError: The scenario's engine does not load the split. InfeasibleError: HBM has no room for it.
    """
    split = role.split.split()
    problem = load_problem(scenario, Layout.of(scenario, split), role.role)
    if problem:
        raise InputError(name, "split", problem, "plan it anew for this engine")
    memory = memory_of(scenario, split)
    if not memory.fits:
        over = -memory.headroom_bytes / 1e9
        raise InfeasibleError(f"{scenario.engine.label} leaves {over:.3g} GB too little HBM for the plan's batch")
    posed = at_batch(split, role.posed_batch) if scenario.workload.kind == "serving" else split
    rates = planned_rates(scenario, posed, role.phase)
    return role.model_copy(
        update={
            "dispatch": scenario.dispatch_in_use,
            "served": None,
            "message_rule": planned_rule(scenario, posed, role.phase, rates),
            "messages": EngineRecord.of(scenario, split, role.role).messages,
            "tokens_per_gpu": rates.tokens_per_gpu,
            "stake": moe_stake(scenario, role.role, posed, role.cp),
            "memory": memory_record(memory),
        }
    )
