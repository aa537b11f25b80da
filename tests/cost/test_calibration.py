"""Which multipliers a case gets, and that calibration leaves the rest alone."""

from __future__ import annotations

import dataclasses

import pytest

from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.calibration.fitted import (
    CEILING,
    Calibration,
    Case,
    Effect,
    Level,
    calibrated,
    efficiency_of,
    load_calibration,
)
from placement.cost.step.throughput import predict
from placement.problem.split import make_split
from specs.loading import load_scenario
from tests.cost import scenarios as s

CASE = Case("hopper", "mla", "sglang")


def level(multiplier: float) -> Level:
    return Level(multiplier=multiplier, error=0.1)


def calibration(*effects: Effect) -> Calibration:
    return Calibration(source="test", generations=("hopper",), attentions=("mla",), errors={}, effects=effects)


def test_multipliers_of_all_matching_effects_multiply() -> None:
    fitted = calibration(
        Effect(constant="hbm", levels={"all": level(0.9)}),
        Effect(constant="layer_overhead_s", levels={"all": level(2.0)}),
        Effect(constant="layer_overhead_s", by=("generation",), levels={"hopper": level(1.5), "blackwell": level(9.0)}),
        Effect(constant="prefill_time", by=("engine",), levels={"vllm": level(3.0)}),
        Effect(constant="hbm_experts", by=("generation", "attention"), levels={"hopper/mla": level(1.1)}),
    )
    assert fitted.multipliers(CASE) == pytest.approx({"hbm": 0.9, "layer_overhead_s": 3.0, "hbm_experts": 1.1})


def test_what_was_not_measured_gets_the_populations_and_training_keeps_the_constants() -> None:
    fitted = calibration(
        Effect(constant="hbm", levels={"all": level(0.9)}),
        Effect(constant="hbm", by=("generation",), levels={"hopper": level(1.1)}),
    )
    for generation in ("ampere", None):
        other = dataclasses.replace(CASE, generation=generation)
        assert fitted.multipliers(other) == {"hbm": 0.9}
        assert not fitted.measured(other)
    assert fitted.measured(CASE)
    assert not fitted.measured(dataclasses.replace(CASE, attention="gated_delta"))
    assert efficiency_of(s.scenario()).provenance == "population"
    assert efficiency_of(load_scenario("dgx_a100_175b")) == load_efficiency()


def test_shares_stay_shares() -> None:
    base = load_efficiency()
    got = calibrated(base, {"hbm": 5.0, "matmul": 1.2, "layer_overhead_s": 5.0})
    assert got.hbm.value == CEILING
    assert got.matmul.value["bf16"] == pytest.approx(min(CEILING, base.matmul.value["bf16"] * 1.2))
    assert got.layer_overhead_s.value == pytest.approx(5 * base.layer_overhead_s.value)
    assert got.provenance == "calibrated"
    assert calibrated(base, {}) is base


def test_shipped_calibration_names_constants_that_exist() -> None:
    base, shipped = load_efficiency(), load_calibration()
    assert set(shipped.generations) == {"blackwell", "hopper"}
    for effect in shipped.effects:
        assert hasattr(base, effect.constant)
        assert effect.levels
    assert shipped.errors["all"].rows > 600


def test_predictions_on_a_measured_generation_say_so() -> None:
    case = load_scenario("gpt_oss_120b_gb200_ib")
    split = make_split(case, tp=1, ep=2, pp=1, dp=2, batch=64)
    assert {each.provenance for each in predict(case, split).provenance} == {"calibrated"}
    told = case.model_copy(update={"engine": case.engine.model_copy(update={"measured_as": "vllm"})})
    plain = predict(case, split).ttft_s
    known = predict(told, split).ttft_s
    assert plain is not None
    assert known is not None
    assert known != plain
