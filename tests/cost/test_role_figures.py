"""What a share of the MoE layers' time is worth, where the batch may grow and where it may not."""

from __future__ import annotations

import pytest

from placement.cost.step.role_figures import moe_stake, predict_role
from placement.cost.step.roles import prompt_alone_s
from placement.cost.step.throughput import MoeTimes, ServingModel
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


@pytest.mark.parametrize("spare", [1.01, 1.0 + 1e-5])
def test_layers_are_worth_more_than_themselves_where_a_prompt_has_little_time_to_wait(spare: float) -> None:
    """At a TTFT just above that of a prompt alone, which slower layers would even pass."""
    case, split = posed(1)
    alone_s = prompt_alone_s(ServingModel(case, case.workload, split, MoeTimes()))
    near = case.model_copy(update={"workload": case.workload.model_copy(update={"ttft_ms": alone_s * 1e3 * spare})})
    whole, quicker = (
        predict_role(near, "prefill", split, MoeTimes(prefill_ratio=each, decode_ratio=each)).tokens_per_s
        for each in (1.0, 0.999)
    )
    assert moe_stake(near, "prefill", split) == pytest.approx((1 - whole / quicker) / 0.001)
    assert moe_stake(near, "prefill", split) > 1.5


def test_layers_are_worth_more_than_themselves_where_sequences_cost_little_beside_them() -> None:
    """What layers must gain for a fifth sequence within the time of four is less than a quarter."""
    case, split = posed(4)

    def step_s(batch: int, ratio: float) -> float:
        times = MoeTimes(prefill_ratio=ratio, decode_ratio=ratio)
        return predict_role(case, "decode", posed(batch)[1], times).tpot_s or 0.0

    gained = (step_s(5, 1.0) - step_s(4, 1.0)) / (step_s(5, 2.0) - step_s(5, 1.0))
    assert gained < 0.22
    assert moe_stake(case, "decode", split) == pytest.approx(0.25 / gained, rel=0.05)
