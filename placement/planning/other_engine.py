"""A plan as another engine would run it."""

from __future__ import annotations

from placement.cost.memory.hbm import memory_of
from placement.cost.step.serving_mix import planned_rates, planned_rule
from placement.errors import InfeasibleError, InputError, ParameterError
from placement.problem.engine_rules import Layout, load_problem
from placement.records.convert import memory_record
from placement.records.layout import EngineRecord
from placement.records.plan import Plan
from specs.overrides import overridden


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
    if plan.dispatch == "planned":
        raise ParameterError("engine", "the plan has planned dispatch, which is its own engine's", "plan it anew")
    own = plan.scenario.spec.model_copy(update={"dispatch": None, "message_rule": None, "overlap": None})
    scenario, split = overridden(own, engine=engine), plan.split.split()
    problem = load_problem(scenario, Layout.of(scenario, split))
    if problem:
        raise InputError(plan.scenario.name, "split", problem, "plan it anew for this engine")
    memory = memory_of(scenario, split)
    if not memory.fits:
        over = -memory.headroom_bytes / 1e9
        raise InfeasibleError(f"{scenario.engine.label} leaves {over:.3g} GB too little HBM for the plan's batch")
    rates = planned_rates(scenario, split, plan.phase)
    return plan.model_copy(
        update={
            "scenario": plan.scenario.model_copy(update={"spec": scenario}),
            "engine": EngineRecord.of(scenario, split),
            "dispatch": scenario.dispatch_in_use,
            "message_rule": planned_rule(scenario, split, plan.phase, rates),
            "tokens_per_gpu": rates.tokens_per_gpu,
            "memory": memory_record(memory),
        }
    )
