"""What a plan misses is said."""

from bench.lab.studies import missed
from placement.planning.solve import plan_scenario
from specs.overrides import overridden
from tests.cost import scenarios as s


def test_limits_that_are_missed_are_named_and_others_are_not() -> None:
    case = s.scenario(workload=s.serving(isl=1024, osl=128, ttft_ms=60.0, tpot_ms=4.0))
    plan = plan_scenario(case, strategy="eplb", holdout=False, windows=1)
    assert missed(plan) == ()
    tight = overridden(plan.scenario.spec, set={"workload.ttft_ms": 1e-3})
    told = missed(plan.model_copy(update={"scenario": plan.scenario.model_copy(update={"spec": tight})}))
    assert len(told) == 1
    assert told[0].startswith("TTFT ")
    assert "limit of 0.001 ms" in told[0]
