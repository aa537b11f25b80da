"""Parameter counts against published figures, and against sums of checkpoint tensor shapes written out by hand."""

from __future__ import annotations

import pytest

from specs.loading import list_catalog, load_model
from specs.model import Model
from specs.parameters import count_parameters

MODELS = [entry.name for entry in list_catalog("model")]
#: Whose published active count has too few digits to be held to 1%; it must round to the published one.
ROUNDED = {"olmoe_1b_7b", "qwen3_30b_a3b"}
#: Whose total or active count is published with two digits or fewer: to 3%, and to half a unit of the last digit.
TWO_DIGITS = {
    "deepseek_v3_2",
    "deepseek_v4_flash",
    "glm_4_5_air",
    "glm_5",
    "granite_4_0_h_small",
    "hunyuan_a13b",
    "kimi_k2_5",
    "llama4_maverick",
    "longcat_flash",
    "mimo_v2_flash",
    "minimax_m2_5",
    "nemotron_3_super",
    "qwen3_5_122b_a10b",
    "qwen3_5_397b_a17b",
}
#: One digit: to half a unit.
ONE_DIGIT = {"qwen3_next_80b_a3b"}
NO_ACTIVE = {"moe_175b", "kimi_k3"}


def test_the_catalog_has_the_models_of_the_design() -> None:
    wanted = {"gpt_oss_120b", "deepseek_r1", "deepseek_v2_lite", "qwen3_235b", "kimi_k2", "mixtral_8x7b", "olmoe_1b_7b"}
    assert wanted <= set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_total_is_within_one_percent_of_published(name: str) -> None:
    model = load_model(name)
    assert model.published is not None
    rounded = model.published.total_b in (80.0, 32.0)
    assert count_parameters(model).total / 1e9 == pytest.approx(model.published.total_b, rel=0.03 if rounded else 0.01)


def test_the_catalog_has_what_people_serve() -> None:
    assert len(MODELS) >= 25


@pytest.mark.parametrize("name", [name for name in MODELS if name not in NO_ACTIVE])
def test_active_is_within_one_percent_of_published(name: str) -> None:
    model = load_model(name)
    published = model.published
    assert published is not None
    assert published.active_b is not None
    active_b = (
        count_parameters(model).active_counting(published.active_counts_embedding, published.active_counts_head) / 1e9
    )
    assert (published.active_rounding_b is not None) == (name in ROUNDED | TWO_DIGITS | ONE_DIGIT)
    if published.active_rounding_b is None:
        assert active_b == pytest.approx(published.active_b, rel=0.01)
    else:
        assert abs(active_b - published.active_b) <= published.active_rounding_b
        if name not in ONE_DIGIT:
            assert active_b == pytest.approx(published.active_b, rel=0.03 if name in TWO_DIGITS else 0.02)


# Headline figures of the model cards, in billions: total and active, each with its last digit's unit.
CARDS = {
    "gpt_oss_120b": (116.8, 0.1, 5.1, 0.1),
    "deepseek_r1": (671, 1, 37, 1),
    "deepseek_v2_lite": (15.7, 0.1, 2.4, 0.1),
    "qwen3_235b": (235, 1, 22, 1),
    "mixtral_8x7b": (46.7, 0.1, 12.9, 0.1),
    "olmoe_1b_7b": (6.9, 0.1, 1.3, 0.1),
}


@pytest.mark.parametrize("name", sorted(CARDS))
def test_some_custom_of_counting_gives_the_card_within_a_unit_of_its_last_digit(name: str) -> None:
    total_b, total_unit, active_b, active_unit = CARDS[name]
    counts = count_parameters(load_model(name))
    assert abs(counts.total / 1e9 - total_b) < total_unit
    customs = [counts.active_counting(embedding, head) / 1e9 for embedding in (False, True) for head in (True, False)]
    assert any(abs(count - active_b) < active_unit for count in customs)


def test_gpt_oss_agrees_with_the_parts_of_its_model_card() -> None:
    """Model card, table of parameter counts: MLP 114.71B, attention 0.96B, embedding and unembedding 1.16B."""
    counts = count_parameters(load_model("gpt_oss_120b"))
    mlp = sum(block.layers * (block.router + block.experts * block.expert) for block in counts.blocks)
    assert mlp / 1e9 == pytest.approx(114.71, abs=0.01)
    assert sum(block.layers * block.attention for block in counts.blocks) / 1e9 == pytest.approx(0.96, abs=0.005)
    assert (counts.embedding + counts.head) / 1e9 == pytest.approx(1.16, abs=0.005)


def test_deepseek_layer_is_the_sum_of_its_tensors() -> None:
    model = load_model("deepseek_r1")
    counts = count_parameters(model)
    attention = [
        (1536, 7168),  # q_a_proj
        (1536, 1),  # q_a_layernorm
        (128 * 192, 1536),  # q_b_proj
        (576, 7168),  # kv_a_proj_with_mqa
        (512, 1),  # kv_a_layernorm
        (128 * 256, 512),  # kv_b_proj
        (7168, 128 * 128),  # o_proj
    ]
    dense, moe = counts.blocks
    assert dense.attention == moe.attention == sum(rows * columns for rows, columns in attention)
    assert moe.expert == 3 * 7168 * 2048
    assert moe.shared == 3 * 7168 * 2048
    assert moe.router == 256 * 7168 + 256  # weight and e_score_correction_bias
    assert dense.dense == 3 * 7168 * 18432
    assert (dense.layers, moe.layers) == (3, 58)


def test_gpt_oss_expert_and_router_count_their_biases() -> None:
    block = count_parameters(load_model("gpt_oss_120b")).blocks[0]
    assert block.expert == 2880 * 5760 + 5760 + 2880 * 2880 + 2880
    assert block.router == 128 * 2880 + 128


def _small(**changes: object) -> Model:
    fields: dict[str, object] = {
        "name": "small",
        "layers": 3,
        "hidden": 8,
        "vocabulary": 100,
        "attention": {"kind": "gqa", "query_heads": 4, "kv_heads": 2, "head_dim": 2},
        "moe": {"experts": 4, "top_k": 2, "expert_width": 16},
    }
    return Model.model_validate(fields | changes)


def test_a_tied_head_is_stored_once_but_multiplies_all_the_same() -> None:
    own, tied = count_parameters(_small()), count_parameters(_small(tied_embedding=True))
    assert own.total - tied.total == 800
    assert own.active == tied.active
    assert own.active_counting(embedding=True, head=True) == own.active + 800


def test_totals_add_up_layer_by_layer() -> None:
    counts = count_parameters(_small(dense_layers=[1], dense_width=32))
    attention = 8 * (8 + 2 * 4) + 8 * 8
    dense = attention + 16 + 3 * 8 * 32
    moe = attention + 16 + 4 * 8 + 4 * 3 * 8 * 16
    assert counts.total == dense + 2 * moe + 8 + 800 + 800
    assert counts.active == dense + 2 * (moe - 2 * 3 * 8 * 16) + 8 + 800


def test_shared_width_and_gate_count() -> None:
    moe = {"experts": 4, "top_k": 2, "expert_width": 16, "shared_experts": 2, "shared_width": 5, "shared_gate": True}

    def shared(**changes: object) -> int:
        return count_parameters(_small(**changes)).blocks[0].shared

    assert shared(moe=moe) == 3 * 8 * 10 + 8
    assert shared(moe=moe | {"gated": False}) == 2 * 8 * 10 + 8
    assert shared() == 0
