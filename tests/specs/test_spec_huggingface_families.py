"""Families by rebuilt configs: the published sizes of models of each, and hand counts of what is unusual in them."""

from __future__ import annotations

from typing import Any

import pytest

from specs.blocks.attention import GqaAttention
from specs.errors import InputError
from specs.huggingface.config import UNKNOWN, model_from_config
from specs.parameters import count_parameters
from tests.specs.rebuilt import PUBLISHED, experts, gqa, mla, read


@pytest.mark.parametrize(("model_type", "config", "total", "active"), PUBLISHED, ids=[row[0] for row in PUBLISHED])
def test_published_sizes(model_type: str, config: dict[str, Any], total: float, active: float | None) -> None:
    model = read(model_type, config)
    assert UNKNOWN not in model.summary
    counts = count_parameters(model)
    # Two digits, or a tower and prediction modules counted in, allow 3%.
    rounded = total < 100 or total % 100 == 0
    assert counts.total / 1e9 == pytest.approx(total, rel=0.03 if rounded else 0.012)
    if active is not None:
        customs = [
            counts.active_counting(embedding, head) / 1e9 for embedding in (False, True) for head in (True, False)
        ]
        half = 0.5 if active == int(active) else 0.05
        assert any(abs(each - active) <= max(half, 0.04 * active) for each in customs), customs


def test_gemma4_full_layers_have_own_heads_and_no_values() -> None:
    config = gqa(2816, 6, 16, 8, 256, 1000, num_experts=8, top_k_experts=2, moe_intermediate_size=64,
                 sliding_window=64, intermediate_size=96, attention_k_eq_v=True, num_global_key_value_heads=2,
                 global_head_dim=512)  # fmt: skip
    model = read("gemma4_text", config)
    assert [block.mixer for block in model.layout] == ["sliding"] * 5 + ["full"]
    weights = {each.name: each.count for each in model.mixers["full"].weights(2816)}
    assert (weights["q_proj"], weights["k_proj"], weights["v_proj"]) == (2816 * 16 * 512, 2816 * 2 * 512, 0)
    # The dense block beside the experts is theirs as a shared expert.
    assert (model.moe.shared_experts, model.moe.shared_width) == (1, 96)
    assert model.tied_embedding


def test_longcat_counts_two_blocks_a_layer() -> None:
    config = mla(64, 4, 4, 32, 100, num_layers=2, ffn_hidden_size=128, expert_ffn_hidden_size=16, moe_topk=3,
                 n_routed_experts=8, zero_expert_num=4)  # fmt: skip
    model = read("longcat_flash", config)
    assert [block.ffn for block in model.layout] == ["moe", "dense"] * 2
    assert (model.blocks_per_layer, model.moe_layers) == (2, (0, 1))
    assert model.moe.computed_top_k == 2  # 3 of 12, of which 8 compute.
    assert model.moe.router_weights(64)[0].count == 12 * 64 + 12


def _count(mixer: Any, hidden: int) -> int:
    return sum(weight.count for weight in mixer.weights(hidden))


def test_minimax_m3_picks_blocks_of_keys() -> None:
    sparse = {"sparse_num_index_heads": 4, "sparse_index_dim": 128, "sparse_block_size": 128, "sparse_topk_blocks": 16,
              "sparse_attention_freq": [0, 1, 1]}  # fmt: skip
    config = gqa(6144, 3, 64, 4, 128, 1000, num_local_experts=8, num_experts_per_tok=2, intermediate_size=3072,
                 dense_intermediate_size=12288, shared_intermediate_size=3072, moe_layer_freq=[0, 1, 1],
                 sparse_attention_config=sparse)  # fmt: skip
    model = read("minimax_m3_text", config)
    plain, picking = model.mixers["full"], model.mixers["sparse"]
    assert isinstance(picking, GqaAttention)
    index = 6144 * 4 * 128 + 6144 * 128 + 2 * 128
    assert _count(picking, 6144) - _count(plain, 6144) == index
    # Keys of the indexer are kept beside; a query reads 2,048 tokens and every indexer key.
    assert picking.stored(10_000, 1).elements == 10_000 * (2 * 4 * 128 + 128)
    assert picking.read(10_000, 1).elements == 2048 * 2 * 4 * 128 + 10_000 * 128
    assert picking.read(10_000, 8).elements == 2048 * 2 * 128 + 10_000 * 128
    assert picking.decode_flops(10_000, 1) == 2 * 64 * 256 * 2048 + 2 * 4 * 128 * 10_000
    assert model.ffns["dense"].inner_width == 12288


def test_step3_queries_come_from_a_shared_vector() -> None:
    row = next(row for row in PUBLISHED if row[0] == "step3_text")
    mixer = read(*row[:2]).mixers["full"]
    queries = 7168 * 2048 + 2048 + 2048 * 64 * 256
    assert _count(mixer, 7168) == queries + 2 * 7168 * 256 + 64 * 256 * 7168
    assert mixer.stored(100, 8).elements == 100 * 2 * 256


def test_step3p5_sliding_layers_have_other_heads() -> None:
    other = {"num_attention_heads": 96, "num_attention_groups": 8, "head_dim": 128}
    config = gqa(4096, 4, 64, 8, 128, 1000, moe_num_experts=8, moe_top_k=2, moe_intermediate_size=128,
                 intermediate_size=256, share_expert_dim=128, sliding_window=512, attention_other_setting=other,
                 moe_layers_enum="1,2,3", num_nextn_predict_layers=1,
                 layer_types=["full_attention", *["sliding_attention"] * 4])  # fmt: skip
    model = read("step3p5", config)
    full, sliding = model.mixers["full"], model.mixers["sliding"]
    assert isinstance(full, GqaAttention)
    assert isinstance(sliding, GqaAttention)
    assert (full.query_heads, sliding.query_heads) == (64, 96)
    assert next(each.count for each in sliding.weights(4096) if each.name == "gate_proj") == 4096 * 96
    assert model.moe_layers == (1, 2, 3)
    assert model.left_out[0].startswith("1 next-token-prediction module")


def test_nemotron_layers_are_one_part_each() -> None:
    config = gqa(64, 6, 4, 2, 16, 100, hybrid_override_pattern="ME*E-M", mamba_num_heads=4, mamba_head_dim=32,
                 ssm_state_size=16, n_groups=2, moe_latent_size=32, moe_shared_expert_intermediate_size=48,
                 **experts(8, 2, 24, 96, 1))  # fmt: skip
    model = read("nemotron_h", config)
    assert [(block.mixer, block.ffn) for block in model.layout] == [
        ("mamba2", None), (None, "moe"), ("full", None), (None, "moe"), (None, "dense"), ("mamba2", None)
    ]  # fmt: skip
    assert model.moe.expert_elements(64) == 2 * 32 * 24
    assert model.moe.sent_width(64) == 32
    assert sum(each.count for each in model.moe.shared_weights(64)) == 2 * 64 * 48 + 2 * 64 * 32


def test_deepseek_ocr_has_plain_attention() -> None:
    config = gqa(1280, 12, 10, 10, 128, 129280, use_mla=False, first_k_dense_replace=1, **experts(64, 6, 896, 6848, 2))
    model = model_from_config({"model_type": "DeepseekOCR", "language_config": config}, "c", "ocr")
    assert isinstance(model.mixers["full"], GqaAttention)
    assert count_parameters(model).total / 1e9 == pytest.approx(2.9, rel=0.03)


def test_ernie_vl_leaves_the_experts_for_images_out() -> None:
    config = gqa(2560, 4, 20, 4, 128, 1000, moe_num_experts=[64, 64], moe_k=6, moe_intermediate_size=[1536, 512],
                 intermediate_size=12288, moe_num_shared_experts=2, moe_layer_start_index=[1, 1],
                 moe_layer_end_index=[3, 3])  # fmt: skip
    model = read("ernie4_5_moe_vl", config)
    assert (model.moe.experts, model.moe.expert_width, model.moe_layers) == (64, 1536, (1, 2, 3))
    assert model.left_out == ("64 experts of width 512 for images, in every MoE layer",)


def test_hunyuan_numbers_may_differ_by_layer() -> None:
    config = gqa(4096, 2, 32, 8, 128, 1000, num_experts=64, moe_topk=[8, 4], moe_intermediate_size=[3072, 1024],
                 num_shared_expert=[1, 2], intermediate_size=3072)  # fmt: skip
    model = read("hunyuan_v1_moe", config)
    assert [moe.top_k for moe in model.moes] == [8, 4]
    assert [moe.expert_width for moe in model.moes] == [3072, 1024]
    assert [moe.all_shared_width for moe in model.moes] == [3072, 6144]


def test_kimi_layers_are_counted_from_1() -> None:
    row = next(row for row in PUBLISHED if row[0] == "kimi_linear")
    model = read(*row[:2])
    assert [i for i, block in enumerate(model.layout) if block.mixer == "full"] == [3, 7, 11, 15, 19, 23, 26]


def _common(**changes: Any) -> dict[str, Any]:
    return gqa(64, 2, 4, 2, 16, 100, num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32) | changes


def test_an_unknown_family_of_known_fields_is_read_and_marked() -> None:
    model = read("brand_new", _common(rms_norm_eps=1e-6, rope_theta=1e6, bos_token_id=1))
    assert UNKNOWN in model.summary
    assert model.moe.experts == 8


@pytest.mark.parametrize(
    "field", [{"kv_twist_rank": 32}, {"linear_num_value_heads": 4}, {"layer_types": ["linear_attention"] * 2}]
)
def test_an_unknown_family_with_an_unknown_field_is_refused_by_its_name(field: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(field))) as caught:
        read("brand_new", _common(**field))
    assert "brand_new" in str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("gemma4_text", {"enable_moe_block": False, "num_experts": None, "hidden_size_per_layer_input": 256}),
        ("granitemoehybrid", {"num_local_experts": 0}),
        ("jamba", {"num_experts": 1}),
        ("nemotron_h", {"hybrid_override_pattern": "M-*-"}),
        ("llama", {}),
    ],
)
def test_a_dense_model_is_called_dense(model_type: str, fields: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{model_type} is a dense model"):
        read(model_type, gqa(64, 4, 4, 2, 16, 100, intermediate_size=96, **fields))


def test_experts_in_a_section_that_is_not_known_are_not_called_dense() -> None:
    with pytest.raises(InputError, match=r"ffn_section\.moe_num_experts: says that brand_new has experts"):
        read("brand_new", gqa(64, 2, 4, 2, 16, 100, ffn_section={"moe_num_experts": 16}))


def test_an_unknown_family_may_have_latent_attention() -> None:
    config = mla(
        64, 3, 4, 32, 100, num_key_value_heads=4, head_dim=192, first_k_dense_replace=1, topk_method="noaux_tc"
    )
    model = read("brand_new", config | experts(8, 2, 32, 96, 1))
    assert UNKNOWN in model.summary
    known = read("deepseek_v3", config | experts(8, 2, 32, 96, 1))
    assert count_parameters(model) == count_parameters(known)


@pytest.mark.parametrize("field", ["moe_num_experts_total", "expert_count", "ffn_experts", "moe_config"])
def test_an_unknown_way_to_write_experts_is_not_called_dense(field: str) -> None:
    with pytest.raises(InputError) as caught:
        read("brand_new", gqa(64, 2, 4, 2, 16, 100, **{field: {"n": 8} if field == "moe_config" else 8}))
    assert field in str(caught.value)
    assert "dense" not in str(caught.value)


def test_layers_may_attend_to_what_an_earlier_one_picked() -> None:
    sparse = {"index_topk": 2048, "index_n_heads": 32, "index_head_dim": 128}
    config = mla(6144, 8, 64, 2048, 1000, first_k_dense_replace=1, **sparse, **experts(8, 2, 64, 96))
    every = read("glm_moe_dsa", config)
    assert set(every.mixers) == {"sparse"}
    model = read("glm_moe_dsa", config, index_topk_freq=4)
    assert [block.mixer for block in model.layout] == [*["sparse"] * 2, *["sparse_2"] * 3, "sparse", *["sparse_2"] * 2]
    assert read("glm_moe_dsa", config, index_topk_pattern="FFSSSFSS").layout == model.layout
    picks, shares = model.mixers["sparse"], model.mixers["sparse_2"]
    projections = 2048 * 32 * 128 + 6144 * 128 + 6144 * 32 + 2 * 128
    assert _count(picks, 6144) - _count(shares, 6144) == projections
    assert picks.stored(4096, 1).bytes - shares.stored(4096, 1).bytes == 4096 * (128 + 4)
    assert shares.read(4096, 1).size("bf16", "fp32") == 2048 * 576 * 2
    assert picks.decode_flops(4096, 1) - shares.decode_flops(4096, 1) == 2 * 32 * 128 * 4096


def test_ling_3_forgets_and_gates_at_full_rank() -> None:
    config = mla(64, 4, 4, 32, 100, head_dim=16, layer_group_size=4, first_k_dense_replace=1, **experts(8, 2, 64, 96))
    model = read("bailing_hybrid", config, short_conv_kernel_size=4, no_kda_lora=True)
    assert [block.mixer for block in model.layout] == ["kda"] * 3 + ["full"]
    inner = 4 * 16
    hand = 64 * 3 * inner + 2 * 64 * inner + 64 * 4 + inner * 64  # q, k, v; forget and gate; beta; output
    assert _count(model.mixers["kda"], 64) == hand + 3 * inner * 4 + inner + 4 + 16
    # Without a convolution it is generation 2.5: lightning attention.
    assert read("bailing_hybrid", config).layout[0].mixer == "lightning"


def test_laguna_heads_differ_by_layer() -> None:
    config = gqa(64, 3, 4, 2, 16, 100, num_attention_heads_per_layer=[4, 8, 8], sliding_window=32,
                 layer_types=["full_attention", "sliding_attention", "sliding_attention"],
                 **experts(8, 2, 32, 96, 1))  # fmt: skip
    model = read("laguna", config)
    assert [model.mixers[block.mixer].query_heads for block in model.layout if block.mixer] == [4, 8, 8]  # type: ignore[union-attr]
    assert model.moe_layers == (1, 2)
