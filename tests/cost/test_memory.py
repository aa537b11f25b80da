"""Memory lines against figures worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from placement.cost.memory.hbm import MemoryModel, memory_of
from placement.cost.memory.local import LocalParameters, stored_bytes
from placement.problem.pieces import stage_shapes
from placement.problem.schedule import in_flight
from placement.problem.split import make_split
from specs.parameters import count_parameters
from tests.cost import scenarios as s


def test_kv_of_gpt_oss_is_2048_bytes_a_layer_and_token() -> None:
    # 2 (key and value) x 8 heads x 64 x 2 bytes.
    # One token is inside every window.
    assert stored_bytes(s.gpt_oss(), 1) == (2048, 2048)
    assert stored_bytes(s.gpt_oss(), 1, tp=8) == (256, 256)
    assert stored_bytes(s.gpt_oss(), 1, tp=64) == (256, 256)  # a head is repeated, not cut


def test_mla_stores_70272_bytes_a_token_over_61_layers_whatever_tp() -> None:
    model = s.deepseek_v3()
    assert [61 * each for each in stored_bytes(model, 1)] == [70_272, 70_272]
    assert stored_bytes(model, 1, tp=8) == stored_bytes(model, 1)
    assert stored_bytes(s.deepseek_v2_lite(), 1) == (576 * 2, 576 * 2)


def test_kv_line_counts_sliding_layers_by_their_window() -> None:
    case = s.scenario(s.gpt_oss(), workload=s.serving(isl=4096, osl=1024), cluster=s.cluster(hbm_gib=180.0))
    split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=10)
    # 18 layers keep 5,120 tokens, 18 keep 128.
    assert memory_of(case, split).line("KV cache") == 10 * 2048 * 18 * (5120 + 128)


def test_expert_weights_of_v3_on_32_gpus() -> None:
    case = s.scenario(s.deepseek_v3(), cluster=s.cluster(nodes=4, per_node=8))
    report = memory_of(case, make_split(case, tp=1, ep=32, pp=1, dp=32, batch=8, redundant=32))
    # 9 slots x 3 matrices of 7168 x 2048 x 1 byte x 58 layers.
    assert report.line("expert weights") == 9 * 3 * 7168 * 2048 * 58
    assert report.line("router") == 58 * 256 * 7168 * 2
    assert report.total_bytes == pytest.approx(sum(line.bytes for line in report.lines))
    assert report.headroom_bytes == pytest.approx(80 * 2**30 - report.total_bytes)


def test_weights_add_up_to_the_parameter_count_on_one_gpu() -> None:
    case = s.scenario(cluster=s.cluster(nodes=1, per_node=1))
    report = memory_of(case, make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1))
    names = (
        "attention weights", "norms", "dense FFN weights", "router", "expert weights", "shared experts",
        "embedding and head",
    )  # fmt: skip
    assert sum(report.line(name) for name in names) == 2 * count_parameters(case.model).total


def test_etp_shares_experts_and_pp_shares_layers() -> None:
    case = s.scenario()
    whole = memory_of(case, make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1)).line("expert weights")
    assert memory_of(case, make_split(case, tp=4, ep=1, pp=1, dp=1, batch=1)).line("expert weights") == whole / 4
    assert memory_of(case, make_split(case, tp=2, ep=2, pp=4, dp=1, batch=1)).line("expert weights") == whole / 8


def test_tied_head_is_stored_once_on_one_stage_and_twice_on_two() -> None:
    model = s.small_model(tied_embedding=True)
    case = s.scenario(model)
    one = memory_of(case, make_split(case, tp=1, ep=1, pp=1, dp=1, batch=1))
    assert one.line("embedding and head") == 32000 * 1024 * 2
    two = MemoryModel(case, make_split(case, tp=1, ep=1, pp=2, dp=1, batch=1)).report()
    assert two.line("embedding and head") == 32000 * 1024 * 2


def test_mla_down_projections_are_not_split() -> None:
    model = s.deepseek_v3()
    case = s.scenario(model, cluster=s.cluster(nodes=1, per_node=8))
    whole = 7168 * (1536 + 512 + 64) + 1536 + 512
    total = count_parameters(model).blocks[0].attention
    local = LocalParameters.of(model, make_split(case, tp=8, ep=8, pp=1, dp=1, batch=1))
    assert local.blocks[0].attention.count == pytest.approx((total - whole) / 8 + whole)


def test_stages_cover_all_layers_and_leave_the_last_the_fewest() -> None:
    shapes = stage_shapes(s.deepseek_v3(), 8)
    assert [shape.layers for shape in shapes] == [8, 8, 7, 8, 8, 7, 8, 7]
    # Of three dense layers and 58 with experts.
    assert [sum(shape.counts[kind] for shape in shapes) for kind in (0, 1)] == [3, 58]
    assert shapes[0].counts == (3, 5)
    assert shapes[0].first
    assert shapes[-1].last


def test_buffers_grow_with_redundancy_and_with_ep() -> None:
    case = s.scenario(workload=s.serving(prefill_tokens_per_gpu=256))
    few = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=64, redundant=0)
    more = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=64, redundant=8)
    wide = make_split(case, tp=1, ep=8, pp=1, dp=8, batch=64, redundant=8)
    line = "communication buffers"
    assert memory_of(case, few).line(line) < memory_of(case, more).line(line)
    # 2 copies x dispatch and combine of 2,048 bytes x 8 more slots x 64 tokens.
    assert memory_of(case, more).line(line) - memory_of(case, few).line(line) == 2 * 2 * 2048 * 8 * 64
    assert memory_of(case, wide).line("expert weights") < memory_of(case, more).line("expert weights")


def test_training_states_under_each_zero_stage() -> None:
    totals = []
    for stage in (0, 1, 2, 3):
        case = s.scenario(workload=s.training(zero_stage=stage))
        split = make_split(case, tp=1, ep=4, pp=1, dp=4, batch=8)
        assert split.instances == 2
        report = memory_of(case, split)
        experts = 12 * 2 * 3 * 1024 * 2048
        dense = count_parameters(case.model).total - 12 * 8 * 3 * 1024 * 2048
        share = lambda on, e=experts, d=dense: e / 2 + d / 8 if on else e + d  # noqa: E731
        assert report.line("optimizer states") == pytest.approx(12 * share(stage >= 1))
        assert report.line("gradients") == pytest.approx(4 * share(stage >= 2))
        assert report.line("expert weights") == pytest.approx(2 * experts / (2 if stage >= 3 else 1))
        totals.append(report.total_bytes)
    assert totals == sorted(totals, reverse=True)


def test_1f1b_keeps_most_microbatches_in_the_first_stage() -> None:
    assert [in_flight(s.training(), 4, stage, 16) for stage in range(4)] == [4, 3, 2, 1]
    assert in_flight(s.training(), 4, 0, 2) == 2
    case = s.scenario(s.small_model(vocabulary=1), workload=s.training())
    split = make_split(case, tp=1, ep=1, pp=4, dp=1, batch=32)
    report = memory_of(case, split)
    assert report.stage == 0
    # 4 microbatches x 3 layers x 1,024 tokens x 1,024 elements of 2 bytes, and one layer's working set.
    kept = 4 * 3 * 1024 * 1024 * 2
    short = memory_of(case, replace(split, microbatches=1)).line("activations")
    assert report.line("activations") - short == pytest.approx(kept * 3 / 4, rel=1e-3)
    none = s.scenario(s.small_model(vocabulary=1), workload=s.training(recompute="none"))
    assert memory_of(none, split).line("activations") > report.line("activations")


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3000),
    tp=st.sampled_from([1, 2, 4]),
    dp=st.sampled_from([1, 2]),
    pp=st.integers(1, 4),
    redundant=st.integers(0, 1),
)
def test_memory_never_falls_with_batch_or_slots(batch: int, tp: int, dp: int, pp: int, redundant: int) -> None:
    if tp * dp > 4 or tp * dp * pp > 8:
        return
    case = s.scenario()
    ep = dp
    split = make_split(case, tp=tp, ep=ep, pp=pp, dp=dp, batch=batch, redundant=0)
    model = MemoryModel(case, split)
    assert model.total_bytes(batch) <= model.total_bytes(batch + 1)
    assert model.total_bytes(batch) == pytest.approx(model.report(batch).total_bytes)
    assert model.fixed_bytes <= model.total_bytes(1)
    if redundant and ep > 1:
        more = make_split(case, tp=tp, ep=ep, pp=pp, dp=dp, batch=batch, redundant=ep)
        assert memory_of(case, more).total_bytes > memory_of(case, split).total_bytes


def test_report_of_another_batch_is_that_splits_report() -> None:
    case = s.scenario()
    split = make_split(case, tp=1, ep=4, pp=2, dp=4, batch=7)
    assert MemoryModel(case, split).report(40) == memory_of(case, replace(split, batch=40, microbatches=2))
