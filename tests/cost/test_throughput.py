"""Serving and training predictions: closed forms, parts that add up, and monotony in the batch."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.calibration.fitted import efficiency_of
from placement.cost.layer.scenario_rates import layer_rates
from placement.cost.step.throughput import MoeTimes, ServingModel, predict
from placement.errors import InputError
from placement.problem.split import make_split
from tests.cost import scenarios as s


def test_serving_rate_is_the_cycle_of_a_rank() -> None:
    case = s.scenario()
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=20)
    got = predict(case, split)
    assert got.decode_step_s is not None
    assert got.prefill_s is not None
    cycle = 256 * got.decode_step_s + 20 * got.prefill_s
    assert got.tokens_per_s == pytest.approx(20 * 256 / cycle * 4 * 2)
    assert got.tokens_per_s_per_gpu == pytest.approx(got.tokens_per_s / 8)
    assert got.tpot_s == pytest.approx(cycle / 256)
    constants = efficiency_of(case)
    host = constants.step_overhead_s.value + 20 * constants.sequence_overhead_s.value
    step = sum(part.seconds for part in got.breakdown) + host
    assert step == pytest.approx(got.decode_step_s)
    assert {entry.provenance for entry in got.provenance} == {"population"}
    assert {entry.moe_layer for entry in got.provenance} == {"balanced estimate"}


def test_idle_gpus_count_in_the_rate_per_gpu() -> None:
    case = s.scenario()
    two = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=20)
    one = replace(two, instances=1)
    assert predict(case, one).tokens_per_s_per_gpu == pytest.approx(predict(case, two).tokens_per_s_per_gpu / 2)


def test_scored_layers_replace_the_estimate() -> None:
    case = s.scenario()
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=20)
    model = ServingModel(case, s.serving(), split)
    decode = model.passes.moe_s(20)
    prefill = model.passes.moe_s(4096)
    same = predict(case, split, MoeTimes(prefill_s=prefill, decode_s=decode))
    plain = predict(case, split)
    assert same.tokens_per_s == pytest.approx(plain.tokens_per_s)
    assert same.ttft_s == pytest.approx(plain.ttft_s or 0)
    assert {entry.moe_layer for entry in same.provenance} == {"scored placement"}
    slower = predict(case, split, MoeTimes(decode_s=decode + 1e-3))
    assert slower.decode_step_s == pytest.approx((plain.decode_step_s or 0) + 12e-3)
    assert layer_rates(case, split, "decode").tokens_per_gpu == 20


def test_prefill_time_is_quadratic_in_attention_only() -> None:
    short = s.scenario(workload=s.serving(isl=1024))
    long = s.scenario(workload=s.serving(isl=4096))
    split = make_split(short, tp=1, ep=4, pp=1, dp=4, batch=1)
    parts = [{part.name: part.seconds for part in predict(c, split).prefill_breakdown} for c in (short, long)]
    assert parts[1]["attention core"] / parts[0]["attention core"] == pytest.approx(16, rel=1e-2)
    assert parts[1]["attention projections"] / parts[0]["attention projections"] == pytest.approx(4, rel=1e-6)


def test_long_prompts_take_several_passes() -> None:
    case = s.scenario(workload=s.serving(isl=10_000, prefill_tokens_per_gpu=4096))
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=1)
    constants = efficiency_of(case)
    got = predict(case, split)
    parts = sum(part.seconds for part in got.prefill_breakdown)
    passes = 10_000 / 4096
    stalled = (parts + passes * constants.prefill_overhead_s.value) * (1 + constants.rank_stall.value * 3 / 4)
    assert got.prefill_s == pytest.approx(stalled)


def test_prompts_that_arrive_together_share_passes() -> None:
    case = s.scenario(workload=s.serving(isl=512, prefill_tokens_per_gpu=4096))
    split = make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1)
    model = ServingModel(case, s.serving(isl=512, prefill_tokens_per_gpu=4096), split)
    bunch = 1 + efficiency_of(case).arrival_bunching.value * 24
    one = model.prefill_pass(512 * bunch)
    assert 512 * bunch < 4096
    assert model.at(25).prefill_s == pytest.approx(one.slowest_s / bunch)
    assert model.at(25).prefill_s < model.at(1).prefill_s
    # With more than a pass holds, the mean prompt waits for half of the passes behind the first.
    many = model.at(200)
    tokens = 512 * (1 + efficiency_of(case).arrival_bunching.value * 199)
    full = model.prefill_pass(4096)
    first = model.first_token_s + many.decode_step_s / 2
    assert many.ttft_s == pytest.approx(first + full.stages_s + (tokens / 4096 - 1) / 2 * full.slowest_s)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 2000),
    tp=st.sampled_from([1, 2]),
    pp=st.integers(1, 2),
    overlap=st.sampled_from(["none", "two_batch"]),
    rule=st.sampled_from(["per_node", "per_rank", "per_expert"]),
    etp=st.sampled_from([1, 2]),
)
def test_rate_and_latencies_never_fall_with_the_batch(
    batch: int, tp: int, pp: int, overlap: str, rule: str, etp: int
) -> None:
    case = s.scenario(overlap=overlap, message_rule=rule, cluster=s.cluster(nodes=4, per_node=4))
    split = make_split(case, tp=tp, ep=8 // etp, pp=pp, dp=8 // tp, batch=1, redundant=0)
    model = ServingModel(case, s.serving(), split)
    a, b = model.at(batch), model.at(batch + 1)
    assert b.tokens_per_s >= a.tokens_per_s * (1 - 1e-12)
    assert b.tpot_s >= a.tpot_s
    assert b.ttft_s >= a.ttft_s


def test_training_bubble_of_equal_stages_is_the_closed_form() -> None:
    model = s.small_model(vocabulary=1)
    case = s.scenario(model, workload=s.training(), cluster=s.cluster(nodes=1, per_node=4))
    split = make_split(case, tp=1, ep=1, pp=4, dp=1, batch=64)
    step = predict(case, split).step
    assert step is not None
    assert step.microbatches == 64
    # The head of one token and three transfers make the stages unequal by little.
    assert step.bubble_share == pytest.approx(3 / (64 + 3), rel=0.1)
    assert step.step_s > 64 * (step.forward_s + step.backward_s)


def test_training_rate_counts_the_global_batch() -> None:
    case = s.scenario(workload=s.training())
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=8)
    got = predict(case, split)
    assert got.step is not None
    assert got.tokens_per_s == pytest.approx(64 * 1024 / got.step.step_s)
    with pytest.raises(InputError, match="global_batch"):
        predict(case, replace(split, batch=7))


def test_recompute_costs_one_more_forward() -> None:
    full, none = (s.scenario(workload=s.training(recompute=kind)) for kind in ("full", "none"))
    split = make_split(full, tp=1, ep=1, pp=1, dp=1, batch=8)
    a, b = predict(full, split).step, predict(none, split).step
    assert a is not None
    assert b is not None
    assert a.forward_s == b.forward_s
    # One GPU sends nothing: recompute is another forward pass, but for the head.
    assert a.backward_s - b.backward_s == pytest.approx(a.forward_s, rel=0.1)
    assert a.backward_s - b.backward_s < a.forward_s
    assert 2 * b.forward_s < b.backward_s < 3 * b.forward_s
