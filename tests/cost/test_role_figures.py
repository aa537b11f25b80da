"""What a share of the MoE layers' time is worth, where the batch may grow and where it may not."""

from __future__ import annotations

import pytest

from placement.cost.step.role_figures import moe_stake, predict_role
from placement.cost.step.throughput import MoeTimes
from placement.problem.split import Split, make_split
from specs.scenario import Pins, Scenario
from tests.cost import scenarios as s


def posed(batch: int, **changes: object) -> tuple[Scenario, Split]:
    case = s.scenario(workload=s.serving(isl=1024, osl=1024)).model_copy(update=changes)
    return case, make_split(case, tp=1, ep=4, pp=1, dp=4, batch=batch)


def share(case: Scenario, split: Split) -> float:
    """Of tokens/s at the same batch."""
    rates = [
        predict_role(case, "decode", split, MoeTimes(prefill_ratio=each, decode_ratio=each)).tokens_per_s
        for each in (1.0, 1.001)
    ]
    return (rates[0] / rates[1] - 1) / 0.001


def test_a_batch_that_may_grow_is_worth_more() -> None:
    case, split = posed(64)
    assert moe_stake(case, "decode", split) > share(case, split) * 1.01


@pytest.mark.parametrize("bound", ["engine", "pin"])
def test_a_batch_that_may_not_grow_is_worth_its_time(bound: str) -> None:
    case, split = posed(64)
    if bound == "engine":
        case = case.model_copy(update={"engine": case.engine.model_copy(update={"sequences": 64})})
    else:
        case = case.model_copy(update={"pins": Pins(batch=64)})
    assert moe_stake(case, "decode", split) == pytest.approx(share(case, split), rel=1e-9)
