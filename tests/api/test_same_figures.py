"""The same degrees have the same figures, whichever command says them: over scenarios of the catalog."""

from __future__ import annotations

import pytest

from placement import evaluate_plan, load_scenario, plan_deployment, plan_scenario
from placement.routing.holdout import synthetic_source

#: Few tokens, and instances priced with balanced experts: what is compared hangs on neither.
FEW = {"routing.tokens": 512, "routing.sequences": 8}
SCENARIOS = ("deepseek_v2_lite_h100_ib", "mixtral_8x7b_h100_ib", "olmoe_1b_7b_h100_ib")


@pytest.mark.parametrize("name", SCENARIOS)
def test_solve_deploy_and_evaluate_say_the_same(name: str) -> None:
    scenario = load_scenario(name, set=FEW)
    deployed = plan_deployment(scenario, placed=False)
    solved = plan_scenario(scenario, strategy="eplb", placed=False, workers=1)
    kept = plan_scenario(scenario, strategy="eplb", deployment=deployed, workers=1)
    judged = evaluate_plan(deployed, synthetic_source(scenario, 0).routing, part="second-half")
    for role, *others, told in zip(deployed.roles, solved.roles, kept.roles, judged.roles, strict=True):
        for other in others:
            assert (other.split, other.predicted, other.binds) == (role.split, role.predicted, role.binds)
            assert other.strategies == role.strategies
        figures = {row.record.name: row.record for row in told.rows}
        for row in role.strategies:
            bare = row.model_copy(update={"placements": None, "dispatch_fractions": None, "at_own_batch": None})
            assert figures[row.name] == bare
    assert deployed.predicted == solved.predicted == kept.predicted
    if len(deployed.roles) > 1:
        assert deployed.nodes == solved.nodes
