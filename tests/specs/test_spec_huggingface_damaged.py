"""Damaged configs: a thousand seeded mutations, of every family and of quantization statements, give one line each."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

from specs.errors import InputError
from specs.huggingface.config import model_from_config
from specs.huggingface.fields import Config
from tests.specs.mutations import CONFIGS, JUNK
from tests.specs.rebuilt import PUBLISHED

_STATEMENTS: tuple[dict[str, Any], ...] = (
    {"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["gate", "model.layers.0.mlp"]},
    {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["lm_head", "model.layers.1*"], "group_size": 16,
     "kv_cache_scheme": {"num_bits": 8, "type": "float"}},
    {"quant_method": "modelopt", "quantization": {"quant_algo": "MIXED_PRECISION", "quantized_layers": {
        "model.layers.0.self_attn.q_proj": {"quant_algo": "FP8"}}}},
    {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["re:.*self_attn.*"],
     "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "group_size": 32},
                                   "input_activations": {"num_bits": 8, "type": "float"}}}},
    {"quant_method": "gptq", "bits": 4, "group_size": 128, "dynamic": {"-:.*attn.*": {}, "+:.*mlp.*": {"bits": 8}}},
    {"quant_method": "auto-round", "bits": 4, "group_size": 128, "extra_config": {"model.layers.0": {"bits": 16}}},
    {"quant_method": "quark", "exclude": ["*gate*"], "global_quant_config": {
        "weight": {"dtype": "fp4", "group_size": 32}, "input_tensors": {"dtype": "fp4"}},
     "layer_quant_config": {"*self_attn*": {"weight": {"dtype": "fp8_e4m3"}}}},
)  # fmt: skip


def _bases() -> list[dict[str, Any]]:
    bases = [{"model_type": row[0], **row[1]} for row in PUBLISHED]
    bases += [json.loads(path.read_text()) for path in sorted(CONFIGS.glob("*/config.json"))]
    small = bases[0] | {"num_hidden_layers": 2}
    return bases + [small | {"quantization_config": each} for each in _STATEMENTS] * 4


def _containers(data: Any) -> list[Any]:
    found, stack = [], [data]
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list) and item:
            found.append(item)
            stack.extend(item.values() if isinstance(item, dict) else item)
    return found


def _damage(draw: random.Random, base: dict[str, Any]) -> dict[str, Any]:
    """A copy with one to four fields dropped, replaced, doubled, cut or nested."""
    data = copy.deepcopy(base)
    for _ in range(draw.randint(1, 4)):
        containers = _containers(data)
        if not containers:
            break
        container = draw.choice(containers)
        key = draw.choice(list(container) if isinstance(container, dict) else range(len(container)))
        edit = draw.choice(("drop", "junk", "junk", "nest", "double", "scale", "list"))
        if edit == "drop":
            del container[key]
        elif edit == "junk":
            container[key] = copy.deepcopy(draw.choice(JUNK))
        elif edit == "nest":
            container[key] = {"text_config": {str(key): container[key]}}
        elif edit == "double" and isinstance(container[key], list):
            container[key] = container[key] * 2
        elif edit == "list":
            container[key] = [container[key]] * draw.choice((1, 2, 60, 61))
        elif edit == "scale" and type(container[key]) is int and abs(container[key]) < 2**40:
            container[key] *= draw.choice((-1, 0, 3, 10**4, 10**9))
    return data


def test_a_thousand_damaged_configs_raise_nothing_but_input_errors() -> None:
    draw, bases, refused = random.Random(18), _bases(), []
    for i in range(1000):
        try:
            model_from_config(_damage(draw, bases[i % len(bases)]), "config.json", "damaged")
        except InputError as error:
            refused.append(str(error))
    assert 300 < len(refused) < 1000
    assert not [line for line in refused if "\n" in line or len(line) > 1000]


def test_damaged_statements_beside_a_config_raise_nothing_but_input_errors() -> None:
    draw, refused = random.Random(19), 0
    base = {"model_type": PUBLISHED[0][0], **PUBLISHED[0][1], "num_hidden_layers": 2}
    for i in range(200):
        beside = _damage(draw, {"quantization": _STATEMENTS[1 + i % 2]})
        try:
            model_from_config(base, "config.json", "damaged", beside=Config(beside, "hf_quant_config.json"))
        except InputError:
            refused += 1
    assert refused > 20


def test_a_list_of_hundreds_of_thousands_of_modules_is_read_in_seconds() -> None:
    base = {"model_type": PUBLISHED[0][0], **PUBLISHED[0][1]}
    prefixes = [f"model.layers.{i}.block_sparse_moe.experts.{e}" for i in range(28) for e in range(2000)]
    names = [f"{prefix}.{name}" for prefix in prefixes for name in ("w1", "w2")]
    statement = {"quant_method": "fp8", "modules_to_not_convert": names}
    model = model_from_config({**base, "quantization_config": statement}, "config.json", "large")
    kinds = [moe.types.get("experts", model.types.experts) for moe in model.moes]
    assert kinds == ["bf16"] * 28 + ["fp8"] * 28
