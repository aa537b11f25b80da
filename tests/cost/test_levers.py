"""Levers: what each changes, by hand, and that nothing changes without one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from pydantic import ValidationError

from placement import load_scenario
from placement.cost.calibration.efficiency import load_efficiency
from placement.cost.memory.hbm import MemoryModel
from placement.cost.serving_sim.arrivals import InFlight
from placement.cost.serving_sim.kinds import InstanceKind
from placement.cost.serving_sim.simulate import run
from placement.cost.step.passes import decode_context
from placement.cost.step.roles import context_degrees, decode_point, kv_bytes_per_request, prefill_point
from placement.cost.step.throughput import MoeTimes, ServingModel, predict
from placement.problem.engine_rules import most_sequences, prefill_tokens
from placement.problem.split import Split, make_split
from placement.report.levers import left_out, lever_lines
from specs.scenario import Scenario
from specs.speculation import Speculation
from tests.cost import scenarios as s

CONSTANTS = load_efficiency()
MTP = Speculation(draft=2, acceptance=0.8)


def _with(engine: str | None = None, **fields: Any) -> Scenario:
    more = {} if engine is None else {"engine": engine}
    return s.scenario(s.deepseek_v3(), cluster=s.cluster(per_node=8), workload=s.serving(**fields), **more)


def _split(scenario: Scenario, batch: int = 8, pp: int = 1) -> Split:
    return make_split(scenario, 1, 8, pp, 8, batch, instances=1)


def _model(scenario: Scenario, moe: MoeTimes | None = None, batch: int = 8, pp: int = 1) -> ServingModel:
    assert scenario.workload.kind == "serving"
    return ServingModel(scenario, scenario.workload, _split(scenario, batch, pp), moe)


def test_no_lever_changes_nothing() -> None:
    """Levers at what they are without a flag give every figure to the last bit."""
    plain = _with()
    budget = int(prefill_tokens(plain, s.serving(), 1))
    same = _with(prefix_hit=0.0, chunk_tokens=budget, speculation=None)
    for batch in (1, 8, 100):
        assert predict(plain, _split(plain, batch)) == predict(same, _split(same, batch))
        assert MemoryModel(plain, _split(plain, batch)).report() == MemoryModel(same, _split(same, batch)).report()
    assert lever_lines(plain) == ()


def test_accepted_tokens() -> None:
    """A draft is accepted as far as every token before it is."""
    assert MTP.mean_accepted == pytest.approx(0.8 + 0.64)
    assert Speculation(draft=3, accepted=1.5).mean_accepted == 1.5
    assert Speculation(draft=3, acceptance=0.0).mean_accepted == 0.0
    for wrong in (
        {"draft": 1}, {"draft": 1, "acceptance": 0.5, "accepted": 0.5}, {"draft": 1, "accepted": 1.5},
        {"draft": 1, "acceptance": 0.5, "method": "eagle3"}, {"draft": 1, "acceptance": 0.5, "parameters_b": 1.0},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            Speculation(**wrong)


def test_a_look_up_costs_the_verification_alone() -> None:
    """Three tokens of a sequence go through every product and share one reading of its KV cache."""
    told = Speculation(method="ngram", draft=2, accepted=0.5)
    plain, drafted = _model(_with()), _model(_with(speculation=told))
    one, three = plain.decode_times(8), drafted.decode_times(8)
    tripled = plain.passes.decode(24, plain.context)
    assert [block.moe for block in three.blocks] == [block.moe for block in tripled.blocks]
    assert three.head == tripled.head
    for before, after, apart in zip(one.blocks, three.blocks, tripled.blocks, strict=True):
        assert before.core <= after.core <= apart.core
    assert drafted.decode_step_s(8) == pytest.approx(drafted.step_s(8) / 1.5)
    assert drafted.draft_s(8) == 0.0


def test_draft_passes_of_the_module() -> None:
    """One more layer as the last for each drafted token, with the head and the product that joins both inputs."""
    model = _model(_with(speculation=MTP))
    passes, context = model.passes, decode_context(s.serving())
    first, then = passes.decode(8, context, each=3.0, head_tokens=8), passes.decode(8, context)
    joined = 2 * 7168 * 7168
    read = joined * 2 / passes.roofline.hbm_bytes_per_s
    by_hand = first.blocks[-1].seconds + first.head + read + then.blocks[-1].seconds + then.head + read
    assert model.draft_s(8) == pytest.approx(by_hand)
    # Placed experts draft as they verify.
    slower = _model(_with(speculation=MTP), MoeTimes(decode_s=2 * passes.moe_s(24, "decode")))
    assert slower.draft_s(8) > model.draft_s(8)
    assert slower.draft_s(8) == pytest.approx(
        _model(_with(speculation=MTP), MoeTimes(decode_ratio=2.0)).draft_s(8)
    )  # fmt: skip


def test_a_trained_head_reads_its_weights() -> None:
    """Its parameters are read once for each drafted token, and lie on the GPU."""
    told = Speculation(method="eagle3", draft=3, acceptance=0.7, parameters_b=2.0)
    model = _model(_with(speculation=told))
    each = 2e9 * 2 / model.passes.roofline.hbm_bytes_per_s + model.efficiency.layer_overhead_s.value
    assert model.draft_s(8) == pytest.approx(3 * each)
    memory = MemoryModel(model.passes.scenario, model.split).report()
    assert memory.line("draft weights") == 4e9


def test_what_a_module_stores() -> None:
    """DeepSeek-V3's module has 11.5B parameters beside the embedding and head that it shares."""
    plain, drafted = _with(), _with(speculation=MTP)
    before, after = (MemoryModel(each, make_split(each, 1, 1, 1, 1, 4, instances=1)) for each in (plain, drafted))
    weights = after.report().line("draft weights")
    assert weights == pytest.approx(11.5e9, rel=0.02)  # a byte each, but for the joining product
    assert before.report().line("draft weights") == 0.0
    kept = (after.report().line("KV cache") - before.report().line("KV cache")) / 4
    assert kept == pytest.approx((1024 + 256) * 1152)  # one of 62 layers
    assert after.total_bytes(4) > before.total_bytes(4) + weights
    # The last of several stages holds it.
    deep = MemoryModel(drafted, make_split(drafted, 1, 4, 2, 4, 4, instances=1))
    assert deep.report().stage == 1


def test_figures_under_drafts() -> None:
    """Twice as fast at best, never better with a larger batch, and a worse draft is worse."""
    plain, drafted = _model(_with()), _model(_with(speculation=Speculation(draft=1, acceptance=0.9)))
    assert 1.0 < plain.decode_step_s(1) / drafted.decode_step_s(1) < 1.9
    points = [drafted.at(batch) for batch in (1, 2, 4, 8, 16, 64, 256)]
    for less, more in pairwise(points):
        assert less.tpot_s <= more.tpot_s
        assert less.ttft_s <= more.ttft_s
        assert less.tokens_per_s <= more.tokens_per_s
    worse = _model(_with(speculation=Speculation(draft=1, acceptance=0.1)))
    assert worse.decode_step_s(8) > plain.decode_step_s(8)
    assert decode_point(drafted, 8).tpot_s == pytest.approx(drafted.decode_step_s(8))
    parts = predict(drafted.passes.scenario, drafted.split).breakdown
    assert parts[-1].name == "draft passes"
    assert parts[-1].seconds > 0
    # Prompts go through the module, too.
    assert drafted.full_pass.stages_s > plain.full_pass.stages_s


def test_buffers_bound_verified_tokens() -> None:
    """128 tokens of a GPU in a step are 64 sequences with a draft of one."""
    plain, drafted = _with("sglang:deepep"), _with("sglang:deepep", speculation=Speculation(draft=1, acceptance=0.9))
    assert (most_sequences(plain, 1, 1), most_sequences(drafted, 1, 1)) == (128, 64)


def test_prefix_cache() -> None:
    """Half of the prompt is computed; its attention still sees all of it, and all of it is held."""
    plain, half = _model(_with(isl=4096)), _model(_with(isl=4096, prefix_hit=0.5))
    whole, rest = plain.prefill_times(2048), half.prefill_times(2048)
    assert rest.blocks[-1].projections == whole.blocks[-1].projections
    # 2,048 queries see 3/4 of all pairs; as a share of the whole prompt they would see 1/2.
    assert rest.blocks[-1].core / whole.blocks[-1].core == pytest.approx(1.5, rel=1e-3)
    few, fewer = (_model(_with(isl=512, prefix_hit=hit)).bunch(4) for hit in (0.0, 0.5))
    assert fewer.tokens == pytest.approx(few.tokens / 2)
    memory = [MemoryModel(model.passes.scenario, model.split).report().line("KV cache") for model in (plain, half)]
    assert memory[0] == memory[1]
    points = [prefill_point(model, 10.0) for model in (plain, half)]
    assert points[0] is not None
    assert points[1] is not None
    assert 1.5 < points[1].requests_per_s / points[0].requests_per_s < 2.0


def test_what_moves_of_a_cached_prompt() -> None:
    """All of it where decode instances keep no prefix cache; else what they lack."""
    whole = kv_bytes_per_request(_with("sglang"))
    assert kv_bytes_per_request(_with("sglang", prefix_hit=0.25)) == whole
    assert kv_bytes_per_request(_with("vllm", prefix_hit=0.25)) == pytest.approx(0.75 * whole)


def test_chunks() -> None:
    """A chunk takes the place of the engine's default, up to the buffers of its kernels."""
    workload = s.serving(chunk_tokens=512)
    assert prefill_tokens(_with("sglang"), s.serving(), 1) == 4096
    assert prefill_tokens(_with("sglang", chunk_tokens=512), workload, 8) == 512
    assert prefill_tokens(_with("vllm:deepep_low_latency", chunk_tokens=512), workload, 8) == 256
    long = s.serving(chunk_tokens=65536)
    assert prefill_tokens(_with("sglang", chunk_tokens=65536), long, 1) == 65536
    # Several passes wait for each launch, and a shorter pass holds up decoding for less.
    large, small = (_model(_with(isl=4096, chunk_tokens=tokens)) for tokens in (4096, 512))
    assert small.at(8).tpot_s > large.at(8).tpot_s
    assert small.full_pass.slowest_s < large.full_pass.slowest_s


def test_pinned_context_parallelism() -> None:
    """A pin leaves one number of ranks that share a prompt, or none where it does not divide."""
    free = _with()
    assert context_degrees(free, _split(free)) == [1, 2, 4, 8]
    pinned = load_scenario(free, prefill_cp=4).of_role("prefill")
    assert context_degrees(pinned, _split(pinned)) == [4]
    odd = load_scenario(free, prefill_cp=3).of_role("prefill")
    assert context_degrees(odd, _split(odd)) == []


def test_a_tensor_parallel_group_over_nodes_keeps_its_prompts() -> None:
    """No two ranks lie in one node, so that each works alone."""
    wide = s.scenario(s.deepseek_v3(), cluster=s.cluster(nodes=4, per_node=8))
    assert context_degrees(wide, make_split(wide, 16, 32, 1, 2, 8, instances=1)) == [1]


def test_without_cuda_graphs() -> None:
    """A step takes at least its launches, drafts included."""
    plain, eager = _model(_with()), _model(load_scenario(_with(), cuda_graphs=False))
    launch = 61 * CONSTANTS.launch_layer_s.value
    assert launch > plain.step_s(1)
    host = eager.efficiency.step_overhead_s.value + eager.efficiency.sequence_overhead_s.value
    assert eager.step_s(1) == pytest.approx(launch + host)
    drafted = _model(load_scenario(_with(speculation=MTP), cuda_graphs=False))
    assert drafted.launch_s == pytest.approx(63 * CONSTANTS.launch_layer_s.value)
    assert eager.step_s(4096) == plain.step_s(4096)


def test_words() -> None:
    """A screen names what is set, and a module that drafts is not left out."""
    told = load_scenario(
        "deepseek_r1_h200_ib", engine="sglang", draft=1, acceptance=0.85, prefix_hit=0.5, chunk_tokens=4096,
        cuda_graphs=False,
    )  # fmt: skip
    lines = lever_lines(told)
    assert len(lines) == 4
    assert "1 drafted in a step, 0.85 accepted" in lines[0]
    assert left_out(told) == ()
    assert any("next-token" in part for part in left_out(load_scenario("deepseek_r1_h200_ib")))


def test_simulated_as_in_the_closed_form() -> None:
    """Half of each prompt is found, and tokens are drafted: a closed loop yields what the closed form says."""
    workload = s.serving(isl=4096, prefix_hit=0.5, speculation=Speculation(method="ngram", draft=2, accepted=0.8))
    scenario = s.scenario(workload=workload)
    each = InstanceKind("aggregated", scenario, make_split(scenario, 1, 4, 1, 4, 20), 1)
    users = each.servers * 20
    got = run([each], InFlight(users), requests=8_000)
    turns = len(got.arrival_s) // users * users
    since = got.arrival_s[-turns]
    served = ((got.done_s > since) & (got.done_s <= got.end_s)).sum() / (got.end_s - since)
    assert served == pytest.approx(each.point.requests_per_s, rel=0.05)
    assert got.tpot_s[-turns:].mean() == pytest.approx(each.point.tpot_s, rel=0.05)
