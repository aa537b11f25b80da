"""Quantization statements of checkpoints: each format, what is spared, what stands beside the config, and by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from specs.errors import InputError
from specs.huggingface.config import model_from_config
from specs.huggingface.fields import Config
from specs.huggingface.quantization.patterns import Patterns
from specs.loading import load_model
from specs.model import Model
from tests.specs.rebuilt import experts, gqa, mla

_QWEN = {"model_type": "qwen3_moe", **gqa(64, 4, 4, 2, 16, 100, **experts(8, 2, 32, 96))}
_DEEPSEEK = {"model_type": "deepseek_v3", **mla(64, 4, 4, 32, 100, first_k_dense_replace=1, **experts(8, 2, 32, 96, 1))}


def _types(statement: dict[str, Any], base: dict[str, Any] = _QWEN, beside: dict[str, Any] | None = None) -> Model:
    other = None if beside is None else Config(beside, "hf_quant_config.json")
    return model_from_config({**base, "quantization_config": statement}, "config.json", "q", beside=other)


_FLOAT8 = {"num_bits": 8, "type": "float"}
_GROUP = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 128}}


@pytest.mark.parametrize(
    ("statement", "stored", "compute", "block"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8", "fp8", 128),
        ({"quant_method": "fbgemm_fp8"}, "fp8", "fp8", 1),
        ({"quant_method": "mxfp8"}, "mxfp8", "fp8", 32),
        ({"quant_method": "mxfp4"}, "mxfp4", None, 1),
        ({"quant_method": "w4afp8"}, "int4_g128", "fp8", 128),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "int4_g32", "bf16", 32),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "int4_g128", "bf16", 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, "int8", "bf16", 1),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "int8", "bf16", 1),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "nvfp4", 16),
        ({"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}, "fp8", "fp8", 128),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "W4A8_AWQ"}}, "int4_g128", "fp8", 128),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": _GROUP}}, "int4_g128", "bf16", 128),
        ({"quant_method": "compressed-tensors", "config_groups": {"a": _GROUP | {
            "weights": _FLOAT8, "input_activations": _FLOAT8}}}, "fp8", "fp8", 1),
        ({"quant_method": "quark", "global_quant_config": {"weight": {"dtype": "fp4", "group_size": 32},
                                                           "input_tensors": {"dtype": "fp4"}}}, "mxfp4", "mxfp4", 1),
    ],
)  # fmt: skip
def test_formats(statement: dict[str, Any], stored: str, compute: str | None, block: int) -> None:
    types = _types(statement).types
    assert (types.experts, types.compute, types.block) == (stored, compute, block)
    assert types.dispatch == ("fp8" if compute == "fp8" else "bf16")
    assert (types.embedding, types.combine, types.kv_cache) == ("bf16", "bf16", "bf16")


@pytest.mark.parametrize(
    "name",
    [
        "self_attn",
        "model.layers.2.self_attn",
        "language_model.model.layers.2.self_attn*",
        "model.layers.*.self_attn",
        "*self_attn*",
        "re:.*self_attn.*",
        "re:^model\\.layers\\.[0-9]+\\.self_attn",
    ],
)
def test_ways_to_name_the_attention_of_a_layer(name: str) -> None:
    assert Patterns.of([name], "c", "f").match(["layers.2.self_attn.q_proj"])
    assert not Patterns.of([name], "c", "f").match(["layers.2.mlp.experts.0.up_proj"])


@pytest.mark.parametrize(
    "name", ["attn", "model.layers.1.self_attn", "mtp.layers.2*", "vision.layers.2.self_attn", "q_pro", "layers.22*"]
)
def test_names_of_other_modules(name: str) -> None:
    assert not Patterns.of([name], "c", "f").match(["layers.2.self_attn.q_proj"])


def test_a_layer_that_is_spared_has_its_own_block() -> None:
    spared = ["model.layers.3.mlp", "model.layers.0.self_attn.o_proj", "lm_head"]
    model = _types({"quant_method": "fp8", "modules_to_not_convert": spared})
    assert [block.mixer for block in model.layout] == ["full", "full_2", "full_2", "full_2"]
    assert model.mixers["full"].types == {"o_proj": "bf16"}
    assert [block.ffn for block in model.layout] == ["moe", "moe", "moe", "moe_2"]
    assert model.ffns["moe_2"].types == {"experts": "bf16"}
    assert (model.types.attention, model.types.experts) == ("fp8", "fp8")


def test_parts_of_deepseek_apart() -> None:
    ignore = ["re:.*shared_experts.*", "re:.*mlp\\.(gate|up|down)_proj.*", "re:.*kv_a_proj.*"]
    group = {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32}}
    statement = {"quant_method": "compressed-tensors", "ignore": ignore, "config_groups": {"a": group}}
    model = _types(statement, _DEEPSEEK)
    assert (model.types.attention, model.types.dense, model.types.shared) == ("int4_g32", "bf16", None)
    assert model.mixers["full"].types == {"kv_a_proj": "bf16"}


def test_exceptions_of_gptq_and_auto_round() -> None:
    statement = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    model = _types(statement | {"dynamic": {"-:.*self_attn.*": {}, "+:.*layers\\.0\\.mlp.*": {"bits": 8}}})
    assert model.types.attention == "bf16"
    assert model.ffns["moe"].types == {"experts": "int8"}
    statement = {"quant_method": "auto-round", "bits": 4, "group_size": 128}
    model = _types(statement | {"extra_config": {"model.layers.1.self_attn.q_proj": {"bits": 16}}})
    assert [model.mixers[block.mixer].types for block in model.layout[:2] if block.mixer] == [{}, {"q_proj": "bf16"}]


def test_mixed_precision_names_what_is_quantized() -> None:
    layers = {f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4"} for i in range(4)}
    layers |= {f"model.layers.{i}.self_attn.o_proj": {"quant_algo": "FP8"} for i in range(4)}
    statement = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    model = _types(statement)
    assert (model.types.experts, model.types.attention) == ("nvfp4", "bf16")
    assert model.mixers["full"].types == {"o_proj": "fp8"}


def test_what_stands_beside_wins() -> None:
    stale = {"quant_method": "fp8", "kv_cache_scheme": _FLOAT8}
    right = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["model.layers.*.self_attn*"]}}
    types = _types(stale, beside=right).types
    assert (types.experts, types.attention, types.block) == ("nvfp4", "bf16", 16)
    # It is silent on the KV cache, of which the config speaks.
    assert types.kv_cache == "fp8"
    right["quantization"]["kv_cache_quant_algo"] = "NVFP4"
    assert _types(stale, beside=right).types.kv_cache == "nvfp4"


def test_a_directory_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_QWEN | {"time_step_limit": [0.0, float("inf")]}))
    assert load_model(str(tmp_path)).types.experts == "bf16"
    beside = {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside))
    types = load_model(str(tmp_path)).types
    assert (types.experts, types.kv_cache) == ("fp8", "fp8")
    (tmp_path / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP7"}}')
    with pytest.raises(InputError, match=r"hf_quant_config\.json: quantization\.quant_algo: FP7 is not known"):
        load_model(str(tmp_path))


def test_linear_attention_is_named_by_its_own_module() -> None:
    linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
    linear |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    base = {**_QWEN, "model_type": "qwen3_next", **linear}
    spared = [f"model.layers.{i}.linear_attn.in_proj_ba" for i in range(3)] + ["model.layers.3.self_attn"]
    model = _types({"quant_method": "fp8", "modules_to_not_convert": spared}, base)
    assert model.mixers["gated_delta"].types == {"decay_proj": "bf16"}
    assert set(model.mixers["full"].types.values()) == {"bf16"}


def test_a_pattern_of_routers_spares_no_dense_block() -> None:
    model = _types({"quant_method": "fp8", "modules_to_not_convert": ["*mlp.gate*", "gate"]}, _DEEPSEEK)
    assert [ffn.types for ffn in model.ffns.values()] == [{}, {}]
    assert (model.types.dense, model.types.experts) == ("fp8", "fp8")


def test_experts_may_have_an_algorithm_of_their_own() -> None:
    statement = {"quant_method": "mxfp8", "moe_quant_algo": "NVFP4"}
    types = _types(statement).types
    assert (types.attention, types.experts, types.compute, types.block) == ("mxfp8", "nvfp4", "nvfp4", 16)
    base = {**_DEEPSEEK, "expert_dtype": "fp4"}
    fp8 = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    assert _types(fp8, base).types.experts == "mxfp4"
    assert _types(fp8 | {"moe_quant_algo": "NVFP4"}, base).types.experts == "nvfp4"
    # What stands beside wins over both.
    assert _types(fp8, base, beside={"quantization": {"quant_algo": "NVFP4"}}).types.experts == "nvfp4"


def test_the_state_has_its_own_type() -> None:
    linear = {
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
    }
    base = {**_QWEN, "model_type": "qwen3_next", **linear}
    assert model_from_config(base, "c", "n").types.state == "fp32"
    assert model_from_config(base | {"mamba_ssm_dtype": "bfloat16"}, "c", "n").types.state == "bf16"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({"quant_method": "torchao"}, ["quantization_config.quant_method", "torchao"]),
        ({"quant_method": "gptq", "bits": 3}, ["quantization_config.bits", "3", "4 or 8"]),
        ({"quant_method": "fp8", "modules_to_not_convert": ["re:("]}, ["modules_to_not_convert", "regular expression"]),
        ({"quant_method": "compressed-tensors"}, ["config_groups", "names no group"]),
        ({"quant_method": "modelopt", "quant_algo": "FP3"}, ["quant_algo", "FP3", "NVFP4"]),
    ],
)
def test_what_is_refused_is_named(statement: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _types(statement)
    assert all(word in str(caught.value) for word in words), str(caught.value)
