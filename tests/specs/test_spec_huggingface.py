"""Hugging Face config.json files as models: equal to the catalog's, aliases, dense and unknown models refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specs.blocks.attention import GqaAttention
from specs.errors import InputError
from specs.huggingface.config import model_from_config
from specs.loading import load_model, load_scenario
from specs.model import Model
from specs.parameters import count_parameters

CONFIGS = Path(__file__).resolve().parent / "configs"
IN_CATALOG = ["deepseek_r1", "deepseek_v2_lite", "gpt_oss_120b", "kimi_k2", "mixtral_8x7b", "olmoe_1b_7b", "qwen3_235b"]


def _config(name: str, **changes: Any) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((CONFIGS / name / "config.json").read_text()) | changes
    return {key: value for key, value in config.items() if value != "(absent)"}


def _import(name: str, **changes: Any) -> Model:
    return model_from_config(_config(name, **changes), "config.json", name)


@pytest.mark.parametrize("name", IN_CATALOG)
def test_a_config_is_the_catalogs_model(name: str) -> None:
    imported, catalog = load_model(str(CONFIGS / name)), load_model(name)
    other = {"summary", "published"}
    assert imported.model_dump(exclude=other) == catalog.model_dump(exclude=other)
    assert count_parameters(imported) == count_parameters(catalog)


def test_qwen2_moe_has_the_published_size() -> None:
    """Model card of Qwen1.5-MoE-A2.7B: 14.3B in total, 2.7B activated."""
    counts = count_parameters(load_model(str(CONFIGS / "qwen1_5_moe_a2_7b" / "config.json")))
    assert counts.total / 1e9 == pytest.approx(14.3, rel=0.01)
    assert counts.active_counting(embedding=True, head=True) / 1e9 == pytest.approx(2.7, rel=0.01)


def test_a_scenario_may_name_a_config(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(_config("mixtral_8x7b")))
    scenario = tmp_path / "mine.yaml"
    scenario.write_text("name: mine\nmodel: model/config.json\ncluster: h100_hgx_ib\nworkload: serving_4k_1k\n")
    assert load_scenario(str(scenario)).model.moe.experts == 8
    scenario.write_text("name: mine\nmodel: model/\ncluster: h100_hgx_ib\nworkload: serving_4k_1k\n")
    assert load_scenario(str(scenario)).model.name == "model"


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("mixtral_8x7b", "num_local_experts", "num_experts"),
        ("mixtral_8x7b", "num_local_experts", "n_routed_experts"),
        ("gpt_oss_120b", "num_experts_per_tok", "experts_per_token"),
        ("olmoe_1b_7b", "num_experts_per_tok", "moe_topk"),
        ("deepseek_r1", "n_shared_experts", "num_shared_experts"),
        ("deepseek_r1", "torch_dtype", "dtype"),
    ],
)
def test_aliases_mean_the_same(name: str, old: str, new: str) -> None:
    config = _config(name)
    value = config.pop(old)
    assert model_from_config(config | {new: value}, "config.json", name) == _import(name)


def test_text_config_nesting_and_architectures_without_model_type() -> None:
    plain = _import("kimi_k2").model_dump(exclude={"summary"})
    nested = {"model_type": "kimi_k25", "text_config": _config("kimi_k2")}
    assert model_from_config(nested, "c", "kimi_k2").model_dump(exclude={"summary"}) == plain
    config = _config("olmoe_1b_7b", model_type="(absent)")
    assert model_from_config(config, "c", "olmoe_1b_7b").mixers == _import("olmoe_1b_7b").mixers


def _dense(model: Model) -> list[int]:
    return [i for i in range(model.layers) if i not in model.moe_layers]


def _windows(model: Model) -> list[int | None]:
    """[layers] the window of each layer."""
    return [getattr(model.mixer_of(block), "window", None) for block in model.layout]


def test_dense_layers_by_each_familys_rule() -> None:
    assert _dense(_import("deepseek_r1", moe_layer_freq=2))[:6] == [0, 1, 2, 3, 5, 7]
    assert _dense(_import("deepseek_v2_lite", first_k_dense_replace=4)) == [0, 1, 2, 3]
    assert _dense(_import("qwen3_235b", decoder_sparse_step=2))[:3] == [0, 2, 4]
    assert _dense(_import("qwen3_235b", mlp_only_layers=[5, 7])) == [5, 7]
    assert _import("qwen3_235b", mlp_only_layers=[5]).ffns["dense"].inner_width == 12288


def test_sliding_windows() -> None:
    without_types = _import("gpt_oss_120b", layer_types="(absent)")
    assert without_types.blocks == _import("gpt_oss_120b").blocks
    assert _windows(without_types) == [128, None] * 18
    assert _windows(_import("mixtral_8x7b", sliding_window=4096)) == [4096] * 32
    late = _import("qwen3_235b", sliding_window=4096, use_sliding_window=True, max_window_layers=90)
    assert _windows(late) == [None] * 90 + [4096] * 4
    assert set(_windows(_import("qwen3_235b", sliding_window=4096))) == {None}


def test_head_dim_defaults_to_the_share_of_hidden() -> None:
    attention = _import("mixtral_8x7b", head_dim=None, num_key_value_heads=None).mixers["full"]
    assert isinstance(attention, GqaAttention)
    assert (attention.head_dim, attention.kv_heads) == (128, 32)


@pytest.mark.parametrize(
    ("quantization", "experts", "attention", "compute"),
    [
        ({"quant_method": "fp8"}, "fp8", "fp8", "fp8"),
        ({"quant_method": "mxfp4"}, "mxfp4", "bf16", None),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4", "nvfp4"),
        ({"quant_method": "awq", "bits": 4, "group_size": 64}, "int4", "int4", "bf16"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "int4_g128", "int4_g128", "bf16"),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int", "group_size": 32}}},
                "ignore": ["lm_head", "re:.*self_attn.*"],
            },
            "int4_g32",
            "bf16",
            "bf16",
        ),
    ],
)
def test_quantization(quantization: dict[str, Any], experts: str, attention: str, compute: str | None) -> None:
    types = _import("qwen3_235b", quantization_config=quantization).types
    assert (types.experts, types.attention, types.compute) == (experts, attention, compute)
    assert (types.embedding, types.combine) == ("bf16", "bf16")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama", "hidden_size": 4096}, ["model_type", "llama", "dense"]),
        ({"architectures": ["LlamaForCausalLM"]}, ["LlamaForCausalLM", "dense"]),
        (
            {"model_type": "new_moe", "num_experts": 8},
            ["new_moe", "no known model type", "num_hidden_layers"],
        ),
        ({"model_type": "brand_new", "xmoe_expert_total": 8}, ["xmoe_expert_total", "brand_new", "has experts"]),
        ({"model_type": "qwen3_moe", "num_experts": 0}, ["num_experts", "qwen3_moe", "dense"]),
        ({"hidden_size": 4096}, ["model_type", "missing"]),
        (_config("mixtral_8x7b", num_hidden_layers=10**9), ["num_hidden_layers", "1000000000", "2048"]),
        (_config("mixtral_8x7b", num_experts_per_tok="2"), ["num_experts_per_tok", "the text '2'", "whole number"]),
        (_config("mixtral_8x7b", num_experts_per_tok=0), ["num_experts_per_tok", "at least 1"]),
        (_config("mixtral_8x7b", hidden_size=4097), ["num_attention_heads", "4097", "head_dim"]),
        (_config("mixtral_8x7b", vocab_size="(absent)"), ["vocab_size", "missing"]),
        (_config("mixtral_8x7b", torch_dtype="int3"), ["torch_dtype", "int3"]),
        (_config("mixtral_8x7b", quantization_config={"quant_method": "magic"}), ["quant_method", "magic"]),
        (_config("gpt_oss_120b", layer_types=["full_attention"]), ["layer_types", "1 layers of 36"]),
        (_config("deepseek_r1", moe_layer_freq=-1), ["moe_layer_freq", "at least 1"]),
        (_config("deepseek_r1", first_k_dense_replace=61), ["every layer is dense"]),
    ],
)
def test_what_is_refused_is_named(config: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        model_from_config(config, "some/config.json", "model")
    message = str(caught.value)
    assert message.startswith("some/config.json: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        "[1]",
        "{",
        "[" * 100_000,
        '{"a": ' + "9" * 5000 + "}",
        '{"a": 1' + "0" * 30 + "}",
    ],
    ids=["key twice", "list", "cut off", "deep", "thousands of digits", "over 64 bits"],
)
def test_damaged_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_model(str(path))
    assert str(caught.value).startswith(str(path))
